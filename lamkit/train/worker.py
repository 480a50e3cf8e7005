"""One rank of a training run: ``python -m lamkit.train.worker FOLDER LEVEL``, started by :mod:`lamkit.train.launch`."""

from __future__ import annotations

import json
import logging
import os
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

from lamkit import console
from lamkit.errors import Interrupted, LamkitError, UserError
from lamkit.files import atomic_write

CODES = {UserError: 2, Interrupted: 130}


def main(folder: Path, level: int) -> int:
    """Train as one of several; what came of it is written to ``rank-N.json``. Returns the exit code."""
    from lamkit.train import world
    from lamkit.train.run import train

    if os.environ["MS_ROLE"] == "MS_SCHED":
        world.schedule()
        return 0
    found = world.role()
    rank = found.rank if found is not None else 0
    console.setup({logging.DEBUG: 1, logging.INFO: 0}.get(level, -1))
    run, resume = pickle.loads((folder / "run.pickle").read_bytes())
    report: dict[str, Any]
    code = 0
    try:
        report = {"result": train(run, resume=resume)}
    except LamkitError as error:
        report, code = {"error": type(error).__name__, "message": str(error)}, CODES.get(type(error), 1)
    except Exception as error:
        traceback.print_exc()
        report, code = {"error": "LamkitError", "message": f"{type(error).__name__}: {error}"}, 1
    atomic_write(folder / f"rank-{rank}.json", json.dumps(report, default=str))
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
