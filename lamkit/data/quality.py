"""Quality checks: each a pure function ``Frame -> reason | None``.

They are conservative: what they drop cannot be right. A frame that is merely odd is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
from ase.data import covalent_radii

from lamkit.data.frame import SYMBOLS, Frame, volume
from lamkit.data.neighbors import neighbor_list

Check = Callable[[Frame], str | None]

CONTACT = 0.4  # of the sum of the covalent radii; the shortest real bonds are at about 0.8
LEAST_VOLUME = 0.1  # Å³ per atom
LARGEST_FORCE = 1000.0  # eV/Å
LARGEST_STRESS = 60.0  # eV/Å³: 10 TPa
LARGEST_ENERGY = 100.0  # eV/atom; every absolute scale puts matter below zero


def shapes(frame: Frame) -> str | None:
    """Arrays of the wrong shape, or no atom."""
    n = len(frame.numbers)
    if n == 0:
        return "no atoms"
    if frame.positions.shape != (n, 3) or frame.cell.shape != (3, 3):
        return "positions or cell of the wrong shape"
    if frame.forces is not None and frame.forces.shape != (n, 3):
        return "forces of the wrong shape"
    if frame.stress is not None and frame.stress.shape != (6,):
        return "stress of the wrong shape"
    return None


def elements(frame: Frame) -> str | None:
    """Atoms that are no element of the periodic table."""
    wrong = (frame.numbers < 1) | (frame.numbers >= len(SYMBOLS))
    return "atom that is no element of the periodic table" if wrong.any() else None


def finite(frame: Frame) -> str | None:
    """NaN or infinity in the structure or in a label; NaN in the stress means masked and is right."""
    if not (np.isfinite(frame.positions).all() and np.isfinite(frame.cell).all()):
        return "NaN or infinite positions or cell"
    if frame.energy is not None and not np.isfinite(frame.energy):
        return "NaN or infinite energy"
    if frame.forces is not None and not np.isfinite(frame.forces).all():
        return "NaN or infinite forces"
    if frame.stress is not None and np.isinf(frame.stress).any():
        return "infinite stress"
    return None


def labelled(frame: Frame) -> str | None:
    """Energy or forces missing."""
    if frame.energy is None:
        return "no energy" if frame.forces is not None else "no energy and no forces"
    return "no forces" if frame.forces is None else None


def not_empty(frame: Frame) -> str | None:
    """Energy and all forces exactly zero: an output that was never filled, such as a VASP-ML step."""
    if frame.energy == 0.0 and frame.forces is not None and not frame.forces.any():
        return "energy and all forces are zero"
    return None


def cell_volume(frame: Frame) -> str | None:
    """A periodic cell without volume."""
    if frame.pbc.all() and volume(frame) < LEAST_VOLUME * len(frame):
        return f"cell with less than {LEAST_VOLUME} A^3 per atom"
    if not frame.cell[frame.pbc].any(axis=1).all():
        return "periodic axis without a lattice vector"
    return None


def contacts(frame: Frame) -> str | None:
    """Two atoms closer than ``CONTACT`` times the sum of their covalent radii."""
    radii = covalent_radii[frame.numbers]
    pairs = neighbor_list(
        frame.positions, frame.cell, frame.pbc, 2 * CONTACT * float(radii.max()), max_neighbors=None
    )
    nearest = CONTACT * (radii[pairs.senders] + radii[pairs.receivers])
    return f"atoms closer than {CONTACT} of their bond length" if (pairs.distances < nearest).any() else None


def magnitudes(frame: Frame) -> str | None:
    """Labels far beyond anything real: most often a wrong unit."""
    if frame.energy is not None and frame.energy > LARGEST_ENERGY * len(frame):
        return f"energy above +{LARGEST_ENERGY:.0f} eV/atom"
    if frame.forces is not None and np.abs(frame.forces).max() > LARGEST_FORCE:
        return f"force above {LARGEST_FORCE:.0f} eV/A; wrong unit? (--units)"
    if frame.stress is not None and np.nanmax(np.abs(frame.stress)) > LARGEST_STRESS:
        return f"stress above {LARGEST_STRESS:.0f} eV/A^3 (10 TPa); wrong unit? (--stress-unit)"
    return None


# In this order: later checks rely on what earlier ones made sure of.
CHECKS: dict[str, Check] = {
    "shapes": shapes,
    "elements": elements,
    "finite": finite,
    "labelled": labelled,
    "not_empty": not_empty,
    "cell_volume": cell_volume,
    "contacts": contacts,
    "magnitudes": magnitudes,
}


def first_fault(frame: Frame, *, skip: Iterable[str] = ()) -> str | None:
    """Reason of the first check that the frame fails; None if it passes all but those in ``skip``."""
    left_out = set(skip)
    for name, check in CHECKS.items():
        if name not in left_out and (reason := check(frame)) is not None:
            return reason
    return None


class Duplicates:
    """Remembers frames, 8 bytes each, to find those that come again: same atoms, cell and energy to 1e-6."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def __call__(self, frame: Frame) -> bool:
        """Whether this frame was here before; if not, remember it."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(frame.numbers.astype(np.int16).tobytes())
        energy = np.nan if frame.energy is None else frame.energy
        for array in (frame.positions, frame.cell, frame.pbc, energy):
            # The offset keeps decimal numbers away from the edges between two steps of the grid.
            grid = np.floor(np.asarray(array, dtype=np.float64) * 1e6 + 0.3137)
            digest.update((grid + 0.0).tobytes())  # + 0.0: no minus zero
        key = int.from_bytes(digest.digest(), "little")
        if key in self.seen:
            return True
        self.seen.add(key)
        return False
