"""``lamkit status``: how the stages of a workflow folder stand."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lamkit.cli import shared_flags
from lamkit.console import duration, table

if TYPE_CHECKING:
    from lamkit.workflow.status import Standing

HELP = "how a workflow stands"
WIDTH = 100
SECONDS = 2.0  # between two looks
EPILOG = """examples:
  lamkit status quickstart
  lamkit status quickstart --follow         again and again until the run is over
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``lamkit status``."""
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="workflow folder, as given to lamkit run --out"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="show it anew until the run is over")
    shared_flags(parser, out=False)


def run(args: argparse.Namespace) -> dict[str, object]:
    """Print the table; the same as JSON on stdout with --json."""
    from lamkit.lock import held
    from lamkit.workflow import status

    standings = status.read(args.folder)
    if not args.json:
        while args.follow and held(args.folder):
            print(
                f"\033[H\033[2J{_table(standings)}" if sys.stdout.isatty() else _table(standings), flush=True
            )
            time.sleep(SECONDS)
            standings = status.read(args.folder)
        print(_table(standings), flush=True)
    return {"folder": str(args.folder), "stages": [dataclasses.asdict(s) for s in standings]}


def shortened(text: str) -> str:
    """What fits into a line: the first of a message."""
    line = text.partition("\n")[0]
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def _table(standings: Sequence[Standing]) -> str:
    rows = [
        (s.id, s.stage, s.state, "" if s.seconds is None else duration(s.seconds), shortened(s.text))
        for s in standings
    ]
    return table(rows, ("id", "stage", "state", "time", "progress or reason"))
