"""``lamkit report``: one HTML page of a run or workflow folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lamkit.cli import shared_flags

EPILOG = """examples:
  lamkit report lamkit-quickstart             writes lamkit-quickstart/report.html
  lamkit report runs --out summary.html --title "Perovskites, first week"
The page holds its figures and needs no network; they are also written to figures/ beside it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("folder", metavar="DIR", help="workflow folder, run folder, or a folder of runs")
    parser.add_argument("--out", metavar="FILE", help="page to write (DIR/report.html)")
    parser.add_argument("--title", help="heading of the page")
    shared_flags(parser, out=False)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the report; returns the files written."""
    from lamkit.stages import report

    folder = Path(args.folder)
    options = report.Options(title=args.title or f"LAMKit: {folder.resolve().name}", folder=str(folder))
    return report.write(options, _file(folder, args.out))


def _file(folder: Path, out: str | None) -> Path:
    if out is None:
        return folder / "report.html"
    path = Path(out)
    return path if path.suffix in (".html", ".htm") else path / "report.html"
