"""Files of ``torch.save`` read and written without torch.

Such a file is a zip of one folder: ``data.pkl`` (which tensors there are, see :mod:`.pickles`), ``data/0``,
``data/1`` … (their numbers) and a few small records. Nothing in it is ever compressed, so what a file unpacks
to is never larger than the file itself.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamkit.errors import UserError
from lamkit.model.public.arrays import LazyArray, listed, shown
from lamkit.model.public.pickles import Storage, TensorView, interpret

MAX_RECORDS = 100_000
PROGRAM = "data.pkl"
# What a file that is no zip most likely is: its first bytes, and what to say.
FOREIGN = {
    b"": "the file is empty",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19": "the pickle format of torch before 1.6, which cannot be read "
    "without executing it; convert it with torch: torch.save(torch.load(FILE, weights_only=True), NEW)",
    b"\x80": "a bare pickle, which cannot be read without executing it; save with torch.save of torch 1.6 or later",
    b"version https://git-lfs": "a pointer of git-lfs in place of the file; fetch it with 'git lfs pull'",
    b"<": "a web page (HTML or XML), not weights; the download went wrong",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\x89HDF": "an HDF5 file",
}
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, RuntimeError, EOFError, OSError,
    struct.error, OverflowError, KeyError, IndexError,
)  # fmt: skip


class TorchFile:
    """An open torch file; use as ``with TorchFile(path) as file``.

    Args:
        path: the file.

    Attributes:
        arrays: tensor name → array, loaded when asked for; an array that cannot be loaded says so then.

    Raises:
        UserError: it is not a torch file, or damaged, or not what plain weights are.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        _refuse_foreign(self.path)
        self._loaded: dict[str, bytes] = {}
        with self._damage():
            self._zip = zipfile.ZipFile(self.path)
        try:
            self._records, self.folder = self._index()
            self.arrays = self._tensors()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> TorchFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def record(self, name: str) -> bytes | None:
        """Contents of a record of the folder, its checksum verified; None if there is none."""
        info = self._records.get(name)
        if info is None:
            return None
        with self._damage(name):
            return self._zip.read(info)

    @contextmanager
    def _damage(self, record: str = "") -> Iterator[None]:
        """Everything that Python's zip reader says of a broken file, as the user's error."""
        try:
            yield
        except _DAMAGE as error:
            place = f"{self.path}: record {shown(record)}" if record else str(self.path)
            raise UserError(
                f"{place}: damaged, truncated or saved without checksums ({shown(str(error))}); "
                "download or copy the file again"
            ) from None

    def _index(self) -> tuple[dict[str, zipfile.ZipInfo], str]:
        """Records of the folder by name, checked, and the folder."""
        infos = self._zip.infolist()
        if len(infos) > MAX_RECORDS:
            raise UserError(f"{self.path}: {len(infos)} records; no file of weights has so many")
        if len({i.filename for i in infos}) < len(infos):
            raise UserError(f"{self.path}: holds two records of one name")
        programs = [i.filename for i in infos if i.filename.count("/") == 1 and i.filename.endswith(PROGRAM)]
        folders = [name.removesuffix(f"/{PROGRAM}") for name in programs if name.endswith(f"/{PROGRAM}")]
        if len(folders) != 1:
            raise UserError(f"{self.path}: a zip archive, but not one of torch.save{_like(infos)}")
        records = {}
        for info in infos:
            inside = info.filename.removeprefix(f"{folders[0]}/")
            self._check(info, inside)
            records[inside] = info
        if sum(i.file_size for i in infos) > self.path.stat().st_size:
            raise UserError(f"{self.path}: its records overlap or reach beyond the end of the file")
        if "constants.pkl" in records:
            raise UserError(
                f"{self.path}: a TorchScript program; save the state dict instead: "
                "torch.save(model.state_dict(), FILE)"
            )
        return records, folders[0]

    def _check(self, info: zipfile.ZipInfo, inside: str) -> None:
        where = f"{self.path}: record {shown(info.filename)}"
        parts = info.filename.split("/")
        if inside == info.filename or ".." in parts or "" in parts or "\\" in info.filename:
            raise UserError(f"{where}: lies outside of the archive's one folder")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise UserError(f"{where}: is compressed, which torch.save never does; the file was packed again")
        if info.flag_bits & 1:
            raise UserError(f"{where}: is encrypted")

    def _tensors(self) -> dict[str, LazyArray]:
        order = (self.record("byteorder") or b"little").strip()
        if order != b"little":
            raise UserError(
                f"{self.path}: its byte order is {shown(order.decode(errors='replace'))}, only little is read; "
                "load and save it with torch on an ordinary machine"
            )
        program = self.record(PROGRAM)
        found = interpret(program or b"", f"{self.path}: {PROGRAM}")
        if not isinstance(found, dict):
            raise UserError(f"{self.path}: holds a {type(found).__name__}, not a dictionary of tensors")
        if strange := [
            k for k, v in found.items() if not isinstance(v, TensorView) or not isinstance(k, str)
        ]:
            raise UserError(
                f"{self.path}: not a plain dictionary of names and tensors; these entries are something "
                f"else:{listed(strange)}\nSave the state dict alone: torch.save(model.state_dict(), FILE)"
            )
        for view in found.values():
            self._check_storage(view.storage)
        # A few bytes of program could ask for one large storage a million times.
        total = sum(_n_bytes(view) for view in found.values())
        if total > self.path.stat().st_size:
            raise UserError(f"{self.path}: describes {total} bytes of tensors, more than the file holds")
        return {name: self._lazy(name, view) for name, view in found.items()}

    def _check_storage(self, storage: Storage) -> None:
        info = self._records.get(f"data/{storage.key}")
        needed = storage.size * storage.itemsize
        if info is None or info.file_size != needed:
            held = "is missing" if info is None else f"holds {info.file_size} bytes"
            raise UserError(
                f"{self.path}: record data/{shown(storage.key)} {held}, {needed} bytes are needed; "
                "the file is damaged or truncated"
            )

    def _lazy(self, name: str, view: TensorView) -> LazyArray:
        narrow = view.storage.dtype in ("bfloat16", "<f2")
        dtype = np.dtype(np.float32 if narrow else view.storage.dtype)
        return LazyArray(view.shape, dtype, lambda: self._load(view))

    def _load(self, view: TensorView) -> NDArray[Any]:
        """The numbers of a tensor, in an array of its own; half precision widened to float32, exactly."""
        storage = view.storage
        if storage.key not in self._loaded:
            self._loaded[storage.key] = self.record(f"data/{storage.key}") or b""
        data = self._loaded[storage.key]
        if storage.dtype == "bfloat16":
            halves = np.frombuffer(data, "<u2").astype(np.uint32) << 16
            numbers: NDArray[Any] = halves.view(np.float32)
        else:
            numbers = np.frombuffer(data, storage.dtype)
            numbers = numbers.astype(np.float32) if storage.dtype == "<f2" else numbers
        if 0 in view.shape:
            return np.zeros(view.shape, numbers.dtype)
        steps = [step * numbers.itemsize for step in view.strides]
        # Bounds were checked when the tensor was described, see pickles.
        return np.lib.stride_tricks.as_strided(numbers[view.offset :], view.shape, steps).copy()


def _n_bytes(view: TensorView) -> int:
    total = view.storage.itemsize
    for n in view.shape:
        total *= n
    return total


def _refuse_foreign(path: Path) -> None:
    """Say what a file is that is no zip."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if head.startswith(b"PK"):
        return
    for start, text in FOREIGN.items():
        if head.startswith(start) and (start or not head):
            raise UserError(f"{path}: {text}")
    if b"ustar" in head[257:265]:
        raise UserError(
            f"{path}: a tar archive (torch before 0.2, or packed by hand); unpack or convert it first"
        )
    raise UserError(f"{path}: not a file of torch.save (it begins with {shown(ascii(head[:12]))})")


def _like(infos: list[zipfile.ZipInfo]) -> str:
    if infos and all(i.filename.endswith(".npy") for i in infos):
        return ": it is numpy's .npz"
    return " (it needs exactly one record FOLDER/data.pkl)"


# -- writing ---------------------------------------------------------------------------------------------

_CLASSES = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}
_ALIGNMENT = 64  # where torch lets the numbers of a record begin
LOCAL_HEADER = 30  # bytes before the name of a record in a zip


def write_torch(
    stream: io.BufferedIOBase | Any,
    arrays: Mapping[str, NDArray[Any]],
    extra: Mapping[str, bytes] | None = None,
) -> None:
    """Write arrays as ``torch.save`` writes a state dict; ``torch.load(weights_only=True)`` reads it.

    Args:
        stream: seekable, binary.
        arrays: float32, float64 or int64.
        extra: further records, which torch passes over.
    """
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        _put(archive, PROGRAM, _program(arrays))
        _put(archive, "byteorder", b"little")
        for key, array in enumerate(arrays.values()):
            _put(archive, f"data/{key}", np.ascontiguousarray(array).tobytes())
        for name, data in (extra or {}).items():
            _put(archive, name, data)
        _put(archive, "version", b"3\n")


def _put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(f"archive/{name}")
    assert archive.fp is not None
    start = archive.fp.tell() + LOCAL_HEADER + len(info.filename.encode())
    # An extra field of kind FB, its header of 4 bytes included, fills up to the next boundary.
    padding = -(start + 4) % _ALIGNMENT
    info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    archive.writestr(info, data)


def _program(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The pickle (protocol 2) of a dictionary of tensors; writes each instruction as it stands."""
    out = [b"\x80\x02}("]
    for key, (name, array) in enumerate(arrays.items()):
        kind = _CLASSES[array.dtype.name]
        strides = [int(s) for s in np.cumprod([1, *array.shape[:0:-1]])[::-1]] if array.ndim else []
        out += [
            _text(name), b"ctorch._utils\n_rebuild_tensor_v2\n((", _text("storage"),
            f"ctorch\n{kind}\n".encode(), _text(str(key)), _text("cpu"), _number(array.size), b"tQ", _number(0),
            b"(", *map(_number, array.shape), b"t(", *map(_number, strides), b"t\x89",
            b"ccollections\nOrderedDict\n)RtR",
        ]  # fmt: skip
    return b"".join([*out, b"u."])


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _number(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + int(value).to_bytes(4, "little")
    return b"\x8a\x08" + int(value).to_bytes(8, "little")
