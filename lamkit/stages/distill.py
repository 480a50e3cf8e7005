"""Distil: a large teacher explores and labels, a small student learns until it is good enough.

Rounds of explore → filter and choose → label → train → test. The first round explores with the teacher, later ones
with the student, and there those frames are added on which the two disagree most. It ends when on trajectories that
are held out entirely (other starts, other temperature) the force error has been below the criterion for two rounds
and the student's MD is the teacher's; or when rounds or time run out, which is not called convergence.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamkit.console import log
from lamkit.data.frame import SYMBOLS, Frame
from lamkit.errors import UserError
from lamkit.files import replace_folder, temporary_folder
from lamkit.model.config import DeepPotConfig
from lamkit.stages import distill_tables as tables
from lamkit.stages import extra_labels, parts, student
from lamkit.stages.distill_options import DEFAULT_TRAIN, Options
from lamkit.stages.distill_rounds import Rounds
from lamkit.stages.distill_tests import Tests, converged, passed
from lamkit.stages.engine import (
    FAILURES,
    Engine,
    Frames,
    elements_of,
    enlarge,
    evaluate,
    frames_at,
    read_frames,
    reason,
    resumable,
)
from lamkit.stages.teacher import Teacher, default_starts, load_teacher, one_system

if TYPE_CHECKING:
    from lamkit.calculator import LamCalculator

__all__ = ["DEFAULT_TRAIN", "Options", "run"]

FEW = 4  # starting structures, below which all of them start both training and tests
# Options that say when to stop and what to report: a run that ended without convergence goes on with other ones.
BUDGET = ("rounds", "max_minutes", "criterion.rounds", "data")


def run(options: Options, out: Path) -> dict[str, Any]:
    """Distil; the run folder ``out`` ends up with the student, its data and a table of the rounds.

    Args:
        options: see :class:`Options`.
        out: run folder.

    Returns:
        ``converged``, ``rounds``, ``speed``, ``true_labels`` and the paths of checkpoint and data.
    """
    out = Path(out)
    finished = parts.begin(out, options, options.resume, "distill", may_change=BUDGET)
    if finished is not None:
        return finished
    began = time.monotonic()
    with resumable(out, "distill"):
        teacher = load_teacher(options.teacher, options.head, options.calculator, options.device)
        extra_labels.refuse_unable(teacher.engine, options.extra())
        sources = _sources(options, teacher, out)
        order = np.random.default_rng(parts.seed_for(options.seed, "starts")).permutation(
            sum(map(len, sources))
        )
        held, pool = _dealt(order, options.heldout.n_starts)
        starts = [enlarge(f, options.min_atoms) for f in frames_at(sources, held.tolist())]
        tests = Tests(options, out / "parts" / "heldout", teacher, starts)
        rounds = Rounds(options, out, teacher, sources, pool, tests)
        rows = _loop(options, rounds, began)
        _keep(out, rounds, rows, tests)
        result = {**_result(options, out, teacher, rows, starts), "lammps": _exported(options, out)}
    log.info("%s", tables.summary(result))
    return parts.finish(out, result)


def _sources(options: Options, teacher: Teacher, out: Path) -> list[Frames]:
    """The starting structures; the run folder is made once they are known to suit the teacher."""
    sources = [read_frames(f) for f in options.starts]
    if not (out / parts.PLAN).is_file():
        for path, source in zip(options.starts, sources, strict=True):
            teacher.check(str(path), source)
    if sources:
        _refuse_strangers(options.data, sources)
    elif teacher.checkpoint is None:
        raise UserError("no starting structures: an ASE calculator does not bring any; --starts PATH")
    parts.start(out, options)
    if not sources and teacher.checkpoint is not None:
        sources = [one_system(default_starts(teacher.checkpoint, teacher.head, out / "parts" / "sample"))]
        _refuse_strangers(options.data, sources)
    return sources


def _refuse_strangers(data: str | None, sources: Sequence[Frames]) -> None:
    """Refuse to test on elements that the student will not know, before it is made.

    Raises:
        UserError: which elements these are.
    """
    if data is None:
        return
    known = set().union(*map(elements_of, sources))
    if strange := sorted(elements_of(read_frames(data)) - known):
        raise UserError(
            f"{data}: holds {', '.join(SYMBOLS[z] for z in strange)}, which no starting structure does, so the student "
            "will not know it. Take other data, or starts with these elements"
        )


def _dealt(order: NDArray[np.int64], n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Structures that test and those that may be trained on, at least half of all.

    Where there are fewer than ``n`` to test with, some start several trajectories. Of less than :data:`FEW`
    structures none is held out, because the student of one cell does not know another; the tests then are other
    trajectories, at temperatures that are never trained at.
    """
    if len(order) < FEW:
        log.info(
            "%d starting structure(s): training and tests start from the same, at other temperatures",
            len(order),
        )
        return order[np.arange(n) % len(order)], order
    held = min(n, len(order) // 2)
    return order[np.arange(n) % held], order[held:]


def _loop(options: Options, rounds: Rounds, began: float) -> list[dict[str, Any]]:
    """Rounds until one of the three ends."""
    rows: list[dict[str, Any]] = []
    while len(rows) < options.rounds and not converged(rows, options.criterion.rounds):
        if rows and options.max_minutes and time.monotonic() - began > 60 * options.max_minutes:
            log.info("no further round: %g minutes are over", options.max_minutes)
            break
        rows.append(rounds.run(len(rows)))
    return rows


def _best(rows: Sequence[dict[str, Any]]) -> int:
    """The round with the smallest error, of those that the guards let pass if there are any."""
    return min(range(len(rows)), key=lambda r: (not passed(rows[r]), rows[r]["heldout_forces_rmse"]))


def _keep(out: Path, rounds: Rounds, rows: Sequence[dict[str, Any]], tests: Tests) -> None:
    """Put the best student, all training data and the held-out data where users look for them."""
    best, data = rounds.folder(_best(rows)) / "student", rounds.folder(len(rows) - 1) / "data"
    for source, target in (
        (best / "checkpoints" / "best", out / "checkpoints" / "best"),
        (data, out / "data"),
        (tests.data / "data", out / "heldout"),
    ):
        temporary = temporary_folder(target)
        shutil.copytree(source, temporary, dirs_exist_ok=True)
        if target.name == "best":
            student.write_example(data / "train", temporary)
        replace_folder(temporary, target)
    for name in ("lcurve.out", "metrics.csv", "train.log", "versions.json"):
        if (best / name).is_file():
            shutil.copy2(best / name, out / name)


def _result(
    options: Options, out: Path, teacher: Teacher, rows: list[dict[str, Any]], starts: Sequence[Frame]
) -> dict[str, Any]:
    """Everything that was measured."""
    from lamkit.calculator import LamCalculator
    from lamkit.stages import speed

    best = rows[_best(rows)]
    pupil = LamCalculator(out / "checkpoints" / "best", device=options.device)
    both: dict[str, Any] = {"teacher": teacher.engine.calculator, "student": pupil}
    measured = speed.compare(both, enlarge(max(starts, key=len), options.speed_atoms))
    times = {name: found["ms_per_step"] for name, found in measured["models"].items()}
    ratio = round(times["teacher"] / times["student"], 2) if len(times) == len(both) else None
    return {
        "checkpoint": str(out / "checkpoints" / "best"),
        "data": str(out / "data"),
        "heldout": str(out / "heldout"),
        "teacher": teacher.path,
        "head": teacher.head,
        "converged": converged(rows, options.criterion.rounds),
        "wanted_rounds": options.criterion.rounds,
        "rounds": rows,
        "best_round": best["round"],
        "forces_rmse": best["heldout_forces_rmse"],
        "energy_rmse": best["heldout_energy_rmse"],
        "threshold": best["threshold"],
        "guards": best["guards"],
        "parameters": {name: getattr(model, "n_parameters", None) for name, model in both.items()},
        "speed": {**measured, "ratio": ratio},
        "true_labels": _true_errors(options, teacher.engine, pupil),
    }


def _exported(options: Options, out: Path) -> str | None:
    """The input for LAMMPS, with the model and a structure beside it; None for a student that it cannot run."""
    if not isinstance(options.student, DeepPotConfig):
        return None
    from lamkit.stages import export_deepmd

    export_deepmd.run(out, None, out / "lammps" / "student.dp")
    return str(out / "lammps" / export_deepmd.INPUT)


def _true_errors(options: Options, teacher: Engine, pupil: LamCalculator) -> dict[str, Any] | None:
    """Errors of teacher and student against the user's own labels; without those of a teacher that fails there."""
    if options.data is None:
        return None
    source, found = read_frames(options.data), {}
    try:
        found["teacher"] = student.errors(lambda atoms: evaluate(teacher, atoms), source)
    except FAILURES as error:
        log.warning("%s: the teacher cannot be tested on it (%s)", options.data, reason(error))
    return {**found, "student": student.errors(pupil.predict, source)}
