"""Parts of one stage done by several processes of this machine.

``python -m lamkit.workflow.pool FOLDER PARENT CORES`` is one of them: it does parts of the stage whose
``stage.json`` is in FOLDER until none is left.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from lamkit.console import Progress
from lamkit.errors import LamkitError
from lamkit.workflow import claims, cores
from lamkit.workflow import folder as stage_folder
from lamkit.workflow.local import signal_words
from lamkit.workflow.task import load_stage

_LOOK_SECONDS = 0.5


class PartFailed(Exception):
    """A process of the pool failed; its ``error.json`` says how."""

    def __init__(self, code: int) -> None:
        self.code = code


def n_processes(module: ModuleType, options: Any, folder: Path, n_cores: int) -> int:
    """How many processes are worth it; 1 when the stage cannot be divided or has too little to do."""
    if not hasattr(module, "part_names") or n_cores < 2:
        return 1
    per_part = module.cores_per_part(options)
    if per_part < 1 or n_cores < 2 * per_part:
        return 1
    return max(1, min(n_cores // per_part, len(claims.missing(folder, module.part_names(options)))))


def run(module: ModuleType, options: Any, folder: Path, n: int, usable: list[int]) -> None:
    """Do all parts of a stage by ``n`` processes, each with its share of the cores.

    Args:
        module: The stage.
        options: Its options.
        folder: Its folder, with ``stage.json``.
        n: Number of processes.
        usable: Cores.

    Raises:
        PartFailed: one of them failed, with ``error.json`` in ``folder``.
        LamkitError: one of them was killed.
    """
    names = module.part_names(options)
    command = [sys.executable, "-P", "-m", "lamkit.workflow.pool", str(folder), str(os.getpid())]
    with Progress(len(names), f"{n} processes, parts") as progress:
        progress.first = claims.n_done(folder)
        supervise(
            [start(command, share) for share in shares(usable, n)],
            lambda: progress.update(claims.n_done(folder)),
        )


def shares(usable: list[int], n: int) -> list[list[int]]:
    """Cores divided among ``n`` processes; where there are fewer cores, each may use all."""
    size = len(usable) // n
    if not size:
        return [usable] * n
    return [usable[k * size : (k + 1) * size] for k in range(n)]


def start(command: list[str], own: list[int]) -> subprocess.Popen[bytes]:
    """Start a process that has some cores for itself; their numbers are its last argument."""
    return subprocess.Popen(
        [*command, ",".join(map(str, own))],
        stdin=subprocess.DEVNULL,
        env={**os.environ, **cores.environment(len(own))},
    )


def supervise(processes: list[subprocess.Popen[bytes]], look: Callable[[], None]) -> None:
    """Wait for all processes, calling ``look`` now and then; when one fails, the others are ended.

    Raises:
        PartFailed: one of them failed and said so.
        LamkitError: one of them was killed.
    """
    try:
        while any(process.poll() is None for process in processes):
            _check(processes)
            time.sleep(_LOOK_SECONDS)
            look()
        _check(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _check(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        code = process.poll()
        if code is not None and code < 0:
            raise LamkitError(f"one of {len(processes)} processes of this stage: {signal_words(-code)}")
        if code:
            raise PartFailed(code)


def main(arguments: list[str]) -> int:
    """Do parts of a stage; returns the exit code."""
    from lamkit import config, console
    from lamkit.workflow.worker import die_with_parent, guarded, know_own_modules

    folder, parent = Path(arguments[0]), int(arguments[1])
    die_with_parent(parent)
    know_own_modules()
    cores.settle_on([int(core) for core in arguments[2].split(",") if core])
    console.setup(-1)

    def work() -> None:
        task = stage_folder.read_json(folder / stage_folder.STAGE)
        module = load_stage(task["stage"], task["module"])
        options = config.parse(module.Options, task["options"], origin=task["id"])
        module.do_parts(options, folder, claims.claim(folder, module.part_names(options)))

    return guarded(folder, work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
