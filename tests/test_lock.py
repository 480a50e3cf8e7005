"""One run at a time in a folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lamkit import lock
from lamkit.errors import UserError
from lamkit.lock import Lock


def test_a_second_run_is_refused_with_the_process_of_the_first(tmp_path: Path) -> None:
    with Lock(tmp_path):
        assert lock.held(tmp_path)
        with (
            pytest.raises(UserError, match=f"another run is at work here: pid {os.getpid()}"),
            Lock(tmp_path),
        ):
            pass
    assert not lock.held(tmp_path)


def test_the_folder_is_free_again_after_a_run(tmp_path: Path) -> None:
    for _ in range(2):
        with Lock(tmp_path):
            pass


def test_asking_for_a_lock_that_was_never_made_makes_none(tmp_path: Path) -> None:
    assert not lock.held(tmp_path)
    assert not (tmp_path / lock.NAME).exists()


def test_workers_that_outlive_a_killed_run_keep_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_DEAD_PARENT_SECONDS", 0.2)
    with Lock(tmp_path) as first:
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            pass_fds=(first.descriptor,),
        )
    dead = {"pid": 2**22 + 1, "host": socket.gethostname(), "since": "then"}  # above any pid of Linux
    (tmp_path / lock.NAME).write_text(json.dumps(dead))
    with pytest.raises(UserError, match="processes of a killed run"), Lock(tmp_path):
        pass
    child.communicate(b"")
    with Lock(tmp_path):
        pass
