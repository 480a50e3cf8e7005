"""One run at a time in a folder: a file lock that the workers of a workflow inherit from the run."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from lamkit.errors import UserError

NAME = ".lock"
# A killed parent's workers are killed by the kernel; this is how long we wait for them to be gone.
_DEAD_PARENT_SECONDS = 10.0


class Lock:
    """Context manager that holds ``folder`` for this run; ``descriptor`` is to be inherited by workers.

    Args:
        folder: to be held.
        patient: wait until the other run has left, instead of refusing.

    Raises:
        UserError: another run is at work in the folder; names its process.
    """

    def __init__(self, folder: Path, *, patient: bool = False) -> None:
        self.path = folder / NAME
        self.patient = patient
        self.descriptor = -1

    def __enter__(self) -> Lock:
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        if self.patient:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        deadline = time.monotonic() + _DEAD_PARENT_SECONDS
        while not _try_lock(self.descriptor):
            holder = _holder(self.path)
            if _alive(holder) or time.monotonic() > deadline:
                os.close(self.descriptor)
                raise UserError(_refusal(self.path.parent, holder))
            time.sleep(0.05)
        os.ftruncate(self.descriptor, 0)
        facts = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        os.pwrite(self.descriptor, json.dumps(facts).encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)


def held(folder: Path) -> bool:
    """Whether a run is at work in ``folder`` now."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> dict[str, object]:
    """Process, host and time that the holder wrote; empty in the instant before it has written them."""
    try:
        return json.loads(path.read_text())
    except ValueError:
        return {}


def _alive(holder: dict[str, object]) -> bool:
    """Whether the run that took the lock lives; on another host we cannot know, and say yes."""
    pid = holder.get("pid")
    if not isinstance(pid, int) or holder.get("host") != socket.gethostname():
        return bool(holder)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _refusal(folder: Path, holder: dict[str, object]) -> str:
    if not _alive(holder):
        return (
            f"{folder}: processes of a killed run (pid {holder.get('pid', 'unknown')}) are still at work "
            f"here; 'fuser {folder / NAME}' names them. Stop them, then run again."
        )
    return (
        f"{folder}: another run is at work here: pid {holder['pid']} on {holder['host']} "
        f"since {holder['since']}. Wait for it, stop it with 'kill -INT {holder['pid']}', "
        "or give another folder with --out."
    )
