"""Energy differences against the work of forces and stress: signs and units, proven by the data themselves.

Between two neighbouring frames ``a``, ``b`` of a trajectory or of an equation of state

    E_b - E_a  =  -Σ F·Δx  +  V σ:ε      (mean of both frames; exact to third order in the step)

where ``ε`` is the strain of the cell and ``Δx`` the motion of the atoms within it. A stress of the wrong sign
or unit shows as the factor that the second term needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lamkit.data.frame import Frame, from_voigt, volume

LEAST_WORK = 2e-3  # eV; below it the last digits decide
LARGEST_STRAIN = 0.15
SMOOTH = 0.5  # the works with the forces of a and of b may differ by this part of their sum
LEAST_PAIRS = 3
TOLERANCE = 2.0  # a factor within 1/2 and 2 is taken for one
LARGEST_MOTION = 0.7  # Å of an atom; further apart, two frames are no neighbours on a trajectory
SPREAD = 0.5  # a wrong unit gives all pairs one factor; frames in no order give any factors
# Factors by which stress or forces of another convention have to be multiplied.
STRESS_UNITS = {
    "kB": 1 / 1602.1766208,
    "GPa": 1 / 160.21766208,
    "bar": 1 / 1602176.6208,
    "Hartree/Bohr^3": 183.63,
}
FORCE_UNITS = {"kcal/mol/A, with energies in eV": 1 / 23.0605, "Hartree/Bohr, with energies in eV": 51.422,
               "eV/A, with energies in Hartree": 1 / 27.2114, "eV/A, with energies in kcal/mol": 23.0605}  # fmt: skip


class Work(NamedTuple):
    """One pair of frames.

    Attributes:
        energy: ``E_b - E_a``, eV.
        forces: work of the forces, eV.
        stress: work of the stress, eV; NaN if a stress is unknown.
    """

    energy: float
    forces: float
    stress: float


class Factor(NamedTuple):
    """What the forces or stresses of a trajectory have to be multiplied with to fit its energies.

    Attributes:
        kind: ``forces`` or ``stress``.
        value: the factor; 1 if all is right.
        n_pairs: pairs of frames that it comes from.
    """

    kind: str
    value: float
    n_pairs: int

    def reason(self) -> str | None:
        """What is wrong, in words; None if the factor is near one."""
        size = abs(self.value)
        if 1 / TOLERANCE <= self.value <= TOLERANCE:
            return None
        units = STRESS_UNITS if self.kind == "stress" else FORCE_UNITS
        unit = next((name for name, one in units.items() if 1 / TOLERANCE < size / one < TOLERANCE), None)
        parts = []
        if self.value < 0:
            parts.append("the sign is the other way round")
        if unit:
            parts.append(f"the unit is {unit}")
        elif not 1 / TOLERANCE <= size <= TOLERANCE:
            parts.append("the unit is another")
        return f"{self.kind} contradict the energies along a trajectory: " + " and ".join(parts)


def factors(trajectory: Sequence[Frame]) -> list[Factor]:
    """Factors of forces and stress from the frames of one trajectory, as far as these allow."""
    pairs = list(works(trajectory))
    result = []
    still = [w for w in pairs if abs(w.forces) > LEAST_WORK and not abs(w.stress) > 0.05 * abs(w.forces)]
    strained = [w for w in pairs if abs(w.stress) > max(LEAST_WORK, abs(w.forces))]
    for kind, ratios in (
        ("forces", [w.energy / w.forces for w in still]),
        ("stress", [(w.energy - w.forces) / w.stress for w in strained]),
    ):
        if len(ratios) >= LEAST_PAIRS and _agree(ratios):
            result.append(Factor(kind, float(np.median(ratios)), len(ratios)))
    return result


def _agree(ratios: Sequence[float]) -> bool:
    """Whether the middle half of the ratios lies close to their median."""
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return bool(high - low <= SPREAD * abs(middle))


def works(trajectory: Sequence[Frame]) -> Iterator[Work]:
    """Works between neighbours, in the order of steps and, for equations of state, of volumes."""
    seen = set()
    for order in (_by_step(trajectory), _by_volume(trajectory)):
        for a, b in itertools.pairwise(order):
            key = (min(a, b), max(a, b))
            if key not in seen:
                seen.add(key)
                found = work(trajectory[a], trajectory[b])
                if found is not None:
                    yield found


def _by_step(trajectory: Sequence[Frame]) -> list[int]:
    return sorted(range(len(trajectory)), key=lambda i: trajectory[i].step)


def _by_volume(trajectory: Sequence[Frame]) -> list[int]:
    return sorted(range(len(trajectory)), key=lambda i: volume(trajectory[i]))


def work(a: Frame, b: Frame) -> Work | None:
    """Work from ``a`` to ``b``; None if they are too far apart, or no neighbours at all."""
    if a.energy is None or b.energy is None or a.forces is None or b.forces is None:
        return None
    if not np.array_equal(a.numbers, b.numbers) or not np.array_equal(a.pbc, b.pbc):
        return None
    strain, motion = _strain_and_motion(a, b)
    if np.abs(strain).max() > LARGEST_STRAIN or np.abs(motion).max(initial=0.0) > LARGEST_MOTION:
        return None
    first, second = -float((a.forces * motion).sum()), -float((b.forces * motion).sum())
    pressure = [_stress_work(frame, strain) for frame in (a, b)]
    ends = np.array([first, second]) + np.nan_to_num(np.array(pressure))
    if abs(ends[0] - ends[1]) > SMOOTH * abs(ends.sum()):
        return None
    return Work(b.energy - a.energy, 0.5 * (first + second), 0.5 * sum(pressure))


def _strain_and_motion(a: Frame, b: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Strain of the cell ``[3, 3]`` and motion of the atoms within it, Å, ``[n_atoms, 3]``."""
    if not (a.pbc.all() and volume(a) > 0 and volume(b) > 0):
        return np.zeros((3, 3)), b.positions - a.positions
    deform = np.linalg.solve(a.cell, b.cell)
    jump = np.linalg.solve(b.cell.T, b.positions.T).T - np.linalg.solve(a.cell.T, a.positions.T).T
    jump -= np.round(jump)
    return 0.5 * (deform + deform.T) - np.eye(3), jump @ (0.5 * (a.cell + b.cell))


def _stress_work(frame: Frame, strain: NDArray[np.float64]) -> float:
    if not np.abs(strain).max() > 1e-7:
        return 0.0
    if frame.stress is None or np.isnan(frame.stress).any():
        return float("nan")
    return float(volume(frame) * (from_voigt(frame.stress) * strain).sum())


def worst(found: Iterable[Factor]) -> list[Factor]:
    """Those that are wrong."""
    return [factor for factor in found if factor.reason() is not None]
