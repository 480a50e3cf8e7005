"""Extended XYZ: ASE parses the text, the labels are looked up by :mod:`lamkit.data.formats.labels`."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from lamkit.data.formats.labels import labelled_frame
from lamkit.data.formats.reading import Dropped, Range, ReadOptions, Remark
from lamkit.data.frame import Frame
from lamkit.errors import UserError

_HIDDEN = "lamkit_"  # keeps ASE from interpreting a key: it accepts a stress of nine numbers only

MOST_DIGITS = 8  # of a count of atoms
# What ASE and numpy raise on a frame that is not what it should be.
_WRONG = (ValueError, TypeError, KeyError, IndexError, StopIteration, RuntimeError, OSError, AssertionError)


def read_extxyz(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of an extended XYZ file."""
    n = 0
    with open(file, encoding="utf-8", errors="replace") as stream:
        for thing in _frames(stream, source, options, 0):
            yield thing
            n += 1
    if n == 0:
        raise UserError(f"{source}: no frame in it")


def read_range(
    file: Path, part: Range, source: str, options: ReadOptions
) -> Iterator[Frame | Dropped | Remark]:
    """Frames of a part of the file."""
    with open(file, "rb") as handle:
        handle.seek(part.start)
        text = handle.read(part.stop - part.start).decode()
    yield from _frames(io.StringIO(text), source, options, part.first)


def _frames(
    stream: TextIO, source: str, options: ReadOptions, first: int
) -> Iterator[Frame | Dropped | Remark]:
    """Frames of a text, the steps counted from ``first``."""
    from ase.io.extxyz import read_xyz

    for step, text in enumerate(blocks(stream, source, first), start=first):
        try:
            [atoms] = read_xyz(io.StringIO(text), slice(None), properties_parser=parse_header)
            results = dict(atoms.calc.results) if atoms.calc is not None else {}
            known = {**atoms.info, **atoms.arrays, **results}
            known = {key.removeprefix(_HIDDEN): value for key, value in known.items()}
            frame = labelled_frame(
                atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, known, source, step, options
            )
        except _WRONG as error:
            yield Dropped(f"frame that cannot be read ({type(error).__name__}: {error})", step=step)
            continue
        yield frame


def blocks(stream: TextIO, source: str, first: int = 0) -> Iterator[str]:
    """Text of each frame: its count of atoms, a header, and as many lines.

    A frame is given only when what follows begins another one, so that a wrong count gives no part of a
    frame. (ASE reads on for as many lines as the count says, also past the end of the file.)

    Raises:
        UserError: a count is no number, or the file ends within a frame.
    """
    step, head = first, stream.readline()
    while head:
        if not head.strip():
            head = stream.readline()
            continue
        n_atoms = _count(head, source, step)
        lines = [head, *itertools.islice(stream, n_atoms + 1)]
        if len(lines) < n_atoms + 2:
            raise UserError(
                f"{source}: frame {step}: the file ends after {max(0, len(lines) - 2)} of {n_atoms} atoms"
            )
        head = stream.readline()
        while head.lstrip().startswith("VEC"):  # lattice vectors of an older kind of XYZ
            lines.append(head)
            head = stream.readline()
        if head.strip():
            _count(head, source, step + 1)
        yield "".join(lines)
        step += 1


def _count(line: str, source: str, step: int) -> int:
    word = line.strip()
    if not word.isascii() or not word.isdecimal() or len(word) > MOST_DIGITS:
        raise UserError(f"{source}: frame {step}: '{word[:40]}' where the number of its atoms should stand")
    return int(word)


def parse_header(text: str) -> dict[str, Any]:
    """Key-value pairs of a header line; stress and virial are left as plain numbers."""
    from ase.io.extxyz import key_val_str_to_dict

    hidden = re.sub(r"(?<![\w-])(stress|virial)(\s*=)", rf"{_HIDDEN}\1\2", text)
    pairs = key_val_str_to_dict(hidden)
    return {key.removeprefix(_HIDDEN) if key != f"{_HIDDEN}stress" else key: v for key, v in pairs.items()}
