"""DeePMD folders (``deepmd/npy``, ``deepmd/npy/mixed``) and data sets of LAMKit itself, memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lamkit.data.dataset import open_dataset
from lamkit.data.formats.reading import Dropped, ReadOptions, Remark
from lamkit.data.frame import Frame


def read(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of all systems in or below a folder; each system is a group, if the folder does not say more."""
    dataset = open_dataset(file)
    for i in range(len(dataset)):
        frame = dataset.frame(i)
        yield replace(frame, group=frame.source) if dataset.foreign else frame
