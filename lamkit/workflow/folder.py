"""The folder of one stage: what the engine keeps in it beside the stage's own products.

``stage.json`` what was asked, ``stage.log`` all output, ``result.json`` what the stage returned,
``products.json`` (written last) every product with its size: the proof that the stage came to its end.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lamkit.errors import UserError
from lamkit.files import atomic_write

STAGE, LOG, RESULT, PRODUCTS, ERROR = "stage.json", "stage.log", "result.json", "products.json", "error.json"
PREVIOUS = ".previous"
_TRASH = ".trash-"


def read_json(path: Path) -> dict[str, Any]:
    """Contents of one of the engine's own files; empty when it is absent, or cut off by a power failure."""
    try:
        return dict(json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}


def write_json(path: Path, data: Any, *, durable: bool = True) -> None:
    """Write ``data`` atomically."""
    atomic_write(path, json.dumps(data, indent=1, ensure_ascii=False, default=str) + "\n", durable=durable)


def list_products(folder: Path) -> dict[str, int]:
    """Relative path → size in bytes of every product: not logs, hidden files, the engine's own."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        own = name.as_posix() in (STAGE, PRODUCTS, ERROR)
        if not hidden and not own and path.suffix != ".log" and path.is_file():
            found[name.as_posix()] = path.stat().st_size
    return found


def damage(folder: Path, key: str) -> str:
    """What is wrong with the products of a finished stage in words; empty when all is there."""
    record = read_json(folder / PRODUCTS)
    if record.get("key") != key:
        return (
            f"product folder {folder.name} is missing"
            if not folder.is_dir()
            else "its list of products is missing"
        )
    for name, size in record["files"].items():
        try:
            found = os.stat(folder / name).st_size
        except (FileNotFoundError, NotADirectoryError):
            return f"product {name} is missing"
        if found != size:
            return f"product {name} changed: {size} → {found} bytes"
    return ""


def refuse_foreign(folder: Path) -> None:
    """Never remove what a stage has not made: a user's own folder of the same name.

    Raises:
        UserError: ``folder`` holds something, and no stage wrote it.
    """
    if folder.is_dir() and ((folder / STAGE).is_file() or not any(map(_foreign, folder.iterdir()))):
        return
    if folder.exists():
        raise UserError(
            f"{folder}: exists, and no workflow made it; the stage '{folder.name}' would replace it. "
            "Give another folder with --out, or rename it."
        )


def _foreign(path: Path) -> bool:
    """Whether a file in a folder without ``stage.json`` is more than the half of it that a crash left."""
    return not (path.name.startswith(f".{STAGE}.") and path.suffix == ".tmp")


def clear(folder: Path) -> None:
    """Make room for a fresh start: a complete old folder becomes ``.previous/<id>``, any other is removed."""
    if not folder.exists():
        return
    if not (folder / PRODUCTS).is_file():
        _remove(folder)
        return
    aside = folder.parent / PREVIOUS / folder.name
    aside.parent.mkdir(exist_ok=True)
    if aside.exists():
        _remove(aside)
    os.replace(folder, aside)


def _remove(folder: Path) -> None:
    """Remove a folder; a rename first, so that a crash never leaves half of it under its own name."""
    trash = folder.parent / f"{_TRASH}{folder.name}-{uuid.uuid4().hex[:8]}"
    os.replace(folder, trash)
    shutil.rmtree(trash)


def sweep(folders: Iterable[Path]) -> None:
    """Remove what a crash in the middle of :func:`clear` left behind beside these folders."""
    for parent in {folder.parent for folder in folders}:
        for trash in [*parent.glob(f"{_TRASH}*"), *parent.glob(f"{PREVIOUS}/{_TRASH}*")]:
            shutil.rmtree(trash)
