"""RuNNer and n2p2: ``input.data``, blocks from ``begin`` to ``end``.

Read here and not by dpdata, which wants the same atoms in every block. n2p2 has no units of its own; Bohr and
Hartree, as RuNNer uses them, are taken unless a flag says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lamkit.data.formats.reading import LENGTH_UNITS, Dropped, ReadOptions, Remark, scaled
from lamkit.data.frame import Frame, make_frame, numbers_of
from lamkit.errors import UserError

DEFAULTS: dict[str, Any] = {"units": "Hartree", "length_unit": "Bohr"}
OBEYS = frozenset(DEFAULTS)


def read(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of an ``input.data`` file.

    Raises:
        UserError: a line that is none of the format, with its number.
    """
    units = ReadOptions(**{**DEFAULTS, **{name: getattr(options, name) for name in options.given}})
    if not options.given:
        yield Remark("taken as Bohr and Hartree; otherwise say --length-unit and --units")
    block: list[list[str]] | None = None
    step = 0
    with open(file, errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            words = line.split()
            if not words:
                continue
            if words[0] == "begin":
                block = []
            elif words[0] == "end" and block is not None:
                yield _frame(block, units, f"{source}:{number}", source, step)
                block, step = None, step + 1
            elif block is not None:
                block.append(words)
            elif not words[0].startswith(("#", "comment")):
                raise UserError(f"{source}:{number}: '{words[0]}' outside of begin and end")
    if block is not None:
        raise UserError(f"{source}: ends in the middle of frame {step}")


def _frame(block: list[list[str]], units: ReadOptions, origin: str, source: str, step: int) -> Frame:
    """One block: ``atom x y z element charge 0 fx fy fz``, ``lattice x y z``, ``energy E``."""
    atoms = [words for words in block if words[0] == "atom"]
    lattice = [words[1:4] for words in block if words[0] == "lattice"]
    energy = next((words[1] for words in block if words[0] == "energy"), None)
    scale = LENGTH_UNITS[units.length_unit]
    try:
        if len(lattice) not in (0, 3):
            raise ValueError(f"{len(lattice)} lattice lines, must be 3 or none")
        labels = scaled(
            units,
            0.0,
            energy=None if energy is None else float(energy),
            forces=[[float(x) for x in words[7:10]] for words in atoms],
        )
        positions = np.array([words[1:4] for words in atoms], dtype=np.float64) * scale
        cell = np.array(lattice, dtype=np.float64) * scale if lattice else None
    except (ValueError, IndexError) as error:
        raise UserError(f"{origin}: frame {step}: {error}") from None
    return make_frame(
        numbers_of([words[4] for words in atoms], origin),
        positions,
        cell,
        source=source,
        step=step,
        group=source,
        **labels,
    )
