"""DeePMD folders (``deepmd/npy``, ``deepmd/npy/mixed``) and data sets of LAMKit itself, memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from lamkit.data.dataset import Dataset, open_dataset
from lamkit.data.formats.reading import Dropped, Range, ReadOptions, Remark
from lamkit.data.frame import Frame


def read(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of all systems in or below a folder; each system is a group, if the folder does not say more."""
    yield from _frames(open_dataset(file), 0, None)


def cut(file: Path, n_bytes: int) -> Iterator[Range]:
    """Ranges of frames that take about ``n_bytes``."""
    dataset = open_dataset(file)
    values = 7 * dataset.n_atoms.sum(dtype=int) + 20 * len(dataset)  # of eight bytes at most
    n = max(1, int(n_bytes * len(dataset) // (8 * values)))
    for start in range(0, len(dataset), n):
        stop = min(start + n, len(dataset))
        yield Range(start, stop, start, stop - start)


def read_range(
    file: Path, part: Range, source: str, options: ReadOptions
) -> Iterator[Frame | Dropped | Remark]:
    """Some of the frames."""
    yield from _frames(_opened(file), part.start, part.stop)


@lru_cache(maxsize=4)
def _opened(file: Path) -> Dataset:
    return open_dataset(file)


def _frames(dataset: Dataset, start: int, stop: int | None) -> Iterator[Frame]:
    for i in range(start, len(dataset) if stop is None else stop):
        frame = dataset.frame(i)
        yield replace(frame, group=frame.source) if dataset.foreign else frame
