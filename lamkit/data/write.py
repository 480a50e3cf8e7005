"""Writing a data set as a stream: frames in, ``deepmd/npy/mixed`` folders out, memory flat.

Frames are sorted into systems by atom count, periodic axes and known labels, because DeePMD wants arrays
without holes. A label that only some frames have is thus absent where it is unknown and never zero.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lamkit
from lamkit.data.facts import FORMAT_VERSION, UNITS, DatasetFacts
from lamkit.data.frame import SYMBOLS, Frame, from_voigt, volume
from lamkit.data.growing import GrowingArray
from lamkit.data.storage import FRAME_RECORD, SPLITS
from lamkit.errors import UserError
from lamkit.files import replace_folder, sha256, temporary_folder

SET_FRAMES = 5000  # frames in one set.* folder
BUFFER_ATOMS = 200_000  # atoms held back before everything is written out: some 20 MB

SystemKey = tuple[int, str, str]  # atoms, periodic axes ("TTT"), labels ("efv")


def system_key(frame: Frame) -> SystemKey:
    """Which system a frame belongs to.

    The labels are letters: e energy, f forces, v stress known in full (stored as virial), s in part.
    """
    labels = "e" * (frame.energy is not None) + "f" * (frame.forces is not None)
    if frame.stress is not None:
        whole = not np.isnan(frame.stress).any() and frame.pbc.all() and volume(frame) > 0
        labels += "v" if whole else "s"
    return len(frame.numbers), "".join("FT"[int(p)] for p in frame.pbc), labels


def folder_name(key: SystemKey) -> str:
    """Name of a system's folder: ``96``, ``27.nopbc.ef``, ``24.pbcTTF.ef``; with all, bare."""
    n_atoms, pbc, labels = key
    parts = [str(n_atoms)]
    if pbc != "TTT":
        parts.append("nopbc" if pbc == "FFF" else f"pbc{pbc}")
    if labels != "efv":
        parts.append(labels or "unlabelled")
    return ".".join(parts)


class _Names:
    """Numbers for names, in the order of first use."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        return self.index.setdefault(" ".join(name.split()) or "-", len(self.index))

    def write(self, file: Path) -> None:
        file.write_text("".join(f"{name}\n" for name in self.index), encoding="utf-8")


class _SystemWriter:
    """One system folder that grows."""

    def __init__(self, folder: Path, key: SystemKey) -> None:
        self.folder, self.key = folder, key
        self.n_sets = 0
        self.arrays: dict[str, GrowingArray] = {}
        self.pending: list[dict[str, Any]] = []
        folder.mkdir()

    def flush(self) -> None:
        """Write what is pending, starting a new set wherever one is full."""
        start = 0
        while start < len(self.pending):
            if not self.arrays or self.arrays["coord"].n_rows >= SET_FRAMES:
                self._next_set()
            stop = start + SET_FRAMES - self.arrays["coord"].n_rows
            rows = self.pending[start:stop]
            for name, array in self.arrays.items():
                array.append(np.array([row[name] for row in rows], dtype=array.dtype))
            start = stop
        self.pending.clear()

    def _next_set(self) -> None:
        self.close_set()
        folder = self.folder / f"set.{self.n_sets:03d}"
        folder.mkdir()
        self.n_sets += 1
        n_atoms, pbc, labels = self.key
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "coord": ((3 * n_atoms,), np.float64),
            "real_atom_types": ((n_atoms,), np.int32),
            "frames": ((), FRAME_RECORD),
        }
        if pbc != "FFF":
            shapes["box"] = ((9,), np.float64)
        for letter, name, row in (("e", "energy", ()), ("f", "force", (3 * n_atoms,)),
                                  ("v", "virial", (9,)), ("s", "stress", (6,))):  # fmt: skip
            if letter in labels:
                shapes[name] = (row, np.float64)
        self.arrays = {n: GrowingArray(folder / f"{n}.npy", *spec) for n, spec in shapes.items()}

    def close_set(self) -> None:
        """Finish the files of the current set."""
        for array in self.arrays.values():
            array.close()

    def close(self, type_map: list[str]) -> None:
        """Finish the folder with its text files."""
        self.close_set()
        n_atoms, pbc, _ = self.key
        (self.folder / "type.raw").write_text("0\n" * n_atoms)
        (self.folder / "type_map.raw").write_text("".join(f"{s}\n" for s in type_map))
        if pbc == "FFF":
            (self.folder / "nopbc").touch()
        elif pbc != "TTT":
            (self.folder / "pbc.raw").write_text(" ".join(pbc) + "\n")


class DatasetWriter:
    """Collects frames into the folders of one data set.

    Args:
        folder: an empty folder.
        split: part of a split that these frames are, or an empty string.
    """

    def __init__(self, folder: Path, split: str = "") -> None:
        self.folder = folder
        self.split = SPLITS.index(split)
        self.types: dict[int, int] = {}
        self.sources, self.groups = _Names(), _Names()
        self.systems: dict[SystemKey, _SystemWriter] = {}
        self.n_frames = self.n_atoms = self._pending_atoms = 0
        self.labels = {"energy": 0, "forces": 0, "stress": 0, "stress_partly": 0}

    def add(self, frame: Frame) -> None:
        """Append one frame."""
        key = system_key(frame)
        if key not in self.systems:
            self.systems[key] = _SystemWriter(self.folder / folder_name(key), key)
        types = [self.types.setdefault(int(z), len(self.types)) for z in frame.numbers]
        row: dict[str, Any] = {
            "coord": frame.positions.ravel(),
            "real_atom_types": types,
            "box": complete_cell(frame).ravel(),
            "frames": (self.sources(frame.source), frame.step, self.groups(frame.group), self.split),
            "energy": frame.energy,
            "force": None if frame.forces is None else frame.forces.ravel(),
        }
        if frame.stress is not None:
            row["stress"] = frame.stress
            row["virial"] = -volume(frame) * from_voigt(frame.stress).ravel()  # DeePMD: -V * stress, eV
        self.systems[key].pending.append(row)
        self._count(frame, key)
        if self._pending_atoms > BUFFER_ATOMS:
            self.flush()

    def _count(self, frame: Frame, key: SystemKey) -> None:
        self.n_frames += 1
        self.n_atoms += len(frame)
        self._pending_atoms += len(frame)
        for letter, name in (("e", "energy"), ("f", "forces"), ("v", "stress"), ("s", "stress_partly")):
            self.labels[name] += letter in key[2]

    def flush(self) -> None:
        """Write out all frames held back."""
        for system in self.systems.values():
            system.flush()
        self._pending_atoms = 0

    def close(self) -> None:
        """Write everything but ``dataset.yaml``."""
        self.flush()
        type_map = [SYMBOLS[z] for z in self.types]
        for system in self.systems.values():
            system.close(type_map)
        self.sources.write(self.folder / "sources.txt")
        self.groups.write(self.folder / "groups.txt")


def complete_cell(frame: Frame) -> NDArray[np.float64]:
    """The cell with a vector for each axis, as files need: axes without one get room for all atoms.

    Only axes that are not periodic may lack a vector; the length given to them has no physical meaning.
    """
    cell = frame.cell
    missing = ~cell.any(axis=1)
    if not missing.any() or missing.all():
        return cell
    from ase.geometry import complete_cell as orthogonal

    full = orthogonal(cell)
    extent = float(np.ptp(frame.positions, axis=0).max()) + 20.0  # Å; 20 of vacuum
    full[missing] *= extent / np.linalg.norm(full[missing], axis=1, keepdims=True)
    return full


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a data set but ``dataset.yaml``, by its path in the data set."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "dataset.yaml")
    return {p.relative_to(folder).as_posix(): sha256(p) for p in files}


def require_free(out: Path) -> None:
    """Refuse to write where something already is.

    Raises:
        UserError: ``out`` exists and is not an empty folder.
    """
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        raise UserError(f"{out}: already exists; choose another --out or remove it first")


def write_frames(frames: Iterable[Frame], out: Path, finish: Any, split: str = "") -> None:
    """Write ``frames`` into a temporary folder, let ``finish`` complete it, and rename it to ``out``.

    Args:
        frames: any number of frames.
        out: the folder to be.
        finish: called with the temporary folder and the writer; writes ``dataset.yaml``.
        split: part of a split that the frames are.

    Raises:
        UserError: no frame came, or ``out`` is taken.
    """
    require_free(out)
    folder = temporary_folder(out)
    try:
        writer = DatasetWriter(folder, split)
        for frame in frames:
            writer.add(frame)
        if writer.n_frames == 0:
            raise UserError(f"{out}: no frame to write; a data set needs at least one")
        writer.close()
        finish(folder, writer)
        replace_folder(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def completed_facts(facts: DatasetFacts, folder: Path, writer: DatasetWriter) -> DatasetFacts:
    """``facts`` with everything that the writer counted."""
    return facts.model_copy(
        update={
            "format_version": FORMAT_VERSION,
            "n_frames": writer.n_frames,
            "n_atoms": writer.n_atoms,
            "n_groups": len(writer.groups.index),
            "labels": writer.labels,
            "elements": [SYMBOLS[z] for z in sorted(writer.types)],
            "units": UNITS,
            "converter": f"lamkit {lamkit.__version__}",
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "checksums": checksums(folder),
        }
    )
