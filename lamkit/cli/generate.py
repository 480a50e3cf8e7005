"""``lamkit generate``: supercells, distinct occupations, defects, strained and perturbed structures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

EPILOG = """examples:
  lamkit generate POSCAR --supercell 2 2 2 --perturb 10 --distance 0.1 --cell 0.03 --out many
  lamkit generate BaTiO3.cif --supercell 2 2 2 --site Ba=Ba4Na2Bi2 --site Ti=Ti7Zr1 --out perovskites
  lamkit generate disordered.cif --supercell 2 2 1          partial occupancies of the file
  lamkit generate POSCAR --supercell 2 2 2 --vacancy O=1 --substitute Ti:Zr=1
  lamkit generate POSCAR --strain=-0.04,-0.02,0.02,0.04 --set 'strain.modes=[volume, a, ab]' --keep

Sites are elements, or indices of atoms of the file (0-3,8); X in a composition is a vacancy. All symmetry-distinct
occupations are made, or a random choice where there are more than --max. The data set is OUT/data, the structures
are OUT/structures.extxyz (--poscar: OUT/poscar/), multiplicities and space groups are in OUT/table.csv."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    from lamkit.cli import shared_flags

    add = parser.add_argument
    add("structures", nargs="*", metavar="FILE", help="POSCAR, CIF, any file that ASE reads, or data sets")
    add("--config", metavar="YAML", help="YAML file (keys: lamkit schema generate)")
    add("--supercell", nargs="+", metavar="N", help="three repeats, or the nine numbers of a matrix")
    add("--site", action="append", metavar="SITE=FORMULA", help="species on a site, for example Ba=Ba4Na2Bi2")
    add("--vacancy", action="append", metavar="ELEMENT=N", help="take N atoms of the supercell out")
    add("--substitute", action="append", metavar="OLD:NEW=N", help="replace N atoms of the supercell")
    add("--max", type=int, metavar="N", help="all distinct occupations up to so many (1000)")
    add("--random", type=int, metavar="N", help="occupations drawn at random where there are more (100)")
    add("--strain", metavar="E,E", help="strains of the cell with commas between: --strain=-0.02,0.02")
    add("--perturb", type=int, metavar="N", help="random copies of each structure")
    add("--distance", type=float, metavar="A", help="displacements of the atoms, root mean square in Å (0.1)")
    add("--cell", type=float, metavar="F", help="largest random strain of the cell (0.03)")
    add("--keep", action="store_true", default=None, help="keep the unperturbed structures too")
    add("--poscar", action="store_true", help="write POSCAR files instead of one extxyz file")
    shared_flags(parser)
    add(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override an option"
    )
    add("--seed", type=int, help="seed of every random choice")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the verb."""
    from pathlib import Path

    from lamkit.cli.stages import numbers, options
    from lamkit.errors import UserError
    from lamkit.stages import generate

    args.resume = False  # done in one go
    out = Path(args.out or "lamkit-generate")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: already exists; --out DIR names another folder")
    size, files = _size_and_files(args.supercell or [])
    given = {
        "structures": [*args.structures, *files] or None,
        "supercell": size or None,
        "sites": _pairs("--site", args.site),
        "vacancies": _counts("--vacancy", args.vacancy),
        "substitutions": _counts("--substitute", args.substitute),
        "occupations.max": args.max,
        "occupations.n_random": args.random,
        "strain.amplitudes": numbers("--strain", args.strain),
        "perturb.n": args.perturb,
        "perturb.distance": args.distance,
        "perturb.cell": args.cell,
        "keep": args.keep,
        "format": "poscar" if args.poscar else None,
    }
    return generate.run(options(generate.Options, args, out, given), out)


def _size_and_files(words: Sequence[str]) -> tuple[list[int], list[str]]:
    """Numbers, and what stands behind them: in ``--supercell 2 2 2 POSCAR`` the parser cannot tell these apart."""
    n = next((i for i, word in enumerate(words) if not word.lstrip("-").isdecimal()), len(words))
    return [int(word) for word in words[:n]], list(words[n:])


def _pairs(flag: str, texts: Sequence[str] | None) -> dict[str, str] | None:
    """``NAME=VALUE`` texts as a mapping.

    Raises:
        UserError: no ``=``, or a name given twice.
    """
    from lamkit.errors import UserError

    if texts is None:
        return None
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UserError(f"{flag} {text}: expected NAME=VALUE, for example Ba=Ba4Na2Bi2 or O=1")
        if name in found:
            raise UserError(f"{flag} {text}: '{name}' is given twice")
        found[name] = value
    return found


def _counts(flag: str, texts: Sequence[str] | None) -> dict[str, int] | None:
    from lamkit.errors import UserError

    pairs = _pairs(flag, texts)
    if pairs is None:
        return None
    wrong = next((f"{k}={v}" for k, v in pairs.items() if not v.isdecimal()), None)
    if wrong:
        raise UserError(f"{flag} {wrong}: expected a whole number behind '='")
    return {name: int(value) for name, value in pairs.items()}
