"""How the stages of a workflow folder stand, now or after the fact."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from lamkit import lock
from lamkit.errors import UserError
from lamkit.workflow import execute, graph, journal, spec
from lamkit.workflow.journal import Event, Record
from lamkit.workflow.screen import last_line


@dataclass(frozen=True)
class Standing:
    """One stage as a user wants to see it.

    Attributes:
        id: Id of the stage.
        stage: Which stage it is.
        state: done, running, waiting, failed, interrupted, skipped or never run.
        seconds: Time it took, or has been running; None when not known.
        text: Last line of its log, or the reason of a failure.
    """

    id: str
    stage: str
    state: str
    seconds: float | None
    text: str


def read(folder: Path) -> list[Standing]:
    """Every stage of the workflow that ran in ``folder``, in the order of the graph.

    Raises:
        UserError: no workflow ran there.
    """
    if not (folder / journal.NAME).is_file() or not (folder / execute.WORKFLOW).is_file():
        raise UserError(
            f"{folder}: not a workflow folder (no {journal.NAME}); `lamkit run WORKFLOW --out DIR` makes one"
        )
    source = spec.load(folder / execute.WORKFLOW)
    names = {stage.stage: "" for stage in source.workflow.stages.values()}
    alive = lock.held(folder)
    events = journal.read(folder / journal.NAME)
    records = journal.fold(events)
    waiting = _waiting(events) if alive else set()
    return [
        _standing(name, source.workflow.stages[name].stage, records.get(name), folder, alive, name in waiting)
        for name in graph.order(graph.build(source, names))
    ]


def _waiting(events: list[Event]) -> set[str]:
    """Stages that the last run is to run and has not touched yet."""
    last = max((i for i, event in enumerate(events) if event["event"] == "run"), default=None)
    if last is None:
        return set()
    return set(events[last]["stages"]) - {event.get("stage") for event in events[last + 1 :]}


def _standing(
    name: str, stage: str, record: Record | None, folder: Path, alive: bool, waiting: bool
) -> Standing:
    if waiting:
        return Standing(name, stage, "waiting", None, "")
    if record is None:
        return Standing(name, stage, "never run", None, "")
    if record.state == "running" and alive:
        return Standing(
            name, stage, "running", record.seconds + _since(record.time), last_line(folder / name)
        )
    if record.state == "running":
        return Standing(name, stage, "interrupted", None, "its process was killed; run again to continue")
    seconds = None if record.state == "skipped" else record.seconds
    text = last_line(folder / name) if record.state == "done" else record.reason
    return Standing(name, stage, record.state, seconds, text)


def _since(time: str) -> float:
    then = datetime.datetime.fromisoformat(time)
    return (datetime.datetime.now(datetime.UTC) - then).total_seconds()
