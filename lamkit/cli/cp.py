"""``lamkit cp``: copy a built-in YAML file out, to change it."""

from __future__ import annotations

import argparse
from pathlib import Path

from lamkit import presets
from lamkit.cli import ls, shared_flags
from lamkit.console import log
from lamkit.errors import UserError, suggest
from lamkit.files import atomic_write

EPILOG = """examples:
  lamkit cp heads/mptrj heads/mine.yaml
  lamkit cp workflows/quickstart .
A copy in ./heads, ./configs/... or ./workflows under the same name is used instead of the built-in file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("name", metavar="NAME", help="KIND/NAME as 'lamkit ls' prints them, e.g. heads/mptrj")
    parser.add_argument("file", metavar="FILE", help="file to write, or a folder")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    shared_flags(parser, out=False)


def run(args: argparse.Namespace) -> dict[str, str]:
    """Copy the file; returns where from and where to."""
    source = find(args.name)
    target = Path(args.file)
    if target.is_dir() or args.file.endswith("/"):
        target = target / source.name
    elif not target.suffix:
        target = target.with_name(f"{target.name}.yaml")
    if target.exists() and not args.force:
        raise UserError(f"{target}: exists already; choose another name, or --force to replace it")
    try:
        atomic_write(target, source.read_bytes())
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror})") from None
    log.info("%s → %s", source, target)
    return {"from": str(source), "to": str(target)}


def find(name: str) -> Path:
    """The file that ``KIND/NAME`` means, or a bare ``NAME`` that only one kind has.

    Raises:
        UserError: no such name, or one that several kinds have.
    """
    kinds = ls.kinds()
    kind, _, last = name.removesuffix(".yaml").rpartition("/")
    if kind:
        if kind not in kinds:
            raise UserError(f"{name}: no kind '{kind}'.{suggest(kind, kinds)} Known: {', '.join(kinds)}")
        return presets.find(kind, last)
    owners = [kind for kind in kinds if last in presets.files(kind)]
    if len(owners) == 1:
        return presets.find(owners[0], last)
    known = [f"{kind}/{n}" for kind in kinds for n in presets.files(kind)]
    if owners:
        raise UserError(f"{name}: say which: {', '.join(f'{kind}/{last}' for kind in owners)}")
    hint = suggest(last, [n.rpartition("/")[2] for n in known])
    raise UserError(f"nothing named '{name}'.{hint} 'lamkit ls' lists what there is")
