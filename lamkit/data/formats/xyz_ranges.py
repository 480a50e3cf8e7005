"""Cutting a big XYZ file into ranges that other processes read alone.

A frame is a line with the number of atoms, a comment and a line for each atom, so the ends of frames are found by
counting lines, without looking at what stands in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lamkit.data.formats.reading import Range
from lamkit.errors import UserError

_CHUNK = 4 << 20  # bytes looked at together


def cut(file: Path, n_bytes: int) -> Iterator[Range]:
    """Ranges of about ``n_bytes`` that cover the file; each ends after a frame, the last with the file.

    Raises:
        UserError: a frame does not begin with the number of its atoms.
    """
    size = file.stat().st_size
    start = first = n = 0
    for end in _ends(file):
        n += 1
        if end - start >= n_bytes and end < size:
            yield Range(start, end, first, n)
            start, first, n = end, first + n, 0
    yield Range(start, size, first, n)


def _ends(file: Path) -> Iterator[int]:
    """Position after each frame; stops before blank lines at the end and before a frame that is cut short."""
    with open(file, "rb") as handle:
        text, base, at = b"", 0, 0  # at: position in text where the next frame begins
        lines = np.empty(0, dtype=np.int64)
        while chunk := handle.read(_CHUNK):
            base, text, at = base + at, text[at:] + chunk, 0
            lines = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == 10)
            k = 0  # index of the next line's end
            while k < len(lines):
                count = _count(text[at : lines[k]], file, base + at)
                if count is None:
                    return
                if k + count + 1 >= len(lines):
                    break
                at = int(lines[k + count + 1]) + 1
                k += count + 2
                yield base + at


def _count(line: bytes, file: Path, position: int) -> int | None:
    """Number of atoms; None for a blank line, which ends the file."""
    if not line.strip():
        return None
    try:
        return int(line)
    except ValueError:
        raise UserError(
            f"{file}: byte {position}: expected the number of atoms, found {line[:40]!r}"
        ) from None
