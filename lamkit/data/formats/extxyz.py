"""Extended XYZ: ASE parses the text, the labels are looked up by :mod:`lamkit.data.formats.labels`."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lamkit.data.formats.labels import labelled_frame
from lamkit.data.formats.reading import Dropped, Range, ReadOptions, Remark
from lamkit.data.frame import Frame
from lamkit.errors import UserError

_HIDDEN = "lamkit_"  # keeps ASE from interpreting a key: it accepts a stress of nine numbers only


def read_extxyz(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of an extended XYZ file."""
    n = 0
    for thing in _frames(file, source, options, 0):
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
    file: Path | io.StringIO, source: str, options: ReadOptions, first: int
) -> Iterator[Frame | Dropped | Remark]:
    """Frames of a text, the steps counted from ``first``."""
    import ase.io

    step = first - 1
    try:
        for step, atoms in enumerate(
            ase.io.iread(file, index=":", format="extxyz", properties_parser=parse_header), start=first
        ):
            results = dict(atoms.calc.results) if atoms.calc is not None else {}
            known = {**atoms.info, **atoms.arrays, **results}
            known = {key.removeprefix(_HIDDEN): value for key, value in known.items()}
            try:
                frame = labelled_frame(
                    atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, known, source, step, options
                )
            except (ValueError, TypeError) as error:
                yield Dropped(f"labels that cannot be read ({error})", step=step)
                continue
            yield frame
    except (OSError, ValueError, KeyError, IndexError, StopIteration, RuntimeError) as error:
        words = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{source}: frame {step + 1}: {words}") from None


def parse_header(text: str) -> dict[str, Any]:
    """Key-value pairs of a header line; stress and virial are left as plain numbers."""
    from ase.io.extxyz import key_val_str_to_dict

    hidden = re.sub(r"(?<![\w-])(stress|virial)(\s*=)", rf"{_HIDDEN}\1\2", text)
    pairs = key_val_str_to_dict(hidden)
    return {key.removeprefix(_HIDDEN) if key != f"{_HIDDEN}stress" else key: v for key, v in pairs.items()}
