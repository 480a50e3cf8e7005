"""System folders on disk: ``deepmd/npy`` and ``deepmd/npy/mixed``, opened as memory maps.

A system is a folder with ``type.raw``, ``type_map.raw`` and ``set.*/{coord,box,energy,force,virial}.npy``.
Where they are known there are DeePMD's ``set.*/atom_ener.npy``, too. LAMKit adds files of its own, which DeePMD and
dpdata ignore: ``pbc.raw`` (three flags, where only some axes are periodic), ``set.*/stress.npy`` (where only some
components are known), ``set.*/hessian_products.npy`` (``Frame.hessian``) and ``set.*/frames.npy`` (where each frame
comes from).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from lamkit.data.frame import numbers_of, to_voigt
from lamkit.errors import UserError

FRAME_RECORD = np.dtype(
    [
        ("source", "<i4"),
        ("step", "<i8"),
        ("group", "<i4"),
        ("split", "i1"),
        ("material", "<i4"),  # -1: not known
        ("temperature", "<f4"),  # K; NaN: not known
    ]
)
SPLITS = ("", "train", "valid", "test")  # meaning of the number in FRAME_RECORD's "split"
ATOM_ENERGIES, HESSIAN = "atom_ener", "hessian_products"
ARRAYS = (
    "coord", "box", "energy", "force", "virial", "stress", ATOM_ENERGIES, HESSIAN, "real_atom_types", "frames",
)  # fmt: skip


@dataclass(frozen=True)
class SystemSet:
    """One ``set.*`` folder of a system.

    Attributes:
        path: the folder.
        stamp: changes when the folder is replaced by another.
        n_frames: number of frames in it.
        system: index of its system.
    """

    path: Path
    stamp: tuple[int, int]
    n_frames: int
    system: int

    def arrays(self) -> Mapping[str, NDArray]:
        """The arrays that exist, memory-mapped: name -> ``[n_frames, ...]``."""
        return _open_arrays(self.path, self.stamp, self.n_frames)

    def row(self, row: int) -> dict[str, NDArray]:
        """One row of each array that exists, flat; no map stays open, as frames are drawn at random."""
        values = {}
        for name, place in _layouts(self.path, self.stamp, self.n_frames).items():
            descriptor = os.open(place.file, os.O_RDONLY)
            try:
                data = os.pread(descriptor, place.row_bytes, place.offset + row * place.row_bytes)
            finally:
                os.close(descriptor)
            values[name] = np.frombuffer(data, place.dtype)
        return values


@dataclass(frozen=True)
class System:
    """One system folder.

    Attributes:
        path: the folder.
        n_atoms: atoms (or slots for atoms) of each frame.
        types: type of each atom, ``[n_atoms]``; of no meaning if ``mixed``.
        numbers: atomic number of each type, ``[n_types]``.
        mixed: the types stand in ``real_atom_types.npy``, frame by frame.
        pbc: periodic axes, ``[3]``.
        sets: its ``set.*`` folders.
    """

    path: Path
    n_atoms: int
    types: NDArray[np.int64]
    numbers: NDArray[np.int64]
    mixed: bool
    pbc: NDArray[np.bool_]
    sets: tuple[SystemSet, ...]


class _Layout(NamedTuple):
    """Where the rows of one array lie in its file."""

    file: Path
    offset: int
    dtype: np.dtype
    row_items: int

    @property
    def row_bytes(self) -> int:
        return self.row_items * self.dtype.itemsize


@lru_cache(maxsize=1 << 16)
def _layouts(folder: Path, stamp: tuple[int, int], n_frames: int) -> Mapping[str, _Layout]:
    """Layout of each array of a set that exists."""
    found = {}
    for name in ARRAYS:
        file = folder / f"{name}.npy"
        if not file.is_file():
            continue
        try:
            shape, dtype, offset = read_header(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: no .npy file ({error}); convert the data again") from None
        if not shape or shape[0] != n_frames:
            raise UserError(
                f"{file}: holds an array of shape {shape}, coord.npy beside it {n_frames} frames; convert the "
                "data again"
            )
        layout = _Layout(file, offset, dtype, int(np.prod(shape[1:], dtype=np.int64)))
        if file.stat().st_size < offset + n_frames * layout.row_bytes:
            raise UserError(f"{file}: truncated; convert the data again")
        found[name] = layout
    return found


@lru_cache(maxsize=48)  # each open map costs a file descriptor; a data set may have thousands of files
def _open_arrays(folder: Path, stamp: tuple[int, int], n_frames: int) -> Mapping[str, NDArray]:
    """Memory maps of the arrays of a set, ``[n_frames, row_items]``; frame records ``[n_frames]``."""
    arrays = {}
    for name, place in _layouts(folder, stamp, n_frames).items():
        shape = (n_frames,) if place.dtype.names else (n_frames, place.row_items)
        arrays[name] = np.memmap(place.file, place.dtype, mode="r", offset=place.offset, shape=shape)
    return arrays


def find_systems(root: Path) -> list[Path]:
    """System folders at or below ``root``, in the order of their names."""
    return sorted((p.parent for p in root.rglob("type.raw")), key=lambda p: (_leading_number(p), str(p)))


def _leading_number(path: Path) -> int:
    digits = path.name.partition(".")[0]
    return int(digits) if digits.isdigit() else -1


def open_system(path: Path, index: int) -> System:
    """Open one system folder; reads its small text files and the headers of its arrays only.

    Raises:
        UserError: something is missing or does not fit together.
    """
    types = _read_types(path / "type.raw")
    map_file = path / "type_map.raw"
    if not map_file.is_file():
        raise UserError(
            f"{path}: type_map.raw is missing, so the elements of types 0 to {types.max()} are not known; "
            "write it with one element symbol on each line"
        )
    numbers = numbers_of(map_file.read_text().split(), str(map_file))
    if types.max() >= len(numbers):
        raise UserError(f"{path}: type.raw holds type {types.max()}, type_map.raw names {len(numbers)} only")
    sets = [_open_set(folder, len(types), index) for folder in sorted(path.glob("set.*")) if folder.is_dir()]
    if not sets:
        raise UserError(f"{path}: no set.* folder; a DeePMD system needs set.000/coord.npy and box.npy")
    mixed = (sets[0].path / "real_atom_types.npy").is_file()
    pbc = _read_pbc(path)
    if pbc.any() and not (sets[0].path / "box.npy").is_file():
        raise UserError(f"{path}: box.npy is missing; without periodic cells an empty file 'nopbc' is needed")
    return System(path, len(types), types, numbers, mixed, pbc, tuple(sets))


def _read_types(file: Path) -> NDArray[np.int64]:
    try:
        types = np.array(file.read_text().split(), dtype=np.int64)
    except ValueError as error:
        raise UserError(f"{file}: expected one integer for each atom ({error})") from None
    if len(types) == 0 or types.min() < 0:
        raise UserError(f"{file}: expected one integer from 0 for each atom, found {len(types)} numbers")
    return types


def _read_pbc(path: Path) -> NDArray[np.bool_]:
    if (path / "nopbc").is_file():
        return np.zeros(3, dtype=bool)
    file = path / "pbc.raw"
    if not file.is_file():
        return np.ones(3, dtype=bool)
    flags = file.read_text().split()
    if len(flags) != 3 or set(flags) - {"T", "F"}:
        raise UserError(f"{file}: expected three letters T or F, found '{' '.join(flags)}'")
    return np.array([flag == "T" for flag in flags])


def _open_set(folder: Path, n_atoms: int, system: int) -> SystemSet:
    file = folder / "coord.npy"
    try:
        shape = read_header(file)[0]
        status = file.stat()
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: missing or no .npy file ({error})") from None
    if np.prod(shape[1:]) != 3 * n_atoms:
        raise UserError(
            f"{file}: shape {shape}, but type.raw lists {n_atoms} atoms: expected (n, {3 * n_atoms})"
        )
    newest = max(f.stat().st_mtime_ns for f in folder.iterdir())
    return SystemSet(folder, (status.st_ino, newest), shape[0], system)


def read_header(file: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape and type of the array in an ``.npy`` file, and where its data begin.

    Raises:
        ValueError: no such header, or an array that is not plain rows of numbers.
    """
    with open(file, "rb") as stream:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_columns, dtype = read(stream)
        if dtype.hasobject or (by_columns and len(shape) > 1 and min(shape) > 1):
            raise ValueError("holds Python objects or is stored by columns")
        return shape, dtype, stream.tell()


def count_elements(
    system: System, place: SystemSet, rows: NDArray, column: NDArray, width: int
) -> NDArray[np.int32]:
    """Atoms of each element, ``[n_rows, width]``, for rows of one set.

    ``column`` gives the column of each atomic number.
    """
    if not system.mixed:
        single = np.bincount(column[system.numbers[system.types]], minlength=width)
        return np.broadcast_to(single, (len(rows), width)).astype(np.int32)
    types = np.asarray(place.arrays()["real_atom_types"][rows])
    # One column more takes the atoms of type -1, with which DeePMD pads.
    column_of_type = np.append(column[system.numbers], width)
    flat = column_of_type[types] + (width + 1) * np.arange(len(rows))[:, None]
    counts = np.bincount(flat.ravel(), minlength=len(rows) * (width + 1)).reshape(len(rows), width + 1)
    return counts[:, :width].astype(np.int32)


def stress_of(values: Mapping[str, NDArray], volume: float) -> NDArray[np.float64] | None:
    """Stress of one frame in eV/Å³, Voigt: from our side-car, else from the virial; None if not known.

    Args:
        values: a row of the frame's set.
        volume: of its cell in Å³; 0 if it is not periodic along all axes.
    """
    if "stress" in values:
        return values["stress"].astype(np.float64)
    if "virial" in values and volume > 0:
        return -to_voigt(values["virial"].reshape(3, 3)) / volume
    return None
