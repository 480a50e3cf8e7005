"""The order in which frames are seen: which head each step draws, which frames fill its batch.

Every choice is a function of (seed, step) or (seed, head, epoch), so a position is a few integers and a
resumed run sees exactly the batches that an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lamkit.data.batch import Batch, Graph, collate, make_graph, random_rotations, rotate, shape_of
from lamkit.data.buckets import Buckets, holds
from lamkit.data.dataset import View
from lamkit.data.denoise import NoisyView
from lamkit.errors import UserError

# Names of independent random sequences.
HEAD_STREAM, ROTATION_STREAM, ORDER_STREAM, DIRECTION_STREAM = 1, 2, 3, 4


@dataclass(frozen=True)
class Source:
    """One head's frames for the sampler.

    Attributes:
        name: head.
        view: training frames.
        reference: energy per atom by atomic number, [119] float64, eV.
    """

    name: str
    view: View
    reference: NDArray[np.float64]


class Position(NamedTuple):
    """Where one head's stream stands: epoch and frames of it already used."""

    epoch: int
    used: int


class Item(NamedTuple):
    """What the sampler hands to one training step."""

    step: int
    head: int
    batch: Batch
    n_frames: int
    positions: tuple[Position, ...]  # of every head, after this batch
    frames: tuple[int, ...]  # of the head's view
    shard: int


def probabilities(
    frames: Mapping[str, int], *, exponent: float, weights: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Chance of each head at a step: explicit weights, or p ∝ N ** exponent with N in frames.

    Raises:
        UserError: a weight is missing, or none positive.
    """
    if weights is None:
        raw = {name: float(n) ** exponent for name, n in frames.items()}
    else:
        if missing := [name for name in frames if name not in weights]:
            raise UserError(f"train.weights: no weight for {', '.join(missing)}")
        raw = {name: float(weights[name]) for name in frames}
    total = sum(raw.values())
    if not total > 0 or min(raw.values()) < 0:
        raise UserError(f"train.weights: {raw}: weights must be ≥ 0 and one of them > 0")
    return {name: value / total for name, value in raw.items()}


class GraphCache:
    """Graphs kept from epoch to epoch up to a number of bytes, the least used dropped first."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit, self.size = limit_bytes, 0
        self._graphs: OrderedDict[tuple[int, int], Graph] = OrderedDict()

    def get(self, key: tuple[int, int], make: Callable[[], Graph]) -> Graph:
        """The graph of ``key``, made by ``make()`` where it is not in memory."""
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key]
        graph = make()
        size = sum(a.nbytes for a in graph if isinstance(a, np.ndarray))
        if size <= self.limit:
            self._graphs[key] = graph
            self.size += size
            while self.size > self.limit:
                _, old = self._graphs.popitem(last=False)
                self.size -= sum(a.nbytes for a in old if isinstance(a, np.ndarray))
        return graph


class Sampler:
    """Endless sequence of training batches, one head each.

    Args:
        sources: the heads, in the order of the network.
        chances: probability of each head.
        buckets: padded shapes.
        cutoff: Å.
        max_neighbors: neighbours kept per atom.
        seed: of every choice.
        turn: rotate each batch at random.
        cache_mb: memory for graphs.
        shard: which part of the frames it deals, of ``shards`` parts without overlap: in each epoch every
            ``shards``-th frame of the common random order. A head with fewer frames than parts has as many parts
            as frames.
        shards: how many samplers share the frames.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        chances: Mapping[str, float],
        buckets: Buckets,
        *,
        cutoff: float,
        max_neighbors: int | None,
        seed: int,
        turn: bool = True,
        cache_mb: int = 512,
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        self.sources, self.buckets = list(sources), buckets
        self.chances = np.array([chances[s.name] for s in sources])
        self.cutoff, self.max_neighbors, self.seed, self.turn = cutoff, max_neighbors, seed, turn
        self.positions = [Position(0, 0) for _ in sources]
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}
        self.shard, self.shards = shard, shards
        self._cache = GraphCache(cache_mb << 20)

    def draw(self, step: int) -> int:
        """Head of ``step``."""
        return self.draw_of(step, self.shard)

    def draw_of(self, step: int, shard: int) -> int:
        """Head that the sampler of a part draws at ``step``."""
        generator = np.random.default_rng([self.seed, HEAD_STREAM, step, shard])
        return int(generator.choice(len(self.sources), p=self.chances))

    def item(self, step: int) -> Item:
        """The batch of ``step``; moves the position of the head that was drawn."""
        head = self.draw(step)
        graphs, frames = self._fill(head)
        shape = self.buckets.shape_for(graphs, head)
        direction = 0
        if any(g.hessian is not None for g in graphs):
            direction = int(
                np.random.default_rng([self.seed, DIRECTION_STREAM, step, self.shard]).integers(1 << 30)
            )
        batch = collate(graphs, shape, self.sources[head].reference, direction=direction)
        if self.turn:
            generator = np.random.default_rng([self.seed, ROTATION_STREAM, step, self.shard])
            batch = rotate(batch, random_rotations(generator, shape.n_graphs))
        return Item(step, head, batch, len(graphs), tuple(self.positions), frames, self.shard)

    def _fill(self, head: int) -> tuple[list[Graph], tuple[int, ...]]:
        """Next frames of ``head``, as many as its bucket holds; always at least one, never across an epoch."""
        view = self.sources[head].view
        epoch, used = first = self.positions[head]
        order = self._order(head, epoch)
        budget = self.buckets.of_head(head)
        graphs: list[Graph] = []
        while used < len(order):
            graph = self._graph(head, int(order[used]), view, epoch)
            if graphs and not holds(budget, shape_of([*graphs, graph])):
                break
            graphs.append(graph)
            used += 1
        self.positions[head] = Position(epoch, used) if used < len(order) else Position(epoch + 1, 0)
        return graphs, tuple(order[first.used : used].tolist())

    def _order(self, head: int, epoch: int) -> NDArray[np.int64]:
        known = self._orders.get(head)
        if known is None or known[0] != epoch:
            generator = np.random.default_rng([self.seed, ORDER_STREAM, head, epoch])
            order = generator.permutation(len(self.sources[head].view))
            parts = min(self.shards, len(order))
            known = (epoch, order[self.shard % parts :: parts])
            self._orders[head] = known
        return known[1]

    def _graph(self, head: int, index: int, view: View, epoch: int) -> Graph:
        if isinstance(view, NoisyView):  # new noise in each epoch: nothing to keep
            return make_graph(view.frame_of(index, epoch), self.cutoff, self.max_neighbors)
        return self._cache.get(
            (head, index), lambda: make_graph(view.frame(index), self.cutoff, self.max_neighbors)
        )


class Draw(NamedTuple):
    """All batches of a step that this process computes, and the heads of those that others do.

    Attributes:
        step: from 0.
        heads: of all batches of the step, by part.
        items: batches of this process.
    """

    step: int
    heads: tuple[int, ...]
    items: tuple[Item, ...]


class Dealer:
    """The samplers of one process, each of which deals a part of the frames.

    Args:
        samplers: of this process, in the order of their parts.
    """

    def __init__(self, samplers: Sequence[Sampler]) -> None:
        self.samplers = list(samplers)

    def draw(self, step: int) -> Draw:
        """The batches of ``step``."""
        first = self.samplers[0]
        heads = tuple(first.draw_of(step, shard) for shard in range(first.shards))
        return Draw(step, heads, tuple(sampler.item(step) for sampler in self.samplers))

    def go_to(self, positions: Sequence[Sequence[Sequence[int]]]) -> bool:
        """Go on from the positions of all parts, [shards][heads]; False where they were of other parts.

        Then each head begins the epoch after the furthest one: no frame is left out of that.
        """
        shards = self.samplers[0].shards
        if len(positions) == shards:
            for sampler in self.samplers:
                sampler.positions = [Position(*p) for p in positions[sampler.shard]]
            return True
        for sampler in self.samplers:
            sampler.positions = [
                Position(max(part[head][0] for part in positions) + 1, 0)
                for head in range(len(sampler.sources))
            ]
        return False
