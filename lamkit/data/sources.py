"""From what a user names (files, folders, globs) to the list of files to read."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lamkit.errors import UserError

_VASPRUN = ("vasprun.xml", "vasprun.xml.gz")
_OUTCAR = ("OUTCAR", "OUTCAR.gz")


@dataclass(frozen=True)
class Item:
    """One file, or one folder that is a data set as a whole.

    Attributes:
        path: where it is.
        named: the user named it; otherwise it was found in a folder, where other files may lie about.
        instead: the same run in another file, to be read only if this one gives nothing.
    """

    path: Path
    named: bool
    instead: Path | None = None


def expand(sources: Sequence[str], *, folders: bool = False) -> list[Item]:
    """Files and data set folders that ``sources`` mean, in order, each once.

    Args:
        sources: files, folders or globs.
        folders: a folder is one input by itself, as for ``--format abacus/scf``, and is not searched.

    Raises:
        UserError: a source that does not exist or a glob that matches nothing.
    """
    items: dict[Path, Item] = {}
    for source in sources:
        for item in _expand_one(source, folders):
            items.setdefault(item.path, item)
    return list(items.values())


def _expand_one(source: str, folders: bool) -> list[Item]:
    path = Path(source).expanduser()
    if path.is_file() or (folders and path.is_dir()):
        return [Item(path, named=True)]
    if path.is_dir():
        found = _walk(path)
        if not found:
            raise UserError(f"{source}: an empty folder")
        return found
    matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(source) else []
    if not matches:
        kind = "no file matches this pattern" if glob.has_magic(source) else "no such file or folder"
        raise UserError(f"{source}: {kind}")
    return [item for match in matches for item in _expand_one(match, folders)]


def is_dataset(folder: Path) -> bool:
    """Whether a folder is one system of DeePMD or a data set of LAMKit."""
    return (folder / "type.raw").is_file() or (folder / "dataset.yaml").is_file()


def _walk(root: Path) -> list[Item]:
    items: list[Item] = []
    for place, folders, files in os.walk(root):
        here = Path(place)
        if is_dataset(here):
            items.append(Item(here, named=here == root))
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        items += _one_folder(here, sorted(name for name in files if not name.startswith(".")))
    return items


def _one_folder(folder: Path, names: list[str]) -> list[Item]:
    """Files of one folder; of the two outputs of one VASP run, vasprun.xml has more digits and steps."""
    xml = next((folder / name for name in _VASPRUN if name in names), None)
    outcar = next((folder / name for name in _OUTCAR if name in names), None)
    if xml is None or outcar is None:
        return [Item(folder / name, named=False) for name in names]
    return [
        Item(folder / name, named=False, instead=outcar if folder / name == xml else None)
        for name in names
        if folder / name != outcar
    ]
