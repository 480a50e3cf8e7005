"""Ionic steps of an OUTCAR, as text.

VASP prints, for each ionic step: electronic steps, stress (``in kB``), cell, positions with forces, energy.
VASP 5.2 prints the energy before the forces (trap D10), and with NWRITE = 0 most steps have an energy only
(trap D9).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

from lamkit.data.formats.vasp import steps
from lamkit.data.formats.vasp.outcar_header import Header
from lamkit.data.formats.vasp.steps import Step, numbers

_MARK = re.compile(
    r"Iteration|TOTEN|EDIFF|TOTAL-FORCE|VOLUME and BASIS|lattice vectors|FORCE on cell|in kB"
    r"|General timing|IVDW|hard stop"
)
_ITERATION = re.compile(r"Iteration\s*(\d+|\*+)\(\s*(\d+)\)")
_TOTEN = re.compile(r"free  energy\s+(ML )?\s*TOTEN\s*=\s*(\S+)")
TABLE = (5, 5, 5, 6, 6, 6)  # digits after the point: positions, forces
LATTICE = (9,) * 6
STRESS = (5,) * 6
CELL_AFTER = 12  # lines after its heading within which the cell must come


@dataclass
class _Parser:
    """State while the lines of an OUTCAR pass by."""

    stream: TextIO
    header: Header
    n_atoms: int
    dft: Step = field(default_factory=Step)
    ml: Step = field(default_factory=lambda: Step(machine_learned=True))
    n_dft: int = 0
    n_ml: int = 0
    ionic: str = ""
    n_electronic: int = 0
    reached: bool = False
    given_up: bool = False
    in_ml: bool = False
    in_stress: bool = False
    finished: bool = False
    pending: Step | None = None

    def feed(self, line: str) -> Iterator[Step]:
        """Take one marked line; give the step that it ends, if it ends one."""
        if "Iteration" in line:
            yield from self._iteration(line)
        elif "EDIFF" in line:
            self.reached = "EDIFF is reached" in line or self.reached
            self.given_up = "EDIFF was not reached" in line or self.given_up
        elif "hard stop encountered" in line:  # a STOPCAR with LABORT
            self.given_up = True
        elif "FORCE on cell" in line:
            self.in_ml, self.in_stress = "ML FORCE" in line, True
        elif "in kB" in line:
            self._stress(line)
        elif "TOTAL-FORCE" in line:
            self._table(self.ml if "(ML)" in line else self.dft)
            if "(ML)" not in line:
                yield from self._late()
        elif "VOLUME and BASIS" in line:
            self.in_ml = False
            self._cell(self.dft)
        elif "lattice vectors" in line:
            if self.in_ml and not self.ml.lattice:
                self._rows(self.ml)
        elif "General timing" in line:
            self.finished = True
        elif found := re.search(r"\bIVDW\s*=\s*(\d+)", line):  # printed with the first ionic step
            self.header.tags["IVDW"] = found[1]
        elif found := _TOTEN.search(line):
            yield from self._energy(found)

    def _iteration(self, line: str) -> Iterator[Step]:
        found = _ITERATION.search(line)
        if found is None:
            return
        if self.pending is not None:  # an energy without forces: nothing more comes to it
            yield from self._close()
        self.in_ml = False
        if self.n_electronic and found[1] != self.ionic and self.ionic:
            self.dft.doubt = steps.TWO_RUNS
        self.ionic, self.n_electronic = found[1], int(found[2])
        self.reached = self.given_up = False

    def _stress(self, line: str) -> None:
        step = self.ml if self.in_ml else self.dft
        if not self.in_stress:
            return
        self.in_stress = False
        values = numbers(line.split("in kB", 1)[1], 6, STRESS)  # trap D6
        if values is None:
            step.doubt = "stress left out: its numbers cannot be read"
        elif step.stress and step.stress != values:
            step.stress, step.doubt = [], steps.TWO_RUNS
        else:
            step.stress = values

    def _cell(self, step: Step) -> None:
        for _ in range(CELL_AFTER):
            line = self.stream.readline()
            if "direct lattice vectors" in line:
                self._rows(step)
                return
        step.fault = steps.NO_CELL

    def _rows(self, step: Step) -> None:
        found = []
        for line in (self.stream.readline() for _ in range(3)):
            row = numbers(line, 6, LATTICE) or numbers(
                line, 3, LATTICE[:3]
            )  # with the reciprocal one or without
            if row is None:
                step.fault = steps.OVERFLOW if "*" in line else steps.DAMAGED
                return
            found.append(row[:3])
        if step.lattice and step.lattice != found:
            step.fault = steps.TWO_RUNS
        step.lattice = found

    def _table(self, step: Step) -> None:
        self.stream.readline()  # a line of dashes
        if step.positions:
            step.fault = steps.TWO_RUNS
        step.positions, step.forces = [], []
        more: tuple[int, ...] = (9,)  # forces without the van der Waals part may stand behind
        for _ in range(self.n_atoms):
            line = self.stream.readline()
            values = numbers(line, 6, TABLE, more)
            if values is None:
                step.fault = steps.OVERFLOW if "*" in line else steps.DAMAGED if line else steps.BROKEN_END
                return
            more = more if len(line.split()) == 9 else ()
            step.positions.append(values[:3])
            step.forces.append(values[3:])
        after = self.stream.readline().strip()
        if set(after) != {"-"}:  # as many rows as atoms, and a line
            step.fault = steps.DAMAGED

    def _energy(self, found: re.Match[str]) -> Iterator[Step]:
        if found[1]:
            self._set_energy(self.ml, found[2])
            self.ml.index, self.n_ml = self.n_ml, self.n_ml + 1
            yield steps.complete(self.ml, self.n_atoms)
            self.ml, self.in_ml = Step(machine_learned=True), False
            return
        if self.pending is not None:
            yield from self._close()
        self._set_energy(self.dft, found[2])
        self.dft.scf = self._convergence()
        self.pending = self.dft
        if self.dft.positions or self.dft.fault:
            yield from self._close()

    def _set_energy(self, step: Step, word: str) -> None:
        if steps.is_number(word):
            step.energy = word
        else:
            step.fault = steps.OVERFLOW if "*" in word else steps.DAMAGED

    def _convergence(self) -> str:
        """VASP 5 says "EDIFF is reached" also when it gave up (trap C5); VASP 6 tells the truth (C4)."""
        nelm = self.header.integer("NELM")
        if nelm is None or not self.n_electronic:
            return ""
        if self.given_up and self.n_electronic < nelm:
            return steps.STOPPED
        if self.n_electronic < nelm or (self.header.major >= 6 and self.reached):
            return steps.CONVERGED
        return steps.NELM_REACHED

    def _late(self) -> Iterator[Step]:
        """Forces that come after their energy, as VASP 5.2 prints them (trap D10)."""
        if self.pending is not None:
            yield from self._close()

    def _close(self) -> Iterator[Step]:
        self.dft.index, self.n_dft = self.n_dft, self.n_dft + 1
        yield steps.complete(self.dft, self.n_atoms)
        self.dft, self.pending = Step(), None
        self.n_electronic, self.ionic, self.reached, self.given_up = 0, "", False, False

    def end(self) -> Iterator[Step]:
        """The step that the end of the file cuts off, if there is one."""
        if self.pending is not None:
            yield from self._close()
        elif (self.dft.started() or self.n_electronic) and not self.finished:
            self.dft.fault, self.dft.index = steps.BROKEN_END, self.n_dft
            yield self.dft


def read_steps(stream: TextIO, header: Header, first_line: str, n_atoms: int) -> Iterator[Step | bool]:
    """Ionic steps one by one; at last whether the run came to its end.

    Args:
        stream: the file, after its header.
        header: what it says; the dispersion correction is added when it is met.
        first_line: line at which the header ended.
        n_atoms: number of atoms.
    """
    parser = _Parser(stream, header, n_atoms)
    line = first_line
    while line:
        first = line.lstrip()[:1]
        if (first > "9" or first == "-") and _MARK.search(line):  # most lines are numbers
            yield from parser.feed(line)
        line = stream.readline()
    yield from parser.end()
    yield parser.finished
