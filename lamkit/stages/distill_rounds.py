"""One round of a distillation: explore, choose, label, train, test; each finished step is a part on disk."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamkit import config
from lamkit.console import log
from lamkit.data.frame import Frame
from lamkit.data.selection import why_not
from lamkit.errors import UserError
from lamkit.stages import deviation, explore, label, parts, select
from lamkit.stages import distill_tables as tables
from lamkit.stages.distill_options import Options
from lamkit.stages.distill_tests import Tests
from lamkit.stages.engine import (
    Engine,
    FrameList,
    Frames,
    enlarge,
    frames_at,
    load_engine,
    read_frames,
    write_data,
)
from lamkit.stages.perturb import perturbed
from lamkit.stages.teacher import Teacher

INSTEAD = "teacher"  # folder of the teacher's exploration where the student's left nothing


class Rounds:
    """The rounds of one run.

    Args:
        options: of the run.
        out: run folder.
        teacher: what explores and labels.
        sources: starting structures.
        pool: indices into ``sources`` of those that may be trained on.
        tests: what each student is tested on.
    """

    def __init__(
        self,
        options: Options,
        out: Path,
        teacher: Teacher,
        sources: list[Frames],
        pool: NDArray[np.int64],
        tests: Tests,
    ) -> None:
        self.o, self.out, self.teacher = options, out, teacher
        self.sources, self.pool, self.tests = sources, pool, tests

    def run(self, r: int) -> dict[str, Any]:
        """Round ``r``, from 0; what an earlier attempt finished is not repeated."""
        return parts.remember(self.out / "parts" / f"round-{r}.json", lambda: self._run(r))

    def folder(self, r: int) -> Path:
        """Folder of a round."""
        return self.out / "parts" / f"round-{r}"

    def _run(self, r: int) -> dict[str, Any]:
        log.info("round %d of at most %d", r + 1, self.o.rounds)
        began, folder = time.monotonic(), self.folder(r)
        explored = parts.remember(folder / "explore" / "done.json", lambda: self._explore(r))
        chosen = parts.remember(folder / "select" / "done.json", lambda: self._select(r))
        candidates = self._candidates(r)
        frames = FrameList([candidates.frame(i) for i in chosen["indices"]])
        labelled = parts.remember(
            folder / "label" / "done.json",
            lambda: label.label(frames, self.teacher.engine, folder / "label", extra=self.o.extra()),
        )
        kept = parts.remember(folder / "kept.json", lambda: self._keep(r))
        n_frames = self._gather(r)
        trained = parts.remember(folder / "student" / "done.json", lambda: self._train(r))
        found = self.tests.of(folder / "student", folder / "guards")
        row = {
            "round": r + 1,
            "explorer": explored["explorer"],
            "candidates": explored["n_frames"],
            "stopped_trajectories": sum(explored["stopped"].values()),
            "dropped": chosen["dropped"],
            "labelled": labelled["n_frames"],
            "chosen": len(kept["indices"]),
            "accurate": kept.get("accurate"),
            "deviation_mean": kept.get("deviation_mean"),
            "deviation_max": kept.get("deviation_max"),
            "frames": n_frames,
            "redundancy": chosen["redundancy"],
            "steps": trained["steps"],
            **found,
            "seconds": round(time.monotonic() - began, 1),
        }
        log.info("%s", tables.sentence(row))
        return row

    def _explore(self, r: int) -> dict[str, Any]:
        """By the student of the round before, which goes where it is wrong; by the teacher in the first round."""
        o = self.o
        # Where there are few structures, several trajectories start from one, with other velocities.
        places = np.arange(r * o.n_starts, (r + 1) * o.n_starts) % len(self.pool)
        starts = self._starts(self.pool[places])
        seed, prefix = parts.seed_for(o.seed, "round", r), f"round{r}"
        tasks = explore.plan(starts, o.temperatures, seed, prefix, o.pressures)
        copies = perturbed(starts, o.perturb, seed, o.dynamics.limits, prefix)
        out = self.folder(r) / "explore"
        if r and o.explorer == "student":
            try:
                found = explore.collect(
                    tasks, copies, self._student(r - 1), o.dynamics, out, together=o.together
                )
                return {**found, "explorer": "student"}
            except UserError as error:
                log.warning("the student cannot explore yet (%s); the teacher does", error)
                out = out / INSTEAD
        found = explore.collect(tasks, copies, self.teacher.engine, o.dynamics, out, together=o.together)
        return {**found, "explorer": "teacher"}

    def _candidates(self, r: int) -> Frames:
        folder = self.folder(r) / "explore"
        return read_frames(folder / INSTEAD if (folder / INSTEAD / "data").is_dir() else folder)

    def _student(self, r: int) -> Engine:
        return load_engine(str(self.folder(r) / "student"), None, None, self.o.device)

    def _select(self, r: int) -> dict[str, Any]:
        """Sane and diverse candidates; more than are wanted where the student's errors choose among them."""
        folder, o = self.folder(r), self.o
        source = self._candidates(r)
        taken = [read_frames(self.folder(k) / "label") for k in range(r)]
        features = self.teacher.features
        wanted = round(o.checked * o.n_frames) if r else o.n_frames
        chosen, choice, dropped = select.choose(
            source,
            features,
            wanted,
            o.limits,
            taken,
            folder / "select",
            method=o.method or ("entropy" if features is None else "farthest"),
            seed=parts.seed_for(o.seed, "select", r),
        )
        log.info("%s", select.in_words(len(source), dropped, choice))
        if r and len(chosen) < wanted:
            chosen = self._filled(r, chosen, source, wanted)
        return {"indices": [int(i) for i in chosen], "dropped": dict(dropped), **select.spread(choice)}

    def _filled(self, r: int, chosen: NDArray[np.int64], source: Frames, wanted: int) -> NDArray[np.int64]:
        """``chosen`` and sane others at random, for the student's errors to choose among.

        It may be wrong where no structure is new.
        """
        found = chosen.tolist()
        rng = np.random.default_rng(parts.seed_for(self.o.seed, "fill", r))
        for i in rng.permutation(np.setdiff1d(np.arange(len(source)), chosen)).tolist():
            if len(found) < wanted and why_not(source.frame(i), self.o.limits) is None:
                found.append(i)
        log.info("%d more at random, for the student's errors to choose among", len(found) - len(chosen))
        return np.array(found, dtype=np.int64)

    def _keep(self, r: int) -> dict[str, Any]:
        """The labelled frames that are trained on: all sane ones, later those where the student is most wrong."""
        from lamkit.calculator import LamCalculator

        source = read_frames(self.folder(r) / "label")
        if r == 0:
            found = deviation.choose(np.zeros(len(source)), source, len(source), self.o.limits, 0.0)
            kept = {k: found[k] for k in ("indices", "insane")}
        else:
            student = LamCalculator(self.folder(r - 1) / "student", device=self.o.device)
            deviations = deviation.force_deviations(student, source)
            kept = deviation.choose(deviations, source, self.o.n_frames, self.o.limits, self.tests.threshold)
            log.info("%s", tables.deviations(kept))
        if not kept["indices"] and r == 0:
            raise UserError(f"none of {len(source)} labelled frames keeps to the limits; widen 'limits'")
        return kept

    def _gather(self, r: int) -> int:
        """Data of this round: all that was kept so far, a part of it for choosing the best weights.

        The frames are diverse by choice, so that single ones may validate; whole trajectories test.
        """
        sets: list[Frames] = []
        for k in range(r + 1):
            source = read_frames(self.folder(k) / "label")
            kept = parts.remember(self.folder(k) / "kept.json", lambda k=k: self._keep(k))  # type: ignore[misc]
            sets.append(FrameList([source.frame(i) for i in kept["indices"]]))
        total = sum(len(s) for s in sets)
        order = np.random.default_rng(parts.seed_for(self.o.seed, "valid", r)).permutation(total)
        n_valid = min(max(1, round(self.o.train.valid_fraction * total)), total - 1)
        folder, title = self.folder(r) / "data", f"labelled by {self.teacher.engine.name}"
        for part, indices in (("valid", order[:n_valid]), ("train", order[n_valid:])):
            frames = (frames_at(sets, [int(i)])[0] for i in np.sort(indices))
            write_data(frames, folder / part, self.teacher.engine, title)
        return total

    def _train(self, r: int) -> dict[str, Any]:
        from lamkit.stages import student

        resolved = {**config.dump(self.o), "teacher": self.teacher.path, "head": self.teacher.head}
        return student.fit(
            self.folder(r) / "data",
            self.teacher.student_head(self.sources),
            self.o.student,
            self.o.train,
            self.folder(r) / "student",
            warm=self.folder(r - 1) / "student" if r else None,
            device=self.o.device,
            resolved=resolved,
        )

    def _starts(self, indices: NDArray[np.int64]) -> list[Frame]:
        return [enlarge(f, self.o.min_atoms) for f in frames_at(self.sources, indices.tolist())]
