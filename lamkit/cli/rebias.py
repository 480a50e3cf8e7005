"""``lamkit rebias MODEL --head NAME --data DIR``."""

from __future__ import annotations

import argparse
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    from lamkit.cli import shared_flags

    parser.add_argument("model", help="checkpoint or run folder")
    parser.add_argument("--head", required=True)
    parser.add_argument("--data", required=True, metavar="DIR", help="data set with energies")
    parser.add_argument("--device", choices=["CPU", "GPU", "Ascend"], default="CPU")
    shared_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the verb."""
    from pathlib import Path

    from lamkit.errors import UserError
    from lamkit.stages import rebias

    out = Path(args.out or "lamkit-rebias")
    if (out / "checkpoints").exists():
        raise UserError(f"{out}: already holds checkpoints; --out DIR names another folder")
    options = rebias.Options(checkpoint=args.model, head=args.head, data=args.data, device=args.device)
    return rebias.run(options, out)
