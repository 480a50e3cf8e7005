"""Neighbour lists: every image within the cutoff, exact for any cell, periodic along any of the axes.

A thin layer over vesin that adds what an Orb graph needs: order by sender and distance, the nearest
``max_neighbors`` per sender, cells with zero vectors, and errors that name the cure.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import vesin
from numpy.typing import ArrayLike, NDArray

from lamkit.errors import UserError


class Neighbors(NamedTuple):
    """Directed edges of one structure, sorted by sender and then by distance.

    Attributes:
        senders: [n_edges] int32, atom at which the edge starts.
        receivers: [n_edges] int32, atom whose image the edge reaches.
        shifts: [n_edges, 3] int32, lattice translations of that image, for the positions as given.
        distances: [n_edges] float64, Å.
        vectors: [n_edges, 3] float64, Å, ``x[receiver] + shift @ cell - x[sender]``.
    """

    senders: NDArray[np.int32]
    receivers: NDArray[np.int32]
    shifts: NDArray[np.int32]
    distances: NDArray[np.float64]
    vectors: NDArray[np.float64]


def neighbor_list(
    positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: float, max_neighbors: int | None = None
) -> Neighbors:
    """Edges between all pairs closer than ``cutoff``, an atom's own images included.

    Args:
        positions: [n_atoms, 3] Å; atoms may lie outside of the cell.
        cell: [3, 3] Å, rows are lattice vectors; all zeros means that nothing is periodic.
        pbc: [3] or one flag, true along periodic axes.
        cutoff: Å.
        max_neighbors: keep only the nearest so many receivers of each sender (the graph is then
            directed and not symmetric, as in Orb's 20-neighbour models); None keeps all.

    Raises:
        UserError: positions or cell not finite, or a periodic axis without a lattice vector.
    """
    positions = np.ascontiguousarray(positions, dtype=np.float64).reshape(-1, 3)
    cell, periodic = _complete(np.asarray(cell, dtype=np.float64), np.broadcast_to(pbc, 3).astype(bool))
    if not np.isfinite(positions).all():
        atom = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
        raise UserError(f"atom {atom} has the position {positions[atom].tolist()}: it must be finite")
    if len(positions) == 0 or (len(positions) == 1 and not periodic.any()):
        return _empty()
    builder = vesin.NeighborList(cutoff=float(cutoff), full_list=True)
    senders, receivers, shifts, distances, vectors = builder.compute(
        positions, cell, periodic, quantities="ijSdD"
    )
    order = np.lexsort((distances, senders))
    if max_neighbors is not None:
        order = order[_rank_within(senders[order]) < max_neighbors]
    return Neighbors(
        senders[order].astype(np.int32),
        receivers[order].astype(np.int32),
        shifts[order].astype(np.int32),
        distances[order],
        vectors[order],
    )


def is_periodic(cell: ArrayLike, pbc: ArrayLike) -> bool:
    """True where some axis is periodic and a cell is given."""
    return bool(np.any(pbc) and np.any(np.asarray(cell) != 0.0))


def _complete(cell: NDArray, pbc: NDArray) -> tuple[NDArray, NDArray]:
    """A cell of full rank (axes that are not periodic may come without a vector) and its periodic axes."""
    if not np.isfinite(cell).all():
        raise UserError(f"the cell {cell.tolist()} is not finite")
    if not is_periodic(cell, pbc):
        return np.eye(3), np.zeros(3, dtype=bool)
    vectors = cell[pbc]
    scale = np.linalg.norm(vectors, axis=1).prod()
    # Gram determinant: squared length, area or volume that the periodic vectors span.
    spanned = np.sqrt(max(np.linalg.det(vectors @ vectors.T), 0.0))
    if spanned <= 1e-8 * scale or scale == 0.0:
        raise UserError(
            f"the cell {cell.tolist()} has no independent lattice vector for every periodic axis "
            f"(pbc {pbc.tolist()}); give the vectors or switch pbc off along that axis"
        )
    if pbc.all():
        return cell, pbc
    # Only the periodic vectors matter; the others become unit normals to them.
    full = cell.copy()
    normals = np.linalg.svd(vectors)[2][len(vectors) :]
    full[~pbc] = normals
    return full, pbc


def _rank_within(senders: NDArray) -> NDArray:
    """Position of each edge among the edges of its sender; ``senders`` is sorted."""
    index = np.arange(len(senders))
    starts = np.flatnonzero(np.r_[True, senders[1:] != senders[:-1]]) if len(senders) else index
    lengths = np.diff(np.r_[starts, len(senders)])
    return index - np.repeat(starts, lengths)


def _empty() -> Neighbors:
    return Neighbors(
        np.zeros(0, np.int32),
        np.zeros(0, np.int32),
        np.zeros((0, 3), np.int32),
        np.zeros(0),
        np.zeros((0, 3)),
    )
