"""``statistics.json`` beside a data set: what was counted when it was made, for whoever needs it again.

It names the data set that it was counted on by its checksums; one of other data is not used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from lamkit.console import Progress, log
from lamkit.data.dataset import Dataset, View
from lamkit.data.frame import Frame
from lamkit.data.label_sums import LabelSums, label_sums
from lamkit.data.statistics import FrameStatistics
from lamkit.files import atomic_write

FILE = "statistics.json"
VERSION = 1
_SAMPLED = 20_000  # from so many frames on, neighbours are counted on every tenth only


def fingerprint(dataset: Dataset) -> str:
    """Changes when the frames of a data set do: from the checksums in ``dataset.yaml``, else from file sizes."""
    digest = hashlib.blake2b(f"{len(dataset)}\n".encode(), digest_size=16)
    checksums = dataset.facts.checksums
    names = sorted(checksums) if checksums else sorted(_arrays(dataset.path))
    for name in names:
        value = checksums.get(name) or str((dataset.path / name).stat().st_size)
        digest.update(f"{name} {value}\n".encode())
    return digest.hexdigest()


def _arrays(folder: Path) -> Iterator[str]:
    return (file.relative_to(folder).as_posix() for file in folder.rglob("set.*/*.npy"))


def save(dataset: Dataset, statistics: FrameStatistics) -> Path:
    """Write the statistics of all frames of a data set beside it."""
    content = {"version": VERSION, "dataset": fingerprint(dataset), **statistics.to_json()}
    file = dataset.path / FILE
    atomic_write(file, json.dumps(content) + "\n")
    return file


def load(dataset: Dataset) -> FrameStatistics | None:
    """The statistics stored with a data set; None if there are none, or if they are not of these frames."""
    file = dataset.path / FILE
    try:
        status = file.stat()
    except OSError:
        return None
    return _load(file, status.st_mtime_ns, fingerprint(dataset))


@lru_cache(maxsize=16)
def _load(file: Path, stamp: int, wanted: str) -> FrameStatistics | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        log.warning("%s: cannot be read (%s); it is counted again", file, error)
        return None
    if content.get("version") != VERSION or content.get("dataset") != wanted:
        log.debug("%s: of other data or of another version of LAMKit", file)
        return None
    return FrameStatistics.from_json(content)


def count(dataset: Dataset | View, label: str = "counting") -> FrameStatistics:
    """The statistics of frames that are on disk, by reading each."""
    statistics = FrameStatistics(neighbors_every=10 if len(dataset) > _SAMPLED else 1)
    with Progress(len(dataset), label) as progress:
        for i, frame in enumerate(_frames(dataset)):
            statistics.add(frame)
            progress.update(i + 1)
    return statistics


def _frames(dataset: Dataset | View) -> Iterator[Frame]:
    return (dataset.frame(i) for i in range(len(dataset)))


def labels_of(view: View) -> LabelSums:
    """Sums over the labels of a view: as stored if the view is the whole data set, else from its arrays.

    A part is always read anew, so that nothing of held-out labels goes into a reference or a normaliser.
    """
    if len(view) == len(view.dataset) and len(np.unique(view.indices)) == len(view):
        stored = load(view.dataset)
        if stored is not None:
            return stored.labels
    return label_sums(view)
