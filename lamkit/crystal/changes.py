"""Changed copies of a structure: larger cells, strained cells, random displacements.

The random copies follow the field's usual recipe (dpdata's ``System.perturb``, used by DP-GEN and PFD-kit): a
symmetric random strain of the cell, then a random vector for each atom.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from lamkit.config import Model
from lamkit.errors import UserError

if TYPE_CHECKING:
    from ase import Atoms

Mode = Literal["volume", "a", "b", "c", "bc", "ac", "ab"]


class Perturb(Model):
    """Random copies.

    Attributes:
        n: copies of each structure; 0 switches them off.
        distance: length of the displacements, Å: ``normal`` their root mean square, ``uniform`` and ``const``
            their largest and their common length.
        cell: largest component of the random strain, as a fraction; off-diagonal components are half of it.
        style: distribution of the displacement vectors: normal in each component, uniform in a sphere, or
            all of one length.
    """

    n: int = pydantic.Field(0, ge=0)
    distance: float = pydantic.Field(0.1, ge=0)
    cell: float = pydantic.Field(0.03, ge=0, lt=0.5)
    style: Literal["normal", "uniform", "const"] = "normal"


class Strain(Model):
    """Strained copies on a regular grid.

    Attributes:
        amplitudes: strains, for example ``[-0.02, 0.02]``; for ``volume`` of each edge, not of the volume.
        modes: volume (all edges alike), one edge (a, b, c) or a shear between two (bc, ac, ab), each at
            every amplitude. The axes are Cartesian: x, y and z.
    """

    amplitudes: list[float] = pydantic.Field(default=[])
    modes: list[Mode] = pydantic.Field(default=["volume"], min_length=1)

    @pydantic.field_validator("amplitudes")
    @classmethod
    def _sensible(cls, amplitudes: list[float]) -> list[float]:
        wrong = [x for x in amplitudes if not -0.5 < x < 0.5]
        if wrong:
            raise ValueError(f"strain {wrong[0]:g} is not between -0.5 and 0.5 (0.02 means 2 %)")
        return amplitudes


# Voigt components that each mode strains; a shear of engineering size x is x/2 off the diagonal, twice.
MODES: dict[str, tuple[tuple[int, int], ...]] = {
    "volume": ((0, 0), (1, 1), (2, 2)),
    "a": ((0, 0),),
    "b": ((1, 1),),
    "c": ((2, 2),),
    "bc": ((1, 2), (2, 1)),
    "ac": ((0, 2), (2, 0)),
    "ab": ((0, 1), (1, 0)),
}


def supercell(atoms: Atoms, size: Sequence[int]) -> Atoms:
    """The cell repeated along its axes (three numbers), or with other axes (nine numbers, a matrix by rows).

    Raises:
        UserError: not three or nine numbers, or axes that span nothing.
    """
    if len(size) == 3 and all(n > 0 for n in size):
        return atoms.repeat(tuple(size))
    if len(size) == 9:
        from ase.build import make_supercell

        matrix = np.array(size).reshape(3, 3)
        if round(np.linalg.det(matrix)) > 0:
            return make_supercell(atoms, matrix)
        raise UserError(f"supercell {list(size)}: the determinant must be positive")
    raise UserError(
        f"supercell {list(size)}: expected three positive numbers (2 2 2) or the nine of a matrix by rows"
    )


def strained(atoms: Atoms, mode: Mode, amplitude: float) -> Atoms:
    """A copy whose cell and atoms are strained together."""
    strain = np.zeros((3, 3))
    for i, k in MODES[mode]:
        strain[i, k] = amplitude if i == k else 0.5 * amplitude
    return _deformed(atoms, np.eye(3) + strain)


def perturbed(atoms: Atoms, perturb: Perturb, rng: np.random.Generator) -> Atoms:
    """One random copy."""
    copy = atoms
    if atoms.pbc.any():
        e = rng.uniform(-perturb.cell, perturb.cell, 6)
        strain = np.array(
            [[e[0], e[5] / 2, e[4] / 2], [e[5] / 2, e[1], e[3] / 2], [e[4] / 2, e[3] / 2, e[2]]]
        )
        copy = _deformed(atoms, np.eye(3) + strain)
    copy = copy.copy()
    copy.positions += displacements(len(copy), perturb, rng)
    return copy


def displacements(n_atoms: int, perturb: Perturb, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random vectors ``[n_atoms, 3]``, Å."""
    vectors = rng.standard_normal((n_atoms, 3))
    if perturb.style == "normal":
        return perturb.distance / np.sqrt(3) * vectors
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths = rng.random((n_atoms, 1)) ** (1 / 3) if perturb.style == "uniform" else 1.0
    return perturb.distance * lengths * vectors


def _deformed(atoms: Atoms, deformation: NDArray[np.float64]) -> Atoms:
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    return copy
