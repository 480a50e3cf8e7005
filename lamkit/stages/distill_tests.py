"""What a student is tested on: trajectories that nothing was trained on, and MD that has to be the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lamkit.console import log
from lamkit.data.frame import Frame
from lamkit.stages import explore, guards, label, parts
from lamkit.stages.distill_options import Options
from lamkit.stages.engine import load_engine, read_frames
from lamkit.stages.teacher import Teacher


class Tests:
    """Held-out trajectories of the teacher, run and labelled once, and the guards.

    Args:
        options: of the run.
        folder: where the trajectories are kept.
        teacher: runs and labels them.
        starts: structures to start from.

    Attributes:
        threshold: the force error that is good enough, eV/Å.
        data: folder of the labelled held-out frames.
    """

    def __init__(self, options: Options, folder: Path, teacher: Teacher, starts: Sequence[Frame]) -> None:
        self.o, self.folder, self.teacher, self.starts = options, folder, teacher, list(starts)
        self.data = self._explore()
        self.heldout = read_frames(self.data)
        self.threshold = self._threshold()
        self._dynamics = guards.dynamics_for(options.guards, options.dynamics)

    def _explore(self) -> Path:
        folder, o = self.folder, self.o
        seed = parts.seed_for(o.seed, "heldout")
        tasks = explore.plan(self.starts, o.test_temperatures(), seed, "heldout", o.pressures)
        engine = self.teacher.engine
        parts.remember(
            folder / "explore" / "done.json",
            lambda: explore.collect(tasks, [], engine, o.dynamics, folder / "explore", together=o.together),
        )
        source = read_frames(folder / "explore")
        parts.remember(folder / "label" / "done.json", lambda: label.label(source, engine, folder / "label"))
        return folder / "label"

    def _threshold(self) -> float:
        if self.o.criterion.forces_rmse is not None:
            return self.o.criterion.forces_rmse
        squares, count = 0.0, 0
        for i in range(len(self.heldout)):
            forces = self.heldout.frame(i).forces
            assert forces is not None
            squares, count = squares + float(np.square(forces).sum()), count + forces.size
        return float(self.o.criterion.fraction * np.sqrt(squares / count))

    def of(self, student: Path, folder: Path) -> dict[str, Any]:
        """Errors of a student on the held-out frames, and what the guards say.

        Args:
            student: run folder of its training.
            folder: where its trajectories are kept.

        Returns:
            ``heldout_…`` as :func:`lamkit.stages.student.errors`, ``threshold``, ``met`` (the upper end of the
            interval of the force error is below it) and ``guards`` (None where they are off).
        """
        from lamkit.calculator import LamCalculator
        from lamkit.stages import student as students

        found = students.errors(LamCalculator(student, device=self.o.device).predict, self.heldout)
        interval = found["forces_rmse_interval"]
        highest = max(found["forces_rmse"], interval[1] if interval else 0.0)
        return {
            **{f"heldout_{k}": v for k, v in found.items()},
            "threshold": self.threshold,
            "met": bool(highest < self.threshold),
            "guards": self._guards(student, folder) if self.o.guards.steps else None,
        }

    def _guards(self, student: Path, folder: Path) -> dict[str, Any]:
        o = self.o
        log.info("guards: MD of student and teacher, %d steps", o.guards.steps)
        pupil = load_engine(str(student), None, None, o.device)
        places = {"teacher": self.folder / "guards", "student": folder}
        rows = {
            name: guards.run_md(
                engine,
                self.starts,
                o.test_temperatures(),
                self._dynamics,
                places[name],
                seed=parts.seed_for(o.seed, "guards", name),
                together=o.together,
            )
            for name, engine in (("teacher", self.teacher.engine), ("student", pupil))
        }
        for row in rows["teacher"]:
            if row["stopped"]:
                log.warning("the teacher's own MD stopped (%(name)s, step %(steps)d: %(stopped)s)", row)
        return guards.compare(
            places["teacher"], places["student"], rows["student"], self.starts[0], self._dynamics, o.guards
        )


def converged(rows: Sequence[dict[str, Any]], wanted: int) -> bool:
    """Whether the last ``wanted`` rounds all met the criterion, and the guards let the last one pass."""
    last = rows[-wanted:]
    return len(last) == wanted and all(row["met"] for row in last) and passed(rows[-1])


def passed(row: dict[str, Any]) -> bool:
    """Whether the guards, if there are any, let the student of a round pass."""
    return row["guards"] is None or bool(row["guards"]["passed"])
