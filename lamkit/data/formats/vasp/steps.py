"""One ionic step of VASP, its numbers still as text, and why a step can be incomplete.

The text of a file is sorted into steps first; only steps that are complete go to dpdata. So a damaged step
costs itself and no other, and every step has its number in the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

Row = list[str]  # numbers as they stand in the file

OVERFLOW = "a number did not fit its column (stars in the file)"
NO_ENERGY = "ionic step without an energy"
NO_FORCES = "ionic step without forces"
NO_CELL = "ionic step without a cell"
BROKEN_END = "file ends in the middle of an ionic step"
DAMAGED = "ionic step with numbers that cannot be read"
NO_GROUND_STATE = "no energy and forces: not a ground-state run"
TWO_RUNS = "electronic steps of two ionic steps are mixed: two runs wrote into this file"

CONVERGED = "converged"
NELM_REACHED = "electronic steps did not converge (NELM reached)"
STOPPED = "electronic steps were stopped before they converged"
NELM_REACHED_XML = (
    "electronic steps reached NELM; vasprun.xml does not say whether the last one converged, OUTCAR does"
)


@dataclass
class Step:
    """One ionic step.

    Attributes:
        index: which one in the file, from 0.
        lattice: three rows, Å; empty if the file does not give it.
        positions: a row per atom; Cartesian (Å) in an OUTCAR, fractional in a vasprun.xml.
        forces: a row per atom, eV/Å.
        stress: kB, compression positive; six numbers xx yy zz xy yz zx of an OUTCAR, nine of a vasprun.xml;
            empty if it was not computed.
        energy: TOTEN in eV; empty if missing.
        scf: ``CONVERGED``, or why it is not; empty if the file does not tell.
        machine_learned: the labels are those of VASP's machine-learned force field.
        fixed: number of atoms held fixed, where the file says it.
        doubt: something to be said of a step that is complete.
        fault: why it is not complete; empty if it is.
    """

    index: int = 0
    lattice: list[Row] = field(default_factory=list)
    positions: list[Row] = field(default_factory=list)
    forces: list[Row] = field(default_factory=list)
    stress: Row = field(default_factory=list)
    energy: str = ""
    scf: str = ""
    machine_learned: bool = False
    fixed: int = 0
    doubt: str = ""
    fault: str = ""

    def started(self) -> bool:
        """Whether anything of it was in the file."""
        return bool(self.lattice or self.positions or self.energy or self.fault)


def numbers(text: str, count: int, decimals: Sequence[int] = (), more: Sequence[int] = ()) -> Row | None:
    """The first ``count`` numbers of a line; None if the line is not what VASP prints.

    Columns of Fortran that are full run together (``-12353.08821-12353.08821``, trap D6). As each has a
    fixed count of digits after the point, ``decimals`` tells where one ends.

    Args:
        text: the line.
        count: numbers that are wanted.
        decimals: digits after the point of each of them.
        more: other counts of words that a sound line may have; those behind may be anything, NaN for example.
    """
    words = text.split()
    if len(words) in (count, *more) and all(is_number(word) for word in words[:count]):
        return words[:count]
    if not decimals or "*" in text:
        return None
    pattern = r"\s*".join(rf"([-+]?\d*\.\d{{{n}}})" for n in decimals)
    found = re.fullmatch(rf"\s*{pattern}\s*", text)
    return list(found.groups()) if found else None


_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)", re.ASCII)
MOST_DIGITS = 25


def is_number(word: str) -> bool:
    """Whether ``word`` is a decimal number as VASP prints them, without an exponent."""
    return len(word) <= MOST_DIGITS and _NUMBER.fullmatch(word) is not None


def complete(step: Step, n_atoms: int) -> Step:
    """The step with its ``fault`` set if anything that makes a labelled frame is missing."""
    if step.fault:
        return step
    if not step.energy:
        step.fault = NO_ENERGY
    elif not step.positions or len(step.forces) != len(step.positions):
        step.fault = NO_FORCES
    elif len(step.positions) != n_atoms:
        step.fault = DAMAGED
    elif len(step.lattice) != 3:
        step.fault = NO_CELL
    elif _flat(step.lattice):
        step.fault = "cell without volume"
    return step


def _flat(lattice: list[Row]) -> bool:
    return abs(determinant(lattice)) < 1e-6


def determinant(lattice: list[Row]) -> float:
    """Signed volume of a cell in Å³."""
    (a, b, c), (d, e, f), (g, h, i) = ([float(x) for x in row] for row in lattice)
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
