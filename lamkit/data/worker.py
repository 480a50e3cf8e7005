"""A worker process of a conversion: reads pieces as they come on its input, answers on its output.

Run as ``python -m lamkit.data.worker`` by :mod:`lamkit.data.workers`: the first line holds the settings, each
further line a piece.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

from lamkit import config
from lamkit.data.intake import Intake, Settings
from lamkit.data.pieces import Piece
from lamkit.errors import UserError


def main() -> None:
    """Read until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print; the answers go where only this program writes
    settings = config.parse(Settings, json.loads(sys.stdin.readline()), origin="settings of a worker")
    intake = None
    for line in sys.stdin:
        told: dict[str, Any]
        try:
            intake = intake or Intake(settings)
            told = {"frames": intake.read(Piece.from_json(json.loads(line)))}
        except UserError as error:
            told = {"wrong": str(error)}
        except Exception:
            told = {"failed": traceback.format_exc()}
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
