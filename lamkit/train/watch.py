"""Losses that are no numbers or that run away: the run stops, keeps the batch, and names what is likely behind it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from lamkit.console import log
from lamkit.data.batch import Batch
from lamkit.data.frame import formula
from lamkit.data.sampler import Draw, Item
from lamkit.errors import LamkitError
from lamkit.files import atomic_write

if TYPE_CHECKING:
    from lamkit.train.tasks import Task

HISTORY = 20  # gradient norms that are told
DRAWS = 21  # batches of a head whose median error counts
RUNAWAY = 1000.0  # times its smallest median: a squared error that has gone this far does not come back
FAR = 30.0  # times the usual size: a label that is this large is likely to be wrong
NEAR = 0.5  # Å: two atoms closer than this are likely to be a mistake
NAMED = 5  # frames of a batch that the message names

Predict = Callable[[Batch, int], dict[str, Any]]


class Watch:
    """Looks at every step.

    Args:
        tasks: the heads.
        out: run folder.
        last_good: makes predictions with the weights of the last checkpoint, and tells its step; None where
            there is no checkpoint.
    """

    def __init__(
        self, tasks: Sequence[Task], out: Path, last_good: Callable[[], tuple[Predict, int] | None]
    ) -> None:
        self.tasks, self.out, self.last_good = list(tasks), out, last_good
        self.norms: deque[float] = deque(maxlen=HISTORY)
        self._errors = [deque[float](maxlen=DRAWS) for _ in tasks]
        self._smallest = [math.inf] * len(self.tasks)

    def check(self, draw: Draw, values: Sequence[tuple[float, ...]]) -> None:
        """Raise where a batch of the step cannot be gone on from.

        Args:
            draw: the batches.
            values: of each: loss, gradient norm, mean squared errors of energy per atom, forces, stress.

        Raises:
            LamkitError: with the frames and the likely cause.
        """
        for shard, (head, found) in enumerate(zip(draw.heads, values, strict=True)):
            if not (math.isfinite(found[0]) and math.isfinite(found[1])):
                what = f"the loss became {found[0]:g}, the gradient norm {found[1]:g},"
                self._stop(what, draw, shard, values)
            if self._ran_away(head, found):
                self._stop(
                    f"training diverges: the errors are {RUNAWAY**0.5:.0f} times what they were",
                    draw,
                    shard,
                    values,
                )
        self.norms.append(values[0][1])

    def _ran_away(self, head: int, found: tuple[float, ...]) -> bool:
        """Whether the median squared error of the last batches of a head has left all measure."""
        errors = self._errors[head]
        errors.append(found[3] or found[2])
        if len(errors) < DRAWS:
            return False
        now = median(errors)
        self._smallest[head] = min(self._smallest[head], now)
        return now > RUNAWAY * self._smallest[head] > 0

    def _stop(self, what: str, draw: Draw, shard: int, values: Sequence[tuple[float, ...]]) -> None:
        name = self.tasks[draw.heads[shard]].name
        mine = [item for item in draw.items if item.shard == shard]
        story = (
            self._story(mine[0])
            if mine
            else f"The batch was that of part {shard}; its rank's log tells more."
        )
        norms = ", ".join(f"{n:.3g}" for n in [*self.norms, values[shard][1]])
        raise LamkitError(
            f"{what} at step {draw.step}, head {name}. {story}\nGradient norms of the last steps: {norms}. "
            f"{self._cause(mine[0] if mine else None)} The checkpoints in {self.out / 'checkpoints'} are from before."
        )

    def _story(self, item: Item) -> str:
        """Save the batch, and say which frames it holds and where the largest force error is."""
        task = self.tasks[item.head]
        place = self.out / f"diverged-batch-{item.step}.npz"
        np.savez(place, **item.batch._asdict())
        frames = [task.train.frame(i) for i in item.frames]
        names = [f"{f.source or task.train.path}, frame {f.step} ({formula(f)})" for f in frames]
        atomic_write(place.with_suffix(".txt"), "\n".join(names) + "\n")
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        text = f"Its batch is in {place} (frames: {place.with_suffix('.txt').name}): {'; '.join(names[:NAMED])}{more}."
        return text + self._largest(item, names)

    def _largest(self, item: Item, names: Sequence[str]) -> str:
        """Where the last good weights are furthest off."""
        good = self.last_good()
        if good is None:
            return ""
        predict, step = good
        batch = item.batch
        error = np.linalg.norm(predict(batch, item.head)["forces"] - batch.forces, axis=1) * (
            batch.forces_mask > 0
        )
        worst = int(np.nanargmax(error))
        graph = int(batch.node_graph[worst])
        if not error[worst] > 0 or graph >= len(names):
            return ""
        atom = worst - int(np.argmax(batch.node_graph == graph))
        return (
            f" With the weights of step {step} the largest force error in it is {error[worst]:.3g} eV/Å, on atom "
            f"{atom} of {names[graph]}, whose label is {np.linalg.norm(batch.forces[worst]):.3g} eV/Å."
        )

    def _cause(self, item: Item | None) -> str:
        """The likely cause, from the labels, the distances and the history of norms."""
        if item is not None:
            batch, scales = item.batch, self.tasks[item.head].scales
            lengths = np.linalg.norm(batch.vectors[batch.graph_mask[batch.edge_graph] > 0], axis=1)
            force = float(np.abs(batch.forces).max(initial=0.0))
            energy = float((np.abs(batch.energy - scales.mean) * batch.energy_mask).max(initial=0.0))
            look = "is it right? (lamkit data check)"
            if lengths.size and lengths.min() < NEAR:
                return f"Likely cause: two atoms {lengths.min():.2f} Å apart (lamkit data check lists such frames)."
            if force > FAR * scales.forces:
                times = force / scales.forces
                return f"Likely cause: a force of {force:.3g} eV/Å, {times:.0f} times the usual size; {look}"
            if energy > FAR * scales.energy:
                return f"Likely cause: an energy {energy:.3g} eV/atom from the mean; {look}"
        known = [n for n in self.norms if math.isfinite(n)]
        if len(known) >= 3 and max(known[-3:]) > 10 * median(known):
            return (
                "Likely cause: a learning rate too high, the norms were growing: lower train.learning_rate or "
                "train.clip_norm, or raise train.warmup_steps."
            )
        return (
            "Likely causes: a learning rate too high (train.learning_rate), or a frame with wrong labels "
            "(lamkit data check)."
        )


def from_checkpoint(
    load: Callable[[], int | None], predict: Predict
) -> Callable[[], tuple[Predict, int] | None]:
    """What :class:`Watch` calls ``last_good``.

    Args:
        load: puts the weights of the last checkpoint into the network that ``predict`` uses and returns their
            step; None where there is none.
        predict: with that network.
    """

    def look() -> tuple[Predict, int] | None:
        try:
            step = load()
        except LamkitError as error:
            log.warning("%s", error)
            return None
        return None if step is None else (predict, step)

    return look
