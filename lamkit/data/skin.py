"""A neighbour list with a skin: built once, then reused for as long as no pair can have come in unseen.

What is handed out is exact at every step, to the last bit: the edges within the cutoff now, and of these the
nearest ``max_neighbors``. The skin decides only how often the search itself is repeated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lamkit.data.neighbors import Neighbors, Pairs, measure, search


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
        self._pairs: Pairs | None = None
        self._origin: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]] | None = None

    def edges(
        self, positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]
    ) -> Neighbors:
        """Edges of the structure as it is now: what :func:`neighbor_list` gives for the same arguments."""
        if self._pairs is None or not self._still_holds(positions, cell, pbc):
            self._pairs = search(positions, cell, pbc, self.cutoff + self.skin)
            self._origin = (positions.copy(), cell.copy(), pbc.copy())
            self.n_builds += 1
        return measure(self._pairs, positions, cell, self.cutoff, self.max_neighbors)

    def forget(self) -> None:
        """Search anew at the next call."""
        self._pairs = self._origin = None

    def _still_holds(
        self, positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]
    ) -> bool:
        """No pair can have come inside the cutoff unseen.

        With F the deformation of the cell since the search and u_i = x_i - x0_i F what each atom moved beside
        it, a pair is now at d = d0 F + u_j - u_i. Unseen pairs had |d0| > cutoff + skin, so that
        |d| > s (cutoff + skin) - 2 max|u| with s the smallest singular value of F. A common translation is no
        matter.
        """
        assert self._origin is not None
        old, old_cell, old_pbc = self._origin
        if self.skin <= 0 or old.shape != positions.shape or (old_pbc != pbc).any():
            return False
        shrink = 1.0
        if (old_cell != cell).any():
            if not pbc.all() or not np.isfinite(cell).all():
                return False
            deformation = np.linalg.solve(old_cell, cell)
            old = old @ deformation
            shrink = float(np.linalg.svd(deformation, compute_uv=False).min())
        moved = positions - old
        moved -= moved.mean(axis=0)
        furthest = np.sqrt(np.square(moved).sum(axis=1).max(initial=0.0))
        return bool(shrink * (self.cutoff + self.skin) - 2.0 * furthest >= self.cutoff)
