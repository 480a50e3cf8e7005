"""What all readers share: their options, what they yield, units, and files that are compressed.

A reader is ``read(file, source, options) -> Iterator[Frame | Dropped | Remark]``. It converts units, and it
yields a :class:`Dropped` for each frame that it leaves out, so that nothing disappears without a line.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import units
from numpy.typing import NDArray

from lamkit.data.frame import Frame, to_voigt
from lamkit.data.read_options import OPTION_NAMES, ReadOptions
from lamkit.errors import UserError

ENERGY_UNITS = {
    "eV": 1.0,
    "kcal/mol": units.kcal / units.mol,
    "kJ/mol": units.kJ / units.mol,
    "Hartree": units.Hartree,
    "Ry": units.Rydberg,
}
LENGTH_UNITS = {"A": 1.0, "Bohr": units.Bohr, "nm": 10.0}
STRESS_UNITS = {"eV/A^3": 1.0, "GPa": units.GPa, "kbar": 0.1 * units.GPa, "bar": 1e-4 * units.GPa}


@dataclass(frozen=True)
class Dropped:
    """Frames that a reader leaves out.

    Attributes:
        reason: why, in a few words; frames with the same words are counted together.
        count: how many.
        step: which one in the file, from 0, as :attr:`Frame.step`; None if it cannot be told.
        last: last one, where the frames from ``step`` to ``last`` are meant.
    """

    reason: str
    count: int = 1
    step: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Remark:
    """Something to know about a frame that is kept, such as a masked label; counted like :class:`Dropped`."""

    text: str
    count: int = 1
    step: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Range:
    """Part of a big file that can be read by itself, in another process.

    Attributes:
        start: first byte, or first row of a database.
        stop: byte or row after the last.
        first: step of its first frame, as :attr:`Frame.step`.
        n: frames in it; -1 if that is not known.
        key: what a reader has to know from before, such as the material that goes on.
    """

    start: int
    stop: int
    first: int
    n: int = -1
    key: str = ""


Read = Callable[[Path, str, ReadOptions], Iterator[Frame | Dropped | Remark]]
Cut = Callable[[Path, int], Iterator[Range]]
ReadRange = Callable[[Path, Range, str, ReadOptions], Iterator[Frame | Dropped | Remark]]


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        name: as in ``--format``.
        title: one line for people.
        read: the reader.
        options: which of :class:`ReadOptions` it obeys; otherwise it has keys and units of its own.
        folder: it reads a whole folder where one is named, instead of the files in it one by one.
        cut: ranges of about so many bytes that cover a file, in order; None if it cannot be cut.
        read_range: what ``read`` yields for one such range.
    """

    name: str
    title: str
    read: Read
    options: frozenset[str] = frozenset()
    folder: bool = False
    cut: Cut | None = None
    read_range: ReadRange | None = None


ALL_OPTIONS = frozenset(OPTION_NAMES)


def options_for(fmt: Format, reading: ReadOptions, path: Path) -> ReadOptions:
    """The part of ``reading`` that a format obeys.

    Raises:
        UserError: a flag was given that has no meaning for this format.
    """
    wrong = sorted(reading.given - fmt.options - set(reading.from_head))
    if wrong:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in wrong)
        raise UserError(f"{path}: {fmt.title} has its own keys and units; leave out {flags}")
    return reading.restricted(fmt.options)


def scaled(
    options: ReadOptions,
    volume: float,
    *,
    energy: Any = None,
    forces: Any = None,
    stress: Any = None,
    virial: Any = None,
) -> dict[str, Any]:
    """Labels of a frame in eV, eV/Å and eV/Å³, as fields of :class:`Frame`.

    Args:
        options: units and sign of the file.
        volume: of the cell in Å³; 0 without one, where stress has no meaning and is left out.
        energy: in ``options.units``.
        forces: in ``options.units`` per ``options.length_unit``, ``[n_atoms, 3]``.
        stress: 9 components, a 3x3 tensor or 6 in ASE's Voigt order, in ``options.stress_unit``.
        virial: the same shapes, in ``options.units``; used where there is no stress.
    """
    unit = ENERGY_UNITS[options.units]
    labels: dict[str, Any] = {}
    if energy is not None:
        labels["energy"] = float(np.asarray(energy).reshape(())) * unit
    if forces is not None:
        labels["forces"] = np.asarray(forces, dtype=np.float64) * (unit / LENGTH_UNITS[options.length_unit])
    if stress is not None and volume > 0:
        sign = 1.0 if options.stress_sign == "tension" else -1.0
        labels["stress"] = voigt6(stress) * (sign * STRESS_UNITS[options.stress_unit])
    elif virial is not None and volume > 0:
        labels["stress"] = voigt6(virial) * (-unit / volume)
    return labels


def voigt6(values: Any) -> NDArray[np.float64]:
    """Six Voigt components of 9 numbers, a 3x3 tensor, or 6 numbers that are in ASE's order already.

    Raises:
        ValueError: any other count of numbers.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 9:
        return to_voigt(array.reshape(3, 3))
    if array.size == 6:
        return array.reshape(6)
    raise ValueError(f"a stress or virial has {array.size} numbers; expected 9, or 6 as xx yy zz yz xz xy")


OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@contextmanager
def plain_file(path: Path) -> Iterator[Path]:
    """``path``, or a decompressed copy of it that lives as long as the context.

    Raises:
        UserError: the file is not what its ending says.
    """
    opener = OPENERS.get(path.suffix)
    if opener is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="lamkit-") as folder:
        copy = Path(folder) / path.stem
        try:
            with opener(path, "rb") as packed, open(copy, "wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise UserError(f"{path}: cannot be decompressed, truncated? ({error})") from None
        yield copy


def read_head(path: Path, n_bytes: int = 65536) -> bytes:
    """First bytes of a file, decompressed; empty if that fails."""
    opener = OPENERS.get(path.suffix, open)
    try:
        with opener(path, "rb") as stream:
            return stream.read(n_bytes)
    except (OSError, EOFError, lzma.LZMAError):
        return b""
