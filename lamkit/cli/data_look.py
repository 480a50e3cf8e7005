"""``lamkit data info`` and ``lamkit data check``: looking at data sets."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_actions(actions: Any) -> None:
    """Declare both."""
    from lamkit.cli import shared_flags

    info = actions.add_parser("info", help="what a data set holds; several: how they compare")
    info.add_argument("data", nargs="+", metavar="DIR")
    shared_flags(info, out=False)
    check = actions.add_parser(
        "check", help="audit files, frames and the set as a whole; exit code 1 if anything is wrong"
    )
    check.add_argument("data", metavar="DIR", help="data set of LAMKit, or folders of DeePMD or dpdata")
    check.add_argument(
        "--out", metavar="DIR", help="also write report.html, report.csv and report.json there"
    )
    shared_flags(check, out=False)


def info(args: argparse.Namespace) -> dict[str, Any]:
    """Print a summary, or a comparison of several sets."""
    from lamkit.data.dataset import open_dataset
    from lamkit.data.summary import compare, summary
    from lamkit.report import dataset_words as words

    datasets = [open_dataset(path) for path in args.data]
    result = summary(datasets[0]) if len(datasets) == 1 else compare(datasets)
    if not args.json:
        print(words.info(result) if len(datasets) == 1 else words.comparison(result))
    return result


def check(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Audit; the exit code is 1 where something is wrong."""
    from lamkit.console import log
    from lamkit.data.audit import audit
    from lamkit.data.dataset import open_dataset
    from lamkit.report import dataset_words as words

    if args.out and Path(args.out).exists() and any(Path(args.out).glob("dataset.yaml")):
        from lamkit.errors import UserError

        raise UserError(f"--out {args.out}: is a data set; the report of an audit needs a folder of its own")
    dataset = open_dataset(args.data)
    found = audit(dataset)
    if not args.json:
        print(words.audit(found.result))
    if args.out:
        from lamkit.report.dataset import audit_report

        audit_report(Path(args.out), dataset, found)
        log.info("report: %s", Path(args.out) / "report.html")
    return found.result, 0 if found.result["ok"] else 1
