"""A data set for other programs: DeePMD's mixed folders, extended XYZ, an ASE database.

LAMKit's own data sets are DeePMD folders already, with side-cars; the export leaves those away, and with them what
DeePMD cannot express, which is counted. All three are written as a stream and appear when they are complete.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lamkit.console import Progress
from lamkit.data.dataset import Dataset
from lamkit.data.frame import Frame, to_atoms
from lamkit.data.storage import HESSIAN
from lamkit.data.write import DatasetWriter, require_free, write_frames
from lamkit.errors import UserError

PARTLY_PERIODIC = "left out: periodic along some axes only, which DeePMD does not know"
PARTLY_KNOWN = "stress left out: only some of its components are known"
NO_LABELS = "left out: no energy or no forces, which DeePMD would take for zero"
# A frame counts as having a virial or not; dpdata 1.1.0 raises "system has virials, but this does not".
TWO_KINDS = "without virial, others with: dpdata reads such folders one by one only"
SIDE_CARS = ("frames.npy", "stress.npy", f"{HESSIAN}.npy")


def export(dataset: Dataset, kind: str, out: Path) -> dict[str, Any]:
    """Write a data set in another form.

    Args:
        dataset: what to write.
        kind: a key of ``WRITERS``.
        out: file, or for DeePMD folder, to make.

    Returns:
        ``path``, ``written`` and ``remarks`` (what was left out -> frames).

    Raises:
        UserError: ``out`` is there already, or nothing is left to be written.
    """
    require_free(out)
    if out.is_dir() and kind != "deepmd":
        raise UserError(f"{out}: a folder; name the file to write")
    remarks: Counter[str] = Counter()
    written = WRITERS[kind](dataset, out, remarks)
    return {"path": str(out), "written": written, "remarks": dict(remarks)}


def _frames(dataset: Dataset, remarks: Counter[str]) -> Iterator[Frame]:
    """Frames one by one, with progress."""
    with Progress(len(dataset), "writing") as progress:
        for i in range(len(dataset)):
            frame = dataset.frame(i)
            if frame.stress is not None and np.isnan(frame.stress).any():
                remarks[PARTLY_KNOWN] += 1
            yield frame
            progress.update(i + 1)


def to_extxyz(dataset: Dataset, out: Path, remarks: Counter[str]) -> int:
    """Extended XYZ, with ``source``, ``step`` and ``group`` in each header."""
    from ase.io.extxyz import write_extxyz

    def write(file: Path) -> int:
        with open(file, "w", encoding="utf-8") as stream:
            for frame in _frames(dataset, remarks):
                atoms = to_atoms(frame)
                atoms.info.update(source=frame.source, step=frame.step, group=frame.group)
                write_extxyz(stream, [atoms])
        return len(dataset)

    return _complete(out, write)


def to_ase_db(dataset: Dataset, out: Path, remarks: Counter[str]) -> int:
    """An ASE database in SQLite; ``source``, ``step`` and ``group`` are in the rows' data."""
    from ase.db.sqlite import SQLite3Database

    def write(file: Path) -> int:
        with SQLite3Database(str(file), serial=True) as database:
            for frame in _frames(dataset, remarks):
                data = {"source": frame.source, "step": int(frame.step), "group": frame.group}
                database.write(to_atoms(frame), data=data)
        return len(dataset)

    return _complete(out, write)


def _complete(out: Path, write: Callable[[Path], int]) -> int:
    """Write beside ``out`` and rename."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.stem}.{uuid.uuid4().hex[:8]}{out.suffix}")
    try:
        n = write(temporary)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return n


def to_deepmd(dataset: Dataset, out: Path, remarks: Counter[str]) -> int:
    """DeePMD's ``deepmd/npy/mixed`` and nothing else, for ``dp --pt train`` and dpdata."""
    kept = 0

    def usable() -> Iterator[Frame]:
        nonlocal kept
        for frame in _frames(dataset, remarks):
            if frame.pbc.any() and not frame.pbc.all():
                remarks[PARTLY_PERIODIC] += 1
            elif frame.energy is None or frame.forces is None:
                remarks[NO_LABELS] += 1
            else:
                kept += 1
                yield frame

    def finish(folder: Path, writer: DatasetWriter) -> None:
        labels = writer.labels
        if 0 < labels["stress"] < writer.n_frames:
            remarks[TWO_KINDS] += writer.n_frames - labels["stress"]
        for name in SIDE_CARS:
            for file in folder.glob(f"*/set.*/{name}"):
                file.unlink()
        for file in [path for path in folder.iterdir() if path.is_file()]:
            file.unlink()

    write_frames(usable(), out, finish)
    return kept


WRITERS: dict[str, Callable[[Dataset, Path, Counter[str]], int]] = {
    "deepmd": to_deepmd,
    "extxyz": to_extxyz,
    "ase-db": to_ase_db,
}
