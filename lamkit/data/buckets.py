"""Padded shapes of a run: one or two, chosen from the data's own distribution.

Every compiled shape of the network keeps its own memory, so there are few; every edge of padding costs as
much time as a real one, so heads with few and with many neighbours do not share a shape when that wastes much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lamkit.console import log
from lamkit.data.batch import Graph, Shape, make_graph, shape_of
from lamkit.data.dataset import View

SAMPLE = 128  # frames per head whose neighbours are counted
MAX_GRAPHS = 64  # frames per batch at most
WASTE = 0.15  # a second shape must save at least this part of all edge work


class Need(NamedTuple):
    """What one head asks of a batch.

    Attributes:
        shape: atoms, edges and graphs (dummies included) of a full batch of this head.
        edges_per_step: mean real edges of such a batch.
    """

    shape: Shape
    edges_per_step: float


def holds(shape: Shape, other: Shape) -> bool:
    """True where a batch of size ``other`` (dummies included) can be padded to ``shape``."""
    return all(a >= b for a, b in zip(shape, other, strict=True))


def measure(view: View, cutoff: float, max_neighbors: int | None, batch_atoms: int, seed: int) -> Need:
    """Count neighbours on a sample of frames, always with the largest frame among them."""
    generator = np.random.default_rng(seed)
    chosen = set(generator.permutation(len(view))[:SAMPLE].tolist()) | {int(np.argmax(view.n_atoms))}
    graphs = [make_graph(view.frame(i), cutoff, max_neighbors) for i in sorted(chosen)]
    largest = max(g.n_atoms for g in graphs)
    atoms = max(batch_atoms, largest)
    density = np.array([g.n_edges / g.n_atoms for g in graphs])
    # A batch is a sum over frames: its density is near the mean, unless one frame fills it.
    frames = max(1.0, atoms / float(np.mean([g.n_atoms for g in graphs])))
    usual = atoms * float(density.mean() + 1.5 * density.std() / math.sqrt(frames))
    edges = max(usual, *(g.n_edges for g in graphs), 1)
    smallest = max(1, min(g.n_atoms for g in graphs))
    graphs_per_batch = min(MAX_GRAPHS, max(1, round(1.2 * frames), atoms // smallest // 2))
    return Need(Shape(atoms + 1, _round_up(edges), graphs_per_batch + 1), float(atoms * density.mean()))


def _round_up(n: float) -> int:
    """Next number with two significant binary digits after the first, so that small changes keep the shape."""
    n = max(math.ceil(n), 16)
    step = 1 << max(0, n.bit_length() - 4)
    return -(-n // step) * step


def _union(needs: Sequence[Need]) -> Shape:
    return Shape(*(max(n.shape[i] for n in needs) for i in range(3)))


class Buckets:
    """The shapes of a run and which head uses which.

    A batch that fits none (a frame larger than any that was sampled) adds a shape, and says so.
    """

    def __init__(self, needs: Sequence[Need], chances: Sequence[float]) -> None:
        order = np.argsort([n.shape.n_edges for n in needs], kind="stable")
        best, groups = self._cost([list(order)], needs, chances), [list(order)]
        limit = best * (1 - WASTE)
        for cut in range(1, len(order)):
            candidate = [list(order[:cut]), list(order[cut:])]
            cost = self._cost(candidate, needs, chances)
            if cost < min(limit, best):
                best, groups = cost, candidate
        self.shapes = [_union([needs[i] for i in group]) for group in groups]
        self._of_head = {int(i): k for k, group in enumerate(groups) for i in group}

    @staticmethod
    def _cost(groups: list[list[int]], needs: Sequence[Need], chances: Sequence[float]) -> float:
        return sum(
            sum(chances[i] for i in group) * _union([needs[i] for i in group]).n_edges for group in groups
        )

    def of_head(self, head: int) -> Shape:
        """The shape that batches of ``head`` are filled up to."""
        return self.shapes[self._of_head[head]]

    def shape_for(self, graphs: Sequence[Graph], head: int) -> Shape:
        """The shape that holds ``graphs``: that of the head, or a new larger one."""
        needed, usual = shape_of(graphs), self.of_head(head)
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
