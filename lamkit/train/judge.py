"""Validation of a run: errors of every head, the records of them, which checkpoint is the best, when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamkit.console import duration, log, table
from lamkit.data.plan import Plan
from lamkit.model.inference import Predictor
from lamkit.train.board import Board
from lamkit.train.config import TrainConfig
from lamkit.train.records import EXTRA, LearningCurve, MetricsFile, write_versions
from lamkit.train.standing import Recent, Standing
from lamkit.train.validate import Validator, score

if TYPE_CHECKING:
    from lamkit.train.run import Run
    from lamkit.train.tasks import Task

SHOWN = ("energy_mae", "forces_mae", "forces_rmse", "stress_mae")
HEADERS = ("E MAE meV/atom", "F MAE meV/Å", "F RMSE meV/Å", "stress MAE meV/Å³")
EXTRA_HEADERS = {"atom_energies_rmse": "E of atoms RMSE meV", "hessian_rmse": "Hv RMSE meV/Å²"}
LAST_HEADERS = ("train F RMSE", "epochs")
IDLE = 0.98  # of the root-mean-square force: an error that every network has that predicts no forces
IDLE_DRAWS = 400  # batches after which a head must have learned something
CALM = 0.1  # eV/Å; of forces that are smaller than this on average little may be known for long
SURE = 2.0  # standard errors by which fine-tuning must be better than its start


class Judge:
    """Validates, writes what it finds to the run folder and the terminal, and compares with the best.

    Args:
        run: the run.
        plan: for the batches of an epoch.
        validator: holds the validation frames.
        predictor: of the averaged weights.
        keep_until: records up to this step stay (a resumed run); None begins them anew.
    """

    def __init__(
        self, run: Run, plan: Plan, validator: Validator, predictor: Predictor, keep_until: int | None
    ) -> None:
        self.r, self.plan, self.validator, self.predictor = run, plan, validator, predictor
        self.names = [t.name for t in run.tasks]
        out = run.out
        write_versions(out)
        columns = [(t.name, t.valid is not None) for t in run.tasks]
        extra = [term for term in EXTRA if getattr(run.config.loss, term)]
        self.extra = [EXTRA[term][1] for term in extra]
        self.curve = LearningCurve(out / "lcurve.out", columns, extra=extra, keep_until=keep_until)
        self.metrics = MetricsFile(out / "metrics.csv", extra=extra, keep_until=keep_until)
        self.board = Board(out / "tensorboard", keep_until) if run.config.tensorboard else None

    def validate(self, at: Standing, recent: Recent, seconds: float, rate: float) -> bool:
        """Errors of all heads into ``at`` and the records; whether this is the best so far.

        Args:
            at: where the run stands.
            recent: training errors since the last time, then forgotten.
            seconds: wall time of the run.
            rate: learning rate.
        """
        errors = self.validator.errors(self.predictor)
        step, trained = at.step, recent.rmse(self.names)
        for name, of_head in errors.items():
            self.metrics.write(step, name, "valid", of_head, seconds)
        valid = {
            n: tuple(_nan(e.get(k)) for k in ("forces_rmse", "energy_rmse", "forces_rmse", *self.extra))
            for n, e in errors.items()
        }
        self.curve.write(step, valid, trained, rate)
        found = score(errors, self.r.judges)
        if self.board is not None:
            self.board.write(step, errors, trained, rate, found)
        recent.reset()
        at.errors, at.validated = errors, step
        if not step:
            at.first_errors = errors
            at.first_squares = {t.name: self.validator.squares.get(t.name, []) for t in self._guarded()}
        rows = [
            (
                name, *(_milli(e[quantity]) for quantity in SHOWN), *(_milli(e.get(k)) for k in self.extra),
                _milli(trained[name][2] if name in trained else None),
                f"{at.draws[self.names.index(name)] / self.plan.batches[name]:.2f}",
            )
            for name, e in errors.items()
        ]  # fmt: skip
        log.info(
            "validation  after %s, score %.3f\n%s",
            duration(seconds),
            found,
            table(rows, (f"step {step}", *HEADERS, *(EXTRA_HEADERS[k] for k in self.extra), *LAST_HEADERS)),
        )
        for name in self._idle(errors, at):
            log.warning(
                "%s: forces are no better than none (%.0f of %.0f meV/Å): the network does not learn; a lower "
                "train.learning_rate (now %g) is the usual cure", name, 1000 * errors[name]["forces_rmse"],
                1000 * errors[name]["forces_rms_target"], self.r.config.learning_rate,
            )  # fmt: skip
        if found < at.lowest:
            at.lowest, at.lowest_step = found, step
        better = math.isnan(found) or (found < at.best and self._none_worse(errors, at))
        if not better or not (step or self.r.tuned):
            return False
        at.best, at.best_step = (found if math.isfinite(found) else math.inf), step
        at.best_errors = errors
        return True

    def _idle(self, errors: Mapping[str, Any], at: Standing) -> list[str]:
        """Heads whose forces are worth nothing after many batches."""
        return [
            name
            for name, e in errors.items()
            if at.draws[self.names.index(name)] >= IDLE_DRAWS
            and e["forces_rmse"] is not None
            and e["forces_rmse"] > IDLE * e["forces_rms_target"] > IDLE * CALM
        ]

    def _guarded(self) -> list[Task]:
        """Heads that must not get worse: those that fine-tuning is about.

        Pre-training that goes on may lose a little on one of its many heads for what it wins on the others.
        """
        return self.r.judges if self.r.tuned and self.r.judged is not None else []

    def _none_worse(self, errors: Mapping[str, Any], at: Standing) -> bool:
        """Whether no guarded head has larger errors of the forces (of energies without forces) than at first.

        Few validation frames get better by chance, and others worse: what one head at least has won must be more than
        its own standard error over the frames (after the rule of Breiman et al., Classification and Regression Trees,
        1984; twice, since many checkpoints are looked at), see :func:`won`.
        """
        sure = []
        for task in self._guarded():
            now, first = errors.get(task.name), at.first_errors.get(task.name)
            if now is None or first is None:
                continue
            column, label = (1, "energy_rmse") if first["forces_rmse"] is None else (0, "forces_rmse")
            if not now[label] <= first[label]:
                return False
            before, after = (
                np.array(squares.get(task.name, []), float).reshape(-1, 2)[:, column]
                for squares in (at.first_squares, self.validator.squares)
            )
            if len(before) == len(after) > 1:  # else nothing tells what is chance
                sure.append(won(before, after))
        return at.step == 0 or not sure or any(sure)


def won(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    """Whether squared errors of the same frames, ``[n]`` each, fell by more than chance (:data:`SURE`).

    The ratio of their means and its standard error (Cochran, Sampling Techniques, 3rd ed., 1977, section 6.4). Errors
    of single frames differ by orders of magnitude and fall in proportion; the standard error of their difference
    would be that of the largest frame, which hides what all have won.
    """
    if not before.any():
        return False
    ratio = after.mean() / before.mean()
    error = (after - ratio * before).std(ddof=1) / (math.sqrt(len(before)) * before.mean())
    return bool(ratio + SURE * error < 1.0)


def stale(at: Standing, config: TrainConfig) -> bool:
    """Whether validations have not become better for as long as ``train.patience`` allows.

    A score that falls counts here even before it is surely better than the start: it may become so.
    """
    if config.patience is None or math.isinf(at.best):
        return False
    return at.step - max(at.best_step, at.lowest_step) >= config.patience * config.valid_every


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _milli(value: float | None) -> str:
    return "–" if value is None else f"{1000 * value:.4g}"
