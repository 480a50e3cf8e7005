"""The memory of a workflow folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamkit.workflow import journal
from lamkit.workflow.journal import Journal


def start(log: Journal, stage: str, *, key: str = "k", resume: bool = False) -> None:
    log.write("start", stage=stage, key=key, resume=resume, reason="never run")


def test_events_are_read_back_in_order(tmp_path: Path) -> None:
    log = Journal(tmp_path)
    start(log, "a")
    log.write("done", stage="a", key="k", seconds=1.5)
    log.close()
    assert [event["event"] for event in journal.read(tmp_path / journal.NAME)] == ["start", "done"]


def test_every_cut_of_the_last_line_loses_that_line_only(tmp_path: Path) -> None:
    log = Journal(tmp_path)
    start(log, "a")
    whole = log.path.read_bytes()
    log.write("done", stage="a", key="k", seconds=1.5)
    log.close()
    complete = log.path.read_bytes()
    for cut in range(len(whole), len(complete)):
        log.path.write_bytes(complete[:cut])
        assert len(journal.read(log.path)) == 1
        again = Journal(tmp_path)
        again.write("failed", stage="a", reason="é")
        again.close()
        lines = again.path.read_text().splitlines()
        assert [json.loads(line)["event"] for line in lines] == ["start", "failed"]


def test_a_broken_line_in_between_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / journal.NAME).write_text('{"event": "start"}\n{"ev\n{"event": "done"}\n')
    with caplog.at_level("WARNING", logger="lamkit"):
        journal.log.propagate = True
        events = journal.read(tmp_path / journal.NAME)
    assert len(events) == 2
    assert "journal.jsonl:2" in caplog.text


def test_a_continuation_keeps_its_beginning_and_adds_its_time(tmp_path: Path) -> None:
    log = Journal(tmp_path)
    start(log, "a")
    log.write("interrupted", stage="a", seconds=2.0, reason="stopped")
    start(log, "a", resume=True)
    log.write("done", stage="a", key="k", seconds=3.0)
    log.close()
    record = journal.fold(log.events)["a"]
    assert (record.began, record.finished, record.seconds, record.state) == (0, 3, 5.0, "done")


def test_a_fresh_start_forgets_that_the_stage_was_done(tmp_path: Path) -> None:
    log = Journal(tmp_path)
    start(log, "a")
    log.write("done", stage="a", key="k", seconds=1.0)
    start(log, "a", key="new")
    log.close()
    record = journal.fold(log.events)["a"]
    assert (record.finished, record.key, record.state) == (None, "new", "running")
