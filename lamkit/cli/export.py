"""``lamkit export``: a model in the form of another program."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lamkit.cli import shared_flags
from lamkit.stages.export import TARGETS

EPILOG = """examples:
  lamkit export student --to deepmd --out student.dp
  lamkit export copied/best --to deepmd --structure POSCAR --out student.dp
  lamkit export run1 --to orb --head mptrj --out mptrj.ckpt
forms:
""" + "\n".join(f"  {name:8}{text}" for name, (_, text) in TARGETS.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("model", metavar="MODEL", help="checkpoint or run folder")
    parser.add_argument("--to", required=True, choices=TARGETS, help="form")
    parser.add_argument("--head", metavar="NAME", help="which head, where the model has several")
    parser.add_argument(
        "--structure",
        metavar="FILE",
        help="what the input for LAMMPS begins with (default: a training frame)",
    )
    parser.add_argument(
        "--precision", choices=["float64", "float32"], help="of the networks in DeePMD-kit (default: float64)"
    )
    parser.add_argument("--out", metavar="FILE", help="file to write (default: model.ckpt or the like)")
    shared_flags(parser, out=False)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Export and print the file."""
    import importlib

    from lamkit.stages import export

    out = Path(args.out) if args.out else Path(f"model{importlib.import_module(TARGETS[args.to][0]).SUFFIX}")
    given = {name: getattr(args, name) for name in ("model", "to", "head", "structure", "precision")}
    return export.run(export.Options(**given), out)
