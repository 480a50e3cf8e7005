"""``lamkit finetune --head NAME``: one head on new data."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """examples:
  lamkit finetune --head mptrj --from run1 --data mydata --out tuned
  lamkit finetune --head mine --from run1 --data mydata        a new head, begun as the one that fits best
  lamkit finetune --head pesky --from run1 --data mydata --init random
  lamkit finetune --head pbesol_bnbzto                         sample model, sample data

The reference energies are refitted on the new data; the other heads stay in the checkpoint."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    from lamkit.cli import shared_flags

    parser.add_argument("config", nargs="?", help="YAML file (keys: lamkit schema finetune)")
    parser.add_argument("--head", help="head to train; a name that the checkpoint lacks makes a new head")
    parser.add_argument("--from", dest="checkpoint", metavar="CKPT", help="checkpoint or run folder")
    parser.add_argument("--data", metavar="DIR", help="data set (or HEAD=DIR)")
    parser.add_argument("--init", help="for a new head: auto, random or a head of the checkpoint")
    parser.add_argument("--frames", type=int, metavar="N", help="use only N training frames")
    shared_flags(parser, training=True)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the verb."""
    from lamkit.cli.training import options, run_folder
    from lamkit.errors import UserError
    from lamkit.stages import finetune
    from lamkit.stages.sources import data_flags

    if args.resume and not args.config:
        from lamkit.cli.pretrain import _saved_config

        args.config = _saved_config(args.out or "lamkit-finetune")
    data = data_flags([args.data], head=args.head or "") if args.data else {}
    if data and args.head and list(data) != [args.head]:
        raise UserError(f"--data {args.data}: is for head '{next(iter(data))}', --head says '{args.head}'")
    given = {
        "head": args.head or next((name for name in data if name), None),
        "checkpoint": args.checkpoint,
        "data": next(iter(data.values()), None),
        "init": args.init,
        "n_frames": args.frames,
    }
    if given["head"] is None and not args.config:
        raise UserError("which head? --head NAME (lamkit show CKPT lists those of a checkpoint)")
    samples = not args.config and not args.data
    opts = options(finetune.Options, args, given, {"train": "sample-finetune" if samples else "finetune"})
    return finetune.run(opts, run_folder(args, "lamkit-finetune"))
