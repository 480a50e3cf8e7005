"""Structures that MD does not reach: random displacements and strains, pairs pushed together, dimers.

A model that never saw atoms close together has no reason to keep them apart; a few such structures, labelled by
the teacher, give a student its short range.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pydantic

from lamkit.config import Model
from lamkit.data.frame import SYMBOLS, Frame, from_atoms, to_atoms
from lamkit.data.neighbors import neighbor_list
from lamkit.data.selection import Limits, why_not
from lamkit.stages import parts

BOND = 1.4  # sums of covalent radii within which two atoms count as a pair that may be pushed together
FARTHEST = 1.8  # sums of covalent radii at which the scan of a dimer ends


class Perturb(Model):
    """Structures beside MD, made of each start.

    Attributes:
        n: copies of each start with all atoms and the cell displaced at random; 0 switches them off.
        rattle: standard deviation of the displacement of each coordinate, Å.
        strain: largest component of a random symmetric strain of the cell.
        squeezed: copies of each start with one pair of neighbours pushed together along its bond.
        dimers: distances at which each pair of elements of the starts stands alone in vacuum.
        closest: how near pairs and dimers come, in sums of covalent radii.
    """

    n: int = pydantic.Field(0, ge=0)
    rattle: float = pydantic.Field(0.1, ge=0)
    strain: float = pydantic.Field(0.03, ge=0, lt=0.5)
    squeezed: int = pydantic.Field(0, ge=0)
    dimers: int = pydantic.Field(0, ge=0)
    closest: float = pydantic.Field(0.65, gt=0, lt=1)


def perturbed(
    starts: Sequence[Frame], perturb: Perturb, seed: int, limits: Limits, prefix: str = "start"
) -> list[Frame]:
    """All structures that ``perturb`` asks for, without labels; those that break the limits are left out."""
    found: list[Frame] = []
    for i, start in enumerate(starts):
        rng = np.random.default_rng(parts.seed_for(seed, "perturb", i))
        group = f"{prefix}-perturbed-{i:03d}"
        found += [_rattled(start, perturb, rng, group, k) for k in range(perturb.n)]
        found += [_squeezed(start, perturb, rng, group, perturb.n + k) for k in range(perturb.squeezed)]
    if perturb.dimers and starts:
        found += dimers(np.unique(np.concatenate([s.numbers for s in starts])), perturb, f"{prefix}-dimers")
    return [frame for frame in found if why_not(frame, limits) is None]


def _rattled(start: Frame, perturb: Perturb, rng: np.random.Generator, group: str, k: int) -> Frame:
    atoms = to_atoms(start)
    atoms.calc = None
    if start.pbc.any():
        strain = rng.uniform(-perturb.strain, perturb.strain, (3, 3))
        deformation = np.eye(3) + 0.5 * (strain + strain.T)
        atoms.set_cell(start.cell @ deformation, scale_atoms=True)
    atoms.positions += rng.normal(scale=perturb.rattle, size=atoms.positions.shape)
    return from_atoms(atoms, group=group, source=start.source, step=k)


def _squeezed(start: Frame, perturb: Perturb, rng: np.random.Generator, group: str, k: int) -> Frame:
    """A copy whose atoms i and j approach each other by equal ways; a lone atom stays as it is."""
    radii = _radii(start.numbers)
    pairs = neighbor_list(start.positions, start.cell, start.pbc, 2 * BOND * float(radii.max()), None)
    touching = radii[pairs.senders] + radii[pairs.receivers]
    near = np.flatnonzero((pairs.distances < BOND * touching) & (pairs.senders != pairs.receivers))
    atoms = to_atoms(start)
    atoms.calc = None
    if len(near):
        e = int(rng.choice(near))
        sender, receiver, distance = pairs.senders[e], pairs.receivers[e], pairs.distances[e]
        wanted = rng.uniform(perturb.closest, 1.0) * min(touching[e], distance)
        towards = pairs.vectors[e] / distance  # from the sender to the receiver
        atoms.positions[sender] += 0.5 * (distance - wanted) * towards
        atoms.positions[receiver] -= 0.5 * (distance - wanted) * towards
    return from_atoms(atoms, group=group, source=start.source, step=k)


def dimers(numbers: Sequence[int] | np.ndarray, perturb: Perturb, group: str) -> list[Frame]:
    """Two atoms in vacuum, for each pair of elements, at distances from ``closest`` outwards."""
    from ase import Atoms

    found = []
    for a, b in itertools.combinations_with_replacement([int(z) for z in numbers], 2):
        touching = float(_radii(np.array([a, b])).sum())
        for k, ratio in enumerate(np.linspace(perturb.closest, FARTHEST, perturb.dimers)):
            pair = Atoms([a, b], [[0, 0, 0], [0, 0, ratio * touching]])
            source = f"dimer {SYMBOLS[a]}-{SYMBOLS[b]}"
            found.append(from_atoms(pair, group=group, source=source, step=k))
    return found


def _radii(numbers: np.ndarray) -> np.ndarray:
    from ase.data import covalent_radii

    return np.asarray(covalent_radii[numbers])
