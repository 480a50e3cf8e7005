"""``lamkit data``: convert, info, check, split, export, fetch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

HELP = "convert, inspect, check and split data sets"
EPILOG = """examples:
  lamkit data convert runs/*/OUTCAR --out mydata --head mine
  lamkit data convert MPtrj_2022.9_full.json --out mptrj --head mptrj
  lamkit data convert md17.xyz --units kcal/mol --out ethanol
  lamkit data info mydata            lamkit data info mydata mptrj
  lamkit data check mydata --out audit
  lamkit data split mydata --valid 0.1 --test 0.1            recorded in mydata, used by every verb
  lamkit data split mydata --by composition --out parts      each part a data set of its own
  lamkit data export mydata --to extxyz --out mydata.extxyz
  lamkit data fetch mptrj
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions."""
    from lamkit.cli import data_exchange, data_look, shared_flags

    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    convert = actions.add_parser("convert", help="any number of files, folders or globs to one data set")
    convert.add_argument("sources", nargs="+", metavar="SOURCE", help="file, folder or glob")
    convert.add_argument("--format", default="auto", help="format of all sources (default: found out)")
    convert.add_argument("--head", metavar="NAME", help="head that the data belong to")
    convert.add_argument("--unlabelled", action="store_true", help="keep structures without labels")
    convert.add_argument("--against", action="append", default=[], metavar="DIR",
                         help="data set whose frames count as duplicates (may be repeated)")  # fmt: skip
    convert.add_argument("--workers", type=int, metavar="N", help="processes that read (default: all cores)")
    for name, help_text in (
        ("energy-key", "name of the energy in the file"),
        ("forces-key", "name of the forces"),
        ("stress-key", "name of the stress"),
        ("virial-key", "name of the virial"),
        ("units", "unit of energies: eV, kcal/mol, kJ/mol, Hartree, Ry"),
        ("length-unit", "unit of lengths: A, Bohr, nm"),
        ("stress-unit", "unit of stresses: eV/A^3, GPa, kbar, bar"),
        ("stress-sign", "positive means: tension (ASE) or compression (VASP, LAMMPS)"),
    ):
        convert.add_argument(f"--{name}", metavar="X", help=help_text)
    shared_flags(convert)

    data_look.add_actions(actions)

    split = actions.add_parser("split", help="train, valid and test parts without leaks")
    split.add_argument("data", metavar="DIR")
    split.add_argument("--by", choices=["group", "mp-id", "composition", "temperature", "random"], default="group",
                       help="what stays together (default: group, a trajectory or material)")  # fmt: skip
    split.add_argument("--stratify", default="", metavar="A,B",
                       help="same mixture in all parts of: elements, size, energy, forces")  # fmt: skip
    split.add_argument("--valid", type=float, default=0.1, metavar="SHARE", help="default: 0.1")
    split.add_argument("--test", type=float, default=0.0, metavar="SHARE", help="default: 0")
    split.add_argument("--seed", type=int, default=0)
    split.add_argument("--name", default="default", help="of the split, where it is recorded in DIR")
    shared_flags(split)

    data_exchange.add_actions(actions)


def run(args: argparse.Namespace) -> Any:
    """Call the action."""
    from lamkit.cli import data_exchange, data_look

    action = {
        "convert": _convert,
        "info": data_look.info,
        "check": data_look.check,
        "split": _split,
        "export": data_exchange.export,
        "fetch": data_exchange.fetch,
    }[args.action]
    return action(args)


def _out(args: argparse.Namespace) -> Path:
    from lamkit.errors import UserError

    if not args.out:
        raise UserError(f"lamkit data {args.action}: --out DIR is missing: where to write the result")
    return Path(args.out)


def _convert(args: argparse.Namespace) -> dict[str, Any]:
    from lamkit import config
    from lamkit.data.read_options import OPTION_NAMES, ReadOptions
    from lamkit.stages import convert

    given = {name: getattr(args, name) for name in OPTION_NAMES if getattr(args, name) is not None}
    options = {
        "sources": args.sources,
        "format": args.format,
        "head": args.head,
        "reading": config.parse(ReadOptions, given, origin="lamkit data convert"),
        "unlabelled": args.unlabelled,
        "against": args.against,
        "workers": args.workers,
    }
    return convert.convert(config.parse(convert.Options, options, origin="lamkit data convert"), _out(args))


def _split(args: argparse.Namespace) -> dict[str, Any]:
    from lamkit import config
    from lamkit.stages import split

    options = {name: getattr(args, name) for name in ("data", "by", "valid", "test", "seed", "name")}
    options["stratify"] = [word.strip() for word in args.stratify.split(",") if word.strip()]
    out = Path(args.out) if args.out else None
    return split.run(config.parse(split.Options, options, origin="lamkit data split"), out)
