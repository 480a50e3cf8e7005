"""Whether a structure can be evaluated at all: one clear error for each thing that is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamkit.data.frame import SYMBOLS
from lamkit.data.neighbors import Neighbors, complete_cell, neighbor_list
from lamkit.errors import UserError

if TYPE_CHECKING:
    from ase import Atoms

TOUCHING = 0.1  # Å; atoms closer than this are an error of the structure, not physics


def check_structure(atoms: Atoms, where: str = "") -> None:
    """Refuse what no model can evaluate; a left-handed cell is fine, atoms that touch are found later.

    Args:
        atoms: the structure.
        where: its place (file, index), for the message.

    Raises:
        UserError: no atoms, no element, positions or cell not finite, periodic without a lattice vector.
    """
    at = f"{where}: " if where else ""
    if len(atoms) == 0:
        raise UserError(f"{at}has no atoms")
    odd = np.flatnonzero((atoms.numbers < 1) | (atoms.numbers >= len(SYMBOLS)))
    if len(odd):
        i = int(odd[0])
        raise UserError(f"{at}atom {i} has atomic number {atoms.numbers[i]}, which is no element")
    wild = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(wild):
        i = int(wild[0])
        raise UserError(
            f"{at}atom {i} ({SYMBOLS[atoms.numbers[i]]}) is at {atoms.positions[i].tolist()}: "
            "positions must be finite"
        )
    _check_cell(atoms.cell.array, np.asarray(atoms.pbc, dtype=bool), at)


def _check_cell(cell: NDArray[np.float64], pbc: NDArray[np.bool_], at: str) -> None:
    if not pbc.any():
        return
    if not cell.any():
        raise UserError(
            f"{at}is periodic (pbc {pbc.tolist()}) but its cell is zero; give the lattice vectors or switch "
            "pbc off"
        )
    try:
        complete_cell(cell, pbc)
    except UserError as error:
        raise UserError(f"{at}{error}") from None
    vectors = cell[pbc]
    # Some lattice vector is shorter than 1.3 times the mean spacing (Hermite's constant in 3 dimensions).
    spacing = float(np.sqrt(np.linalg.det(vectors @ vectors.T)) ** (1.0 / len(vectors)))
    if 1.3 * spacing < TOUCHING:
        raise UserError(
            f"{at}the cell {cell.tolist()} is so small that atoms touch their own periodic images "
            f"(less than {TOUCHING} Å apart); is it in Å?"
        )


def check_distances(edges: Neighbors, numbers: NDArray[np.integer], where: str = "") -> None:
    """Refuse atoms that touch.

    Args:
        edges: all neighbours within more than ``TOUCHING``.
        numbers: [n_atoms] atomic numbers.
        where: the structure's place, for the message.

    Raises:
        UserError: two atoms closer than ``TOUCHING``.
    """
    if not len(edges.distances) or edges.distances.min() >= TOUCHING:
        return
    at = f"{where}: " if where else ""
    k = int(edges.distances.argmin())
    i, j = int(edges.senders[k]), int(edges.receivers[k])
    other = "its own periodic image" if i == j else f"atom {j} ({SYMBOLS[numbers[j]]})"
    raise UserError(
        f"{at}atom {i} ({SYMBOLS[numbers[i]]}) and {other} are {edges.distances[k]:.3f} Å apart; at least "
        f"{TOUCHING} Å is needed. Remove one of them or check the cell"
    )


def check_all(atoms: Atoms, where: str = "") -> None:
    """:func:`check_structure` and :func:`check_distances`, by a neighbour search of its own."""
    check_structure(atoms, where)
    near = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 10 * TOUCHING)
    check_distances(near, atoms.numbers, where)
