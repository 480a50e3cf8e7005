"""Start the processes of a run that trains on several ranks, watch over them, and bring their result home.

Every rank is a process of its own (:mod:`lamkit.train.worker`) that gets the run as this process has prepared it.
They find each other through a scheduler process, as with MindSpore's ``msrun``, whose environment variables are set
here; on several machines this is called on each of them. If one rank dies the others are ended, since their next
sum would wait for it for ever; Ctrl-C is passed on once, and the ranks agree on the step after which they stop.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from lamkit import config as configuration
from lamkit.console import log
from lamkit.errors import Interrupted, LamkitError, UserError
from lamkit.files import atomic_write, recover, require_writable
from lamkit.lock import Lock

if TYPE_CHECKING:
    from lamkit.train.run import Run

GRACE = 20.0  # seconds that ranks have to end by themselves after one of them did
PATIENCE = 7200  # seconds that a rank waits for the others in a sum: they may compile, validate or save
ERRORS = {kind.__name__: kind for kind in (UserError, Interrupted, LamkitError)}
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


class Place(NamedTuple):
    """Where this process stands among several machines.

    Attributes:
        nodes: machines.
        node: number of this one, from 0.
        master: HOST:PORT of the scheduler, on machine 0; None with one machine: any free port.
    """

    nodes: int = 1
    node: int = 0
    master: str | None = None


def place() -> Place:
    """From the environment, where the flags ``--nodes``, ``--node`` and ``--master`` have put it."""
    return Place(
        int(os.environ.get("LAMKIT_NODES", "1")),
        int(os.environ.get("LAMKIT_NODE", "0")),
        os.environ.get("LAMKIT_MASTER"),
    )


def turn(folder: Path) -> AbstractContextManager[object]:
    """Of several machines that share ``folder``, one prepares it and the others wait, and find what it made."""
    if place().nodes == 1:
        return nullcontext()
    folder.mkdir(parents=True, exist_ok=True)
    return Lock(folder, patient=True)


def refuse_misfit(ranks: int) -> None:
    """Raise where so many ranks cannot be started on the machines that the flags tell of.

    Raises:
        UserError: they cannot be shared evenly, or machine 0 cannot be found.
    """
    here = place()
    if here.nodes < 1 or ranks % here.nodes or not 0 <= here.node < here.nodes:
        raise UserError(
            f"{ranks} ranks on {here.nodes} machines, this one number {here.node}: --ranks must be a multiple of "
            "--nodes, and --node lie between 0 and --nodes − 1"
        )
    if here.nodes > 1 and here.master is None:
        raise UserError("--nodes: several machines need --master HOST:PORT, the address of machine 0")
    if here.master is not None:
        host, _, port = here.master.rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
            raise UserError(f"--master {here.master}: expected HOST:PORT, for example 10.0.0.1:8118")


def is_worker() -> bool:
    """Whether this process was started here, to train and nothing else."""
    return "LAMKIT_WORKER" in os.environ


def train(run: Run, *, resume: bool) -> dict[str, Any]:
    """:func:`lamkit.train.run.train` on ``run.config.ranks`` processes.

    Raises:
        UserError: the ranks cannot be shared among the machines, or what a rank says.
        Interrupted: Ctrl-C; everything is saved.
        LamkitError: a rank died, or what a rank says.
        SystemExit: all went well, and this is not machine 0.
    """
    here, size = place(), run.config.ranks
    refuse_misfit(size)
    require_writable(run.out)
    folder = run.out / ("ranks" if here.node == 0 else f"ranks-{here.node}")
    folder.mkdir(exist_ok=True)
    for old in folder.glob("rank-*"):
        old.unlink()
    if here.node == 0:
        configuration.write_yaml(run.out / "config.yaml", run.resolved)
        recover(run.out / "checkpoints")
    atomic_write(folder / "run.pickle", pickle.dumps((run, resume)))
    host, _, port = (here.master or f"127.0.0.1:{_free_port()}").rpartition(":")
    local = size // here.nodes
    first = here.node * local
    log.info("%d ranks, %d of them here; logs in %s", size, local, folder)
    team = _Team(folder, {"MS_WORKER_NUM": str(size), "MS_SCHED_HOST": host, "MS_SCHED_PORT": port})
    try:
        if here.node == 0:
            team.start_scheduler()
        cores = _shares(local)
        for k in range(local):
            team.start(first + k, k, cores[k])
        team.wait()
    finally:
        team.end()
    result = _result(folder, first)
    if here.node > 0:
        log.info("done; machine 0 writes the result to %s", run.out)
        raise SystemExit(0)  # what comes now is done once
    return result


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _shares(local: int) -> list[list[int]]:
    """Cores of each local rank: apart where there are enough, since MindSpore's threads take all they may."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    each = len(cores) // local
    return [cores[k * each : (k + 1) * each] if each else cores for k in range(local)]


def _prepare(cores: Sequence[int]) -> Callable[[], None]:
    """What a new process does before anything else: keep to its cores, and die with this one."""

    def prepare() -> None:
        if cores:
            os.sched_setaffinity(0, cores)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)

    return prepare


class _Team:
    """The processes of one machine."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        # Waits must be longer than any compilation, validation or save of another rank.
        waits = {name: str(PATIENCE) for name in ("MS_RECEIVE_MSG_TIMEOUT", "MS_CPU_COMM_OP_TIMEOUT")}
        waits |= {"MS_NODE_TIMEOUT": "300", "MS_TOPO_TIMEOUT": "900"}
        self.folder, self.variables = folder, {**waits, **variables}
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.ranks: dict[int, subprocess.Popen[bytes]] = {}
        self._signals = 0

    def start_scheduler(self) -> None:
        """The process through which ranks find each other."""
        self.scheduler = self._start("scheduler.log", {"MS_ROLE": "MS_SCHED"}, [])

    def start(self, rank: int, local: int, cores: Sequence[int]) -> None:
        """One rank, the ``local``-th here; the first writes to this process's terminal, the others to files."""
        name = None if rank == 0 else f"rank-{rank}.log"
        # As msrun: each rank of a machine takes an accelerator of its own.
        variables = {"MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(rank), "DEVICE_ID": str(local)}
        self.ranks[rank] = self._start(name, variables, cores)

    def _start(
        self, name: str | None, variables: dict[str, str], cores: Sequence[int]
    ) -> subprocess.Popen[bytes]:
        level = min((h.level for h in log.handlers), default=20)
        command = [sys.executable, "-m", "lamkit.train.worker", str(self.folder), str(level)]
        sink: Any = None if name is None else open(self.folder / name, "wb")  # noqa: SIM115 (closed below)
        try:
            return subprocess.Popen(
                command, env={**os.environ, "LAMKIT_WORKER": "1", **self.variables, **variables},
                stdout=sink if sink is not None else 2, stderr=sink, start_new_session=True, preexec_fn=_prepare(cores),
            )  # fmt: skip
        finally:
            if sink is not None:
                sink.close()

    def wait(self) -> None:
        """Until all ranks have ended.

        Raises:
            LamkitError: one of them died.
        """
        old = {}
        if threading.current_thread() is threading.main_thread():
            old = {n: signal.signal(n, self._pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
        ended: float | None = None
        try:
            while sum(p.poll() is None for p in self.ranks.values()):  # asks all of them
                time.sleep(0.1)
                for rank, process in self.ranks.items():
                    if process.returncode is not None and process.returncode < 0:
                        raise self._died(rank, process.returncode)
                if ended is None and any(p.returncode is not None for p in self.ranks.values()):
                    ended = time.monotonic()
                if ended is not None and time.monotonic() - ended > GRACE and self._failed() is not None:
                    return
            dead = [(r, p.returncode) for r, p in self.ranks.items() if p.returncode < 0]
            if dead:
                raise self._died(*dead[0])
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _failed(self) -> int | None:
        return next((r for r, p in self.ranks.items() if p.returncode), None)

    def _died(self, rank: int, code: int) -> LamkitError:
        """What to raise for a rank that a signal has ended."""
        if self._signals:  # before its first step, or at the second signal
            return Interrupted(
                "the ranks were ended where they were; --resume goes on from the last checkpoint"
            )
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(code)
        memory = " (out of memory?)" if -code == signal.SIGKILL else ""
        return LamkitError(
            f"rank {rank} died of {name}{memory}; the other ranks were ended. The last checkpoint is whole: go on with "
            f"--resume. Its log: {self.folder / f'rank-{rank}.log' if rank else 'above'}"
        )

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """The first signal lets the ranks save, the second ends them."""
        self._signals += 1
        for process in self.ranks.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM if self._signals == 1 else signal.SIGKILL)

    def end(self) -> None:
        """Nothing is left running."""
        for process in [*self.ranks.values(), *([self.scheduler] if self.scheduler else [])]:
            if process.poll() is None:
                process.kill()
            process.wait()


def _says_little(item: tuple[int, dict[str, Any]]) -> tuple[bool, int]:
    """Order of errors: first those that tell of a rank's own trouble."""
    rank, report = item
    return any(words in report["message"] for words in ("does not answer", "its rank's log")), rank


def _result(folder: Path, first: int) -> dict[str, Any]:
    """What the first rank here has to say; an error of any rank where one failed.

    Raises:
        LamkitError: or one of its kinds, as the rank raised it.
    """
    reports = {}
    for path in sorted(folder.glob("rank-*.json")):
        reports[int(path.stem[5:])] = json.loads(path.read_text())
    failed = {rank: r for rank, r in reports.items() if "error" in r}
    # What a rank says of its own counts more than that another one does not answer.
    for rank, report in sorted(failed.items(), key=_says_little):
        kind = ERRORS.get(report["error"], LamkitError)
        whose = "" if rank == 0 or kind is Interrupted else f"rank {rank}: "
        raise kind(f"{whose}{report['message']}")
    if first not in reports:
        raise LamkitError(f"rank {first} ended without a result; its log: {folder / f'rank-{first}.log'}")
    return dict(reports[first]["result"])
