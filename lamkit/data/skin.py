"""A neighbour list with a skin: built once, then reused for as long as no atom has moved too far.

What is handed out is exact at every step: the edges within the cutoff now, and of these the nearest
``max_neighbors``. The skin decides only how often the search itself is repeated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lamkit.data.neighbors import Neighbors, neighbor_list


class SkinList:
    """Neighbours of a structure that moves a little from call to call.

    Args:
        cutoff: Å.
        max_neighbors: nearest receivers kept per sender; None keeps all.
        skin: Å that the search looks beyond the cutoff; 0 searches at every call.

    Attributes:
        n_builds: searches done so far.
    """

    def __init__(self, cutoff: float, max_neighbors: int | None, skin: float) -> None:
        self.cutoff, self.max_neighbors, self.skin = cutoff, max_neighbors, skin
        self.n_builds = 0
        self._wide: Neighbors | None = None
        self._origin: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]] | None = None

    def edges(
        self, positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]
    ) -> Neighbors:
        """Edges of the structure as it is now; arguments as for :func:`neighbor_list`."""
        if self.skin <= 0:
            self.n_builds += 1
            return neighbor_list(positions, cell, pbc, self.cutoff, self.max_neighbors)
        if self._wide is None or not self._still_holds(positions, cell, pbc):
            self._wide = neighbor_list(positions, cell, pbc, self.cutoff + self.skin, None)
            self._origin = (positions.copy(), cell.copy(), pbc.copy())
            self.n_builds += 1
        return self._narrowed(positions, cell)

    def forget(self) -> None:
        """Search anew at the next call."""
        self._wide = self._origin = None

    def _still_holds(
        self, positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]
    ) -> bool:
        """No pair can have come inside the cutoff unseen: each atom moved by less than half the skin."""
        assert self._origin is not None
        old, old_cell, old_pbc = self._origin
        if old.shape != positions.shape or (old_pbc != pbc).any() or (old_cell != cell).any():
            return False
        moved = np.square(positions - old).sum(axis=1).max(initial=0.0)
        return bool(moved <= (0.5 * self.skin) ** 2)

    def _narrowed(self, positions: NDArray[np.float64], cell: NDArray[np.float64]) -> Neighbors:
        """The edges of the wide list that are within the cutoff at these positions."""
        assert self._wide is not None
        senders, receivers, shifts = self._wide.senders, self._wide.receivers, self._wide.shifts
        vectors = positions[receivers] - positions[senders] + shifts @ cell
        squared = np.einsum("ij,ij->i", vectors, vectors)
        kept = np.flatnonzero(squared < self.cutoff**2)
        if self.max_neighbors is not None and len(kept):
            counts = np.bincount(senders[kept], minlength=len(positions))
            if counts.max() > self.max_neighbors:
                kept = kept[np.lexsort((squared[kept], senders[kept]))]
                starts = np.cumsum(counts) - counts
                rank = np.arange(len(kept)) - starts[senders[kept]]
                kept = kept[rank < self.max_neighbors]
        return Neighbors(senders[kept], receivers[kept], shifts[kept], np.sqrt(squared[kept]), vectors[kept])
