"""The folder of a conversion that is under way, so that one that was stopped or killed goes on where it was.

``.NAME.unfinished`` beside the data set to be holds ``plan.json`` (what is converted, and how), one shard for each
piece that is done, and the data set while it is put together. It is removed when the data set is in its place.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lamkit
from lamkit import lock
from lamkit.console import log
from lamkit.data.intake import SHARDS, Settings
from lamkit.data.pieces import PIECE_BYTES
from lamkit.data.sources import Item
from lamkit.files import atomic_write

PLAN = "plan.json"


def work_folder(out: Path) -> Path:
    """The folder that belongs to the data set ``out``."""
    return out.with_name(f".{out.name}.unfinished")


def tidy(out: Path) -> None:
    """Remove the folder of a conversion that was killed just after its data set had come into its place."""
    work = work_folder(out)
    if work.is_dir() and (out / "dataset.yaml").is_file() and not lock.held(work):
        shutil.rmtree(work, ignore_errors=True)


def prepare(work: Path, items: Sequence[Item], settings: Settings) -> None:
    """Go on with what the folder holds if that is the same conversion; else begin anew.

    Args:
        work: the folder; exists, and is locked by this process.
        items: what is converted.
        settings: how.
    """
    wanted = {
        "lamkit": lamkit.__version__,
        "piece_bytes": PIECE_BYTES,
        "settings": settings.model_dump(mode="json", exclude_unset=True),
        "sources": [_stamp(item) for item in items],
    }
    plan = work / PLAN
    if plan.is_file() and json.loads(plan.read_text()) == json.loads(json.dumps(wanted)):
        n_shards = len(list((work / SHARDS).glob("*.npz")))
        if n_shards:
            log.info("going on with the unfinished conversion in %s: %d pieces are done", work, n_shards)
    elif plan.is_file():
        log.info("%s: an unfinished conversion of other files or with other options: begun anew", work)
        clear(work)
    (work / SHARDS).mkdir(exist_ok=True)
    atomic_write(plan, json.dumps(wanted))


def _stamp(item: Item) -> list[Any]:
    """What tells whether a source is the one that it was."""
    files = [item.path]
    if item.path.is_dir():
        files += sorted(p for p in item.path.rglob("*"))
    marks = [os.stat(file) for file in files]
    size = sum(mark.st_size for mark in marks if not stat.S_ISDIR(mark.st_mode))
    other = None if item.instead is None else str(item.instead)
    return [str(item.path), item.named, other, len(files), size, max(mark.st_mtime_ns for mark in marks)]


def clear(work: Path) -> None:
    """Remove everything but the lock."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()
