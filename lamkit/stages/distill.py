"""Distil: a large teacher explores and labels, a small student learns until it is good enough.

Rounds of explore → filter and choose → label → train → test on trajectories that are held out entirely (other
starts, other temperature). It ends when the force error is below the criterion, or when rounds or time run out,
which is not called convergence.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
from numpy.typing import NDArray

from lamkit import config
from lamkit.config import InputPath, Model
from lamkit.console import log
from lamkit.data.frame import SYMBOLS, Frame
from lamkit.data.selection import Limits
from lamkit.errors import UserError
from lamkit.files import replace_folder, temporary_folder
from lamkit.model.config import TrunkConfig
from lamkit.stages import distill_tables as tables
from lamkit.stages import explore, label, parts, select
from lamkit.stages.dynamics import Dynamics
from lamkit.stages.engine import (
    Engine,
    FrameList,
    enlarge,
    frames_at,
    load_engine,
    read_frames,
    resumable,
    write_data,
)
from lamkit.stages.teacher import default_head, default_starts, default_teacher, one_system
from lamkit.train.config import TrainConfig, expand_preset

# A narrow student on a few hundred frames: some minutes on a laptop.
DEFAULT_TRAIN = {
    "max_steps": 1500,
    "batch_atoms": 128,
    "learning_rate": 0.004,
    "warmup_steps": 50,
    "ema": 0.99,
    "valid_every": 250,
    "valid_frames": 32,
    "save_every": 250,
}


def _student(value: Any) -> Any:
    return value if isinstance(value, TrunkConfig) else _expanded("configs/student", value)


def _train(value: Any) -> Any:
    if isinstance(value, dict) and "preset" not in value:
        value = {**DEFAULT_TRAIN, **value}
    return value if isinstance(value, TrainConfig) else _expanded("configs/train", value)


def _expanded(kind: str, value: Any) -> dict[str, Any]:
    try:
        return expand_preset(kind, value)
    except UserError as error:
        raise ValueError(str(error)) from None


class Criterion(Model):
    """When the student is good enough, on the held-out trajectories.

    Attributes:
        forces_rmse: eV/Å against the teacher; None leaves it to ``fraction``.
        fraction: of the teacher's own root-mean-square force there.
    """

    forces_rmse: float | None = pydantic.Field(None, gt=0)
    fraction: float = pydantic.Field(0.2, gt=0)


class Heldout(Model):
    """Trajectories that only test.

    Attributes:
        n_starts: how many, from starts that are not trained on where there are enough.
        temperatures: K; each start runs at each of them.
    """

    n_starts: int = pydantic.Field(2, ge=1)
    temperatures: list[float] = pydantic.Field([450.0], min_length=1)


class Options(Model):
    """Options of ``lamkit distill``.

    Attributes:
        teacher: checkpoint or run folder; null takes ./lamkit-finetune, ./lamkit-pretrain or the sample model.
        head: head of the teacher; may be left out where there is only one.
        student: architecture of the student: a preset of ``configs/student``, or its keys.
        starts: data sets or structure files to start from; empty takes the commonest
            system of the data that the head was trained on.
        data: labelled data set (DFT, not used in training) on which both models are tested as well.
        n_starts: starting structures of each round.
        temperatures: K; each start runs at each of them.
        heldout: trajectories that only test.
        dynamics: how trajectories run.
        perturb: random copies of the starts.
        min_atoms: repeat smaller periodic cells until they have as many atoms.
        n_frames: frames chosen and labelled in each round.
        rounds: rounds at most.
        max_minutes: no round is begun after this time.
        limits: what a frame must keep to.
        criterion: when to stop.
        train: how the student is trained: a preset of ``configs/train``, or its keys.
        speed_atoms: the speed is measured on a cell of about as many atoms.
        seed: of everything random.
        device: CPU, GPU or Ascend.
        resume: go on with the run in the output folder.
    """

    teacher: InputPath | None = None
    head: str | None = None
    student: Annotated[TrunkConfig, pydantic.BeforeValidator(_student)] = pydantic.Field(
        "orb-narrow", validate_default=True
    )
    starts: list[InputPath] = pydantic.Field(default=[])
    data: InputPath | None = None
    n_starts: int = pydantic.Field(4, ge=1)
    temperatures: list[float] = pydantic.Field([300.0, 600.0], min_length=1)
    heldout: Heldout = Heldout()
    dynamics: Dynamics = Dynamics(steps=250, save_every=5, equilibrate=20)
    perturb: explore.Perturb = explore.Perturb(n=6)
    min_atoms: int = pydantic.Field(8, ge=1)
    n_frames: int = pydantic.Field(200, ge=2)
    rounds: int = pydantic.Field(3, ge=1)
    max_minutes: float | None = pydantic.Field(None, gt=0)
    limits: Limits = Limits()
    criterion: Criterion = Criterion()
    train: Annotated[TrainConfig, pydantic.BeforeValidator(_train)] = pydantic.Field(
        {}, validate_default=True
    )
    speed_atoms: int = pydantic.Field(64, ge=1)
    seed: int = pydantic.Field(0, ge=0)
    device: str = "CPU"
    resume: bool = False


def run(options: Options, out: Path) -> dict[str, Any]:
    """Distil; the run folder ``out`` ends up with the student, its data and a table of the rounds.

    Args:
        options: see :class:`Options`.
        out: run folder.

    Returns:
        ``converged``, ``rounds``, ``speed``, ``true_labels`` and the paths of checkpoint and data.
    """
    out = Path(out)
    finished = parts.begin(out, options, options.resume, "distill")
    if finished is not None:
        return finished
    began = time.monotonic()
    with resumable(out, "distill"):
        work = _Distillation(options, out)
        rounds: list[dict[str, Any]] = []
        while len(rounds) < options.rounds and not (rounds and rounds[-1]["converged"]):
            if rounds and options.max_minutes and time.monotonic() - began > 60 * options.max_minutes:
                log.info("no further round: %g minutes are over", options.max_minutes)
                break
            rounds.append(work.round(len(rounds)))
        work.keep(rounds)
        result = work.result(rounds)
    log.info("%s", tables.summary(result))
    return parts.finish(out, result)


class _Distillation:
    """Teacher, starts and held-out trajectories of one run, loaded once."""

    def __init__(self, options: Options, out: Path) -> None:
        from lamkit.train import checkpoint

        self.o, self.out = options, out
        path = options.teacher or default_teacher()
        self.teacher = checkpoint.read(path)
        head = options.head or default_head(self.teacher, given=options.teacher is not None)
        self.engine: Engine = load_engine(str(path), head, None, options.device)
        log.info("teacher: %s, %s", self.engine.name, ", ".join(self.engine.calculator.elements))  # type: ignore[attr-defined]
        self.sources = [read_frames(f) for f in options.starts]
        self._check_elements()
        parts.start(out, options)
        if not self.sources:
            cache = out / "parts" / "sample"
            self.sources = [one_system(default_starts(self.teacher, self.engine.head, cache))]
        tests = options.heldout.n_starts
        total = sum(len(s) for s in self.sources)
        order = np.random.default_rng(parts.seed_for(options.seed, "starts")).permutation(total)
        self.tests = self._starts(order[:tests])
        self.pool = order[tests:] if total > tests else order  # few structures: other seeds must do
        self.heldout = read_frames(self._explore_heldout())

    def _check_elements(self) -> None:
        """Every start is made of elements that the teacher's head knows, before any time is spent."""
        known = set(self.teacher.elements[self.engine.head])
        for path, source in zip(self.o.starts, self.sources, strict=True):
            for i in range(len(source)):
                unknown = {SYMBOLS[z] for z in source.frame(i).numbers} - known
                if unknown:
                    raise UserError(
                        f"{path}, frame {i}: {', '.join(sorted(unknown))}: head '{self.engine.head}' of "
                        f"{self.teacher.path} knows {', '.join(sorted(known))}. Take another head, other "
                        "starts, or fine-tune the head on such data first"
                    )

    # -- one round --------------------------------------------------------------------------------

    def round(self, r: int) -> dict[str, Any]:
        """Explore, choose, label, train, test; finished steps of an earlier attempt are not repeated."""
        return parts.remember(self.out / "parts" / f"round-{r}.json", lambda: self._round(r))

    def _round(self, r: int) -> dict[str, Any]:
        log.info("round %d of at most %d", r + 1, self.o.rounds)
        began, folder = time.monotonic(), self._folder(r)
        explored = parts.remember(folder / "explore" / "done.json", lambda: self._explore(r))
        chosen = parts.remember(folder / "select" / "done.json", lambda: self._select(r))
        candidates = read_frames(folder / "explore")
        frames = FrameList([candidates.frame(i) for i in chosen["indices"]])
        labelled = parts.remember(
            folder / "label" / "done.json", lambda: label.label(frames, self.engine, folder / "label")
        )
        n_frames = self._gather(r)
        trained = parts.remember(folder / "student" / "done.json", lambda: self._train(r))
        found = self._test(folder / "student")
        threshold = self.threshold(found)
        row = {
            "round": r + 1,
            "candidates": explored["n_frames"],
            "stopped_trajectories": sum(explored["stopped"].values()),
            "dropped": chosen["dropped"],
            "chosen": labelled["n_frames"],
            "frames": n_frames,
            "redundancy": chosen["redundancy"],
            "steps": trained["steps"],
            **{f"heldout_{k}": v for k, v in found.items()},
            "threshold": threshold,
            "converged": bool(found["forces_rmse"] < threshold),
            "seconds": round(time.monotonic() - began, 1),
        }
        log.info("%s", tables.sentence(row))
        return row

    def _explore(self, r: int) -> dict[str, Any]:
        o = self.o
        places = np.arange(r * o.n_starts, (r + 1) * o.n_starts) % len(self.pool)
        starts = self._starts(self.pool[np.unique(places)])
        seed = parts.seed_for(o.seed, "round", r)
        tasks = explore.plan(starts, o.temperatures, seed, prefix=f"round{r}")
        copies = explore.perturbed(starts, o.perturb, seed, o.dynamics, prefix=f"round{r}")
        return explore.collect(tasks, copies, self.engine, o.dynamics, self._folder(r) / "explore")

    def _explore_heldout(self) -> Path:
        """Trajectories for testing, run and labelled by the teacher once."""
        folder, o = self.out / "parts" / "heldout", self.o
        seed = parts.seed_for(o.seed, "heldout")
        tasks = explore.plan(self.tests, o.heldout.temperatures, seed, prefix="heldout")
        parts.remember(
            folder / "explore" / "done.json",
            lambda: explore.collect(tasks, [], self.engine, o.dynamics, folder / "explore"),
        )
        source = read_frames(folder / "explore")
        parts.remember(
            folder / "label" / "done.json", lambda: label.label(source, self.engine, folder / "label")
        )
        return folder / "label"

    def _select(self, r: int) -> dict[str, Any]:
        folder = self._folder(r)
        source = read_frames(folder / "explore")
        taken = [read_frames(self._folder(k) / "label") for k in range(r)]
        calculator: Any = self.engine.calculator
        chosen, choice, dropped = select.choose(
            source, calculator, self.o.n_frames, self.o.limits, taken, folder / "select"
        )
        log.info("%s", select.in_words(len(source), dropped, choice))
        return {"indices": [int(i) for i in chosen], "dropped": dict(dropped), **select.spread(choice)}

    def _gather(self, r: int) -> int:
        """Data of this round: all that was labelled so far, a part of it for choosing the best weights.

        The frames are diverse by choice, so that single ones may validate; whole trajectories test.
        """
        sets = [read_frames(self._folder(k) / "label") for k in range(r + 1)]
        total = sum(len(s) for s in sets)
        order = np.random.default_rng(parts.seed_for(self.o.seed, "valid", r)).permutation(total)
        n_valid = min(max(1, round(self.o.train.valid_fraction * total)), total - 1)
        folder, title = self._folder(r) / "data", f"labelled by {self.engine.name}"
        for part, indices in (("valid", order[:n_valid]), ("train", order[n_valid:])):
            frames = (frames_at(sets, [int(i)])[0] for i in np.sort(indices))
            write_data(frames, folder / part, self.engine, title)
        return total

    def _train(self, r: int) -> dict[str, Any]:
        from lamkit.stages import student

        return student.fit(
            self._folder(r) / "data",
            student.head_for(self.engine, self.teacher),
            self.o.student,
            self.o.train,
            self._folder(r) / "student",
            warm=self._folder(r - 1) / "student" if r else None,
            device=self.o.device,
            resolved={**config.dump(self.o), "teacher": str(self.teacher.path), "head": self.engine.head},
        )

    def _test(self, path: Path) -> dict[str, Any]:
        from lamkit.calculator import LamCalculator
        from lamkit.stages import student

        return student.errors(LamCalculator(path, device=self.o.device), self.heldout)

    def threshold(self, found: dict[str, Any]) -> float:
        """The force error that is good enough, eV/Å."""
        if self.o.criterion.forces_rmse is not None:
            return self.o.criterion.forces_rmse
        return float(self.o.criterion.fraction * found["forces_rms_target"])

    # -- the end ----------------------------------------------------------------------------------

    def keep(self, rounds: list[dict[str, Any]]) -> None:
        """Put the best student, all training data and the held-out data where users look for them."""
        best = min(range(len(rounds)), key=lambda r: rounds[r]["heldout_forces_rmse"])
        student = self._folder(best) / "student"
        for source, target in (
            (student / "checkpoints" / "best", self.out / "checkpoints" / "best"),
            (self._folder(len(rounds) - 1) / "data", self.out / "data"),
            (self.out / "parts" / "heldout" / "label" / "data", self.out / "heldout"),
        ):
            temporary = temporary_folder(target)
            shutil.copytree(source, temporary, dirs_exist_ok=True)
            replace_folder(temporary, target)
        for name in ("lcurve.out", "metrics.csv", "train.log", "versions.json"):
            if (student / name).is_file():
                shutil.copy2(student / name, self.out / name)

    def result(self, rounds: list[dict[str, Any]]) -> dict[str, Any]:
        """Everything that was measured."""
        from lamkit.calculator import LamCalculator
        from lamkit.stages import speed

        best = min(rounds, key=lambda row: row["heldout_forces_rmse"])
        student = LamCalculator(self.out / "checkpoints" / "best", device=self.o.device)
        teacher: Any = self.engine.calculator
        start = enlarge(max(self.tests, key=len), self.o.speed_atoms)
        measured = speed.compare({"teacher": teacher, "student": student}, start)
        models = measured["models"]
        return {
            "checkpoint": str(self.out / "checkpoints" / "best"),
            "data": str(self.out / "data"),
            "heldout": str(self.out / "heldout"),
            "teacher": str(self.teacher.path),
            "head": self.engine.head,
            "converged": bool(best["converged"]),
            "rounds": rounds,
            "best_round": best["round"],
            "forces_rmse": best["heldout_forces_rmse"],
            "energy_rmse": best["heldout_energy_rmse"],
            "threshold": best["threshold"],
            "parameters": {"teacher": teacher.n_parameters, "student": student.n_parameters},
            "speed": {
                **measured,
                "ratio": round(models["teacher"]["ms_per_step"] / models["student"]["ms_per_step"], 2),
            },
            "true_labels": self._true_errors(student),
        }

    def _true_errors(self, student_calculator: Any) -> dict[str, Any] | None:
        """Errors of teacher and student against the user's own labels."""
        if self.o.data is None:
            return None
        from lamkit.stages import student

        source = read_frames(self.o.data)
        return {
            "teacher": student.errors(self.engine.calculator, source),  # type: ignore[arg-type]
            "student": student.errors(student_calculator, source),
        }

    def _folder(self, r: int) -> Path:
        return self.out / "parts" / f"round-{r}"

    def _starts(self, indices: NDArray[np.int64]) -> list[Frame]:
        return [enlarge(f, self.o.min_atoms) for f in frames_at(self.sources, indices.tolist())]
