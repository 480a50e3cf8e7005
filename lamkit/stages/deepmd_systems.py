"""DeePMD systems as an ``input.json`` lists them: made into a data set of one head when a run begins."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pydantic

from lamkit import config
from lamkit.config import InputPath
from lamkit.console import log
from lamkit.data.storage import find_systems
from lamkit.errors import UserError
from lamkit.files import atomic_write

STAMP = ".systems"  # what a folder was converted from


class Systems(config.Model):
    """Systems of one head.

    Attributes:
        train: system folders, or folders with systems below them.
        valid: those to validate on; without any, a part of the others is held out.
        type_map: symbols of the types, for systems without a ``type_map.raw``.
    """

    train: list[InputPath] = pydantic.Field(min_length=1)
    valid: list[InputPath] = []
    type_map: list[str] | None = None


def convert(systems: Systems, head: str, cache: Path) -> Path:
    """Data set of the systems: ``cache/HEAD/train`` and ``valid``, or one data set to hold a part out of.

    What was converted before is used as it is, unless the systems are others by now.

    Raises:
        UserError: no such folder, or no system in it.
    """
    from lamkit.stages import convert as stage

    out = Path(cache) / head
    _refresh(systems, head, out)
    whole = "train" if systems.valid else "all"
    for part, listed in ((whole, systems.train), ("valid", systems.valid)):
        if not listed or (out / part / "dataset.yaml").is_file():
            continue
        found = _systems(listed, head)
        folder = _with_type_maps(found, systems.type_map, out / f".{part}-systems")
        log.info("head %s: %d systems to %s on", head, len(found), "validate" if part == "valid" else "train")
        result = stage.convert(
            stage.Options(sources=[str(p) for p in folder], format="deepmd/npy", head=head), out / part
        )
        if broken := [f"{f['path']}: {f['error']}" for f in result["files"] if f["error"]]:
            shutil.rmtree(out / part)
            raise UserError(f"head '{head}': {len(broken)} systems cannot be read: " + "; ".join(broken[:3]))
    return out if systems.valid else out / whole


def _refresh(systems: Systems, head: str, out: Path) -> None:
    """Remove what was made of other systems, and note what is converted now."""
    if not all(Path(place).is_dir() for place in (*systems.train, *systems.valid)):
        return  # of a run that goes on elsewhere: there is nothing to compare with
    files = [
        (str(file), file.stat().st_size, file.stat().st_mtime_ns)
        for place in (*systems.train, *systems.valid)
        for file in sorted(Path(place).rglob("*.npy"))
    ]
    stamp = hashlib.sha256(json.dumps([config.dump(systems), files]).encode()).hexdigest()
    if (out / STAMP).is_file() and (out / STAMP).read_text() != stamp:
        log.info("head %s: its systems are not those that were converted here before", head)
        shutil.rmtree(out)
    atomic_write(out / STAMP, stamp)


def _systems(listed: Sequence[str], head: str) -> list[Path]:
    found = []
    for place in map(Path, listed):
        if not place.is_dir():
            raise UserError(
                f"{place}: no such system (head '{head}'); paths count from the folder you are in"
            )
        inside = [place] if _whole(place) else find_systems(place)
        if not inside:
            raise UserError(f"{place}: no DeePMD system in it (no type.raw), head '{head}'")
        found += inside
    return list(dict.fromkeys(found))


def _whole(folder: Path) -> bool:
    """Whether it is a data set that LAMKit wrote, which knows its groups."""
    return (folder / "dataset.yaml").is_file()


def _with_type_maps(found: Sequence[Path], type_map: Sequence[str] | None, folder: Path) -> list[Path]:
    """The systems; those without a type map as a folder of links beside one."""
    result = []
    for i, system in enumerate(found):
        if type_map is None or _whole(system) or (system / "type_map.raw").is_file():
            result.append(system)
            continue
        linked = folder / f"{i:04d}-{system.name}"
        linked.mkdir(parents=True, exist_ok=True)
        for entry in system.iterdir():
            if not (linked / entry.name).is_symlink():
                (linked / entry.name).symlink_to(entry.resolve())
        (linked / "type_map.raw").write_text("\n".join(type_map) + "\n")
        result.append(linked)
    return result
