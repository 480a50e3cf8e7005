"""Whether a structure can be evaluated at all: one clear error for each thing that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamkit.data.frame import SYMBOLS
from lamkit.data.neighbors import Neighbors, check_proportions, neighbor_list
from lamkit.errors import UserError

if TYPE_CHECKING:
    from ase import Atoms

TOUCHING = 0.1  # Å; atoms closer than this are an error of the structure, not physics
CHECKED = 4.0  # Å, cutoff with which a structure is searched for such atoms before any model is known


@contextmanager
def named(where: str) -> Iterator[None]:
    """Errors of the user's in here are said of ``where`` (file, index); empty: of nothing in particular."""
    try:
        yield
    except UserError as error:
        if not where:
            raise
        raise UserError(f"{where}: {error}") from None


def check_structure(atoms: Atoms, where: str = "") -> None:
    """Refuse what no model can evaluate; a left-handed cell is fine, atoms that touch are found later.

    Args:
        atoms: the structure.
        where: its place (file, index), for the message.

    Raises:
        UserError: no atoms, no element, positions or cell not finite or out of all proportion, periodic
            without a lattice vector.
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
    cell, pbc = atoms.cell.array, np.asarray(atoms.pbc, dtype=bool)
    if pbc.any() and not cell.any():
        raise UserError(
            f"{at}is periodic (pbc {pbc.tolist()}) but its cell is zero; give the lattice vectors or switch "
            "pbc off"
        )
    with named(where):
        check_proportions(atoms.positions, cell, pbc)


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
    with named(where):
        near = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, CHECKED)
    check_distances(near, atoms.numbers, where)
