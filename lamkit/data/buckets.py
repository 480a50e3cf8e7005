"""Padded shapes of a run: one or two, chosen from the data's own distribution.

Every compiled shape of the network keeps its own memory, so there are few; every edge of padding costs as
much time as a real one, so heads with few and with many neighbours do not share a shape when that wastes much.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from lamkit.console import log
from lamkit.data.batch import Graph, Shape, make_graph, shape_of
from lamkit.data.dataset import View
from lamkit.data.statistics_file import load

SAMPLE = 128  # frames per head whose neighbours are counted where no counts are stored
USUAL = 0.999  # part of the frames for which every batch has room
MAX_GRAPHS = 64  # frames per batch at most
WASTE = 0.15  # a second shape must save at least this part of all edge work


class Need(NamedTuple):
    """What one head asks of a batch.

    Attributes:
        shape: atoms, edges and graphs (dummies included) of a full batch of this head.
        edges_per_step: mean real edges of such a batch.
        rare: what the largest frames need, where they are so few that not every batch should be padded for
            them; None if ``shape`` holds them too.
    """

    shape: Shape
    edges_per_step: float
    rare: Shape | None = None


class _Counts(NamedTuple):
    """Neighbours of a head's frames.

    Attributes:
        density, deviation: edges per atom, mean and standard deviation over frames.
        most: edges of the frame that has the most.
        usual: edges that all but one frame in a thousand do not exceed.
    """

    density: float
    deviation: float
    most: int
    usual: int


def holds(shape: Shape, other: Shape) -> bool:
    """True where a batch of size ``other`` (dummies included) can be padded to ``shape``."""
    return all(a >= b for a, b in zip(shape, other, strict=True))


def measure(
    view: View,
    cutoff: float,
    max_neighbors: int | None,
    batch_atoms: int,
    seed: int,
    batch_edges: int | None = None,
) -> Need:
    """What a head's frames need of a batch.

    The neighbour counts are those stored with the data set, else those of a sample of frames with the
    largest among them.

    Args:
        view: the frames.
        cutoff: Å.
        max_neighbors: per atom.
        batch_atoms: budget of atoms; a larger frame raises it.
        seed: of the sample.
        batch_edges: budget of edges; likewise. None: what so many atoms have.
    """
    counts = _stored(view, cutoff, max_neighbors) or _sampled(view, cutoff, max_neighbors, seed)
    n_atoms = view.n_atoms
    largest = int(n_atoms.max())
    atoms = max(batch_atoms, int(np.quantile(n_atoms, USUAL, method="higher")))
    # A batch is a sum over frames: its density is near the mean, unless one frame fills it.
    frames = max(1.0, atoms / float(n_atoms.mean()))
    full = atoms * (counts.density + 1.5 * counts.deviation / math.sqrt(frames))
    full = min(full, batch_edges or full)
    edges = max(full, counts.usual, 1)
    graphs = min(MAX_GRAPHS, max(1, round(1.2 * frames), atoms // max(1, int(n_atoms.min())) // 2))
    shape = Shape(atoms + 1, _round_up(edges), graphs + 1)
    rare = Shape(max(atoms, largest) + 1, _round_up(max(counts.most, edges)), graphs + 1)
    return Need(shape, float(atoms * counts.density), None if holds(shape, rare) else rare)


def _stored(view: View, cutoff: float, max_neighbors: int | None) -> _Counts | None:
    """Counts of the whole data set, as the conversion stored them; None where it did not."""
    statistics = load(view.dataset)
    setting = statistics.neighbors.setting(cutoff, max_neighbors) if statistics is not None else None
    if setting is None:
        return None
    edges, density = setting
    deviation = math.sqrt(max(density.rms() ** 2 - density.mean() ** 2, 0.0))
    usual = math.ceil(edges.quantile(USUAL)) if edges.n >= 1 / (1 - USUAL) else int(edges.largest)
    return _Counts(density.mean(), deviation, int(edges.largest), usual)


def _sampled(view: View, cutoff: float, max_neighbors: int | None, seed: int) -> _Counts:
    generator = np.random.default_rng(seed)
    chosen = set(generator.permutation(len(view))[:SAMPLE].tolist()) | {int(np.argmax(view.n_atoms))}
    graphs = [make_graph(view.frame(i), cutoff, max_neighbors) for i in sorted(chosen)]
    density = np.array([g.n_edges / g.n_atoms for g in graphs])
    most = max(g.n_edges for g in graphs)
    return _Counts(float(density.mean()), float(density.std()), most, most)


def _round_up(n: float) -> int:
    """Next number with two significant binary digits after the first, so that small changes keep the shape."""
    n = max(math.ceil(n), 16)
    step = 1 << max(0, n.bit_length() - 4)
    return -(-n // step) * step


def _union(needs: Sequence[Need]) -> Shape:
    return Shape(*(max(n.shape[i] for n in needs) for i in range(3)))


class Buckets:
    """The shapes of a run and which head uses which.

    Frames too rare and too large for them share one more, which is compiled only when the first such frame
    is drawn. A batch that fits none (a frame larger than any that was counted) adds a shape, and says so.

    Args:
        needs: of the heads.
        chances: of the heads.
        own: heads whose batches are filled up to what they need themselves, and padded beyond it; the others take
            all the room of their shape.
    """

    def __init__(self, needs: Sequence[Need], chances: Sequence[float], own: Collection[int] = ()) -> None:
        order = np.argsort([n.shape.n_edges for n in needs], kind="stable")
        best, groups = self._cost([list(order)], needs, chances), [list(order)]
        limit = best * (1 - WASTE)
        for cut in range(1, len(order)):
            candidate = [list(order[:cut]), list(order[cut:])]
            cost = self._cost(candidate, needs, chances)
            if cost < min(limit, best):
                best, groups = cost, candidate
        self.shapes = [_union([needs[i] for i in group]) for group in groups]
        if rare := [n.rare for n in needs if n.rare is not None]:
            self.shapes.append(Shape(*(max(shape[i] for shape in rare) for i in range(3))))
        self._planned = len(self.shapes)
        self._of_head = {int(i): k for k, group in enumerate(groups) for i in group}
        self._own = {i: needs[i].shape for i in own}

    @staticmethod
    def _cost(groups: list[list[int]], needs: Sequence[Need], chances: Sequence[float]) -> float:
        return sum(
            sum(chances[i] for i in group) * _union([needs[i] for i in group]).n_edges for group in groups
        )

    @property
    def added(self) -> list[Shape]:
        """Shapes that were not planned, in the order in which frames asked for them."""
        return self.shapes[self._planned :]

    def restore(self, added: Iterable[Sequence[int]]) -> None:
        """Put back what an earlier process has added, so that frames are padded as they would have been there."""
        self.shapes[self._planned :] = [Shape(*shape) for shape in added]

    def of_head(self, head: int) -> Shape:
        """The shape that batches of ``head`` are filled up to."""
        return self._own.get(head, self.shapes[self._of_head[head]])

    def shape_for(self, graphs: Sequence[Graph], head: int) -> Shape:
        """The shape that holds ``graphs``: that of the head, or a new larger one."""
        needed, usual = shape_of(graphs), self.shapes[self._of_head[head]]
        if holds(usual, needed):
            return usual
        for shape in self.shapes:
            if holds(shape, needed):
                return shape
        new = Shape(
            max(needed.n_atoms, usual.n_atoms),
            max(_round_up(needed.n_edges), usual.n_edges),
            max(needed.n_graphs, usual.n_graphs),
        )
        log.info("a frame larger than those sampled: one more compiled shape, %d atoms, %d edges", *new[:2])
        self.shapes.append(new)
        return new
