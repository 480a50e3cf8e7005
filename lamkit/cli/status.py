"""``lamkit status``: how the stages of a workflow folder stand."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from lamkit.cli import shared_flags
from lamkit.console import duration, table

HELP = "how a workflow stands"
EPILOG = """examples:
  lamkit status quickstart
  watch -n 5 lamkit status quickstart
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``lamkit status``."""
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="workflow folder, as given to lamkit run --out"
    )
    shared_flags(parser, out=False)


def run(args: argparse.Namespace) -> dict[str, object]:
    """Print the table; the same as JSON on stdout with --json."""
    from lamkit.workflow import status

    standings = status.read(args.folder)
    rows = [
        (s.id, s.stage, s.state, "" if s.seconds is None else duration(s.seconds), s.text.partition("\n")[0])
        for s in standings
    ]
    if not args.json:
        print(table(rows, ("id", "stage", "state", "time", "progress or reason")))
        sys.stdout.flush()
    return {"folder": str(args.folder), "stages": [dataclasses.asdict(s) for s in standings]}
