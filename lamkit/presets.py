"""Where the shipped YAML folders and sample files lie: wheel, editable install or bare checkout.

The one module that knows. A name is tried as a path, then in ``./<kind>/``, then in each folder of
``$LAMKIT_PATH``, then among the built-in ones.
"""

from __future__ import annotations

import os
from pathlib import Path

from lamkit.errors import UserError, suggest

KINDS = ("heads", "workflows", "configs")


def builtin() -> Path:
    """Folder that holds the built-in ``heads``, ``workflows``, ``configs`` and ``examples``."""
    package = Path(__file__).resolve().parent
    for root in (package / "builtin", package.parent):  # wheel, then checkout
        if all((root / kind).is_dir() for kind in KINDS):
            return root
    raise UserError(f"{package}: installed without its YAML folders; reinstall lamkit")


def search_path(kind: str) -> list[Path]:
    """Folders searched for ``kind`` (``heads``, ``workflows``, ``configs/trunk`` …), first match wins."""
    user = [Path(p) for p in os.environ.get("LAMKIT_PATH", "").split(os.pathsep) if p]
    return [root / kind for root in (Path.cwd(), *user, builtin())]


def files(kind: str) -> dict[str, Path]:
    """Every known name of ``kind`` with the file that it means, the first folder winning."""
    found: dict[str, Path] = {}
    for folder in search_path(kind):
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def find(kind: str, name: str) -> Path:
    """The YAML file that ``name`` means: a path, or a name in one of the folders of :func:`search_path`.

    Raises:
        UserError: nothing of that name; the message holds a suggestion and the places searched.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml", ".json"):
        if (path := or_shipped(path)).is_file():
            return path
        raise UserError(f"{name}: no such file")
    known = files(kind)
    if name in known:
        return known[name]
    singular = kind.split("/")[-1].rstrip("s") if "/" not in kind else f"{kind.split('/')[-1]} preset"
    raise UserError(
        f"no {singular} named '{name}'.{suggest(name, known)} Known: {', '.join(sorted(known)) or 'none'}. "
        f"Looked in: {', '.join(str(p) for p in search_path(kind))}"
    )


def or_shipped(path: Path) -> Path:
    """``path``, or what comes with LAMKit under that name (``examples/base``), which so is found from any folder."""
    if not path.exists() and path.parts[:1] in [(kind,) for kind in (*KINDS, "examples")]:
        return inner if (inner := builtin() / path).exists() else path
    return path


def examples() -> Path:
    """Folder of the shipped examples: ``data/*.extxyz``, ``model/`` (the quick start's) and ``base/`` (better)."""
    return builtin() / "examples"


def sample_data() -> Path:
    """Same folder as :func:`examples`; sample sources in heads/*.yaml are relative to it."""
    return examples()
