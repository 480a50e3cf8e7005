"""The data set on disk: opened as memory maps, so that a million frames cost no memory.

Layout (see also :mod:`lamkit.data.storage`)::

    DIR/dataset.yaml            what it is: head, level of theory, counts, units, checksums
    DIR/sources.txt groups.txt  names that the numbers in frames.npy stand for
    DIR/<system>/               deepmd/npy/mixed, one folder for each atom count and kind of labels

Folders written by DeePMD or dpdata (``deepmd/npy``, ``deepmd/npy/mixed``, nested or not) open the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lamkit import config
from lamkit.data.facts import FORMAT_VERSION, DatasetFacts
from lamkit.data.frame import NUMBERS, Frame, make_frame, volume
from lamkit.data.storage import (
    ATOM_ENERGIES,
    HESSIAN,
    SPLITS,
    System,
    SystemSet,
    find_systems,
    open_system,
    stress_of,
)
from lamkit.data.view import View
from lamkit.data.write import DatasetWriter, completed_facts, write_frames
from lamkit.errors import UserError

__all__ = ["Dataset", "DatasetFacts", "View", "open_dataset", "write_dataset"]


class Dataset:
    """Frames of one data set, read from memory maps when asked for.

    Args:
        path: folder of the data set.
        systems: its opened systems.
        facts: contents of ``dataset.yaml``.
        foreign: it has no ``dataset.yaml``; each system then is one group.
    """

    def __init__(self, path: Path, systems: Sequence[System], facts: DatasetFacts, foreign: bool) -> None:
        self.path, self.facts, self.foreign = path, facts, foreign
        self._systems = list(systems)
        self._sets: list[SystemSet] = [s for system in systems for s in system.sets]
        self._starts = np.concatenate([[0], np.cumsum([s.n_frames for s in self._sets])]).astype(np.int64)

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return open_dataset, (self.path,)  # another process opens the files itself: no array is copied

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}, {len(self)} frames)"

    @property
    def folders(self) -> list[Path]:
        """Folders of its systems, in the order of the frames."""
        return [system.path for system in self._systems]

    def frame(self, i: int) -> Frame:
        """Frame ``i``, from 0."""
        if not 0 <= i < len(self):
            raise IndexError(f"frame {i} of {self.path}, which has {len(self)}")
        k = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self._read(self._sets[k], i - int(self._starts[k]))

    def _read(self, place: SystemSet, row: int) -> Frame:
        system, values = self._systems[place.system], place.row(row)
        types = values["real_atom_types"] if system.mixed else system.types
        real = types >= 0  # DeePMD pads mixed systems with atoms of type -1
        labels: dict[str, Any] = {}
        if "energy" in values:
            labels["energy"] = values["energy"][0]
        if "force" in values:
            labels["forces"] = values["force"].reshape(-1, 3)[real]
        if ATOM_ENERGIES in values:
            labels["atom_energies"] = values[ATOM_ENERGIES][real]
        if HESSIAN in values:
            labels["hessian"] = values[HESSIAN].reshape(-1, 2, len(types), 3)[:, :, real]
        # without the names beside it, the side-car of one of our own systems says nothing
        record = values["frames"][0] if "frames" in values and not self.foreign else None
        frame = make_frame(
            system.numbers[types[real]],
            values["coord"].reshape(-1, 3)[real],
            values["box"] if system.pbc.any() else None,
            system.pbc,
            stress=None,
            source=self.sources[record["source"]] if record is not None else str(system.path),
            step=int(record["step"]) if record is not None else self._foreign_step(place, row),
            group=self.group_names[record["group"]] if record is not None else self._relative(system.path),
            info={} if record is None else self._info(record),
            **labels,
        )
        return replace(frame, stress=stress_of(values, volume(frame) if frame.pbc.all() else 0.0))

    def _info(self, record: np.void) -> dict[str, str | float]:
        """What the side-car knows of a frame besides its origin."""
        info: dict[str, str | float] = {}
        if "material" not in (record.dtype.names or ()):
            return info
        if record["material"] >= 0:
            info["material"] = self.material_names[record["material"]]
        if np.isfinite(record["temperature"]):
            info["temperature"] = float(record["temperature"])
        return info

    def _foreign_step(self, place: SystemSet, row: int) -> int:
        sets = self._systems[place.system].sets
        return row + sum(s.n_frames for s in sets[: sets.index(place)])

    def _relative(self, path: Path) -> str:
        return path.name if path == self.path else path.relative_to(self.path).as_posix()

    @cached_property
    def sources(self) -> list[str]:
        """Files that the frames came from."""
        return self._names("sources.txt")

    @cached_property
    def group_names(self) -> list[str]:
        """Name of each group."""
        return self._names("groups.txt")

    @cached_property
    def material_names(self) -> list[str]:
        """Name of each material, such as an mp-id; empty where no source named any."""
        return self._names("materials.txt") if (self.path / "materials.txt").is_file() else []

    def _names(self, file: str) -> list[str]:
        if self.foreign:
            return [self._relative(system.path) for system in self._systems]
        try:
            return (self.path / file).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise UserError(f"{self.path / file}: {error.strerror}; convert the data again") from None

    def _gather(self, name: str, missing: Any, dtype: Any) -> NDArray:
        """One value for each frame; ``missing`` where a set has no such file."""
        parts = [
            s.arrays()[name].reshape(-1) if name in s.arrays() else np.full(s.n_frames, missing, dtype)
            for s in self._sets
        ]
        return np.concatenate(parts).astype(dtype, copy=False)

    @cached_property
    def _records(self) -> NDArray:
        return np.concatenate([s.arrays()["frames"] for s in self._sets])

    def _recorded(self, name: str) -> bool:
        """Whether the side-car has this column; it came later than the first data sets."""
        return name in (self._records.dtype.names or ())

    @cached_property
    def n_atoms(self) -> NDArray[np.int32]:
        """Atoms of each frame, ``[n_frames]``."""
        parts = []
        for place in self._sets:
            system = self._systems[place.system]
            if self.foreign and system.mixed:  # may be padded
                parts.append((place.arrays()["real_atom_types"] >= 0).sum(axis=1))
            else:
                parts.append(np.full(place.n_frames, system.n_atoms))
        return np.concatenate(parts).astype(np.int32)

    @cached_property
    def groups(self) -> NDArray[np.int32]:
        """Group of each frame, an index into ``group_names``, ``[n_frames]``."""
        if self.foreign:
            return np.repeat([s.system for s in self._sets], [s.n_frames for s in self._sets]).astype(
                np.int32
            )
        return np.ascontiguousarray(self._records["group"])

    @cached_property
    def steps(self) -> NDArray[np.int64]:
        """Step of each frame in its source, ``[n_frames]``."""
        if self.foreign:
            lengths = [sum(s.n_frames for s in system.sets) for system in self._systems]
            return np.concatenate([np.arange(n, dtype=np.int64) for n in lengths])
        return np.ascontiguousarray(self._records["step"])

    @cached_property
    def source_ids(self) -> NDArray[np.int32]:
        """Source of each frame, an index into ``sources``, ``[n_frames]``."""
        return self.groups if self.foreign else np.ascontiguousarray(self._records["source"])

    @cached_property
    def materials(self) -> NDArray[np.int32]:
        """Material of each frame, an index into ``material_names``, ``[n_frames]``, -1 where not known."""
        if self.foreign or not self._recorded("material"):
            return np.full(len(self), -1, dtype=np.int32)
        return np.ascontiguousarray(self._records["material"])

    @cached_property
    def temperatures(self) -> NDArray[np.float32]:
        """Temperature in K of the run that each frame comes from, ``[n_frames]``, NaN where not known."""
        if self.foreign or not self._recorded("temperature"):
            return np.full(len(self), np.nan, dtype=np.float32)
        return np.ascontiguousarray(self._records["temperature"])

    @cached_property
    def energies(self) -> NDArray[np.float64]:
        """Total energy of each frame in eV, ``[n_frames]``, NaN where missing."""
        return self._gather("energy", np.nan, np.float64)

    @cached_property
    def elements(self) -> list[int]:
        """Atomic numbers that occur, ascending."""
        if self.facts.elements:
            return sorted(NUMBERS[s] for s in self.facts.elements)
        present: set[int] = set()
        for system in self._systems:
            if system.mixed:
                found = np.unique(
                    np.concatenate([np.unique(s.arrays()["real_atom_types"]) for s in system.sets])
                )
            else:
                found = np.unique(system.types)
            present.update(int(z) for z in system.numbers[found[found >= 0]])
        return sorted(present)

    def compositions(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Atoms of each element in each frame, ``[n_frames, n_elements]``, and the elements' numbers."""
        return View(self, np.arange(len(self))).compositions()

    def composition_chunks(self, size: int = 65536) -> Iterator[tuple[slice, NDArray[np.int32]]]:
        """:meth:`compositions` piece by piece, for data sets too large to hold it."""
        return View(self, np.arange(len(self))).composition_chunks(size)

    def blocks(
        self, indices: ArrayLike
    ) -> Iterator[tuple[NDArray[np.int64], System, SystemSet, NDArray[np.int64]]]:
        """Frames ``indices`` set by set: places in ``indices``, system, set, rows of the set (ascending)."""
        indices = np.asarray(indices, dtype=np.int64)
        order = np.argsort(indices, kind="stable")
        set_of = np.searchsorted(self._starts, indices[order], side="right") - 1
        cuts = np.flatnonzero(np.diff(set_of)) + 1
        for places in np.split(order, cuts):
            if len(places):
                k = int(np.searchsorted(self._starts, indices[places[0]], side="right")) - 1
                place = self._sets[k]
                yield places, self._systems[place.system], place, indices[places] - self._starts[k]

    def subset(self, indices: ArrayLike) -> View:
        """The frames ``indices``, in that order, with the same interface."""
        return View(self, np.asarray(indices, dtype=np.int64))


def open_dataset(path: str | Path) -> Dataset:
    """Open a data set of LAMKit or a tree of DeePMD folders; no array is read.

    Raises:
        UserError: nothing there, or something does not fit together.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such data set folder; make one with 'lamkit data convert'")
    path = _inner(path)
    facts_file = path / "dataset.yaml"
    foreign = not facts_file.is_file()
    facts = DatasetFacts() if foreign else config.load(DatasetFacts, facts_file)
    if facts.format_version > FORMAT_VERSION:
        raise UserError(f"{facts_file}: layout version {facts.format_version} is newer than this LAMKit")
    systems = [open_system(folder, i) for i, folder in enumerate(find_systems(path))]
    if not systems:
        raise UserError(
            f"{path}: no data set (neither dataset.yaml nor DeePMD's type.raw in it or below); "
            "make one with 'lamkit data convert'"
        )
    dataset = Dataset(path, systems, facts, foreign)
    if len(dataset) == 0 or (not foreign and facts.n_frames != len(dataset)):
        raise UserError(
            f"{path}: holds {len(dataset)} frames"
            + (f", dataset.yaml says {facts.n_frames}" if not foreign else "")
            + "; convert the data again"
        )
    return dataset


def _inner(path: Path) -> Path:
    """``path``, or the data set ``data`` in it, which is where a workflow's stage puts its own.

    Raises:
        UserError: several data sets stand in ``path``: taking them as one would undo a split.
    """
    if (path / "dataset.yaml").is_file():
        return path
    inside = sorted(file.parent for file in path.glob("*/dataset.yaml"))
    if [folder.name for folder in inside] == ["data"]:
        return inside[0]
    if inside:
        raise UserError(
            f"{path}: holds several data sets ({', '.join(p.name for p in inside)}); name one of them"
        )
    return path


def write_dataset(
    frames: Iterable[Frame],
    out: str | Path,
    facts: DatasetFacts | Callable[[], DatasetFacts] | None = None,
    *,
    split: str = "",
) -> Dataset:
    """Write frames as a data set, streaming; it appears at ``out`` only when complete.

    Args:
        frames: any number of frames; consumed one by one.
        out: folder to make; must not exist or be empty.
        facts: what is known of the data; counts, elements, checksums are filled in here. A function is
            called when all frames are through.
        split: name of the part of a split, for the side-car.

    Raises:
        UserError: no frame, or ``out`` is taken.
    """
    out = Path(out)
    if split not in SPLITS:
        raise ValueError(f"split is '{split}', must be one of {SPLITS}")

    def finish(folder: Path, writer: DatasetWriter) -> None:
        known = facts() if callable(facts) else facts or DatasetFacts()
        config.write_yaml(folder / "dataset.yaml", completed_facts(known, folder, writer))

    write_frames(frames, out, finish, split)
    return open_dataset(out)
