"""How the stages of a workflow folder stand, now or after the fact."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamkit import lock
from lamkit.errors import UserError
from lamkit.workflow import execute, graph, journal, spec
from lamkit.workflow import folder as stage_folder
from lamkit.workflow.journal import Event, Record
from lamkit.workflow.loops import Loops
from lamkit.workflow.screen import last_line
from lamkit.workflow.unroll import LOOP, Node


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
    built = graph.build(source, {stage.stage: "" for stage in _stages(source)})
    alive = lock.held(folder)
    events = journal.read(folder / journal.NAME)
    records = journal.fold(events)
    waiting = _waiting(events) if alive else set()
    loops = Loops(source, folder)
    nodes = [built.nodes[name]["node"] for name in graph.order(built)]
    begun = {(n.loop, n.round) for n in nodes if n.id in records and records[n.id].state != "skipped"}
    for name in (n for n in loops.loops if n in records and records[n].state == "done"):
        last = stage_folder.read_json(folder / name / stage_folder.RESULT).get("n_rounds", 0)
        begun = {(loop, number) for loop, number in begun if loop != name or number <= last}
    return [
        _standing(node, records.get(node.id), folder, alive, node.id in waiting, loops)
        for node in nodes
        if node.round <= 1 or (node.loop, node.round) in begun
    ]


def _stages(source: spec.Source) -> Iterator[Any]:
    for entry in source.workflow.stages.values():
        yield from entry.loop.stages.values() if entry.loop else (entry,)


def _progress(node: Node, loops: Loops, folder: Path) -> str:
    """How far a loop is: the values of its conditions after the last round that is done."""
    done = 0
    while done < loops.loops[node.id].max_rounds and all(
        (folder / name / stage_folder.PRODUCTS).is_file() for name in loops.names(node.id, done + 1)
    ):
        done += 1
    return loops.verdict(node.id, done, 0.0).reason if done else "in round 1"


def _waiting(events: list[Event]) -> set[str]:
    """Stages that the last run is to run and has not touched yet."""
    last = max((i for i, event in enumerate(events) if event["event"] == "run"), default=None)
    if last is None:
        return set()
    return set(events[last]["stages"]) - {event.get("stage") for event in events[last + 1 :]}


def _standing(
    node: Node, record: Record | None, folder: Path, alive: bool, waiting: bool, loops: Loops
) -> Standing:
    name, stage = node.id, node.stage
    text = _progress(node, loops, folder) if stage == LOOP else ""
    if waiting:
        return Standing(name, stage, "waiting", None, text)
    if record is None:
        return Standing(name, stage, "never run", None, text)
    if record.state == "running" and alive:
        so_far = record.seconds + _since(record.time)
        return Standing(name, stage, "running", so_far, last_line(folder / name))
    if record.state == "running":
        return Standing(name, stage, "interrupted", None, "its process was killed; run again to continue")
    seconds = None if record.state == "skipped" else record.seconds
    text = (text or last_line(folder / name)) if record.state == "done" else record.reason
    return Standing(name, stage, record.state, seconds, text)


def _since(time: str) -> float:
    then = datetime.datetime.fromisoformat(time)
    return (datetime.datetime.now(datetime.UTC) - then).total_seconds()
