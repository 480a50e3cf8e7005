"""Tasks handed to dpdispatcher and waited for: the only place that speaks to it.

A task is a command in a folder with files to send and to fetch. dpdispatcher groups tasks into jobs, submits
them, and submits again what the scheduler lost. Commands themselves always end well: a failure of the program
is told in the files that they send back, so that only failures of nodes are tried again.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamkit.console import log
from lamkit.errors import LamkitError
from lamkit.files import atomic_write
from lamkit.workflow.cluster import SUBMITTED, Place, dispatcher

PACKED = "out.tar"  # what every command packs its results into


@dataclass(frozen=True)
class Command:
    """One task.

    Attributes:
        folder: Its folder, relative to the base folder of all tasks; for the name of its job too.
        command: Shell command, run inside of it; leaves :data:`PACKED`.
        forward: Files of that folder to be sent.
    """

    folder: str
    command: str
    forward: tuple[str, ...] = ()


class JobsLost(LamkitError):
    """Jobs were lost more often than allowed; nothing of the submission waits or runs any more."""


def submit(base: Path, commands: Sequence[Command], common: Sequence[str], place: Place, notes: Path) -> None:
    """Run tasks as jobs and fetch what each packed; going on with jobs that an earlier call left running.

    Args:
        base: Folder of all tasks.
        commands: The tasks; the same ones in the same order mean the same submission.
        common: Files of ``base`` that all tasks read, one folder above their own.
        place: Where.
        notes: Folder for the note about the submission.

    Raises:
        JobsLost: a job was lost more often than allowed; what the others made is fetched.
        LamkitError: the scheduler refused or did not answer; jobs may go on, and another call takes them over.
    """
    package = dispatcher()
    from dpdispatcher.utils.job_status import JobStatus

    machine = package.Machine.load_from_dict({**place.machine, "local_root": str(base)})
    submission = package.Submission(
        work_base=".",
        machine=machine,
        resources=package.Resources.load_from_dict(place.resources),
        forward_common_files=list(common),
        task_list=[
            package.Task(
                command=c.command,
                task_work_path=c.folder,
                forward_files=list(c.forward),
                backward_files=[PACKED],
            )
            for c in commands
        ],
        continue_on_failure=True,  # what the other jobs have made is fetched in any case
    )
    try:
        _recover(submission)
        _note(submission, notes)
        stop = _watch(submission, notes, place.poll_seconds)
        try:
            submission.run_submission(check_interval=place.poll_seconds, clean="on_success")
        finally:
            stop.set()
    except (RuntimeError, OSError) as error:
        states = {job.job_state for job in submission.belonging_jobs}
        over = bool(submission.failed_jobs()) and states <= {JobStatus.finished, JobStatus.failed}
        raise (JobsLost if over else LamkitError)(_plain(str(error))) from error


def _recover(submission: Any) -> None:
    """Take over jobs that a killed process submitted, those too that it had no time to list.

    dpdispatcher lists its jobs when all are submitted; the id of each stands in a file of its own before.
    """
    submission.generate_jobs()
    context = submission.machine.context
    known = submission.machine.check_if_recover(submission)
    if known:
        submission.try_recover_from_json()
    found = 0
    for job in submission.belonging_jobs:
        name = f"{job.job_hash}_job_id"
        try:
            number = context.read_file(name).strip() if context.check_file_exists(name) else ""
        except OSError:
            number = ""
        if number:
            job.job_id = int(number) if number.isdigit() and isinstance(job.job_id, int) else number
            found += 1
    if found:
        log.info("%d jobs of an earlier run are taken over", found)
        submission.update_submission_state()
        submission.submission_to_json()


def _note(submission: Any, notes: Path) -> None:
    facts = {
        "submission": submission.submission_hash,
        "machine": submission.machine.__class__.__name__,
        "remote": getattr(submission.machine.context, "remote_root", ""),
        "jobs": len(submission.belonging_jobs),
        "tasks": len(submission.belonging_tasks),
    }
    atomic_write(notes / SUBMITTED, json.dumps(facts))
    log.info("%(jobs)d jobs (%(tasks)d tasks) on %(machine)s, submission %(submission)s", facts)


def _watch(submission: Any, notes: Path, seconds: float) -> threading.Event:
    """Say in the log how many jobs wait, run and are over, whenever that changes."""
    from dpdispatcher.utils.job_status import JobStatus

    stop = threading.Event()

    def watch() -> None:
        before: dict[str, int] = {}
        ids: dict[str, Any] = {}
        while not stop.wait(seconds):
            jobs = submission.belonging_jobs
            for job in jobs:
                if ids.get(job.job_hash) not in (None, "", job.job_id):
                    log.warning(
                        "job %s was lost by the scheduler; sent again as %s", ids[job.job_hash], job.job_id
                    )
                ids[job.job_hash] = job.job_id
            states = Counter(JobStatus(job.job_state).name if job.job_state else "new" for job in jobs)
            if states != before:
                before = dict(states)
                log.info(
                    "jobs: %s of %d", ", ".join(f"{n} {s}" for s, n in sorted(states.items())), len(jobs)
                )

    threading.Thread(target=watch, daemon=True).start()
    return stop


def _plain(text: str) -> str:
    """The message of dpdispatcher without colours and without its advice about its own tools."""
    lines = [line.replace("\033[31m", "").replace("\033[0m", "") for line in text.splitlines()]
    kept = [
        line
        for line in lines
        if line.strip() and not line.startswith(("Debug information", "For further", "Please"))
    ]
    return os.linesep.join(kept)
