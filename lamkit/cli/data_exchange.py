"""``lamkit data fetch`` and ``lamkit data export``: data from elsewhere, and for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

KINDS = ("deepmd", "extxyz", "ase-db")  # lamkit.data.exchange.WRITERS, without importing it


def add_actions(actions: Any) -> None:
    """Declare both."""
    from lamkit.cli import shared_flags

    export = actions.add_parser("export", help="a data set as DeePMD folders, extended XYZ or ASE database")
    export.add_argument("data", metavar="DIR")
    export.add_argument("--to", choices=KINDS, required=True, help="what to write")
    shared_flags(export)

    fetch = actions.add_parser("fetch", help="download the data of a head, or go on with a download")
    fetch.add_argument("head", metavar="HEAD")
    fetch.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds without data (30)")
    shared_flags(fetch)


def export(args: argparse.Namespace) -> dict[str, Any]:
    """Write a data set in another form."""
    from lamkit.console import log, table
    from lamkit.data.dataset import open_dataset
    from lamkit.data.exchange import export
    from lamkit.errors import UserError

    if not args.out:
        raise UserError("lamkit data export: --out is missing: the file (for deepmd the folder) to write")
    result = export(open_dataset(args.data), args.to, Path(args.out))
    if result["remarks"]:
        log.info("%s\n", table([(n, what) for what, n in result["remarks"].items()], ("frames", "remark")))
    log.info("%s: %d frames", result["path"], result["written"])
    return result


def fetch(args: argparse.Namespace) -> dict[str, Any]:
    """Download the data of a head; sample data that are shipped are converted."""
    from lamkit.data.fetch.download import Patience
    from lamkit.data.fetch.head import fetch
    from lamkit.data.heads import load_head, open_or_convert_head

    head = load_head(args.head)
    if head.source.path is not None:
        path = open_or_convert_head(head, Path(args.out or "data"))
        return {"head": head.name, "path": str(path)}
    return fetch(head, Path(args.out or "downloads"), Patience(timeout=args.timeout))
