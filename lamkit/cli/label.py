"""``lamkit label``: energies, forces and stresses for structures, by a model or any ASE calculator."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """examples:
  lamkit label --data found/data --model run1 --head mptrj --out labelled
  lamkit label --data structures.xyz --calculator mycode:make_dft_calculator --out labelled
  lamkit label --out labelled --resume

A calculator is MODULE:FUNCTION, called without arguments. The data set is labelled/data."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    from lamkit.cli import shared_flags

    parser.add_argument("config", nargs="?", help="YAML file (keys: lamkit schema label)")
    parser.add_argument("--data", metavar="PATH", help="data set or structure file")
    parser.add_argument("--model", metavar="CKPT", help="checkpoint or run folder that labels")
    parser.add_argument("--head", metavar="NAME", help="head of the checkpoint")
    parser.add_argument(
        "--calculator", metavar="MODULE:FUNCTION", help="any ASE calculator instead of a model"
    )
    parser.add_argument("--chunk", type=int, metavar="N", help="frames labelled and saved together")
    shared_flags(parser, training=True)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the verb."""
    from lamkit.cli.stages import options, run_folder
    from lamkit.stages import label

    out = run_folder(args, "lamkit-label")
    given = {
        "data": args.data,
        "model": args.model,
        "head": args.head,
        "calculator": args.calculator,
        "chunk": args.chunk,
    }
    args.seed = None  # nothing here is random
    return label.run(options(label.Options, args, out, given), out)
