"""The process that runs one stage: ``python -m lamkit.workflow.worker FOLDER PARENT LOCK CORES``.

Its output goes to the stage's log. It ends with 0 (done), 2 (the user's input is wrong), 130 (stopped) or
1 (anything else), and leaves the message of a failure in ``error.json``.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends in any way, kill -9 included (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def main(arguments: list[str]) -> int:
    """Run the stage of a folder; returns the exit code."""
    folder = begin(arguments)
    usable = [int(core) for core in arguments[3].split(",") if core]
    return guarded(
        folder, lambda: finish(folder, lambda module, options: _run(folder, module, options, usable))
    )


def begin(arguments: list[str]) -> Path:
    """What every process of the engine does first; returns the stage's folder."""
    folder, parent, lock = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    die_with_parent(parent)
    os.set_inheritable(lock, False)  # programs started by the stage must not hold the workflow's folder
    signal.signal(signal.SIGINT, signal.default_int_handler)
    know_own_modules()
    return folder


def know_own_modules() -> None:
    """Let modules in the working folder be found (a calculator of the user's), but hide none of Python's."""
    sys.path.append(os.getcwd())


def guarded(folder: Path, work: Callable[[], None]) -> int:
    """Do ``work``; what goes wrong becomes an exit code and ``error.json``."""
    from lamkit.errors import Interrupted, UserError
    from lamkit.workflow.pool import PartFailed

    try:
        work()
    except UserError as error:
        return _failed(folder, "user", str(error), 2)
    except (KeyboardInterrupt, Interrupted) as error:
        print(f"stopped {error}".strip(), file=sys.stderr)
        return 130
    except PartFailed as error:
        return error.code
    except Exception as error:
        traceback.print_exc()
        return _failed(folder, "error", _summary(error), 1)
    return 0


def finish(folder: Path, run: Callable[[Any, Any], dict[str, Any]]) -> None:
    """Run a stage, and leave its result and the proof that it came to its end.

    Args:
        folder: The stage's folder, with ``stage.json``.
        run: Takes the stage's module and its options, returns its result.
    """
    from lamkit import config, console
    from lamkit.files import flush
    from lamkit.workflow import folder as stage_folder
    from lamkit.workflow.identity import RESUME
    from lamkit.workflow.task import load_stage

    start = time.monotonic()
    console.setup()
    task = stage_folder.read_json(folder / stage_folder.STAGE)
    module = load_stage(task["stage"], task["module"])
    options: dict[str, Any] = task["options"]
    if RESUME in module.Options.model_fields:
        options = {**options, RESUME: task["resume"]}
    result = run(module, config.parse(module.Options, options, origin=task["id"]))
    stage_folder.write_json(folder / stage_folder.RESULT, result)
    proof = {
        "key": task["key"],
        "seconds": round(time.monotonic() - start, 3),
        "files": stage_folder.list_products(folder),
    }
    flush(folder / stage_folder.STAGE)
    stage_folder.write_json(folder / stage_folder.PRODUCTS, proof)


def _run(folder: Path, module: Any, options: Any, usable: list[int]) -> dict[str, Any]:
    """The stage itself, its parts by several processes where it has any."""
    from lamkit.workflow import cores, pool

    cores.settle_on(usable)
    usable = usable or cores.available()
    n = pool.n_processes(module, options, folder, len(usable))
    if n > 1:
        pool.run(module, options, folder, n, usable)
        options = options.model_copy(update={"resume": True})  # all parts are there: put them together
    return dict(module.run(options, folder))


def _summary(error: Exception) -> str:
    return traceback.format_exception_only(error)[-1].strip()


def _failed(folder: Path, fault: str, message: str, code: int) -> int:
    from lamkit.workflow import folder as stage_folder

    print(message, file=sys.stderr)
    stage_folder.write_json(folder / stage_folder.ERROR, {"fault": fault, "message": message})
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
