"""``lamkit select``: a diverse part of a set of structures."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """examples:
  lamkit select --data found/data --model run1 --n-frames 200 --out chosen
  lamkit select --data found/data --model run1 --taken old/data --n-frames 100 --out more
  lamkit select --data found/data --method entropy --n-frames 200    without any model

The data set is chosen/data; redundancy 1 means that what was left out repeats what was chosen."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    from lamkit.cli import shared_flags

    parser.add_argument("config", nargs="?", help="YAML file (keys: lamkit schema select)")
    parser.add_argument("--data", metavar="PATH", help="data set or structure file to choose from")
    parser.add_argument("--model", metavar="CKPT", help="checkpoint whose features tell frames apart")
    parser.add_argument("--head", metavar="NAME", help="head of the checkpoint (any: features are shared)")
    parser.add_argument("--n-frames", type=int, metavar="N", help="how many to choose")
    parser.add_argument("--method", choices=["farthest", "entropy", "random"], help="how to choose")
    parser.add_argument("--taken", nargs="+", metavar="PATH", help="data sets to keep away from")
    shared_flags(parser, training=True)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the verb."""
    from lamkit.cli.stages import options, run_folder
    from lamkit.stages import select

    out = run_folder(args, "lamkit-select")
    given = {
        "data": args.data,
        "model": args.model,
        "head": args.head,
        "n_frames": args.n_frames,
        "method": args.method,
        "taken": args.taken,
    }
    return select.run(options(select.Options, args, out, given), out)
