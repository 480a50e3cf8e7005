"""The training loop of every verb: pre-training, fine-tuning and the student of a distillation."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from lamkit import config as configuration
from lamkit.console import Progress, duration, log, log_off, log_to, table
from lamkit.data.batch import require_conditions
from lamkit.data.buckets import Buckets, measure
from lamkit.data.denoise import NoisyView
from lamkit.data.sampler import Position, Sampler, Source, probabilities
from lamkit.errors import Interrupted, LamkitError, UserError
from lamkit.files import require_writable
from lamkit.model.base import Headed
from lamkit.model.build import build
from lamkit.model.config import Architecture
from lamkit.model.inference import Predictor
from lamkit.model.runtime import setup
from lamkit.train import checkpoint, normalizing, schedule
from lamkit.train.checkpoint import Checkpoint
from lamkit.train.config import TrainConfig
from lamkit.train.interrupt import StopSignal
from lamkit.train.prefactors import Prefactors, refuse_unknown_heads
from lamkit.train.prefetch import prefetch
from lamkit.train.records import LearningCurve, MetricsFile, write_versions
from lamkit.train.saving import Saver
from lamkit.train.standing import Recent, Standing
from lamkit.train.step import TrainStep
from lamkit.train.surroundings import calibrate, settled
from lamkit.train.tasks import Task, describe
from lamkit.train.validate import Validator, score


@dataclass
class Run:
    """What stays the same during a run.

    Attributes:
        tasks: heads that are trained, in the order of the network.
        trunk: architecture.
        config: training options.
        out: run folder.
        start: checkpoint that the weights come from, or None.
        init: head → head of ``start`` that its weights come from; None: random.
        judged: heads whose validation errors choose the best checkpoint; None: all.
        resolved: complete configuration, for ``config.yaml``.
        device: CPU, GPU or Ascend.
        resume_hint: command that goes on with this run.
    """

    tasks: Sequence[Task]
    trunk: Architecture
    config: TrainConfig
    out: Path
    start: Checkpoint | None = None
    init: dict[str, str | None] = field(default_factory=dict)
    judged: Sequence[str] | None = None
    resolved: dict[str, Any] = field(default_factory=dict)
    device: str = "CPU"
    resume_hint: str = "the same command with --resume"

    @property
    def judges(self) -> list[Task]:
        """Tasks whose errors choose the best checkpoint."""
        return [t for t in self.tasks if self.judged is None or t.name in self.judged]

    @property
    def tuned(self) -> bool:
        """Whether the heads that are judged have been trained before, so that the start may be the best."""
        return all(self.init.get(t.name) is not None for t in self.judges)

    @property
    def kept(self) -> list[str]:
        """Heads of ``start`` that this run does not train."""
        names = {t.name for t in self.tasks}
        return [] if self.start is None else [h for h in self.start.heads if h not in names]


def train(run: Run, *, resume: bool = False) -> dict[str, Any]:
    """Train and return the result; everything is written to ``run.out``.

    Args:
        run: what to train.
        resume: go on from ``checkpoints/last`` in ``run.out`` where there is one.

    Returns:
        steps, best and last errors per head (eV units), steps per second, path of the best checkpoint.

    Raises:
        UserError: the checkpoint to resume from does not fit.
        Interrupted: Ctrl-C; everything is saved.
        LamkitError: the loss is not a number any more, or the disk is full.
    """
    setup(run.device)
    require_writable(run.out)
    configuration.write_yaml(run.out / "config.yaml", run.resolved)  # first of all: --resume needs it
    handler = log_to(run.out / "train.log")
    try:
        start = run.start.trunk if run.start is not None else None
        trunk = settled(run.trunk, run.tasks, start, run.config.seed)
        return _Trainer(replace(run, trunk=trunk), resume).run()
    except OSError as error:
        raise LamkitError(
            f"{error.filename or run.out}: {error.strerror or error}; the run cannot go on. The checkpoints in "
            f"{run.out / 'checkpoints'} are whole: mend this, then go on with {run.resume_hint}"
        ) from error
    finally:
        log_off(handler)


class _Trainer:
    """The state of one run in memory."""

    def __init__(self, run: Run, resume: bool) -> None:
        self.r, self.c = run, run.config
        self.names = names = [t.name for t in run.tasks]
        frames = {t.name: len(t.train) for t in run.tasks}
        self.chances = probabilities(frames, exponent=self.c.sampling_exponent, weights=self.c.weights)
        log.info("%s", describe(list(run.tasks), self.chances, self.c.max_steps))
        self.potential = build(run.trunk, names, seed=self.c.seed)
        self.average = build(run.trunk, names, seed=self.c.seed)
        for network in (self.potential, self.average):
            self._start_from(network)
            self._set_scales(network)
        calibrate(self.potential, self.average, run.tasks, run.start, self.c.seed)
        needs = [
            measure(t.train, run.trunk.cutoff, run.trunk.max_neighbors, self.c.batch_atoms, self.c.seed)
            for t in run.tasks
        ]
        self.buckets = Buckets(needs, [self.chances[n] for n in names])
        self.sampler = Sampler(
            [Source(t.name, t.train, t.reference.reference) for t in run.tasks],
            self.chances,
            self.buckets,
            cutoff=run.trunk.cutoff,
            max_neighbors=run.trunk.max_neighbors,
            seed=self.c.seed,
            turn=self.c.rotate,
            cache_mb=self.c.cache_mb,
        )
        self.validator = Validator(run.tasks, self.buckets, run.trunk, self.c.valid_frames)
        self.step = TrainStep(self.potential, self.average, self.c)
        refuse_unknown_heads(self.c.loss, names)
        if self.c.denoise is not None and not all(isinstance(t.train, NoisyView) for t in run.tasks):
            raise UserError("train.denoise: only 'lamkit pretrain' trains on noise; then start from it with --from")
        terms, stress = self.step.objective.loss.names, run.trunk.stress
        self.prefactors = [
            Prefactors(self.c.loss, t.name, t.head.loss, terms, stress=stress) for t in run.tasks
        ]
        self.predictor = Predictor(self.average)
        self.at = Standing.at_start(len(names))
        self.recent = Recent(len(names))
        self.saver = Saver(run.out, self.c.keep)
        if resume:
            self._resume()
        self._open_records()

    # -- starting ---------------------------------------------------------------------------------

    def _start_from(self, network: Headed) -> None:
        """Weights of ``start``: the trunk, and for each head those of the head it begins as."""
        if self.r.start is None:
            return
        source = self.r.start.weights
        weights = {name: value for name, value in source.items() if not name.startswith("heads.")}
        for task in self.r.tasks:
            origin = self.r.init.get(task.name)
            for name, value in source.items():
                if origin is not None and name.startswith(f"heads.{origin}."):
                    weights[f"heads.{task.name}." + name.removeprefix(f"heads.{origin}.")] = value
        try:
            network.load_state(weights, strict=False)
        except UserError as error:
            raise UserError(f"{self.r.start.path}: {error}") from None

    def _set_scales(self, network: Headed) -> None:
        """Normalisers from the data; a head that continues keeps its own, which its weights belong to."""
        for task in self.r.tasks:
            if self.r.init.get(task.name) is not None:
                continue
            normalizing.fit(network, task)

    def _resume(self) -> None:
        found = self.saver.newest()
        if found is None:
            log.info("%s: nothing was saved yet; the run begins at step 0", self.r.out)
            return
        saved, optimizer = found
        folder = saved.path
        names = tuple(t.name for t in self.r.tasks)
        if saved.trunk != self.r.trunk or tuple(saved.heads[: len(names)]) != names:
            raise UserError(
                f"{folder}: was trained with another trunk or other heads ({', '.join(saved.heads)}); "
                "resume with the configuration in config.yaml beside it, or choose another --out"
            )
        for network in (self.average, self.potential):  # of the second, the trained weights come next
            network.load_state(_of_heads(saved, names))
        try:
            self.step.load_state(optimizer)
        except KeyError as error:
            raise UserError(
                f"{folder}: optimizer state {error} is missing; start with --from instead"
            ) from None
        self.at = Standing.of_json(saved.state)
        self.recent.load(self.at.recent)
        self.sampler.positions = [Position(*p) for p in self.at.sampler]
        log.info("resuming %s at step %d", self.r.out, self.at.step)

    def _open_records(self) -> None:
        out, keep = self.r.out, (self.at.step if self.at.step else None)
        write_versions(out)
        columns = [(t.name, t.valid is not None) for t in self.r.tasks]
        self.curve = LearningCurve(out / "lcurve.out", columns, keep_until=keep)
        self.metrics = MetricsFile(out / "metrics.csv", keep_until=keep)

    # -- the loop ---------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """The loop: draw, step, now and then log, validate, save."""
        began, first, c = time.monotonic() - 60 * self.at.minutes, self.at.step, self.c
        if first == 0:
            self._validate(began, 0.0)
        over = self._stale()
        batches = prefetch(self.sampler.item, first, first if over else c.max_steps)
        with StopSignal() as stop, Progress(c.max_steps, "step") as bar:
            bar.first = first
            try:
                for item in batches:
                    minutes = (time.monotonic() - began) / 60
                    done = schedule.progress(item.step, minutes, c)
                    if c.max_minutes is not None and minutes >= c.max_minutes:
                        break
                    rate = schedule.learning_rate(item.step, done, c)
                    values = self._one(item, rate)
                    self._check(values, item)
                    self.recent.add(item.head, values)
                    self._advance(item, minutes)
                    bar.update(self.at.step, self._best_text(), left=self._time_left(minutes))
                    if self.at.step % c.log_every == 0:
                        log.debug(
                            "step %d: %s, lr %.2e",
                            self.at.step,
                            self.recent.text(self.names),
                            rate,
                        )
                    if self.at.step % c.valid_every == 0 and self.at.step < c.max_steps:
                        self._validate(began, rate)
                        over = self._stale()
                    if stop.received and self.at.step < c.max_steps:
                        self._save_last()
                        raise Interrupted(f"saved at step {self.at.step}; go on with {self.r.resume_hint}")
                    if self.at.step % c.save_every == 0 and self.at.step < c.max_steps:
                        self._save_last()
                        self.saver.step(self._checkpoint(), self.step.state(), self.at.step)
                    if over:
                        log.info("stopping: %d validations since the best one (train.patience)", c.patience)
                        break
            finally:
                batches.close()
        if self.at.validated != self.at.step:  # else stopped early, or a finished run that was resumed
            self._validate(began, schedule.learning_rate(self.at.step, 1.0, c))
        self._save_last()
        return self._result(time.monotonic() - began, first)

    def _one(self, item: Any, rate: float) -> tuple[float, ...]:
        """One optimizer step; returns loss, gradient norm and mean squared errors."""
        head, c, task = item.head, self.c, self.r.tasks[item.head]
        if self.r.trunk.conditioning:
            require_conditions(item.batch)
        if c.normalizers == "online":
            normalizing.observe((self.potential, self.average), task.name, item.batch)
        numbers = (
            rate,
            c.beta1 ** (item.step + 1),
            c.beta2 ** (item.step + 1),
            c.beta1 ** (self.at.head_steps[head] + 1),
            c.beta2 ** (self.at.head_steps[head] + 1),
            schedule.ema_decay(item.step, c),
        )
        units = (task.scales.energy, task.scales.forces, task.scales.stress)
        outputs = self.step(
            Tensor(head, ms.int32),
            Tensor(np.array(numbers), ms.float32),
            Tensor(self.prefactors[head].at(schedule.rate_fraction(item.step, rate, c))),
            Tensor(np.array(units), ms.float32),
            *self.step.objective.tensors(item.batch),
        )
        return tuple(float(v.asnumpy()) for v in outputs)

    def _check(self, values: tuple[float, ...], item: Any) -> None:
        if math.isfinite(values[0]) and math.isfinite(values[1]):
            return
        place = self.r.out / "diverged-batch.npz"
        np.savez(place, **item.batch._asdict())
        raise LamkitError(
            f"the loss became {values[0]} at step {item.step}, head {self.r.tasks[item.head].name}; the batch "
            f"is in {place}. Likely causes: a learning rate too high (train.learning_rate), or a frame with "
            "wrong labels (lamkit data check). checkpoints/last is from before this step"
        )

    def _advance(self, item: Any, minutes: float) -> None:
        self.at.step = item.step + 1
        self.at.minutes = minutes
        self.at.head_steps[item.head] += 1
        self.at.sampler = [tuple(p) for p in item.positions]

    def _time_left(self, minutes: float) -> float | None:
        return None if self.c.max_minutes is None else 60 * max(self.c.max_minutes - minutes, 0.0)

    def _best_text(self) -> str:
        return "" if math.isinf(self.at.best) else f"best {self.at.best:.3f}"

    # -- validating and saving --------------------------------------------------------------------

    def _validate(self, began: float, rate: float) -> None:
        errors = self.validator.errors(self.predictor)
        seconds, step = time.monotonic() - began, self.at.step
        for name, of_head in errors.items():
            self.metrics.write(step, name, "valid", of_head, seconds)
        valid = {
            n: (_nan(e["forces_rmse"]), _nan(e["energy_rmse"]), _nan(e["forces_rmse"]))
            for n, e in errors.items()
        }
        self.curve.write(step, valid, self.recent.rmse(self.names), rate)
        self.recent.reset()
        self.at.errors, self.at.validated = errors, step
        if not step:
            self.at.first_errors = errors
        found = score(errors, self.r.judges)
        shown = ("energy_mae", "forces_mae", "forces_rmse", "stress_mae")
        rows = [(name, *(_milli(e[quantity]) for quantity in shown)) for name, e in errors.items()]
        headers = (f"step {step}", "E MAE meV/atom", "F MAE meV/Å", "F RMSE meV/Å", "stress MAE meV/Å³")
        log.info("%s  after %s, score %.3f\n%s", "validation", duration(seconds), found, table(rows, headers))
        better = math.isnan(found) or (found < self.at.best and self._none_worse(errors))
        if better and (step or self.r.tuned):
            self.at.best, self.at.best_step = (found if math.isfinite(found) else math.inf), step
            self.at.best_errors = errors
            self.saver.best(self._checkpoint())

    def _none_worse(self, errors: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether no head that was tuned has larger force errors (energy errors without forces) than at first."""
        for task in self.r.judges if self.r.tuned else ():
            now, first = errors.get(task.name), self.at.first_errors.get(task.name)
            if now is None or first is None:
                continue
            label = "energy_rmse" if first["forces_rmse"] is None else "forces_rmse"
            if not now[label] <= first[label]:
                return False
        return True

    def _stale(self) -> bool:
        """Whether validations have not become better for as long as ``train.patience`` allows."""
        if self.c.patience is None or math.isinf(self.at.best):
            return False
        return self.at.step - self.at.best_step >= self.c.patience * self.c.valid_every

    def _save_last(self) -> None:
        self.saver.last(self._checkpoint(), self.step.state())

    def _checkpoint(self) -> Checkpoint:
        weights = self.average.state()
        references = {t.name: t.reference.reference for t in self.r.tasks}
        heads = {t.name: t.head for t in self.r.tasks}
        elements = {t.name: list(t.elements) for t in self.r.tasks}
        if (start := self.r.start) is not None:
            for head in self.r.kept:
                weights |= {k: v for k, v in start.weights.items() if k.startswith(f"heads.{head}.")}
                references[head], heads[head] = start.references[head], start.head_configs[head]
                elements[head] = start.elements[head]
            for task in self.r.tasks:
                if task.name in start.elements:
                    elements[task.name] = sorted({*elements[task.name], *start.elements[task.name]})
        self.at.recent = self.recent.dump()
        return Checkpoint(
            self.r.out,
            self.r.trunk,
            tuple(references),
            weights,
            references,
            heads,
            elements,
            self.r.resolved,
            self.at.to_json(),
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
            "chances": self.chances,
            "shapes": [list(s) for s in self.buckets.shapes],
        }


def _of_heads(saved: Checkpoint, names: Sequence[str]) -> dict[str, Any]:
    wanted = tuple(f"heads.{n}." for n in names)
    return {k: v for k, v in saved.weights.items() if not k.startswith("heads.") or k.startswith(wanted)}


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _milli(value: float | None) -> str:
    return "–" if value is None else f"{1000 * value:.4g}"
