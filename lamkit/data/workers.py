"""Worker processes that read pieces: plain child processes of the same Python, spoken to in lines of JSON.

They need no guard in the caller's script, share no state, and end by themselves when the parent is gone, because
their input ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO, Any, cast

from lamkit.data.intake import Intake, Settings
from lamkit.data.pieces import Piece
from lamkit.errors import LamkitError, UserError

_END = object()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_here(pieces: Iterator[Piece], settings: Settings) -> Iterator[tuple[Piece, int]]:
    """Read the pieces in this process; yields each with its number of frames."""
    intake = Intake(settings)
    for piece in pieces:
        yield piece, intake.read(piece)


def read_by_workers(
    pieces: Iterator[Piece], settings: Settings, n_workers: int
) -> Iterator[tuple[Piece, int]]:
    """Read the pieces in worker processes; yields each when it is done, in no fixed order.

    Raises:
        UserError: the options do not fit a file.
        LamkitError: a worker failed or died.
    """
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    lock, stop = threading.Lock(), threading.Event()
    workers = [_Worker(settings) for _ in range(n_workers)]

    def drive(worker: _Worker) -> None:
        try:
            while not stop.is_set():
                with lock:
                    piece = next(pieces, None)
                if piece is None:
                    break
                done.put((piece, worker.read(piece)))
            done.put(_END)
        except BaseException as error:  # raised by whoever waits for the results
            done.put(error)

    threads = [threading.Thread(target=drive, args=(w,), daemon=True) for w in workers]
    for thread in threads:
        thread.start()
    running = n_workers
    try:
        while running:
            result = done.get()
            if isinstance(result, BaseException):
                raise result
            if result is _END:
                running -= 1
            else:
                yield result
    finally:
        stop.set()
        for worker in workers:
            worker.end()


class _Worker:
    """One worker process.

    Args:
        settings: of the conversion.
    """

    def __init__(self, settings: Settings) -> None:
        # One thread each, as there is a worker for each core.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lamkit.data.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            text=True,
            start_new_session=True,  # Ctrl-C goes to the parent only, which ends its workers
        )
        self._input = cast(IO[str], self._process.stdin)
        self._output = cast(IO[str], self._process.stdout)
        self._write(settings.model_dump(mode="json", exclude_unset=True))  # who set what counts

    def _write(self, data: dict[str, Any]) -> None:
        self._input.write(json.dumps(data) + "\n")
        self._input.flush()

    def read(self, piece: Piece) -> int:
        """Let it read a piece and wait for the answer.

        Raises:
            UserError: the options do not fit a file.
            LamkitError: it failed or died.
        """
        names = ", ".join(job.path for job in piece.jobs[:3])
        try:
            self._write(piece.to_json())
            answer = self._output.readline()
        except OSError:
            answer = ""
        if not answer:
            code = self._process.wait()
            raise LamkitError(
                f"the process that read {names} ended with code {code} (-9: killed, perhaps for want of memory). "
                "What was read before is kept: the same command goes on from there"
            )
        told = json.loads(answer)
        if "wrong" in told:
            raise UserError(told["wrong"])
        if "failed" in told:
            raise LamkitError(f"{names}: {told['failed']}")
        return int(told["frames"])

    def end(self) -> None:
        """End the process, whatever it is doing; a shard is whole or not there."""
        self._process.kill()
        self._process.wait()
        self._output.close()
        with contextlib.suppress(OSError):  # what was not flushed goes to nobody
            self._input.close()
