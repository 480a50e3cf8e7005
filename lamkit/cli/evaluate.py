"""``lamkit evaluate``: errors of a model on labelled data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lamkit.cli import shared_flags
from lamkit.errors import UserError
from lamkit.report import errors

EPILOG = """examples:
  lamkit evaluate run1 --data mydata --head mptrj
  lamkit evaluate run1 --data mptrj=data/mptrj --data gfn2=data/gfn2 --out errors
  lamkit evaluate run1 --data mydata --head mptrj -d detail/h2o      dp-test detail files
  lamkit evaluate run1 --data mydata --head mptrj --show dp          errors as 'dp test' prints them
  lamkit evaluate run1 --data mydata --head mptrj --show table elements forces
A folder that 'lamkit data split' wrote, or a data set in which it recorded a split, stands for its part 'test', or
'valid' where there is no test part."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("model", metavar="MODEL", help="checkpoint or run folder")
    parser.add_argument(
        "--data", metavar="[HEAD=]DIR", action="append", required=True,
        help="data set; may be repeated with the head it is for",
    )  # fmt: skip
    parser.add_argument("--head", metavar="NAME", help="head for a data set given without one")
    parser.add_argument(
        "-d", "--detail", metavar="PREFIX", help="write dp-test detail files PREFIX.e.out ..."
    )
    parser.add_argument(
        "--part", choices=["test", "valid", "train", "all"],
        help="of the split recorded in the data set (default: test, or valid where there is no test part)",
    )  # fmt: skip
    parser.add_argument("--split", default="default", metavar="NAME", help="name of the recorded split")
    parser.add_argument(
        "--show", nargs="+", choices=list(errors.WORDS), default=["table"], metavar="WHAT",
        help=f"what to print: {', '.join(errors.WORDS)} (default: table)",
    )  # fmt: skip
    parser.add_argument("--max-frames", type=int, metavar="N", help="at most N frames per data set")
    parser.add_argument("--batch-atoms", type=int, metavar="N", help="atoms per batch")
    parser.add_argument("--device", choices=["CPU", "GPU", "Ascend"], default="CPU")
    shared_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate and print the table; returns head → errors."""
    from lamkit import config
    from lamkit.stages import evaluate

    given = {
        "model": args.model, "data": data_sets(args.data), "head": args.head, "detail": args.detail,
        "max_frames": args.max_frames, "device": args.device, "part": args.part, "split": args.split,
    }  # fmt: skip
    if args.batch_atoms is not None:
        given["batch_atoms"] = args.batch_atoms
    options = config.parse(evaluate.Options, given, origin="lamkit evaluate")
    result = evaluate.run(options, Path(args.out) if args.out else None)
    if not args.json:
        print("\n\n".join(errors.WORDS[words](result) for words in args.show))
    return result


def data_sets(given: list[str]) -> dict[str, str]:
    """``--data`` arguments as head → folder; the key is empty where no head stands before the folder.

    Raises:
        UserError: several without a head, or one head twice.
    """
    result: dict[str, str] = {}
    for text in given:
        head, equals, folder = text.partition("=")
        if not equals or "/" in head or Path(text).exists():
            head, folder = "", text
        if head in result:
            what = f"head '{head}' is given twice" if head else "several data sets need their heads"
            raise UserError(f"--data {text}: {what}; write --data HEAD=DIR for each")
        result[head] = folder
    return result
