"""The training loop: draw, step, now and then log, validate, save; in one process or in each of several."""

from __future__ import annotations

import math
import time
import zlib
from collections import deque
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamkit.console import Progress, log
from lamkit.data.buckets import measure
from lamkit.data.plan import make_plan
from lamkit.data.sampler import Dealer, Draw, Sampler, Source
from lamkit.errors import Interrupted
from lamkit.model.build import build
from lamkit.model.inference import Predictor
from lamkit.train import checkpoint, schedule, start
from lamkit.train.checkpoint import Checkpoint
from lamkit.train.early import refuse_unknown_heads
from lamkit.train.interrupt import StopSignal
from lamkit.train.judge import Judge, stale
from lamkit.train.prefactors import Prefactors
from lamkit.train.prefetch import prefetch
from lamkit.train.saving import Saver
from lamkit.train.standing import Recent, Standing
from lamkit.train.step import TrainStep
from lamkit.train.stepper import Stepper, Taken
from lamkit.train.surroundings import calibrate
from lamkit.train.tasks import describe
from lamkit.train.validate import Validator
from lamkit.train.watch import Watch, from_checkpoint
from lamkit.train.world import World

if TYPE_CHECKING:
    from lamkit.train.run import Run

ADDED = 8  # unplanned shapes of each rank that a checkpoint remembers


class Trainer:
    """The state of one run in memory.

    Args:
        run: what to train.
        resume: go on from the newest checkpoint.
        world: the processes that train together.
    """

    def __init__(self, run: Run, resume: bool, world: World | None = None) -> None:
        self.r, self.world = run, world or World()
        self.c = c = run.config
        self.names = names = [t.name for t in run.tasks]
        self.shards = self.world.size * c.accumulate
        start.refuse_unfit(run)
        refuse_unknown_heads(c, names)
        near, own = (run.trunk.cutoff, run.trunk.max_neighbors), c.head_batch_atoms
        needs = [
            measure(t.train, *near, own.get(t.name, c.batch_atoms), c.seed, c.batch_edges) for t in run.tasks
        ]
        self.plan, self.buckets = make_plan(
            {t.name: t.train for t in run.tasks}, needs, exponent=c.sampling_exponent, weights=c.weights,
            epochs=c.epochs, steps=c.max_steps, draws=self.shards, seed=c.seed, own=own,
        )  # fmt: skip
        if c.epochs is not None:
            log.info(
                "train.epochs: %d steps follow; train.max_steps (%d) is not used",
                self.plan.steps,
                c.max_steps,
            )
            self.c = c = c.model_copy(update={"max_steps": self.plan.steps})
        log.info("%s", describe(list(run.tasks), self.plan))
        self.potential, self.average = (build(run.trunk, names, seed=c.seed) for _ in range(2))
        for network in (self.potential, self.average):
            start.begin(network, run)
        calibrate(self.potential, self.average, run.tasks, run.start, c.seed)
        self.dealer = Dealer([self._sampler(k) for k in range(c.accumulate)])
        self.step = TrainStep(self.potential, self.average, c)
        terms, stress = self.step.objective.loss.names, run.trunk.stress
        prefactors = [Prefactors(c.loss, t.name, t.head.loss, terms, stress=stress) for t in run.tasks]
        networks = (self.potential, self.average)
        self.stepper = Stepper(run.tasks, c, self.step, networks, prefactors, self.world)
        self.predictor = Predictor(self.average)
        self.at, self.recent = Standing.at_start(len(names)), Recent(len(names))
        self._times: deque[float] = deque(maxlen=1000)  # seconds of the last steps
        self._positions: NDArray[np.int64] | None = (
            None  # of the samplers of this process, [shards, heads, 2]
        )
        self.saver = Saver(run.out, c.keep, clear=self.world.size == 1)
        if resume:
            self._resume()
        self._agree()
        self.watch = Watch(run.tasks, run.out, from_checkpoint(self._load_last, self.predictor.predict))
        keep = self.at.step if self.at.step else None
        curved = bool(c.loss.hessian)
        validator = Validator(run.tasks, self.buckets, run.trunk, c.valid_frames, curved=curved)
        self.judge = Judge(run, self.plan, validator, self.predictor, keep) if self.world.leader else None

    def _sampler(self, k: int) -> Sampler:
        run, c = self.r, self.c
        return Sampler(
            [Source(t.name, t.train, t.reference.reference) for t in run.tasks],
            self.plan.chances,
            self.buckets,
            cutoff=run.trunk.cutoff,
            max_neighbors=run.trunk.max_neighbors,
            seed=c.seed,
            turn=c.rotate,
            cache_mb=c.cache_mb // c.accumulate,
            shard=self.world.rank * c.accumulate + k,
            shards=self.shards,
        )

    def _resume(self) -> None:
        at = start.resume(self.r, self.saver, (self.average, self.potential), self.step, self.dealer)
        if at is None:
            log.info("%s: nothing was saved yet; the run begins at step 0", self.r.out)
            return
        self.at = at
        self.recent.load(at.recent)
        if len(at.shapes) == self.world.size:
            self.buckets.restore(at.shapes[self.world.rank])
        log.info("resuming %s at step %d", self.r.out, at.step)
        if len(at.sampler) != self.shards:
            log.warning(
                "the run was saved by %d ranks × batches per step, now there are %d: each head begins a new epoch",
                len(at.sampler), self.shards,
            )  # fmt: skip

    def _agree(self) -> None:
        """All ranks must have the same weights, normalisers and references, and stand at the same step."""
        weights = 0
        for name, value in sorted(self.average.state().items()):
            weights = zlib.crc32(np.ascontiguousarray(value).tobytes(), zlib.crc32(name.encode(), weights))
        references = 0
        for task in self.r.tasks:
            references = zlib.crc32(task.reference.reference.tobytes(), references)
        frames = sum(len(t.train) for t in self.r.tasks)
        self.world.agree(
            {"weights": weights, "references": references, "frames": frames, "step": self.at.step}
        )

    def _load_last(self) -> int | None:
        """The averaged weights of the last checkpoint, into the network that predictions are made with."""
        if not (self.saver.folder / "last").is_dir():
            return None
        saved = checkpoint.read(self.saver.folder / "last")
        start.load_heads(self.average, saved, self.names)
        return int(saved.state["step"])

    # -- the loop ---------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """The loop; only the leader's result says anything."""
        began, first = time.monotonic() - 60 * self.at.minutes, self.at.step
        with StopSignal() as stop:  # also while the network is compiled for the first validation
            if first == 0:
                self._validate(began, 0.0)
            self._steps(began, stop)
            if self.at.validated != self.at.step:  # else stopped early, or a finished run that was resumed
                self._validate(began, schedule.learning_rate(self.at.step, 1.0, self.c))
            self._save()
        return self._result(time.monotonic() - began, first) if self.judge is not None else {}

    def _steps(self, began: float, stop: StopSignal) -> None:
        """Steps until the run is over.

        Args:
            began: when it did, on the monotonic clock.
            stop: asked after each step.

        Raises:
            Interrupted: it was asked to stop; everything is saved.
        """
        first, c = self.at.step, self.c
        over = stale(self.at, c)
        batches = prefetch(self.dealer.draw, first, first if over else c.max_steps)
        with Progress(c.max_steps, "step") as bar:
            bar.first = first
            try:
                for draw in batches:
                    minutes = self._minutes(began)
                    if c.max_minutes is not None and minutes >= c.max_minutes:
                        break
                    rate = schedule.learning_rate(draw.step, schedule.progress(draw.step, minutes, c), c)
                    clock = (time.monotonic() - began) / 60
                    taken = self.stepper(draw, rate, self.at.head_steps, clock, over, stop.received)
                    self._times.append((time.monotonic() - began) - 60 * clock)
                    self.watch.check(draw, taken.values)
                    self._advance(draw, taken)
                    bar.update(self.at.step, self._text(), left=self._time_left(minutes))
                    if self.at.step % c.log_every == 0:
                        log.debug("step %d: %s, lr %.2e", self.at.step, self.recent.text(self.names), rate)
                    last = self.at.step >= c.max_steps
                    if self.at.step % c.valid_every == 0 and not last:
                        self._validate(began, rate)
                        over = self.judge is not None and stale(self.at, c)
                    if (stop.received if self.world.size == 1 else taken.stop) and not last:
                        self._save()
                        raise Interrupted(f"saved at step {self.at.step}; go on with {self.r.resume_hint}")
                    if self.at.step % c.save_every == 0 and not last:
                        self._save(numbered=True)
                    if over if self.world.size == 1 else taken.over:
                        log.info("stopping: %s validations since the best one (train.patience)", c.patience)
                        break
            finally:
                batches.close()

    def _minutes(self, began: float) -> float:
        """Wall time; with several ranks that of the leader, as of the last step, so that all decide alike."""
        return (time.monotonic() - began) / 60 if self.world.size == 1 else self.at.minutes

    def _advance(self, draw: Draw, taken: Taken) -> None:
        self.at.step, self.at.minutes = draw.step + 1, taken.minutes
        for head in set(draw.heads):
            self.at.head_steps[head] += 1
        for head, values in zip(draw.heads, taken.values, strict=True):
            self.at.draws[head] += 1
            self.recent.add(head, values)
        self._positions = np.array([item.positions for item in draw.items], dtype=np.int64)

    def _time_left(self, minutes: float) -> float | None:
        return None if self.c.max_minutes is None else 60 * max(self.c.max_minutes - minutes, 0.0)

    def _text(self) -> str:
        best = "" if math.isinf(self.at.best) else f"best {self.at.best:.3f}, "
        return best + self.recent.short(self.names)

    # -- validating and saving --------------------------------------------------------------------

    def _validate(self, began: float, rate: float) -> None:
        if self.judge is None:
            self.recent.reset()
            self.at.validated = self.at.step
        elif self.judge.validate(self.at, self.recent, time.monotonic() - began, rate):
            self.saver.best(self._checkpoint())

    def _save(self, numbered: bool = False) -> None:
        """Write ``last``, and ``step-N`` where those are kept; all ranks must call it, the leader writes."""
        if self._positions is not None:  # else no step was taken since the checkpoint that was read
            self.at.sampler = np.concatenate(self.world.gather(self._positions)).tolist()
            added = np.zeros((ADDED, 3), np.int64)
            for place, shape in zip(added, self.buckets.added, strict=False):
                place[:] = shape
            self.at.shapes = [[s for s in part.tolist() if s[0]] for part in self.world.gather(added)]
        if self.judge is None:
            return
        saved, optimizer = self._checkpoint(), self.step.state()
        self.saver.last(saved, optimizer)
        if numbered:
            self.saver.step(saved, optimizer, self.at.step)

    def _checkpoint(self) -> Checkpoint:
        weights = self.average.state()
        references = {t.name: t.reference.reference for t in self.r.tasks}
        heads = {t.name: t.head for t in self.r.tasks}
        elements = {t.name: list(t.elements) for t in self.r.tasks}
        if (begun := self.r.start) is not None:
            for head in self.r.kept:
                weights |= {k: v for k, v in begun.weights.items() if k.startswith(f"heads.{head}.")}
                references[head], heads[head] = begun.references[head], begun.head_configs[head]
                elements[head] = begun.elements[head]
            for task in self.r.tasks:
                if task.name in begun.elements:
                    elements[task.name] = sorted({*elements[task.name], *begun.elements[task.name]})
        self.at.recent = self.recent.dump()
        state = self.at.to_json()
        return Checkpoint(
            self.r.out,
            self.r.trunk,
            tuple(references),
            weights,
            references,
            heads,
            elements,
            self.r.resolved,
            state,
        )

    def _result(self, seconds: float, first: int) -> dict[str, Any]:
        best = self.at.best_errors or self.at.errors
        return {
            "checkpoint": str(checkpoint.locate(self.r.out)),
            "steps": self.at.step,
            "best_step": self.at.best_step,
            "score": None if math.isinf(self.at.best) else self.at.best,
            "seconds": round(seconds, 1),
            "steps_per_second": round((self.at.step - first) / max(seconds, 1e-9), 3),
            "parameters": int(sum(p.size for p in self.step.trunk) + sum(p.size for p in self.step.heads)),
            "heads": best,
            "first": self.at.first_errors,
            "last": self.at.errors,
            "chances": self.plan.chances,
            "epochs": {n: round(self.plan.epochs(n), 3) for n in self.names},
            "ranks": self.world.size,
            "step_milliseconds": round(1000 * median(self._times), 2) if self._times else None,
            "shapes": [list(s) for s in self.buckets.shapes],
        }
