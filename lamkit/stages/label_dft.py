"""Labels by a DFT program: a task folder for each frame, several at once, each finished one kept.

Nothing is computed twice and nothing for ever: a task is over when it has labels, when its result is no good
(electronic steps that do not converge, another structure), or when it has been started as often as allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lamkit.console import Progress, log
from lamkit.data.heads import LevelOfTheory
from lamkit.data.quality import theory
from lamkit.dft import task
from lamkit.dft.pool import Runner, run_local
from lamkit.dft.program import Outcome, Program
from lamkit.stages import parts
from lamkit.stages.engine import Frames

PER_FOLDER = 1000  # tasks side by side: file systems are slow with more


@dataclass(frozen=True)
class Labeller:
    """What the data set says of where its labels come from."""

    name: str
    level: LevelOfTheory
    head: str = ""


@dataclass(frozen=True)
class Limits:
    """How long a task is tried.

    Attributes:
        attempts: how often a task may be started that leaves no result.
        timeout: seconds that one start may take; None for no limit.
    """

    attempts: int
    timeout: float | None


class Tasks:
    """Tasks of one run folder: where they are, and what came of them.

    Args:
        source: frames; labels that they have are replaced.
        program: DFT program with its settings.
        folder: ``parts`` of the run.
        limits: how long a task is tried.
    """

    def __init__(self, source: Frames, program: Program, folder: Path, limits: Limits) -> None:
        self.source, self.program, self.folder, self.limits = source, program, folder, limits

    def place(self, i: int) -> Path:
        """Folder of the task of frame ``i``."""
        return self.folder / "tasks" / f"{i // PER_FOLDER:04d}" / f"{i:07d}"

    def part(self, i: int) -> Path:
        """File with the labels of frame ``i``, or with the reason why there are none."""
        return self.folder / f"{part_name(i)}.npz"

    def is_over(self, i: int) -> bool:
        """Whether frame ``i`` is done with; its part is written if only that is missing."""
        if self.part(i).is_file():
            return True
        place = self.place(i)
        if task.state(place) in ("missing", "prepared"):
            task.prepare(self.source.frame(i), self.program, place)
        if task.has_to_run(place, self.program, self.limits.attempts):
            return False
        self._save(i, task.load(place))
        return True

    def collect(self, i: int) -> bool:
        """Read what a task that has run left; returns whether it is over."""
        place = self.place(i)
        outcome = task.collect(place, self.program, self.limits.attempts)
        over = task.state(place) == "over"
        if outcome.frame is None:
            what = "is left out" if over else "is tried again"
            log.warning("frame %d (%s) %s: %s", i, place, what, outcome.reason)
        if over:
            self._save(i, outcome)
        return over

    def give_up(self, i: int) -> None:
        """End a task that was not over after all attempts (its runner lost it)."""
        if not self.is_over(i):
            self._save(i, task.collect(self.place(i), self.program, attempts=0))

    def _save(self, i: int, outcome: Outcome) -> None:
        if outcome.frame is not None:
            parts.save_frames(self.part(i), [outcome.frame], {"failed": []})
            return
        failure = {"frame": i, "where": str(self.place(i)), "reason": outcome.reason}
        parts.save_frames(self.part(i), [], {"failed": [failure]})


def part_name(i: int) -> str:
    """Name of the part that begins with frame ``i``."""
    return f"labels-{i:08d}"


def frame_of(name: str) -> int:
    """First frame of a part."""
    return int(name.rpartition("-")[2])


def run(tasks: Tasks, frames: Iterable[int], jobs: int, runner: Runner | None = None) -> None:
    """Compute frames until each is over.

    Args:
        tasks: of the run.
        frames: indices; taken as there is room for them.
        jobs: tasks at the same time on this machine.
        runner: what runs the tasks; None for this machine.
    """
    runner = runner or partial(run_local, jobs=jobs, timeout=tasks.limits.timeout)
    with Progress(len(tasks.source), f"labels by {tasks.program.name}") as progress:
        again: list[int] = []
        counts = {"skipped": 0, "over": 0}
        for _ in range(tasks.limits.attempts):
            again = _once(tasks, frames, runner, progress, counts)
            frames = again
            if not again:
                break
        for i in again:
            tasks.give_up(i)


def _once(
    tasks: Tasks, frames: Iterable[int], runner: Runner, progress: Progress, counts: dict[str, int]
) -> list[int]:
    """Start every task that is not over; returns the frames that are still not over."""
    again: list[int] = []

    def to_run() -> Iterator[Path]:
        for i in frames:
            if tasks.is_over(i):
                counts["skipped"] += 1
                progress.first = counts["skipped"]
            else:
                yield tasks.place(i)

    for folder in runner(to_run()):
        if tasks.collect(int(folder.name)):
            counts["over"] += 1
        else:
            again.append(int(folder.name))
        progress.update(counts["skipped"] + counts["over"])
    return again


def labeller(program: Program, chunks: Iterable[Path]) -> Labeller:
    """The program with its level of theory; what an output says goes before what was asked for."""
    level = program.level()
    first = next((f for path in chunks for f in parts.load_frames(path)), None)
    known = {k: v for k, v in theory(first).items() if k in LevelOfTheory.model_fields} if first else {}
    return Labeller(program.name, level.model_copy(update=known))
