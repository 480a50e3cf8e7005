"""``lamkit rank-heads MODEL --data DIR``: which head fits data before any training."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """examples:
  lamkit rank-heads run1 --data mydata
  lamkit finetune --head mine --from run1 --data mydata --init HEAD     begin as the head of your choice
Forces decide, because they do not depend on the energy reference; the reference of each head is refitted on the
data before its energy error is taken. 'never saw': elements of the data that the head was not trained on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    from lamkit.cli import shared_flags

    parser.add_argument("model", metavar="MODEL", help="checkpoint or run folder")
    parser.add_argument("--data", required=True, metavar="DIR", help="data set")
    parser.add_argument("--device", choices=["CPU", "GPU", "Ascend"], default="CPU")
    shared_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the verb."""
    from pathlib import Path

    from lamkit.stages import rank_heads

    options = rank_heads.Options(model=args.model, data=args.data, device=args.device)
    result = rank_heads.run(options, Path(args.out) if args.out else None)
    table = result.pop("table")
    if not args.json:
        print(table)
    return result
