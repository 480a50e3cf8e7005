"""Stages as processes on this machine: start, ask, stop."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lamkit
from lamkit.workflow import folder as stage_folder
from lamkit.workflow.cores import environment

# Fault of a stage that ended: its own kind of failure, or "stopped" for one that was asked to stop.
STOPPED = "stopped"


@dataclass(frozen=True)
class Ending:
    """How a worker ended: ``fault`` is empty (done), ``user``, ``error``, ``signal`` or ``stopped``."""

    fault: str
    message: str
    seconds: float


class LocalWorker:
    """A stage that runs as a process of this machine, in a session of its own.

    Args:
        folder: The stage's folder; ``stage.json`` is written.
        lock: Descriptor of the workflow folder's lock, inherited.
        cores: Cores that it may use; empty for all.
    """

    module = "lamkit.workflow.worker"

    def __init__(self, folder: Path, lock: int, cores: list[int]) -> None:
        self.folder, self.cores = folder, cores
        self._start = time.monotonic()
        threads = environment(len(cores)) if cores else {}
        # -P keeps files of the user's working folder (select.py, queue.py, ...) from hiding Python's own
        safe = ["-P"] if sys.version_info >= (3, 11) else []
        home = str(Path(lamkit.__file__).resolve().parent.parent)
        paths = [home, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        with open(folder / stage_folder.LOG, "ab") as log:
            # Must stay on the main thread: the kernel's death signal is tied to the thread that starts.
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    *safe,
                    "-m",
                    self.module,
                    str(folder),
                    str(os.getpid()),
                    str(lock),
                    *self.more(),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                # Ctrl-C on the terminal reaches only us; we tell the workers.
                start_new_session=True,
                env={
                    **threads,
                    **os.environ,
                    "PYTHONUNBUFFERED": "1",
                    "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                },
            )

    def more(self) -> list[str]:
        """Further arguments of the process."""
        return [",".join(map(str, self.cores))]

    def news(self) -> dict[str, Any] | None:
        """Nothing that the journal must know."""
        return None

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._start

    def ended(self) -> Ending | None:
        """How it ended, or None while it runs."""
        code = self._process.poll()
        return None if code is None else self._ending(code)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker and to all that it started."""
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.killpg(self._process.pid, number)

    def wait(self) -> None:
        """Wait for the end."""
        self._process.wait()

    def _ending(self, code: int) -> Ending:
        seconds = round(self.seconds, 3)
        proof = stage_folder.read_json(self.folder / stage_folder.PRODUCTS)
        if code == 0 and proof:
            return Ending("", "", seconds)
        if code == 130:
            return Ending(STOPPED, "stopped", seconds)
        if code < 0:
            return Ending("signal", signal_words(-code), seconds)
        error = stage_folder.read_json(self.folder / stage_folder.ERROR)
        if error:
            return Ending(error["fault"], error["message"], seconds)
        return Ending("error", f"the process ended with code {code} before it could say why", seconds)


def signal_words(number: int) -> str:
    """How a process was killed, in words."""
    name = signal.Signals(number).name
    hint = {"SIGKILL": ", often because memory ran out", "SIGSEGV": ", a crash in compiled code"}.get(
        name, ""
    )
    return f"the process was killed by {name}{hint}"
