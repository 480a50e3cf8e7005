"""Neighbour lists: every image within the cutoff, exact for any cell, periodic along any of the axes.

A thin layer over vesin that adds what an Orb graph needs: the nearest ``max_neighbors`` per sender, cells with
zero vectors, errors that name the cure, and numbers that do not depend on how the edges were found: their order
and their vectors follow from the structure alone, so that a list that was reused (see ``skin``) gives the same
bits as a new one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import vesin
from numpy.typing import ArrayLike, NDArray

from lamkit.errors import UserError

# Beyond these no structure is meant, and the search would run out of numbers, memory or time.
LARGEST_LENGTH = 1e5  # Å, of lattice vectors, and of all of a structure along axes that are not periodic
LARGEST_POSITION = 1e6  # Å, in a periodic cell: molecular dynamics may leave atoms many cells away
LEAST_HEIGHT = 0.1  # Å, between neighbouring lattice planes
# vesin sorts atoms into boxes as wide as the cutoff, at most 1e5. Above that it makes them larger in proportion,
# and divides by zero where one side of the structure is then less than a box.
MOST_BOXES = 1e5


class Neighbors(NamedTuple):
    """Directed edges of one structure, sorted by sender, then by receiver, then by shift.

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
        UserError: positions or cell not finite or out of all proportion, or a periodic axis without a
            lattice vector.
    """
    positions = np.ascontiguousarray(positions, dtype=np.float64).reshape(-1, 3)
    cell = np.asarray(cell, dtype=np.float64)
    pairs = search(positions, cell, pbc, cutoff)
    return measure(pairs, positions, cell, cutoff, max_neighbors)


class Pairs(NamedTuple):
    """Which atoms are near which images, sorted by sender, receiver and shift; fields as in `Neighbors`."""

    senders: NDArray[np.int32]
    receivers: NDArray[np.int32]
    shifts: NDArray[np.int32]


def search(positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: ArrayLike, cutoff: float) -> Pairs:
    """All pairs within ``cutoff``; arguments and errors as for :func:`neighbor_list`."""
    pbc = np.broadcast_to(pbc, 3).astype(bool)
    check_proportions(positions, cell, pbc)
    cell, periodic = complete_cell(cell, pbc)
    if len(positions) == 0 or (len(positions) == 1 and not periodic.any()):
        return Pairs(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 3), np.int32))
    positions, cell = _enclosed(positions, cell, periodic, cutoff)
    boxes = np.maximum(heights(cell) // cutoff, 1.0)
    if boxes.prod() > MOST_BOXES and boxes.min() * (MOST_BOXES / boxes.prod()) ** (1 / 3) < 2:
        sides = ", ".join(f"{h:.3g}" for h in heights(cell))
        raise UserError(
            f"the structure measures {sides} Å across, too much for a search of neighbours within {cutoff:g} Å; "
            "where that is vacuum, take some 20 Å"
        )
    # For less than some thousand atoms, starting threads takes longer than the search.
    n_threads = 1 if len(positions) < 2000 else 0
    builder = vesin.NeighborList(cutoff=float(cutoff), full_list=True, n_threads=n_threads)
    senders, receivers, shifts = builder.compute(positions, cell, True, quantities="ijS")
    order = _canonical(senders.astype(np.int64), receivers.astype(np.int64), shifts, len(positions))
    return Pairs(
        senders[order].astype(np.int32), receivers[order].astype(np.int32), shifts[order].astype(np.int32)
    )


def _enclosed(
    positions: NDArray[np.float64], cell: NDArray[np.float64], periodic: NDArray[np.bool_], cutoff: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The structure in a cell that is periodic along all axes, with more than the cutoff of vacuum along some.

    The same pairs; vesin's time for cells that are periodic along some axes grows with the square of their height.
    """
    if periodic.all():
        return positions, cell
    normals = cell[~periodic]
    along = positions @ normals.T
    lowest = along.min(axis=0)
    cell = cell.copy()
    sides = along.max(axis=0) - lowest + cutoff + 1.0
    if not periodic.any():
        sides[:] = sides.max()  # a cube is searched however large it is
    cell[~periodic] = normals * sides[:, None]
    return positions - (lowest - 0.25) @ normals, cell


def _canonical(
    senders: NDArray[np.int64], receivers: NDArray[np.int64], shifts: NDArray[np.int32], n_atoms: int
) -> NDArray[np.intp]:
    """Order by sender, receiver and shift: by one number made of all, three times as fast as by five keys."""
    if not len(senders):
        return np.zeros(0, np.intp)
    least = shifts.min(axis=0).astype(np.int64)
    sizes = [int(n) for n in shifts.max(axis=0) - least + 1]
    if n_atoms * n_atoms * sizes[0] * sizes[1] * sizes[2] >= 2**62:
        return np.lexsort((*shifts.T[::-1], receivers, senders))
    number = senders * n_atoms + receivers
    for axis in range(3):
        if sizes[axis] > 1:
            number = number * sizes[axis] + (shifts[:, axis] - least[axis])
    return np.argsort(number)  # no two are equal


def measure(
    pairs: Pairs,
    positions: NDArray[np.float64],
    cell: NDArray[np.float64],
    cutoff: float,
    max_neighbors: int | None,
) -> Neighbors:
    """The edges among ``pairs`` (all that are within ``cutoff``, and perhaps more) at these positions.

    Of receivers that are equally far (as rounded) the first in the order of the edges is kept.
    """
    senders, receivers, shifts = pairs
    vectors = positions[receivers] - positions[senders]
    if shifts.any():
        # Term by term: a matrix product may round differently for lists of different length.
        vectors += shifts[:, :1] * cell[0] + shifts[:, 1:2] * cell[1] + shifts[:, 2:] * cell[2]
    x, y, z = vectors.T
    squared = x * x + y * y + z * z
    kept = np.flatnonzero(squared < cutoff * cutoff)
    if max_neighbors is not None and len(kept) > max_neighbors:
        kept = _nearest(kept, senders[kept], squared[kept], max_neighbors)
    return Neighbors(senders[kept], receivers[kept], shifts[kept], np.sqrt(squared[kept]), vectors[kept])


def _nearest(
    kept: NDArray[np.intp], senders: NDArray[np.int32], squared: NDArray[np.float64], limit: int
) -> NDArray[np.intp]:
    """Those of ``kept`` (sorted by sender) that are among the ``limit`` nearest of their sender."""
    counts = np.bincount(senders)
    if counts.max() <= limit:
        return kept
    order = np.lexsort((squared, senders))
    rank = np.arange(len(kept)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(kept[order[rank < limit]])


def is_periodic(cell: ArrayLike, pbc: ArrayLike) -> bool:
    """True where some axis is periodic and a cell is given."""
    return bool(np.any(pbc) and np.any(np.asarray(cell) != 0.0))


def check_proportions(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]
) -> None:
    """Refuse numbers that no neighbour search survives; arguments as for :func:`neighbor_list`.

    Raises:
        UserError: not finite, lattice vectors or positions too large, a cell too flat.
    """
    if not np.isfinite(positions).all():
        atom = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
        raise UserError(f"atom {atom} has the position {positions[atom].tolist()}: it must be finite")
    periodic = is_periodic(cell, pbc)
    axes = cell[pbc] if periodic else cell[:0]
    if np.isfinite(cell).all() and np.abs(axes).max(initial=0.0) > LARGEST_LENGTH:
        raise UserError(
            f"the cell {cell.tolist()} has vectors beyond {LARGEST_LENGTH:g} Å; is it in Å? Where it stands for "
            "vacuum, take some 20 Å or switch pbc off"
        )
    complete_cell(cell, pbc)
    if len(axes) and heights(axes).min() < LEAST_HEIGHT:
        raise UserError(
            f"the cell {cell.tolist()} is flat: its lattice planes are less than {LEAST_HEIGHT} Å apart, so that "
            "atoms touch their own periodic images or it is skewed out of all proportion. Is it in Å? A skewed "
            "cell can be reduced (ase.geometry.minkowski_reduce)"
        )
    if len(positions) == 0:
        return
    centred = positions - np.median(positions, axis=0)
    away = np.abs(positions if periodic else centred).max(axis=1)
    limit = LARGEST_POSITION if periodic else LARGEST_LENGTH
    if periodic and not pbc.all():
        normals = np.linalg.svd(axes)[2][len(axes) :]  # to the periodic axes
        along = np.abs(centred @ normals.T).max(axis=1)
        away = np.maximum(away, along * (LARGEST_POSITION / LARGEST_LENGTH))
    atom = int(away.argmax())
    if away[atom] > limit:
        raise UserError(
            f"atom {atom} is at {positions[atom].tolist()} Å, further away than anything can be meant to be; "
            "is it in Å, or did the structure fly apart?"
        )


def heights(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each lattice vector from the plane or line of the others, Å; 0 if they do not span.

    Args:
        axes: [1 to 3, 3] Å.
    """
    if len(axes) < 3 and np.linalg.matrix_rank(axes) < len(axes):
        return np.zeros(1)
    inverse = np.linalg.inv(axes) if len(axes) == 3 else np.linalg.pinv(axes)
    return np.asarray(1 / np.linalg.norm(inverse, axis=0))


def complete_cell(cell: NDArray, pbc: NDArray) -> tuple[NDArray, NDArray]:
    """A cell of full rank (axes that are not periodic may come without a vector) and its periodic axes.

    Raises:
        UserError: not finite, or a periodic axis has no vector of its own.
    """
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
