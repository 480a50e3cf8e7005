"""One optimizer step from several batches: of several ranks, or of one process that accumulates them.

Each batch belongs to one head. What is minimised is the mean of the batches' losses, so the gradient is the mean
of their gradients, where a batch of one head adds nothing to the others. Everything that has to be known in
common travels in **one** flat buffer per step:

    [ gradient of the trunk | slots × gradient of a head | one row for each batch | row of the leader ]

A slot belongs to a head, or, where there are fewer batches than heads, to the first batch of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from numpy.typing import NDArray

from lamkit.train.step import TrainStep
from lamkit.train.world import World

VALUES = 4  # of each batch: loss, mean squared errors of energy per atom, forces, stress


class Share(NamedTuple):
    """One batch of a step.

    Attributes:
        shard: which of the step's batches it is.
        head: its head.
        weights: of the loss's terms.
        units: of the errors.
        tensors: from the objective.
    """

    shard: int
    head: int
    weights: Tensor
    units: Tensor
    tensors: tuple[Tensor, ...]


class Outcome(NamedTuple):
    """What every rank knows after a step.

    Attributes:
        values: loss, gradient norm of the step, mean squared errors, for each batch of the step.
        leader: numbers that the leader sent.
        stop: whether any rank wants to stop.
        moments: what each batch told of itself, [shards, n].
    """

    values: list[tuple[float, ...]]
    leader: NDArray[np.float32]
    stop: bool
    moments: NDArray[np.float32]


class Layout(NamedTuple):
    """Lengths of the parts of the buffer."""

    trunk: int
    slots: int
    head: int
    shards: int
    told: int
    leader: int

    @property
    def gradients(self) -> int:
        """Length of all gradients."""
        return self.trunk + self.slots * self.head


class Gradient(nn.Cell):
    """Gradients and errors of one batch, added to what there is in the buffer."""

    def __init__(self, step: TrainStep, layout: Layout) -> None:
        super().__init__(auto_prefix=False)
        self.inner = step
        self.part = 1.0 / layout.shards

    def construct(
        self,
        total: Tensor,
        slot: Tensor,
        row: Tensor,
        head: Tensor,
        weights: Tensor,
        units: Tensor,
        *batch: Tensor,
    ) -> Tensor:
        """``total`` [buffer less the host's rows] with this batch in it.

        Args:
            total: so far.
            slot: [slots], 1 at the slot of the head.
            row: [shards], 1 at the row of the batch.
            head: scalar int32.
            weights: of the loss's terms.
            units: of the errors.
            batch: from the objective.
        """
        slices = self.inner.objective.potential.head_slices(head)
        outputs, of_slices, of_trunk = self.inner.differentiate(slices, head, weights, units, *batch)
        parts = ()
        for gradient in of_trunk:
            parts = (*parts, ops.reshape(gradient, (-1,)))  # type: ignore[assignment]  # graph mode
        flat = ()
        for gradient in of_slices:
            flat = (*flat, ops.reshape(gradient, (-1,)))  # type: ignore[assignment]  # graph mode
        of_head = ops.expand_dims(ops.concat(flat), 0) * ops.expand_dims(slot, 1)
        found = ops.concat((*parts, ops.reshape(of_head, (-1,)))) * self.part
        values = ops.expand_dims(ops.stack(outputs), 0) * ops.expand_dims(row, 1)
        return total + ops.concat((found, ops.reshape(values, (-1,))))


class ApplyTrunk(nn.Cell):
    """Clip the mean gradient and move the trunk."""

    def __init__(self, step: TrainStep, layout: Layout) -> None:
        super().__init__(auto_prefix=False)
        self.inner = step
        self.places = _places([p.shape for p in step.trunk])

    def construct(self, flat: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Norm of the gradient and the factor of clipping.

        Args:
            flat: [gradients].
            numbers: as in ``TrainStep.construct``.
        """
        norm = ops.sqrt(ops.square(flat).sum())
        scale = self.inner.clipping(norm)
        gradients = ()
        for first, size, shape in self.places:
            gradients = (*gradients, ops.reshape(flat[first : first + size], shape))  # type: ignore[assignment]  # graph mode
        norm = self.inner.update_trunk(norm, gradients, scale, numbers)
        return norm, scale


class ApplyHead(nn.Cell):
    """Move one head that was drawn."""

    def __init__(self, step: TrainStep, layout: Layout) -> None:
        super().__init__(auto_prefix=False)
        self.inner, self.first, self.matrix = step, layout.trunk, (layout.slots, layout.head)
        self.places = _places([p.shape[1:] for p in step.heads])

    def construct(self, flat: Tensor, slot: Tensor, head: Tensor, scale: Tensor, numbers: Tensor) -> Tensor:
        """Anything.

        Args:
            flat: [gradients].
            slot: scalar int32, where the gradient of the head is.
            head: scalar int32.
            scale: factor of clipping.
            numbers: as in ``TrainStep.construct``.
        """
        of_heads = ops.reshape(flat[self.first :], self.matrix)
        mine = ops.gather(of_heads, slot, 0)
        gradients = ()
        for first, size, shape in self.places:
            gradients = (*gradients, ops.reshape(mine[first : first + size], shape))  # type: ignore[assignment]  # graph mode
        slices = self.inner.objective.potential.head_slices(head)
        return self.inner.update_head(scale, head, slices, gradients, scale, numbers)


def _places(shapes: Sequence[tuple[int, ...]]) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    """First element, number of elements and shape of arrays that lie one behind another."""
    found, first = [], 0
    for shape in shapes:
        size = int(np.prod(shape, dtype=np.int64))
        found.append((first, size, tuple(shape)))
        first += size
    return tuple(found)


class ParallelStep:
    """One step from the batches of all ranks.

    Args:
        step: the network, its averages and its moments.
        world: the ranks.
        shards: batches of a step, over all ranks.
        n_heads: of the network.
        told: numbers that each batch tells the others.
        leader: numbers that the leader tells the others.
    """

    def __init__(
        self, step: TrainStep, world: World, shards: int, n_heads: int, told: int, leader: int
    ) -> None:
        self.world, self.n_heads = world, n_heads
        sizes = [
            sum(int(np.prod(p.shape[first:], dtype=np.int64)) for p in group)
            for first, group in ((0, step.trunk), (1, step.heads))
        ]
        self.layout = Layout(sizes[0], min(n_heads, shards), sizes[1], shards, told, leader)
        self.gradient = Gradient(step, self.layout)
        self.trunk, self.head = ApplyTrunk(step, self.layout), ApplyHead(step, self.layout)

    def slot(self, head: int, heads: Sequence[int]) -> int:
        """Slot of a head, where ``heads`` are those of all batches of the step."""
        return head if self.layout.slots == self.n_heads else list(heads).index(head)

    def __call__(
        self,
        shares: Sequence[Share],
        heads: Sequence[int],
        numbers: Any,
        told: NDArray[np.floating],
        leader: NDArray[np.floating],
        stop: bool,
    ) -> Outcome:
        """Take the step.

        Args:
            shares: batches of this rank.
            heads: of all batches of the step.
            numbers: head → numbers of ``TrainStep.construct``, for each that was drawn.
            told: [shares, told] of this rank's batches.
            leader: what the leader tells; of no meaning elsewhere.
            stop: whether this rank wants to stop.

        Raises:
            LamkitError: a rank is gone.
        """
        layout = self.layout
        total = Tensor(np.zeros(layout.gradients + layout.shards * VALUES, np.float32))
        row_of = np.eye(layout.shards, dtype=np.float32)
        slot_of = np.eye(layout.slots, dtype=np.float32)
        for share in shares:
            total = self.gradient(
                total, Tensor(slot_of[self.slot(share.head, heads)]), Tensor(row_of[share.shard]),
                Tensor(share.head, ms.int32), share.weights, share.units, *share.tensors,
            )  # fmt: skip
        host = np.zeros(layout.shards * layout.told + layout.leader + 1, np.float32)
        rows = host[: layout.shards * layout.told].reshape(layout.shards, layout.told)
        for share, numbers_of in zip(shares, told, strict=True):
            rows[share.shard] = numbers_of
        if self.world.leader:
            host[-layout.leader - 1 : -1] = leader
        host[-1] = stop
        total = self.world.sum(ops.cat((total, Tensor(host))))
        return self._apply(total, heads, numbers)

    def _apply(self, total: Tensor, heads: Sequence[int], numbers: Any) -> Outcome:
        layout = self.layout
        flat = total[: layout.gradients]
        drawn = list(dict.fromkeys(heads))
        norm, scale = self.trunk(flat, numbers[drawn[0]])
        for head in drawn:
            slot = Tensor(self.slot(head, heads), ms.int32)
            self.head(flat, slot, Tensor(head, ms.int32), scale, numbers[head])
        rest = total[layout.gradients :].asnumpy()
        values = rest[: layout.shards * VALUES].reshape(layout.shards, VALUES)
        told = rest[layout.shards * VALUES :][: layout.shards * layout.told]
        size = float(norm.asnumpy())
        return Outcome(
            [(float(v[0]), size, *(float(x) for x in v[1:])) for v in values],
            rest[-layout.leader - 1 : -1],
            bool(rest[-1] > 0),
            told.reshape(layout.shards, layout.told),
        )
