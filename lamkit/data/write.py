"""Writing a data set as a stream: frames in, ``deepmd/npy/mixed`` folders out, memory flat.

Frames are sorted into systems by atom count, periodic axes and known labels, because DeePMD wants arrays
without holes. A label that only some frames have is thus absent where it is unknown and never zero.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import lamkit
from lamkit.data.facts import FORMAT_VERSION, UNITS, DatasetFacts
from lamkit.data.frame import SYMBOLS, Frame, from_voigt, volume
from lamkit.data.growing import GrowingArray
from lamkit.data.storage import ATOM_ENERGIES, FRAME_RECORD, HESSIAN, SPLITS
from lamkit.errors import UserError
from lamkit.files import replace_folder, sha256, temporary_folder

SET_FRAMES = 5000  # frames in one set.* folder
BUFFER_ATOMS = 200_000  # atoms held back before everything is written out: some 20 MB

SystemKey = tuple[int, str, str]  # atoms, periodic axes ("TTT"), labels ("efv", "efvah2")


def system_key(frame: Frame) -> SystemKey:
    """Which system a frame belongs to.

    The labels are letters: e energy, f forces, v stress known in full (stored as virial), s in part, a energies
    of the atoms, h products with the Hessian, followed by their number.
    """
    labels = "e" * (frame.energy is not None) + "f" * (frame.forces is not None)
    if frame.stress is not None:
        whole = not np.isnan(frame.stress).any() and frame.pbc.all() and volume(frame) > 0
        labels += "v" if whole else "s"
    labels += "a" * (frame.atom_energies is not None)
    labels += f"h{len(frame.hessian)}" if frame.hessian is not None else ""
    return len(frame.numbers), "".join("FT"[int(p)] for p in frame.pbc), labels


def n_directions(labels: str) -> int:
    """Products with the Hessian that frames with these labels have."""
    return int(labels.partition("h")[2] or 0)


def folder_name(key: SystemKey) -> str:
    """Name of a system's folder: ``96``, ``27.nopbc.ef``, ``24.pbcTTF.ef``; with all, bare."""
    n_atoms, pbc, labels = key
    parts = [str(n_atoms)]
    if pbc != "TTT":
        parts.append("nopbc" if pbc == "FFF" else f"pbc{pbc}")
    if labels != "efv":
        parts.append(labels or "unlabelled")
    return ".".join(parts)


class Block(NamedTuple):
    """Frames of one system as arrays; what its key does not name as a label is None.

    Attributes:
        key: their system.
        numbers: atomic numbers, ``[k, n_atoms]``.
        positions: Å, ``[k, n_atoms, 3]``.
        cells: Å, ``[k, 3, 3]``.
        records: where each comes from, ``[k]`` of ``FRAME_RECORD``, its numbers those of the writer's names.
        energies: eV, ``[k]``.
        forces: eV/Å, ``[k, n_atoms, 3]``.
        stress: eV/Å³, ``[k, 6]``.
        atom_energies: eV, ``[k, n_atoms]``.
        hessian: ``[k, K, 2, n_atoms, 3]``, as ``Frame.hessian``.
    """

    key: SystemKey
    numbers: NDArray[np.integer]
    positions: NDArray[np.float64]
    cells: NDArray[np.float64]
    records: NDArray
    energies: NDArray[np.float64] | None
    forces: NDArray[np.float64] | None
    stress: NDArray[np.float64] | None
    atom_energies: NDArray[np.float64] | None
    hessian: NDArray[np.float64] | None


class Names:
    """Numbers for names, in the order of first use."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        """Number of a name; a new one gets the next."""
        return self.index.setdefault(" ".join(name.split()) or "-", len(self.index))

    def write(self, file: Path) -> None:
        """Write the names, one on each line."""
        file.write_text("".join(f"{name}\n" for name in self.index), encoding="utf-8")


class _SystemWriter:
    """One system folder that grows."""

    def __init__(self, folder: Path, key: SystemKey) -> None:
        self.folder, self.key = folder, key
        self.n_sets = 0
        self.arrays: dict[str, GrowingArray] = {}
        self.pending: list[dict[str, NDArray]] = []
        folder.mkdir()

    def flush(self) -> None:
        """Write what is pending, starting a new set wherever one is full."""
        if not self.pending:
            return
        columns = {name: np.concatenate([rows[name] for rows in self.pending]) for name in self.pending[0]}
        n_rows, start = len(columns["coord"]), 0
        while start < n_rows:
            if not self.arrays or self.arrays["coord"].n_rows >= SET_FRAMES:
                self._next_set()
            stop = start + SET_FRAMES - self.arrays["coord"].n_rows
            for name, array in self.arrays.items():
                array.append(columns[name][start:stop])
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
                                  ("v", "virial", (9,)), ("s", "stress", (6,)),
                                  ("a", ATOM_ENERGIES, (n_atoms,)),
                                  ("h", HESSIAN, (n_directions(labels) * 6 * n_atoms,))):  # fmt: skip
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
        self.types = np.full(len(SYMBOLS), -1, dtype=np.int32)  # type of each element, in order of appearance
        self.sources, self.groups, self.materials = Names(), Names(), Names()
        self.systems: dict[SystemKey, _SystemWriter] = {}
        self.n_frames = self.n_atoms = self._pending_atoms = 0
        self.labels = {"energy": 0, "forces": 0, "stress": 0, "stress_partly": 0}

    def add(self, frame: Frame) -> None:
        """Append one frame."""
        material, temperature = frame.info.get("material"), frame.info.get("temperature")
        record = (
            self.sources(frame.source),
            frame.step,
            self.groups(frame.group),
            self.split,
            -1 if material is None else self.materials(str(material)),
            np.nan if temperature is None else temperature,
        )
        self.add_block(
            Block(
                system_key(frame),
                frame.numbers[None],
                frame.positions[None],
                frame.cell[None],
                np.array([record], dtype=FRAME_RECORD),
                None if frame.energy is None else np.array([frame.energy]),
                None if frame.forces is None else frame.forces[None],
                None if frame.stress is None else frame.stress[None],
                None if frame.atom_energies is None else frame.atom_energies[None],
                None if frame.hessian is None else frame.hessian[None],
            )
        )

    def add_block(self, block: Block) -> None:
        """Append frames of one system; the numbers in their records are those of this writer's names."""
        n_frames, n_atoms = block.numbers.shape
        if block.key not in self.systems:
            self.systems[block.key] = _SystemWriter(self.folder / folder_name(block.key), block.key)
        columns: dict[str, NDArray] = {
            "coord": block.positions.reshape(n_frames, -1),
            "real_atom_types": self._types_of(block.numbers),
            "box": completed_cells(block).reshape(n_frames, 9),
            "frames": block.records,
        }
        if block.energies is not None:
            columns["energy"] = block.energies
        if block.forces is not None:
            columns["force"] = block.forces.reshape(n_frames, -1)
        if block.stress is not None:
            columns["stress"] = block.stress
            volumes = np.abs(np.linalg.det(block.cells))
            virial = -volumes[:, None, None] * from_voigt(block.stress)  # DeePMD: -V * stress, eV
            columns["virial"] = virial.reshape(n_frames, 9)
        if block.atom_energies is not None:
            columns[ATOM_ENERGIES] = block.atom_energies
        if block.hessian is not None:
            columns[HESSIAN] = block.hessian.reshape(n_frames, -1)
        self.systems[block.key].pending.append(columns)
        self.n_frames += n_frames
        self.n_atoms += n_frames * n_atoms
        self._pending_atoms += n_frames * n_atoms
        for letter, name in (("e", "energy"), ("f", "forces"), ("v", "stress"), ("s", "stress_partly")):
            self.labels[name] += n_frames * (letter in block.key[2])
        for letter, name in (("a", "atom_energies"), ("h", "hessian")):  # seldom there: not counted as 0
            if letter in block.key[2]:
                self.labels[name] = self.labels.get(name, 0) + n_frames
        if self._pending_atoms > BUFFER_ATOMS:
            self.flush()

    def _types_of(self, numbers: NDArray[np.integer]) -> NDArray[np.int32]:
        """Types of the atoms; elements that come for the first time get the next one."""
        new = np.flatnonzero((np.bincount(numbers.ravel(), minlength=len(SYMBOLS)) > 0) & (self.types < 0))
        self.types[new] = self.types.max() + 1 + np.arange(len(new))
        return self.types[numbers]

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that occurred, ascending."""
        return [int(z) for z in np.flatnonzero(self.types >= 0)]

    def flush(self) -> None:
        """Write out all frames held back."""
        for system in self.systems.values():
            system.flush()
        self._pending_atoms = 0

    def close(self) -> None:
        """Write everything but ``dataset.yaml``."""
        self.flush()
        type_map = [SYMBOLS[z] for z in sorted(self.elements, key=lambda z: self.types[z])]
        for system in self.systems.values():
            system.close(type_map)
        self.sources.write(self.folder / "sources.txt")
        self.groups.write(self.folder / "groups.txt")
        if self.materials.index:
            self.materials.write(self.folder / "materials.txt")


def completed_cells(block: Block) -> NDArray[np.float64]:
    """Cells with a vector for each axis, as files need, ``[k, 3, 3]``."""
    if block.key[1] in ("TTT", "FFF"):
        return block.cells
    return np.array(
        [complete_cell(cell, place) for cell, place in zip(block.cells, block.positions, strict=True)]
    )


def complete_cell(cell: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """A cell with a vector for each axis: axes without one get room for all atoms.

    Only axes that are not periodic may lack a vector; the length given to them has no physical meaning.
    """
    missing = ~cell.any(axis=1)
    if not missing.any() or missing.all():
        return cell
    from ase.geometry import complete_cell as orthogonal

    full = orthogonal(cell)
    extent = float(np.ptp(positions, axis=0).max()) + 20.0  # Å; 20 of vacuum
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
            "elements": [SYMBOLS[z] for z in writer.elements],
            "units": UNITS,
            "converter": f"lamkit {lamkit.__version__}",
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "checksums": checksums(folder),
        }
    )
