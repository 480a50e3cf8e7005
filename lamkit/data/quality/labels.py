"""Checks of one frame by itself: structure, labels, magnitudes."""

from __future__ import annotations

import numpy as np
import vesin
from ase.data import covalent_radii
from ase.units import Hartree
from numpy.typing import NDArray

from lamkit.data.frame import SYMBOLS, Frame, volume
from lamkit.data.neighbors import (
    LARGEST_LENGTH,
    LARGEST_POSITION,
    LEAST_HEIGHT,
    complete_cell,
    heights,
)
from lamkit.data.quality.findings import Finding, Rules, above, below, found

LEAST_VOLUME = 0.1  # Å³ per atom
FEW_ATOMS = 60  # up to here all pairs at once are faster than a neighbour list


def shapes(frame: Frame, rules: Rules) -> Finding | None:
    """Arrays of the wrong shape, or no atom."""
    n = len(frame.numbers)
    reason = None
    if n == 0:
        reason = "no atoms"
    elif frame.positions.shape != (n, 3) or frame.cell.shape != (3, 3):
        reason = "positions or cell of the wrong shape"
    elif frame.forces is not None and frame.forces.shape != (n, 3):
        reason = "forces of the wrong shape"
    elif frame.stress is not None and frame.stress.shape != (6,):
        reason = "stress of the wrong shape"
    return found("shapes", "reject", reason)


def elements(frame: Frame, rules: Rules) -> Finding | None:
    """Atoms that are no element of the periodic table."""
    wrong = (frame.numbers < 1) | (frame.numbers >= len(SYMBOLS))
    return found(
        "elements", "reject", "atom that is no element of the periodic table" if wrong.any() else None
    )


def finite(frame: Frame, rules: Rules) -> Finding | None:
    """NaN or infinity in the structure or in a label; NaN in the stress means masked and is right."""
    reason = None
    if not (np.isfinite(frame.positions).all() and np.isfinite(frame.cell).all()):
        reason = "NaN or infinite positions or cell"
    elif frame.energy is not None and not np.isfinite(frame.energy):
        reason = "NaN or infinite energy"
    elif frame.forces is not None and not np.isfinite(frame.forces).all():
        reason = "NaN or infinite forces"
    elif frame.stress is not None and np.isinf(frame.stress).any():
        reason = "infinite stress"
    return found("finite", "reject", reason)


def labelled(frame: Frame, rules: Rules) -> Finding | None:
    """Energy or forces missing, unless structures without labels are wanted."""
    if rules.unlabelled:
        return None
    reason = None
    if frame.energy is None:
        reason = "no energy" if frame.forces is not None else "no energy and no forces"
    elif frame.forces is None:
        reason = "no forces"
    return found("labelled", "reject", reason)


def cell_volume(frame: Frame, rules: Rules) -> Finding | None:
    """A periodic cell without volume, or one out of all proportion, which no neighbour search survives."""
    reason = None
    axes = frame.cell[frame.pbc]
    if (
        np.abs(frame.cell).max(initial=0.0) > LARGEST_LENGTH
        or np.abs(frame.positions).max() > LARGEST_POSITION
    ):
        reason = f"cell larger than {LARGEST_LENGTH:g} A or positions beyond {LARGEST_POSITION:g} A"
    elif not axes.any(axis=1).all():
        reason = "periodic axis without a lattice vector"
    elif frame.pbc.all() and volume(frame) < LEAST_VOLUME * len(frame):
        reason = f"cell with less than {LEAST_VOLUME} A^3 per atom"
    elif len(axes) and heights(axes).min() < LEAST_HEIGHT:
        reason = f"cell lower than {LEAST_HEIGHT} A along an axis"
    return found("cell_volume", "reject", reason)


def empty(frame: Frame, rules: Rules) -> Finding | None:
    """Energy and all forces exactly zero: an output that was never filled."""
    zero = frame.energy == 0.0 and frame.forces is not None and not frame.forces.any()
    return found("empty", rules.checks.empty, "energy and all forces are zero" if zero else None)


def missing_stress(frame: Frame, rules: Rules) -> Finding | None:
    """A periodic frame without stress."""
    if (
        rules.unlabelled
        or not frame.pbc.all()
        or (frame.stress is not None and not np.isnan(frame.stress).any())
    ):
        return None
    what = "no stress" if frame.stress is None else "stress known in part"
    return found("missing_stress", rules.checks.missing_stress, f"{what}; masked in the loss")


def energy(frame: Frame, rules: Rules) -> Finding | None:
    """Energy far above zero; every absolute scale puts matter below."""
    if frame.energy is None:
        return None
    words = "energy above +{} eV/atom"
    return above("energy", frame.energy / len(frame), rules.checks.energy, words)


def energy_floor(frame: Frame, rules: Rules) -> Finding | None:
    """Energy below that of all electrons of the atoms, which is impossible in eV."""
    if frame.energy is None:
        return None
    ratio = frame.energy / float(ALL_ELECTRON[frame.numbers].sum())
    unit = next((name for name, size in UNIT_SIZES.items() if abs(ratio / size - 1) < 0.05), "another unit")
    words = "energy below {} times the all-electron energy of the atoms; is it in " + f"{unit}? (--units)"
    return above("energy_floor", ratio, rules.checks.energy_floor, words)


UNIT_SIZES = {"kcal/mol": 23.0605, "kJ/mol": 96.4853}  # in one eV


def all_electron_energy(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Non-relativistic energy of neutral atoms by the statistical theory, eV; 1 % off from carbon on.

    ``E / Hartree = -0.768745 Z^(7/3) + Z²/2 - 0.269900 Z^(5/3)`` (Schwinger, Phys. Rev. A 24, 2353 (1981)).
    """
    return -(0.768745 * z ** (7 / 3) - 0.5 * z**2 + 0.269900 * z ** (5 / 3)) * float(Hartree)


ALL_ELECTRON = all_electron_energy(np.arange(len(SYMBOLS), dtype=np.float64))


def forces(frame: Frame, rules: Rules) -> Finding | None:
    """A force far beyond anything real: most often a wrong unit."""
    if frame.forces is None:
        return None
    words = "force above {} eV/A; kcal/mol/A? (--units)"
    return above("forces", float(np.linalg.norm(frame.forces, axis=1).max()), rules.checks.forces, words)


def stress(frame: Frame, rules: Rules) -> Finding | None:
    """A stress far beyond anything real: most often kB, bar or GPa."""
    if frame.stress is None:
        return None
    words = "stress above {} eV/A^3; kB, GPa or bar? (--stress-unit)"
    return above("stress", float(np.nanmax(np.abs(frame.stress))), rules.checks.stress, words)


def net_force(frame: Frame, rules: Rules) -> Finding | None:
    """Forces that do not sum up to zero: an outer field, lost atoms or a loose grid."""
    if frame.forces is None:
        return None
    value = float(np.linalg.norm(frame.forces.sum(axis=0))) / len(frame)
    return above("net_force", value, rules.checks.net_force, "net force above {} eV/A per atom")


def contact(frame: Frame, rules: Rules) -> Finding | None:
    """Two atoms too close, measured by the sum of their covalent radii."""
    limits = rules.checks.contact
    largest = max((x for x in (limits.flag, limits.reject) if x is not None), default=None)
    if largest is None:
        return None
    ratio = nearest(frame, largest)
    return below("contact", ratio, limits, "atoms closer than {} of the sum of their covalent radii")


def nearest(frame: Frame, within: float) -> float:
    """Smallest distance of two atoms over the sum of their covalent radii; infinite if above ``within``."""
    radii = covalent_radii[frame.numbers]
    reach = 2 * within * float(radii.max())
    if len(frame) <= FEW_ATOMS and _is_roomy(frame, 2 * reach):
        return _nearest_in_roomy(frame, radii)
    cell, periodic = complete_cell(frame.cell, frame.pbc)
    search = vesin.NeighborList(cutoff=reach, full_list=False, n_threads=1)
    i, j, distances = search.compute(frame.positions, cell, periodic, quantities="ijd")
    return float((distances / (radii[i] + radii[j])).min(initial=np.inf))


def _is_roomy(frame: Frame, height: float) -> bool:
    """Whether the cell is higher than ``height`` along each axis, or there is none."""
    if not frame.pbc.any():
        return True
    return bool(frame.pbc.all()) and bool(heights(frame.cell).min() > height)


def _nearest_in_roomy(frame: Frame, radii: NDArray[np.float64]) -> float:
    """In a cell higher than twice the reach, each pair is near in one image at most: the wrapped one."""
    apart = frame.positions[:, None] - frame.positions
    if frame.pbc.any():
        fractional = apart @ np.linalg.inv(frame.cell)
        apart = (fractional - np.round(fractional)) @ frame.cell
    ratio = np.sqrt((apart * apart).sum(axis=-1)) / (radii[:, None] + radii)
    np.fill_diagonal(ratio, np.inf)
    return float(ratio.min())
