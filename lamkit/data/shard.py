"""A shard: the frames of one piece of the sources as flat arrays in one file, written whole or not at all.

Workers write shards while they read; the data set is put together from them in the order of the sources.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamkit.data.frame import Frame, make_frame
from lamkit.data.storage import FRAME_RECORD
from lamkit.data.write import Block, Names, SystemKey, n_directions, system_key
from lamkit.files import atomic_write

NAMES = ("source", "group", "material")  # fields of FRAME_RECORD that stand for names
FILE = "file"  # what was read; the source of a frame may be older, where a data set was read


class ShardBuilder:
    """Collects the frames of one piece."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.keys: list[int] = []
        self.vectors: list[NDArray[np.float32]] = []
        self.systems: dict[SystemKey, int] = {}
        self.of_system: list[int] = []
        self.names = {name: Names() for name in (*NAMES, FILE)}
        self.of_file: list[int] = []
        self.records: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self.frames)

    def add(self, frame: Frame, file: str, key: int, vector: NDArray[np.float32]) -> None:
        """Append a frame with the file that was read and its fingerprint (:mod:`lamkit.data.quality`)."""
        material, temperature = frame.info.get("material"), frame.info.get("temperature")
        self.frames.append(frame)
        self.keys.append(key)
        self.vectors.append(vector)
        self.of_file.append(self.names[FILE](file))
        self.of_system.append(self.systems.setdefault(system_key(frame), len(self.systems)))
        self.records.append(
            (
                self.names["source"](frame.source),
                frame.step,
                self.names["group"](frame.group),
                0,
                -1 if material is None else self.names["material"](str(material)),
                np.nan if temperature is None else float(temperature),
            )
        )

    def save(self, path: Path, notes: dict[str, Any]) -> None:
        """Write everything to ``path``; ``notes`` must be what JSON knows."""
        frames = self.frames
        text = json.dumps(
            {
                "systems": list(self.systems),
                "names": {name: list(names.index) for name, names in self.names.items()},
                "notes": notes,
            }
        )
        arrays: dict[str, NDArray] = {
            "text": np.frombuffer(text.encode(), dtype=np.uint8),
            "key": np.array(self.keys, dtype=np.uint64),
            "vector": _stack(self.vectors, (0,), np.float32),
            "of_file": np.array(self.of_file, dtype=np.int32),
            "system": np.array(self.of_system, dtype=np.int32),
            "record": np.array(self.records, dtype=FRAME_RECORD),
            "n_atoms": np.array([len(f) for f in frames], dtype=np.int64),
            "numbers": _join([f.numbers for f in frames], (), np.int16),
            "positions": _join([f.positions for f in frames], (3,), np.float64),
            "forces": _join([f.forces for f in frames if f.forces is not None], (3,), np.float64),
            "forced": np.array([f.forces is not None for f in frames], dtype=bool),
            "cell": _stack([f.cell for f in frames], (3, 3), np.float64),
            "energy": np.array([np.nan if f.energy is None else f.energy for f in frames]),
            "stress": _stack([_UNKNOWN if f.stress is None else f.stress for f in frames], (6,), np.float64),
            "atom_energies": _join([_atom_energies(f) for f in frames], (), np.float64),
            "hessian": _join([_hessian(f) for f in frames], (), np.float64),
        }
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        atomic_write(path, stream.getvalue())


_UNKNOWN = np.full(6, np.nan)
_NONE = np.empty(0)


def _atom_energies(frame: Frame) -> NDArray[np.float64]:
    return _NONE if frame.atom_energies is None else frame.atom_energies


def _hessian(frame: Frame) -> NDArray[np.float64]:
    return _NONE if frame.hessian is None else frame.hessian.ravel()


def _join(pieces: list[NDArray], row: tuple[int, ...], dtype: type) -> NDArray:
    return np.concatenate(pieces).astype(dtype, copy=False) if pieces else np.zeros((0, *row), dtype)


def _stack(rows: list[NDArray], row: tuple[int, ...], dtype: type) -> NDArray:
    return np.array(rows, dtype=dtype) if rows else np.zeros((0, *row), dtype)


class Shard:
    """A shard read back.

    Args:
        path: file that :meth:`ShardBuilder.save` wrote.

    Attributes:
        notes: what was saved with the frames.
        names: field of a record → names that its numbers stand for.
        systems: key of each system.
        files: which of the names of "file" each frame was read from, ``[n_frames]``.
        keys, vectors: fingerprints, ``[n_frames]`` and ``[n_frames, m]``.
        records: where each frame comes from, ``[n_frames]``; its numbers are those of ``names``.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path) as data:
            self._arrays = {name: data[name] for name in data.files}
        told = json.loads(self._arrays.pop("text").tobytes())
        self.notes: dict[str, Any] = told["notes"]
        self.names: dict[str, list[str]] = told["names"]
        self.systems: list[SystemKey] = [(key[0], key[1], key[2]) for key in told["systems"]]
        self.keys, self.vectors = self._arrays["key"], self._arrays["vector"]
        self.files = self._arrays["of_file"]
        self.records, self.n_atoms = self._arrays["record"], self._arrays["n_atoms"]
        self._starts = np.cumsum(self.n_atoms) - self.n_atoms
        forced = np.where(self._arrays["forced"], self.n_atoms, 0)
        self._force_starts = np.cumsum(forced) - forced
        known = np.array([("a" in key[2], 6 * n_directions(key[2])) for key in self.systems], dtype=np.int64)
        sizes = known.reshape(-1, 2)[self._arrays["system"]] * self.n_atoms[:, None]
        self._atom_energy_starts, self._hessian_starts = (np.cumsum(sizes, axis=0) - sizes).T

    def __len__(self) -> int:
        return len(self.records)

    def blocks(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Block]]:
        """The frames ``rows``, ascending, system by system: which they are, and their arrays."""
        of_system = self._arrays["system"][rows]
        for k, key in enumerate(self.systems):
            chosen = rows[of_system == k]
            if len(chosen):
                yield chosen, self._block(chosen, key)

    def _block(self, rows: NDArray[np.int64], key: SystemKey) -> Block:
        n_atoms, _, labels = key
        arrays = self._arrays
        atoms = self._starts[rows][:, None] + np.arange(n_atoms)
        forced = self._force_starts[rows][:, None] + np.arange(n_atoms)
        with_energies = self._atom_energy_starts[rows][:, None] + np.arange(n_atoms)
        size = 6 * n_directions(labels) * n_atoms
        products = self._hessian_starts[rows][:, None] + np.arange(size)
        return Block(
            key,
            arrays["numbers"][atoms],
            arrays["positions"][atoms],
            arrays["cell"][rows],
            self.records[rows],
            arrays["energy"][rows] if "e" in labels else None,
            arrays["forces"][forced] if "f" in labels else None,
            arrays["stress"][rows] if "v" in labels or "s" in labels else None,
            arrays["atom_energies"][with_energies] if "a" in labels else None,
            arrays["hessian"][products].reshape(len(rows), -1, 2, n_atoms, 3) if size else None,
        )

    def frame(self, i: int) -> Frame:
        """Frame ``i`` of the shard, as the reader gave it but for its ``info``."""
        _, pbc, _ = self.systems[self._arrays["system"][i]]
        block = self._block(np.array([i]), self.systems[self._arrays["system"][i]])
        record = self.records[i]
        return make_frame(
            block.numbers[0],
            block.positions[0],
            block.cells[0],
            [flag == "T" for flag in pbc],
            energy=None if block.energies is None else block.energies[0],
            forces=None if block.forces is None else block.forces[0],
            stress=None if block.stress is None else block.stress[0],
            atom_energies=None if block.atom_energies is None else block.atom_energies[0],
            hessian=None if block.hessian is None else block.hessian[0],
            source=self.names["source"][record["source"]],
            step=int(record["step"]),
            group=self.names["group"][record["group"]],
        )
