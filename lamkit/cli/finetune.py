"""``lamkit finetune --head NAME``: one or several heads on new data."""

from __future__ import annotations

import argparse
import json
from typing import Any

EPILOG = """examples:
  lamkit finetune --head mptrj --from run1 --data mydata --out tuned
  lamkit finetune --head mine --from run1 --data mydata        a new head, begun as the one that fits best
  lamkit finetune --head auto --from run1 --data mydata        the same, called after the data
  lamkit finetune --head mine --from run1 --data mydata --init mptrj
  lamkit finetune --head mine --from run1 --data mydata --tune lora=8        or heads, freeze=2
  lamkit finetune --head mine --from run1 --data mydata --replay             old heads train along
  lamkit finetune --head a --head b --from run1 --data a=dirA --data b=dirB  both at once
  lamkit finetune input.json --from run1                       DeePMD's input file
  lamkit finetune --head pbesol_bnbzto                         sample model, sample data

The reference energies are refitted on the new data, which is all that happens before step 0. The checkpoint that is
returned has the lowest force errors on validation frames, the start included. The old heads stay in it; the run ends
with a table of what became of their errors."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    from lamkit.cli import ranks_flags, shared_flags

    parser.add_argument(
        "config", nargs="?", help="YAML file (keys: lamkit schema finetune), or DeePMD's input.json"
    )
    parser.add_argument(
        "--head", action="append", metavar="NAME",
        help="head to train; a name that the checkpoint lacks, or auto, makes a new head; may be repeated",
    )  # fmt: skip
    parser.add_argument("--from", dest="checkpoint", metavar="CKPT", help="checkpoint or run folder")
    parser.add_argument(
        "--data", action="append", metavar="[HEAD=]DIR", help="data set; may be repeated with its head"
    )
    parser.add_argument(
        "--init", help="begin as this head of the checkpoint, auto (the one that fits best) or random"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="use only N training frames")
    parser.add_argument(
        "--tune", metavar="WHAT", help="full (the default), heads, freeze=LAYERS or lora=RANK"
    )
    parser.add_argument(
        "--replay", nargs="*", metavar="HEAD[=DIR]", default=None,
        help="old heads train along: those named, or all; on their own labels, or on real data in DIR",
    )  # fmt: skip
    shared_flags(parser, training=True)
    ranks_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the verb."""
    from lamkit.cli.training import options, run_folder
    from lamkit.errors import UserError
    from lamkit.stages import finetune
    from lamkit.train.tune import from_text

    if args.resume and not args.config:
        from lamkit.cli.pretrain import _saved_config

        args.config = _saved_config(args.out or "lamkit-finetune")
    heads, data = _heads_and_data(args.head, args.data)
    if heads is None and not args.config:
        raise UserError("which head? --head NAME (lamkit show CKPT lists those of a checkpoint)")
    given = {
        "head": heads,
        "checkpoint": args.checkpoint,
        "data": data,
        "init": args.init,
        "n_frames": args.frames,
        "replay": _replay(args.replay),
    }
    if args.tune is not None:
        args.overrides = [*args.overrides, f"train.tune={json.dumps(from_text(args.tune))}"]
    samples = not args.config and not args.data
    opts = options(finetune.Options, args, given, {"train": "sample-finetune" if samples else "finetune"})
    return finetune.run(opts, run_folder(args, "lamkit-finetune"))


def _heads_and_data(heads: list[str] | None, items: list[str] | None) -> tuple[Any, Any]:
    """``--head`` and ``--data`` as the options of those names; None where neither is given."""
    from lamkit.errors import UserError
    from lamkit.stages.sources import data_flags

    only = heads[0] if heads and len(heads) == 1 else None
    data = data_flags(items, head=only if only is not None else None if heads else "") if items else {}
    names = heads or [name for name in data if name]
    if heads and (strange := [name for name in data if name not in heads]):
        raise UserError(
            f"--data {strange[0]}={data[strange[0]]}: --head does not name that head: {', '.join(heads)}"
        )
    if len(names) <= 1:
        return (names[0] if names else None), next(iter(data.values()), None)
    return names, data or None


def _replay(items: list[str] | None) -> dict[str, Any] | None:
    """``--replay``, ``--replay a b`` or ``--replay a=DIR`` as the option."""
    if items is None:
        return None
    pairs = [item.partition("=") for item in items]
    found: dict[str, Any] = {"data": {name: path for name, equals, path in pairs if equals}}
    return {**found, "heads": [name for name, _, _ in pairs]} if items else found
