"""What happened in a workflow folder: one JSON event per line, only ever appended to, safe against crashes.

Events: ``run`` (a command began), ``start``, ``done``, ``failed``, ``interrupted``, ``skipped`` (of a stage).
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lamkit.console import log

NAME = "journal.jsonl"
Event = dict[str, Any]


def read(path: Path) -> list[Event]:
    """All events; without a last line that a crash cut off, and (with a warning) without broken ones."""
    if not path.is_file():
        return []
    *whole, _torn = path.read_bytes().split(b"\n")
    events = []
    for number, line in enumerate(whole, 1):
        try:
            event = json.loads(line)
        except ValueError:
            log.warning("%s:%d: not a JSON line; left out", path, number)
            continue
        if isinstance(event, dict) and "event" in event:
            events.append(event)
    return events


class Journal:
    """The journal opened for writing; only the holder of the folder's lock may do so."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._stream = open(self.path, "ab")  # noqa: SIM115 - held until close()
        self._dirty = False
        self._drop_torn_line()
        self.events = read(self.path)

    def _drop_torn_line(self) -> None:
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            self._stream.truncate(data.rfind(b"\n") + 1)

    def write(self, event: str, **facts: Any) -> None:
        """Append one event with time and process; a process that is killed after this does not lose it."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        entry = {"event": event, **facts, "time": now, "pid": os.getpid()}
        self._stream.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self._stream.flush()
        self._dirty = True
        self.events.append(entry)

    def sync(self) -> None:
        """Have all events on disk, so that not even a power cut loses them; one wait for many events."""
        if self._dirty:
            os.fsync(self._stream.fileno())
            self._dirty = False

    def close(self) -> None:
        """Close the file."""
        self.sync()
        self._stream.close()


@dataclass(frozen=True)
class Record:
    """How a stage stands according to the journal.

    Attributes:
        state: Last event: running, done, failed, interrupted or skipped.
        key: Key of the last start.
        began: Number of the event that started it from an empty folder (continuations do not count).
        finished: Number of the event that ended it well; None while its folder is not complete.
        seconds: Time spent since ``began``, all continuations together, as far as it is known.
        time: Time of the last event, ISO 8601, UTC.
        reason: Why it ran, or why it failed or was skipped.
        fault: Of a failure: ``user`` (the input is wrong), ``error`` or ``signal``.
    """

    state: str
    key: str = ""
    began: int = -1
    finished: int | None = None
    seconds: float = 0.0
    time: str = ""
    reason: str = ""
    fault: str = ""


_STATES = {
    "start": "running",
    "done": "done",
    "failed": "failed",
    "interrupted": "interrupted",
    "skipped": "skipped",
}


def fold(events: Iterable[Event]) -> dict[str, Record]:
    """The state of every stage after all events, by stage id."""
    records: dict[str, Record] = {}
    for number, event in enumerate(events):
        if event["event"] not in _STATES:
            continue
        old = records.get(event["stage"], Record("skipped"))
        new = replace(
            old,
            state=_STATES[event["event"]],
            time=event.get("time", ""),
            reason=event.get("reason", ""),
            fault=event.get("fault", ""),
            seconds=old.seconds + event.get("seconds", 0.0),
        )
        if event["event"] == "start":
            new = replace(new, key=event["key"], finished=None)
            if not event["resume"]:
                new = replace(new, began=number, seconds=0.0)
        elif event["event"] == "done":
            new = replace(new, finished=number)
        records[event["stage"]] = new
    return records
