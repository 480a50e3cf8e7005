"""Where each neighbour goes: the padded places, one block per element, that a DeepPot computes on. Numpy only.

Every element has its own networks. So that each runs on the rows that are its own and on no others, the
neighbours of each atom are put into places sorted by element, and the atoms, too. How many places there are is
fixed per compiled shape and grows when a batch needs more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lamkit.data.batch import Batch, Shape
from lamkit.data.frame import NUMBERS

ROOM = 8  # a growing block gets an eighth more than it needs
STEP = 4  # sizes are multiples of this
FEW = 64  # atoms; sizes below cost next to nothing


class Places(NamedTuple):
    """Index arrays of one batch with N atoms and E edges.

    Attributes:
        kinds: [N] int32, index of the atom's element; the number of elements for the dummy.
        place: [N] int32, where an atom stands in the concatenation of ``members``, counted from 1; 0 for the dummy.
        neighbors: for each element [N, s] int32, edges from each atom to neighbours of that element; E where
            there is no more.
        members: for each element [n] int32, atoms of that element; N - 1, the dummy, where there is no more.
    """

    kinds: NDArray[np.int32]
    place: NDArray[np.int32]
    neighbors: list[NDArray[np.int32]]
    members: list[NDArray[np.int32]]


class Slots:
    """Finds the places of batches.

    Args:
        elements: symbols in the order of the networks.
        least: neighbours of each element for which batches of several frames have room from the start.
    """

    def __init__(self, elements: Sequence[str], least: Sequence[int]) -> None:
        self.n = len(elements)
        self._kind = np.full(len(NUMBERS) + 2, self.n, np.int32)
        self._kind[[NUMBERS[s] for s in elements]] = np.arange(self.n)
        self.least = list(least)
        self._sizes: dict[Shape, tuple[list[int], list[int]]] = {}

    def find(self, batch: Batch) -> Places:
        """Places of one batch."""
        shape = batch.shape
        kinds = self._kind[batch.numbers]
        edges = np.flatnonzero(kinds[batch.senders] < self.n)
        of_edge = kinds[batch.receivers[edges]]
        chosen = [edges[of_edge == k] for k in range(self.n)]
        ranks = [_ranks(batch.senders[some]) for some in chosen]
        atoms = [np.flatnonzero(kinds == k) for k in range(self.n)]
        room, crowd = self._fit(shape, [int(r.max(initial=-1)) + 1 for r in ranks], [len(a) for a in atoms])
        neighbors, members = [], []
        place = np.zeros(shape.n_atoms, np.int32)
        for k in range(self.n):
            table = np.full((shape.n_atoms, room[k]), shape.n_edges, np.int32)
            table[batch.senders[chosen[k]], ranks[k]] = chosen[k]
            row = np.full(crowd[k], shape.n_atoms - 1, np.int32)
            row[: len(atoms[k])] = atoms[k]
            place[atoms[k]] = 1 + sum(crowd[:k]) + np.arange(len(atoms[k]))
            neighbors.append(table)
            members.append(row)
        return Places(kinds, place, neighbors, members)

    def _fit(self, shape: Shape, neighbors: list[int], atoms: list[int]) -> tuple[list[int], list[int]]:
        """Sizes of the blocks for a shape: as before if they hold what is needed, else grown."""
        old = self._sizes.get(shape, ([0] * self.n, [0] * self.n))
        # A single structure, as in MD, brings its own numbers; batches come in many kinds.
        start = self.least if shape.n_graphs > 2 else [1] * self.n
        room = [_grown(o, n, least) for o, n, least in zip(old[0], neighbors, start, strict=True)]
        # Of atoms few sizes: batches of several frames differ in them, and each growth is compiled anew.
        step = max(FEW, shape.n_atoms // 4) if shape.n_graphs > 2 else STEP
        crowd = [min(_grown(o, n, 1, step), shape.n_atoms) for o, n in zip(old[1], atoms, strict=True)]
        self._sizes[shape] = room, crowd
        return room, crowd


def _ranks(senders: NDArray[np.int32]) -> NDArray[np.int64]:
    """For each row its number among those of the same sender; equal senders stand together."""
    first = np.flatnonzero(np.diff(senders, prepend=-1))
    counts = np.diff(first, append=len(senders))
    return np.arange(len(senders)) - np.repeat(first, counts)


def _grown(old: int, needed: int, least: int, step: int = STEP) -> int:
    """``old`` if there is one and it is enough, else a multiple of ``step`` with some room."""
    if old and needed <= old:
        return old
    wanted = max(needed + needed // ROOM, least)
    return -(-wanted // step) * step
