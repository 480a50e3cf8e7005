"""CP2K: outputs of single points, MD and geometry optimisations, of versions 6 to 2025.

Read here and not by dpdata 1.1.0, which takes the labels of kinds (``Fe1``) for elements, does not see the stress
of CP2K since 8.1, keeps MD steps that did not converge, and of an optimisation joins the first positions with
all forces. The log gives energies, forces, stress and convergence; the positions of all steps but a single point
stand in ``PROJECT-pos-1.xyz`` beside it and are matched by their energies. Stress is printed in GPa with the sign
of a pressure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
from ase import units
from numpy.typing import NDArray

from lamkit.data.formats.reading import Dropped, ReadOptions, Remark
from lamkit.data.frame import Frame, make_frame, numbers_of, to_voigt
from lamkit.errors import UserError

FORCE_UNIT = units.Hartree / units.Bohr
SAME_ENERGY = 5e-9  # Hartree; the trajectory prints ten decimals
VARIABLE_CELL = re.compile(r"NPT|NPE|CELL_OPT")
UNCONVERGED = "electronic steps did not converge"
NO_POSITIONS = "no positions in the trajectory for this step"
NO_FORCES = "no forces in the output (FORCE_EVAL/PRINT/FORCES)"
_NUMBER = r"[-+]?\d+\.\d+(?:[ED][-+]?\d+)?"


@dataclass
class Step:
    """What the log says of one evaluation, in CP2K's units."""

    energy: float  # Hartree
    converged: bool
    forces: list[list[float]] = field(default_factory=list)  # Hartree/Bohr
    stress: list[list[float]] = field(default_factory=list)  # GPa, compression positive


@dataclass
class Log:
    """What a log says.

    Attributes:
        project: name in front of CP2K's files.
        run_type: ENERGY_FORCE, MD, GEO_OPT ...
        ensemble: of an MD run.
        cell: first cell, Å.
        periodic: axes as CP2K names them, ``XYZ``.
        symbols: element of each atom.
        positions: at the start, Å.
        steps: evaluations in their order.
    """

    project: str = ""
    run_type: str = ""
    ensemble: str = ""
    cell: list[list[float]] = field(default_factory=list)
    periodic: str = "XYZ"
    symbols: list[str] = field(default_factory=list)
    positions: list[list[float]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)


def read(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of a CP2K run, from its log.

    Raises:
        UserError: something that is needed is not printed, or a file beside the log is missing.
    """
    log = scan(file, source)
    if not log.steps:
        raise UserError(f"{source}: no energy of a finished step (a line with ENERGY|)")
    if len(log.cell) != 3 or not log.symbols:
        raise UserError(f"{source}: cell or atomic coordinates are not printed; run with PRINT_LEVEL MEDIUM")
    numbers, pbc = numbers_of(log.symbols, source), [axis in log.periodic for axis in "XYZ"]
    single = len(log.steps) == 1 and log.run_type in ("ENERGY", "ENERGY_FORCE", "")
    trajectory = Trajectory() if single else trajectory_of(log, Path(source).parent, source)
    place = 0
    for k, step in enumerate(log.steps):
        found = trajectory.find(step.energy, place)
        place = found + 1 if found is not None else place
        positions = np.array(log.positions) if k == 0 and found is None else trajectory.positions(found)
        forces = np.array(step.forces) if step.forces else trajectory.forces(found)
        if not step.converged or positions is None or forces is None:
            yield Dropped(
                UNCONVERGED if not step.converged else NO_POSITIONS if positions is None else NO_FORCES,
                step=k,
            )
            continue
        if len(forces) != len(numbers) or len(positions) != len(numbers):
            raise UserError(f"{source}: step {k}: {len(forces)} forces for {len(numbers)} atoms")
        yield make_frame(
            numbers,
            positions,
            trajectory.cell(found, log.cell),
            pbc,
            energy=step.energy * units.Hartree,
            forces=forces * FORCE_UNIT,
            stress=-to_voigt(step.stress) * units.GPa if len(step.stress) == 3 and all(pbc) else None,
            source=source,
            step=k,
            group=source,
        )


@dataclass
class Trajectory:
    """Files beside the log: energies (Hartree) and arrays of each step that was written."""

    energies: list[float] = field(default_factory=list)
    xyz: list[NDArray[np.float64]] = field(default_factory=list)
    gradients: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    cells: list[NDArray[np.float64]] | None = None

    def find(self, energy: float, start: int) -> int | None:
        """First step from ``start`` on with this energy."""
        for k in range(start, len(self.energies)):
            if abs(self.energies[k] - energy) < SAME_ENERGY:
                return k
        return None

    def positions(self, k: int | None) -> NDArray[np.float64] | None:
        """Å."""
        return None if k is None else self.xyz[k]

    def forces(self, k: int | None) -> NDArray[np.float64] | None:
        """Hartree/Bohr."""
        return None if k is None else self.gradients.get(k)

    def cell(self, k: int | None, first: list[list[float]]) -> NDArray[np.float64]:
        """Å."""
        if self.cells is None or k is None:
            return np.array(first, dtype=np.float64)
        return self.cells[k]


def trajectory_of(log: Log, folder: Path, source: str) -> Trajectory:
    """Positions, and where they are written forces and cells, of a run of many steps."""
    file = folder / f"{log.project}-pos-1.xyz"
    if not file.is_file():
        raise UserError(
            f"{source}: a {log.run_type} run whose positions are in {file.name}, which is not beside it"
        )
    result = Trajectory()
    for energy, rows in _xyz(file):
        result.energies.append(energy)
        result.xyz.append(rows)
    forces = folder / f"{log.project}-frc-1.xyz"
    if forces.is_file():
        written = [rows for _, rows in _xyz(forces)]
        if len(written) == len(result.energies):
            result.gradients = dict(enumerate(written))
    if VARIABLE_CELL.search(f"{log.run_type} {log.ensemble}"):
        cells = folder / f"{log.project}-1.cell"
        table = np.atleast_2d(np.loadtxt(cells)) if cells.is_file() else np.zeros((0, 12))
        if len(table) != len(result.energies):
            raise UserError(
                f"{source}: the cell changes, and {cells.name} beside it has {len(table)} cells for "
                f"{len(result.energies)} steps; print MOTION/PRINT/CELL at every step"
            )
        result.cells = list(table[:, 2:11].reshape(-1, 3, 3))
    return result


def _xyz(file: Path) -> Iterator[tuple[float, NDArray[np.float64]]]:
    """Energy (Hartree) and rows of each complete frame of one of CP2K's trajectories."""
    with open(file) as stream:
        while (line := stream.readline()).strip():
            comment = stream.readline()
            rows = [stream.readline().split() for _ in range(int(line))]
            found = re.search(rf"E\s*=\s*({_NUMBER})", comment)
            if found is None or len(rows[-1]) < 4:
                return  # the run stopped here
            yield float(found[1]), np.array([row[1:4] for row in rows], dtype=np.float64)


def scan(file: Path, source: str) -> Log:
    """Read a log line by line."""
    log, status = Log(), True
    with open(file, errors="replace") as stream:
        for line in stream:
            if "SCF run converged" in line or "outer SCF loop converged" in line:
                status = True
            elif "NOT converged" in line and "SCF" in line:
                status = False
            elif "ENERGY| Total FORCE_EVAL" in line:
                log.steps.append(Step(float(line.split()[-1]), status))
            elif "ATOMIC FORCES in [a.u.]" in line and log.steps:
                log.steps[-1].forces = _rows(stream, 6, -3, until="SUM OF ATOMIC FORCES")
            elif "FORCES| Atomic forces [hartree/bohr]" in line and log.steps:
                log.steps[-1].forces = _rows(stream, 6, 2, until="FORCES| Sum", stop=5)
            elif "STRESS TENSOR [GPa" in line or "stress tensor [GPa]" in line:
                if log.steps and "Eigen" not in line and "EIGEN" not in line:
                    log.steps[-1].stress = _stress(stream)
            else:
                _header(line, stream, log)
    return log


def _header(line: str, stream: TextIO, log: Log) -> None:
    """Facts of the run, which stand in front of the first step."""
    if line.startswith(" CELL| Vector") and len(log.cell) < 3:
        log.cell.append(
            [float(x) for x in re.findall(_NUMBER, line.split("]:")[-1].split("angstrom")[-1])[:3]]
        )
    elif line.startswith(" CELL| Periodicity"):
        log.periodic = line.split()[-1].upper()
    elif "ATOMIC COORDINATES IN" in line and not log.symbols:
        scale = units.Bohr if "bohr" in line.lower() else 1.0
        for words in _table(stream):
            log.symbols.append(words[2])
            log.positions.append([float(x) * scale for x in words[4:7]])
    elif line.startswith(" GLOBAL| Project name"):
        log.project = line.split()[-1]
    elif line.startswith(" GLOBAL| Run type"):
        log.run_type = line.split()[-1]
    elif "Ensemble Type" in line or "ENSEMBLE TYPE" in line:
        log.ensemble = line.split()[-1]


def _table(stream: TextIO) -> Iterator[list[str]]:
    """Rows ``atom kind element Z x y z ...`` up to the first other line behind them."""
    seen = False
    for line in stream:
        words = line.split()
        if len(words) >= 7 and words[0].isdigit() and words[1].isdigit():
            seen = True
            yield words
        elif seen:
            return


def _rows(
    stream: TextIO, least: int, start: int, *, until: str, stop: int | None = None
) -> list[list[float]]:
    """Three numbers of each row of a table of forces."""
    rows = []
    for line in stream:
        if until in line:
            break
        words = line.split()
        if len(words) >= least and words[1 if words[0] == "FORCES|" else 0].isdigit():
            rows.append([float(x) for x in words[start:stop]])
    return rows


def _stress(stream: TextIO) -> list[list[float]]:
    """The three rows behind the title of a stress tensor."""
    rows: list[list[float]] = []
    for _, line in zip(range(8), stream, strict=False):
        numbers = re.findall(_NUMBER, line)
        if len(numbers) == 3:
            rows.append([float(x) for x in numbers])
        if len(rows) == 3:
            break
    return rows
