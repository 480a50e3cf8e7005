"""``lamkit ls``: every name that a verb understands, with the file it means."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lamkit import config, console, presets
from lamkit.cli import shared_flags
from lamkit.errors import UserError

EPILOG = """examples:
  lamkit ls                 heads, configs and workflows
  lamkit ls heads           data sets that have a head
A file of yours in ./heads, ./configs or ./workflows, or in a folder of $LAMKIT_PATH, comes before a built-in
one of the same name; the column 'file' shows which one is meant."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("kind", nargs="?", choices=presets.KINDS, help="only these")
    shared_flags(parser, out=False)


def run(args: argparse.Namespace) -> dict[str, dict[str, str]]:
    """Print the tables; returns kind → name → file."""
    found = {
        kind: {name: str(path) for name, path in presets.files(kind).items()} for kind in kinds(args.kind)
    }
    if not args.json:
        print("\n\n".join(_table(kind, names) for kind, names in found.items() if names))
    return found


def kinds(only: str | None = None) -> list[str]:
    """Folders that hold YAML, ``configs`` by its sub-folders: ``heads``, ``configs/trunk`` and so on."""
    result: list[str] = []
    for kind in presets.KINDS if only is None else (only,):
        below = {
            f"{kind}/{folder.name}"
            for root in presets.search_path(kind)
            for folder in root.glob("*")
            if folder.is_dir() and any(folder.glob("*.yaml"))
        }
        result += [kind] if kind != "configs" else []
        result += sorted(below) if kind == "configs" else []
    return result


def _table(kind: str, names: dict[str, str]) -> str:
    rows = [[name, _about(Path(path)), path] for name, path in sorted(names.items())]
    return console.table(rows, [kind, "about", "file"])


def _about(path: Path) -> str:
    """A few words about a YAML file; never fails, since a list must show broken files too."""
    try:
        data, _ = config.read_yaml(path)
    except UserError:
        return "(not valid YAML)"
    if not isinstance(data, dict):
        return "(empty)"
    for key in ("description", "title"):
        if data.get(key):
            return _shorten(data[key])
    return _comment(path)


def _comment(path: Path) -> str:
    """First sentence of the comment at the top of a file; presets have no key for a description."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return _shorten(first.lstrip("# ")) if first.startswith("#") else ""


def _shorten(value: Any, width: int = 60) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= width else text[: width - 1] + "…"
