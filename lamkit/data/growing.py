"""A ``.npy`` file that grows row by row, so that a data set is written without ever being held in memory.

The header of an ``.npy`` file has a fixed length once room is left for the row count: it is written first
with no rows and again, in place, when the file is closed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

_HEADER = 192  # bytes; a multiple of 64 that holds every header written here


class GrowingArray:
    """Rows appended to one ``.npy`` file; no file stays open between two calls.

    Args:
        path: file to create.
        row_shape: shape of one row.
        dtype: type of the elements.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.path, self.row_shape, self.dtype = path, row_shape, np.dtype(dtype)
        self.n_rows = 0
        path.write_bytes(self._header())

    def append(self, rows: NDArray) -> None:
        """Append ``rows``, shape ``[n, *row_shape]``."""
        block = np.ascontiguousarray(rows, dtype=self.dtype).reshape(-1, *self.row_shape)
        with open(self.path, "ab") as stream:
            stream.write(block.tobytes())
        self.n_rows += len(block)

    def close(self) -> None:
        """Write the final row count into the header."""
        with open(self.path, "r+b") as stream:
            stream.write(self._header())

    def _header(self) -> bytes:
        facts = {
            "descr": npy.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.n_rows, *self.row_shape),
        }
        text = repr(facts).encode("latin1")
        room = _HEADER - npy.MAGIC_LEN - 2  # two bytes hold the length of the text
        if len(text) >= room:
            raise ValueError(f"header of {self.path} needs {len(text)} bytes, {room} are reserved")
        return npy.magic(1, 0) + room.to_bytes(2, "little") + text.ljust(room - 1) + b"\n"
