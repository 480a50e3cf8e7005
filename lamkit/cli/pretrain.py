"""``lamkit pretrain --multitask``: one trunk, many heads."""

from __future__ import annotations

import argparse
from typing import Any

from lamkit.errors import UserError

EPILOG = """examples:
  lamkit pretrain --multitask                                  the sample data, some minutes
  lamkit pretrain --multitask --data mo=data/mo --data li=data/li --out run1
  lamkit pretrain --multitask pretrain.yaml --set train.max_minutes=120
  lamkit pretrain input.json --out run1                        DeePMD's input file, single or multi-task
  lamkit pretrain --multitask --data mine=data/mine --from examples/base --out run2
  lamkit pretrain --multitask --out run1 --resume

A data set is made by 'lamkit data convert'. A head without a YAML file takes its facts from its data set.
'lamkit schema pretrain' prints the keys of a config file, 'lamkit ls configs' the presets."""

DEFAULTS = {"trunk": "orb-v3-small", "train": "pretrain"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    from lamkit.cli import ranks_flags, shared_flags

    parser.add_argument(
        "config", nargs="?", help="YAML file (keys: lamkit schema pretrain), or DeePMD's input.json"
    )
    parser.add_argument("--multitask", action="store_true", help="train several heads on one trunk")
    parser.add_argument("--heads", help="heads to train, with commas between")
    parser.add_argument("--data", action="append", default=[], metavar="HEAD=DIR", help="may be repeated")
    parser.add_argument("--trunk", help="preset of configs/trunk, or a YAML file")
    parser.add_argument(
        "--from", dest="init", metavar="CKPT", help="start from the weights of a checkpoint, with its trunk"
    )
    shared_flags(parser, training=True)
    ranks_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the verb."""
    from lamkit.cli.training import options, run_folder
    from lamkit.stages import pretrain
    from lamkit.stages.sources import data_flags

    if args.resume and not args.config:
        args.config = _saved_config(args.out or "lamkit-pretrain")
    given = {
        "data": data_flags(args.data) or None,
        "heads": [h.strip() for h in args.heads.split(",") if h.strip()] if args.heads else None,
        "trunk": args.trunk,
        "init": args.init,
    }
    samples = not args.config and not args.data
    defaults = {**DEFAULTS, "train": "sample-pretrain"} if samples else DEFAULTS
    opts = options(pretrain.Options, args, given, defaults)
    n_heads = len(opts.heads if opts.heads is not None else opts.data) or 5
    if n_heads > 1 and not args.multitask and not args.resume:
        raise UserError(
            f"{n_heads} heads on one trunk: say so with --multitask, or name one head with --heads"
        )
    return pretrain.run(opts, run_folder(args, "lamkit-pretrain"))


def _saved_config(out: str) -> str:
    """Configuration of the run to resume."""
    from pathlib import Path

    path = Path(out) / "config.yaml"
    if not path.is_file():
        raise UserError(f"{out}: no config.yaml, so no run to resume; leave --resume away to start one")
    return str(path)
