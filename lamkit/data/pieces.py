"""Pieces of the sources of a conversion: what one worker reads at a time.

A piece is a few small files, or a range of a big one. Where the cuts lie follows from the files alone, so a
conversion that was stopped finds its finished pieces again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lamkit.data.formats import Format, plain_file, recognise
from lamkit.data.formats.reading import OPENERS, Range
from lamkit.data.sources import Item
from lamkit.errors import UserError

PIECE_BYTES = 8 << 20  # read into memory at once: some 60 MB while it is parsed
MANY_FILES = 64  # in one piece at most
UNPACKED = "unpacked"  # folder for big compressed files


@dataclass(frozen=True)
class Job:
    """One file or a part of it.

    Attributes:
        path: where it is, as found from what the user named.
        named: the user named it; otherwise files of no known format are passed over.
        instead: the same run in another file, read only if this one gives nothing.
        part: range to read; None for the whole.
        format: format of a file that is cut.
        plain: its decompressed copy, if that was made beforehand.
    """

    path: str
    named: bool
    instead: str | None = None
    part: Range | None = None
    format: str | None = None
    plain: str | None = None


@dataclass(frozen=True)
class Piece:
    """What a worker reads at a time.

    Attributes:
        name: tells pieces apart, and gives their order.
        jobs: files and parts, in order.
        n_bytes: size, for the progress.
    """

    name: str
    jobs: tuple[Job, ...]
    n_bytes: int

    def to_json(self) -> dict[str, Any]:
        """For another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Piece:
        """The inverse of :meth:`to_json`."""
        jobs = (
            Job(**{**job, "part": None if job["part"] is None else Range(**job["part"])})
            for job in data["jobs"]
        )
        return cls(data["name"], tuple(jobs), data["n_bytes"])


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(
        os.stat(os.path.join(place, name)).st_size for place, _, names in os.walk(path) for name in names
    )


def plan(items: Sequence[Item], named: Format | None, work: Path) -> Iterator[Piece]:
    """The pieces, in order; big files are looked through while the first pieces are being read.

    Args:
        items: sources.
        named: format of all of them, or None where it is found out.
        work: folder where big compressed files are unpacked.
    """
    waiting: list[Job] = []
    n_bytes = first = 0
    for k, item in enumerate(items):
        size = size_of(item.path)
        cuttable = _cuttable(item, named, size)
        if waiting and (cuttable or n_bytes + size > PIECE_BYTES or len(waiting) == MANY_FILES):
            yield Piece(f"{first:08d}", tuple(waiting), n_bytes)
            waiting, n_bytes = [], 0
        if cuttable:
            yield from _cut(k, item, cuttable, size, work)
            continue
        if not waiting:
            first = k
        instead = None if item.instead is None else str(item.instead)
        waiting.append(Job(str(item.path), item.named, instead))
        n_bytes += size
    if waiting:
        yield Piece(f"{first:08d}", tuple(waiting), n_bytes)


def _cuttable(item: Item, named: Format | None, size: int) -> Format | None:
    """Format of a file that is worth cutting; None also where something is wrong, which its reader will say."""
    if size < 2 * PIECE_BYTES and not (item.path.suffix in OPENERS and size > PIECE_BYTES // 4):
        return None
    try:
        found = named or recognise(item.path)
    except UserError:
        return None
    return found if found is not None and found.cut is not None else None


def _cut(k: int, item: Item, found: Format, size: int, work: Path) -> Iterator[Piece]:
    """One piece for each range of a big file."""
    plain = _unpacked(item.path, work / UNPACKED / f"{k:08d}")
    whole = size_of(plain or item.path)
    for part in _parts(found, plain or item.path, whole):
        job = Job(str(item.path), item.named, None, part, found.name, None if plain is None else str(plain))
        by_bytes = int(size * (part.stop - part.start) / whole)
        yield Piece(f"{k:08d}.{part.start:016d}", (job,), by_bytes if item.path.is_file() else PIECE_BYTES)


def _parts(found: Format, path: Path, size: int) -> Iterator[Range]:
    """Ranges of a file; where it cannot be cut any more, the rest, whose reader will say what is wrong."""
    last = Range(0, 0, 0, 0)
    try:
        for last in found.cut(path, PIECE_BYTES) if found.cut is not None else ():
            yield last
    except UserError:
        yield Range(last.stop, size, last.first + last.n)


def _unpacked(path: Path, to: Path) -> Path | None:
    """A decompressed copy of a file that is compressed, made once; None for others."""
    if path.suffix not in OPENERS:
        return None
    if not to.exists():
        to.parent.mkdir(parents=True, exist_ok=True)
        with plain_file(path) as plain:
            shutil.move(plain, half := to.with_suffix(".half"))
        os.replace(half, to)
    return to
