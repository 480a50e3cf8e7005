"""Labels by a DFT program: a task folder for each frame, several at once, each finished one kept.

Nothing is computed twice and nothing for ever: a task is over when it has labels, when its result is no good
(electronic steps that do not converge, another structure), or when it has been started as often as allowed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lamkit.console import Progress, log
from lamkit.data.frame import Frame
from lamkit.data.heads import LevelOfTheory
from lamkit.data.quality import theory
from lamkit.dft import task
from lamkit.dft.pool import Runner, run_local
from lamkit.dft.program import Program
from lamkit.errors import UserError
from lamkit.stages.engine import Frames

SHOWN = 100  # failures that stand in the result
PER_FOLDER = 1000  # tasks side by side: file systems are slow with more


def label(
    source: Frames,
    program: Program,
    out: Path,
    *,
    jobs: int,
    attempts: int,
    timeout: float | None,
    max_failed: float,
    runner: Runner | None = None,
) -> dict[str, Any]:
    """Label all frames of ``source``, and write them as the data set ``out/data``.

    Args:
        source: frames; labels that they have are replaced.
        program: DFT program with its settings.
        out: run folder; tasks are in ``out/parts/tasks``.
        jobs: tasks at the same time on this machine.
        attempts: how often a task may be started that leaves no result.
        timeout: seconds that a task may take; None for no limit.
        max_failed: stop with an error when more than this part of all frames cannot be labelled.
        runner: what runs the tasks; None for this machine.

    Returns:
        Counts, reasons of failures and the path of the data set.
    """
    folders = Folders(out / "parts" / "tasks")
    runner = runner or partial(run_local, jobs=jobs, timeout=timeout)
    with Progress(len(source), f"labels by {program.name}") as progress:
        for _ in range(attempts):
            if not run_pass(source, program, folders, attempts, runner, progress):
                break
    failed, reasons = failures(source, folders, program)
    check_failures(len(source), failed, reasons, max_failed, program)
    n_frames = write(source, folders, out / "data", program)
    return {
        "data": str(out / "data"),
        "n_frames": n_frames,
        "n_failed": sum(reasons.values()),
        "reasons": dict(reasons),
        "failed": failed,
        "labels_by": program.name,
    }


class Folders:
    """Where the task of each frame is."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __getitem__(self, i: int) -> Path:
        return self.root / f"{i // PER_FOLDER:04d}" / f"{i:07d}"


def run_pass(
    source: Frames, program: Program, folders: Folders, attempts: int, runner: Runner, progress: Progress
) -> int:
    """Start every task that is to be started, once; returns how many were."""
    started = skipped = over = 0

    def tasks() -> Iterator[Path]:
        nonlocal started, skipped
        for i in range(len(source)):
            folder = folders[i]
            if task.state(folder) != "over":
                task.prepare(source.frame(i), program, folder)
                if task.has_to_run(folder, program, attempts):
                    started += 1
                    yield folder
                    continue
            skipped += 1
            progress.first = skipped

    for folder in runner(tasks()):
        outcome = task.collect(folder, program, attempts)
        again = task.state(folder) != "over"
        if outcome.frame is None:
            what = "is tried again" if again else "is left out"
            log.warning("frame %d (%s) %s: %s", int(folder.name), folder, what, outcome.reason)
        over += not again
        progress.update(skipped + over)
    return started


def failures(source: Frames, folders: Folders, program: Program) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The first frames without labels, and how often each reason was given."""
    first: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    for i in range(len(source)):
        outcome = task.collect(folders[i], program, attempts=0)  # what is not over by now never will be
        if outcome.frame is None:
            reasons[outcome.reason] += 1
            if len(first) < SHOWN:
                first.append({"frame": i, "where": str(folders[i]), "reason": outcome.reason})
    return first, reasons


def check_failures(
    n_frames: int, failed: list[dict[str, Any]], reasons: Counter[str], allowed: float, program: Program
) -> None:
    """Refuse a data set from which too much is missing.

    Raises:
        UserError: more than the allowed part failed, or all.
    """
    n_failed = sum(reasons.values())
    if not n_failed or (n_failed <= allowed * n_frames and n_failed < n_frames):
        return
    reason, count = reasons.most_common(1)[0]
    raise UserError(
        f"{n_failed} of {n_frames} frames could not be labelled by {program.name}; {count} times: {reason}. "
        f"Look into {failed[0]['where']}; a task whose folder is removed is computed again on --resume"
    )


def write(source: Frames, folders: Folders, folder: Path, program: Program) -> int:
    """The data set of all frames with labels; returns how many."""
    from lamkit.data.dataset import DatasetFacts, open_dataset, write_dataset

    if (folder / "dataset.yaml").is_file():
        return len(open_dataset(folder))
    first = next(labelled(source, folders))
    facts = DatasetFacts(title=f"labelled by {program.name}", level_of_theory=level_of(program, first))
    return len(write_dataset(labelled(source, folders), folder, facts))


def labelled(source: Frames, folders: Folders) -> Iterator[Frame]:
    """Frames that have labels, one in memory at a time."""
    for i in range(len(source)):
        frame = task.load(folders[i]).frame
        if frame is not None:
            yield frame


def level_of(program: Program, frame: Frame) -> LevelOfTheory:
    """Level of theory: what the output says goes before what was asked for."""
    known = {k: v for k, v in theory(frame).items() if k in LevelOfTheory.model_fields}
    return program.level().model_copy(update=known)
