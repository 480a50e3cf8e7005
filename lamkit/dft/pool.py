"""Runs DFT tasks on this machine, several at once, and leaves none behind when it is stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lamkit.console import log
from lamkit.dft.task import EXIT_CODE, STARTS, TIMEOUT
from lamkit.files import atomic_write

# Gets prepared tasks, yields each once its command is over; takes tasks only as it can start them.
Runner = Callable[[Iterable[Path]], Iterator[Path]]

PAUSE = 0.02  # s between two looks at the running tasks; grows to a second while nothing happens
PID = "pid"


@dataclass
class _Running:
    folder: Path
    process: subprocess.Popen[bytes]
    began: float


def run_local(folders: Iterable[Path], *, jobs: int, timeout: float | None = None) -> Iterator[Path]:
    """Run ``sh run.sh`` in each folder.

    Args:
        folders: prepared tasks; taken one by one, at most ``jobs`` ahead.
        jobs: tasks at the same time.
        timeout: seconds after which a task is stopped for good; None for no limit.

    Yields:
        Each folder once its command is over, in any order.
    """
    waiting = iter(folders)
    running: list[_Running] = []
    try:
        more, pause = True, PAUSE
        while more or running:
            while more and len(running) < jobs:
                folder = next(waiting, None)
                if folder is None:
                    more = False
                else:
                    running.append(_start(folder))
            over = [r for r in running if _is_over(r, timeout)]
            for one in over:
                running.remove(one)
                (one.folder / PID).unlink(missing_ok=True)
            yield from (one.folder for one in over)
            pause = PAUSE if over else min(1.0, 1.3 * pause)
            if running and not over:
                time.sleep(pause)
    finally:
        for one in running:
            _stop(one)


def _start(folder: Path) -> _Running:
    stop_leftover(folder)
    setpriv = shutil.which("setpriv")  # of Linux: should we be killed, the task gets a signal, too
    process = subprocess.Popen(
        [*([setpriv, "--pdeathsig", "TERM"] if setpriv else []), "sh", "run.sh"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us; we stop the whole group ourselves
    )
    atomic_write(folder / PID, str(process.pid))
    return _Running(folder, process, time.monotonic())


def _is_over(one: _Running, timeout: float | None) -> bool:
    if one.process.poll() is not None:
        return True
    if timeout is None or time.monotonic() - one.began < timeout:
        return False
    _kill(one.process.pid)
    one.process.wait()
    atomic_write(one.folder / EXIT_CODE, f"{TIMEOUT}\n")
    return True


def _stop(one: _Running) -> None:
    """Stop a task that is to run again later: this start does not count.

    That is written down first, because whoever stops us may not wait until we are done here.
    """
    path = one.folder / STARTS
    if path.is_file() and not (one.folder / EXIT_CODE).is_file():
        atomic_write(path, "".join(path.read_text().splitlines(keepends=True)[:-1]))
    _kill(one.process.pid)
    one.process.wait()
    (one.folder / PID).unlink(missing_ok=True)


def stop_leftover(folder: Path) -> None:
    """Stop a task that still runs in ``folder`` because LAMKit itself was killed."""
    path = folder / PID
    if not path.is_file():
        return
    pid = path.read_text().strip()
    with suppress(OSError, ValueError):
        if pid.isdecimal() and os.path.samefile(f"/proc/{pid}/cwd", folder):
            log.info("%s: a task that was left running is stopped", folder)
            _kill(int(pid))
    path.unlink(missing_ok=True)


def _kill(pid: int) -> None:
    """The whole process group of a task."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
