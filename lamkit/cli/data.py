"""``lamkit data``: convert, info, check, split, fetch."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HELP = "convert, inspect, check and split data sets"
EPILOG = """examples:
  lamkit data convert runs/*/OUTCAR --out mydata --head mine
  lamkit data convert MPtrj_2022.9_full.json --out mptrj --head mptrj
  lamkit data convert md17.xyz --units kcal/mol --out ethanol
  lamkit data info mydata
  lamkit data split mydata --out parts --valid 0.1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the five actions."""
    from lamkit.cli import shared_flags

    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    convert = actions.add_parser("convert", help="any number of files, folders or globs to one data set")
    convert.add_argument("sources", nargs="+", metavar="SOURCE", help="file, folder or glob")
    convert.add_argument("--format", default="auto", help="format of all sources (default: found out)")
    convert.add_argument("--head", metavar="NAME", help="head that the data belong to")
    convert.add_argument("--unlabelled", action="store_true", help="keep structures without labels")
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

    info = actions.add_parser("info", help="what a data set holds")
    info.add_argument("data", metavar="DIR")
    shared_flags(info, out=False)

    check = actions.add_parser(
        "check", help="audit checksums and every frame; exit code 2 if anything is bad"
    )
    check.add_argument("data", metavar="DIR")
    shared_flags(check, out=False)

    split = actions.add_parser("split", help="train, valid and test parts without leaks")
    split.add_argument("data", metavar="DIR")
    split.add_argument("--by", choices=["group", "random", "composition"], default="group")
    split.add_argument("--valid", type=float, default=0.1, metavar="SHARE", help="default: 0.1")
    split.add_argument("--test", type=float, default=0.0, metavar="SHARE", help="default: 0")
    split.add_argument("--seed", type=int, default=0)
    shared_flags(split)

    fetch = actions.add_parser("fetch", help="where to get the data of a head")
    fetch.add_argument("head", metavar="HEAD")
    shared_flags(fetch)


def run(args: argparse.Namespace) -> int | dict[str, Any]:
    """Call the action."""
    return {"convert": _convert, "info": _info, "check": _check, "split": _split, "fetch": _fetch}[
        args.action
    ](args)


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
    }
    return convert.convert(config.parse(convert.Options, options, origin="lamkit data convert"), _out(args))


def _info(args: argparse.Namespace) -> dict[str, Any]:
    from lamkit.data.audit import summary
    from lamkit.data.dataset import open_dataset

    result = summary(open_dataset(args.data))
    if not args.json:
        print(_words(result))
    return result


def _words(result: dict[str, Any]) -> str:
    """The summary as lines for people."""
    low, high = result["atoms_per_frame"]
    theory = result["level_of_theory"] or {}
    said = [str(value) for value in theory.values() if value]
    labels = [f"{name} {n}" for name, n in result["labels"].items() if n]
    lines = [
        ("data set", result["path"]),
        ("head", f"{result['head'] or 'none'}  {result['title']}".strip()),
        ("level of theory", ", ".join(said) or "not known"),
        ("frames", f"{result['n_frames']} in {result['n_groups']} groups from {result['n_sources']} sources"),
        ("atoms", f"{low} to {high} per frame, {result['n_atoms']} in all"),
        ("elements", " ".join(result["elements"])),
        ("labels", ", ".join(labels) or "none"),
    ]
    if "energy_per_atom" in result:
        lowest, highest = result["energy_per_atom"]
        lines += [
            ("energy", f"{lowest:.4f} to {highest:.4f} eV/atom"),
            ("energy spread", f"{result['energy_spread']:.4f} eV/atom after a fit of energies per element"),
        ]
        lines += [("", text) for text in result["not_determined"]]
    for name, unit in (("forces_rms", "eV/A"), ("stress_rms", "eV/A^3")):
        if result.get(name) is not None:
            lines.append((name.replace("_", " "), f"{result[name]:.4g} {unit}"))
    if result["split"]:
        lines.append(("split", f"{result['split']['part']}, by {result['split']['method']}"))
    lines += [("note", text) for text in result["notes"]]
    return "\n".join(f"{name:16s} {text}" for name, text in lines)


def _check(args: argparse.Namespace) -> dict[str, Any]:
    from lamkit.console import log
    from lamkit.data.audit import audit
    from lamkit.data.dataset import open_dataset
    from lamkit.errors import UserError

    result = audit(open_dataset(args.data))
    if result["ok"]:
        log.info("%s: %d frames, no fault found", args.data, result["n_frames"])
        return result
    if args.json:
        print(json.dumps(result))
    lines = [f"{args.data}: not sound"]
    for what, n in result["problems"].items():
        where = "; ".join(result["examples"][what][:3])
        lines.append(f"  {n} x {what}: {where}{' …' if n > 3 else ''}")
    lines.append("Convert the sources again, which leaves such frames out.")
    raise UserError("\n".join(lines))


def _split(args: argparse.Namespace) -> dict[str, Any]:
    from lamkit import config
    from lamkit.stages import split

    options = {name: getattr(args, name) for name in ("data", "by", "valid", "test", "seed")}
    return split.run(config.parse(split.Options, options, origin="lamkit data split"), _out(args))


def _fetch(args: argparse.Namespace) -> dict[str, Any]:
    from lamkit.data.heads import how_to_get, load_head, open_or_convert_head
    from lamkit.errors import UserError

    head = load_head(args.head)
    if head.source.path is None:
        raise UserError(
            f"{head.name}: this version does not download data itself. {how_to_get(head)}\n"
            f"Then: lamkit data convert FILES --head {head.name} --out DIR"
        )
    path = open_or_convert_head(head, Path(args.out or "data"))
    return {"head": head.name, "path": str(path)}
