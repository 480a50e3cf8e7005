"""CP2K: energy, forces and stress of one frame by Gaussians and plane waves (Quickstep).

The built-in input is an ordinary one for insulators and closed shells; for all else give an input of your own, in
which the line ``@INCLUDE structure.inc`` stands for cell and coordinates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import pydantic

from lamkit.config import InputPath, Model
from lamkit.data.formats import Dropped, Remark, cp2k
from lamkit.data.formats.reading import ReadOptions
from lamkit.data.frame import SYMBOLS, Frame
from lamkit.data.heads import LevelOfTheory
from lamkit.errors import UserError, suggest

DATA = "/usr/share/cp2k"  # where Debian and Ubuntu put CP2K's files
INCLUDE = "@INCLUDE structure.inc"
FUNCTIONALS = {
    "PBE": "&PBE\n        &END PBE",
    "PBEsol": "&PBE\n          PARAMETRIZATION PBESOL\n        &END PBE",
    "revPBE": "&PBE\n          PARAMETRIZATION REVPBE\n        &END PBE",
    "LDA": "&PADE\n        &END PADE",
    "BLYP": "&BLYP\n        &END BLYP",
}


class Kind(Model):
    """Basis set and pseudopotential of one element.

    Attributes:
        basis: name in CP2K's basis set file; null for that of all.
        potential: name in CP2K's potential file; null for that of all.
    """

    basis: str | None = None
    potential: str | None = None


class Cp2k(Model):
    """Labels by CP2K.

    Attributes:
        command: how CP2K is called, for example ``mpirun -n 8 cp2k.psmp``; input and output are added.
        threads: OpenMP threads of each task.
        data_dir: folder of basis sets and potentials where the tasks run; null takes ``CP2K_DATA_DIR`` from
            there, or ``/usr/share/cp2k``.
        template: input of your own with the line ``@INCLUDE structure.inc`` in ``&SUBSYS``; it must print forces
            and stress. All settings below are then of no effect.
        functional: PBE, PBEsol, revPBE, LDA or BLYP.
        basis: basis set of all elements.
        potential: pseudopotential of all elements.
        kinds: element → other basis set or potential.
        basis_file: file of the basis sets.
        potential_file: file of the potentials.
        cutoff: of the density grid, Ry.
        rel_cutoff: of the grid that Gaussians are mapped onto, Ry.
        eps_scf: convergence threshold of the self-consistency cycle.
        max_scf: its largest number of steps.
        kpoints: Monkhorst-Pack mesh; 1 1 1 is the zone centre alone.
        kspacing: instead of ``kpoints``, largest distance of points in reciprocal space, 1/Å (with 2π).
        smearing: electronic temperature of a Fermi-Dirac distribution, K, for metals; null for fixed occupations.
        added_states: empty states for ``smearing``.
        charge: of the cell.
        multiplicity: 2S+1; null for closed shells, else unrestricted.
    """

    name: ClassVar[str] = "CP2K"
    command: str = "cp2k.psmp"
    threads: int = pydantic.Field(1, ge=1)
    data_dir: str | None = None
    template: InputPath | None = None
    functional: str = "PBE"
    basis: str = "DZVP-MOLOPT-SR-GTH"
    potential: str = "GTH-PBE"
    kinds: dict[str, Kind] = pydantic.Field(default={})
    basis_file: str = "BASIS_MOLOPT"
    potential_file: str = "GTH_POTENTIALS"
    cutoff: float = pydantic.Field(600.0, gt=0)
    rel_cutoff: float = pydantic.Field(60.0, gt=0)
    eps_scf: float = pydantic.Field(1e-6, gt=0)
    max_scf: int = pydantic.Field(80, ge=1)
    kpoints: list[pydantic.PositiveInt] = pydantic.Field([1, 1, 1], min_length=3, max_length=3)
    kspacing: float | None = pydantic.Field(None, gt=0)
    smearing: float | None = pydantic.Field(None, gt=0)
    added_states: int = pydantic.Field(20, ge=1)
    charge: int = 0
    multiplicity: int | None = pydantic.Field(None, ge=1)

    def check(self) -> None:
        """Look at functional and template.

        Raises:
            UserError: an unknown functional, or a template without the line that stands for the structure.
        """
        if self.template is not None:
            if INCLUDE not in _read(self.template):
                raise UserError(
                    f"{self.template}: no line '{INCLUDE}', which stands for cell and coordinates"
                )
            return
        if self.functional not in FUNCTIONALS:
            raise UserError(
                f"cp2k.functional '{self.functional}'.{suggest(self.functional, FUNCTIONALS)} "
                f"Known: {', '.join(FUNCTIONALS)}; for others give a template"
            )

    def order(self, frame: Frame) -> list[int]:
        """As they are."""
        return list(range(len(frame)))

    def inputs(self, frame: Frame) -> dict[str, bytes]:
        """``frame.inp`` and ``structure.inc``."""
        text = self.input_text(frame) if self.template is None else _read(self.template)
        return {"frame.inp": text.encode(), "structure.inc": structure_text(frame).encode()}

    def script(self) -> list[str]:
        """One call."""
        data = self.data_dir or f"${{CP2K_DATA_DIR:-{DATA}}}"
        return [
            f'export CP2K_DATA_DIR="{data}" OMP_NUM_THREADS={self.threads}',
            "rm -f frame.out",
            f"{self.command} -i frame.inp -o frame.out",
        ]

    def products(self) -> list[str]:
        """CP2K's log."""
        return ["frame.out"]

    def read(self, folder: Path) -> Iterator[Frame | Dropped | Remark]:
        """Frames of the log; since version 2024 CP2K stops at once when a cycle does not converge."""
        file = folder / "frame.out"
        if not file.is_file():
            raise UserError("CP2K wrote no output (frame.out)")
        code = f"CP2K {version}" if (version := _version(file)) else "CP2K"
        try:
            for thing in cp2k.read(file, str(file), ReadOptions()):
                yield replace(thing, info={**thing.info, "code": code}) if isinstance(thing, Frame) else thing
        except UserError:
            if "SCF run NOT converged" not in file.read_text(errors="replace"):
                raise
            yield Dropped(cp2k.UNCONVERGED)

    def rubbish(self) -> list[str]:
        """Wave functions."""
        return ["*.wfn*", "*.kp*"]

    def level(self) -> LevelOfTheory:
        """From the settings."""
        if self.template is not None:
            return LevelOfTheory(method="DFT", functional=f"input {Path(self.template).name}", code="CP2K")
        mesh = f"{self.kspacing:g} 1/Å" if self.kspacing else "x".join(str(n) for n in self.kpoints)
        return LevelOfTheory(
            method="DFT",
            functional=self.functional,
            basis=f"{self.basis}, density grid {self.cutoff:g} Ry, k-points {mesh}",
            pseudopotentials=self.potential,
            code="CP2K",
            spin="restricted" if self.multiplicity is None else f"unrestricted, 2S+1 = {self.multiplicity}",
        )

    def input_text(self, frame: Frame) -> str:
        """The built-in input of one energy, force and stress evaluation."""
        axes = periodic(frame)
        solver = "" if axes == "XYZ" else "\n      POISSON_SOLVER MT"
        return f"""&GLOBAL
  PROJECT frame
  RUN_TYPE ENERGY_FORCE
  PRINT_LEVEL MEDIUM
&END GLOBAL
&FORCE_EVAL
  METHOD Quickstep
  STRESS_TENSOR {"ANALYTICAL" if axes == "XYZ" else "NONE"}
  &PRINT
    &FORCES ON
    &END FORCES
    &STRESS_TENSOR ON
    &END STRESS_TENSOR
  &END PRINT
  &DFT
    BASIS_SET_FILE_NAME {self.basis_file}
    POTENTIAL_FILE_NAME {self.potential_file}
{self._state()}{self._mesh(frame)}    &QS
      METHOD GPW
      EPS_DEFAULT 1.0E-10
    &END QS
    &MGRID
      CUTOFF {self.cutoff:g}
      REL_CUTOFF {self.rel_cutoff:g}
      NGRIDS 5
    &END MGRID
    &POISSON
      PERIODIC {axes}{solver}
    &END POISSON
    &XC
      &XC_FUNCTIONAL
        {FUNCTIONALS[self.functional]}
      &END XC_FUNCTIONAL
    &END XC
{self._scf()}  &END DFT
  &SUBSYS
    {INCLUDE}
{self._kinds(frame)}  &END SUBSYS
&END FORCE_EVAL
"""

    def _state(self) -> str:
        charge = f"    CHARGE {self.charge}\n" if self.charge else ""
        return charge + (f"    UKS\n    MULTIPLICITY {self.multiplicity}\n" if self.multiplicity else "")

    def _mesh(self, frame: Frame) -> str:
        mesh = self.kpoints if self.kspacing is None else mesh_of(frame, self.kspacing)
        if list(mesh) == [1, 1, 1]:
            return ""
        return (
            f"    &KPOINTS\n      SCHEME MONKHORST-PACK {' '.join(map(str, mesh))}\n"
            "      SYMMETRY OFF\n      FULL_GRID OFF\n    &END KPOINTS\n"
        )

    def _scf(self) -> str:
        smear = (
            ""
            if self.smearing is None
            else f"      ADDED_MOS {self.added_states}\n      &SMEAR ON\n        METHOD FERMI_DIRAC\n"
            f"        ELECTRONIC_TEMPERATURE {self.smearing:g}\n      &END SMEAR\n"
        )
        return f"""    &SCF
      SCF_GUESS ATOMIC
      EPS_SCF {self.eps_scf:g}
      MAX_SCF {self.max_scf}
{smear}      &MIXING
        METHOD BROYDEN_MIXING
        ALPHA 0.4
        NBROYDEN 8
      &END MIXING
      &PRINT
        &RESTART OFF
        &END RESTART
      &END PRINT
    &END SCF
"""

    def _kinds(self, frame: Frame) -> str:
        lines = []
        for z in np.unique(frame.numbers):
            kind = self.kinds.get(SYMBOLS[int(z)], Kind())
            lines.append(
                f"    &KIND {SYMBOLS[int(z)]}\n      BASIS_SET {kind.basis or self.basis}\n"
                f"      POTENTIAL {kind.potential or self.potential}\n    &END KIND\n"
            )
        return "".join(lines)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _version(log: Path) -> str:
    """CP2K's version, which stands in the head of its log."""
    with open(log, errors="replace") as stream:
        found = (re.search(r"CP2K version (\S+)", line) for line in islice(stream, 200))
        return next((match[1] for match in found if match), "")


def periodic(frame: Frame) -> str:
    """Periodic axes in CP2K's words."""
    return "".join(axis for axis, on in zip("XYZ", frame.pbc, strict=True) if on) or "NONE"


def mesh_of(frame: Frame, spacing: float) -> list[int]:
    """Mesh whose points are at most ``spacing`` (1/Å, with 2π) apart; 1 along axes that are not periodic."""
    if not frame.pbc.any():
        return [1, 1, 1]
    cell = frame.cell + np.diag(np.where(frame.cell.any(axis=1), 0.0, 1.0))
    lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(cell).T, axis=1)
    return [
        max(1, int(np.ceil(x / spacing - 1e-9))) if p else 1 for x, p in zip(lengths, frame.pbc, strict=True)
    ]


def structure_text(frame: Frame) -> str:
    """``&CELL`` and ``&COORD``, Å; a molecule gets a box with 6 Å of vacuum on all sides."""
    cell, positions = frame.cell, frame.positions
    if not frame.pbc.any():
        edges = np.ptp(positions, axis=0) + 12.0
        cell, positions = np.diag(edges), positions - positions.min(axis=0) + 6.0
    elif not frame.pbc.all():
        raise UserError("a structure that is periodic along one or two axes needs a template of your own")
    rows = "\n".join(
        f"      {name} " + " ".join(f"{x:.12f}" for x in v) for name, v in zip("ABC", cell, strict=True)
    )
    atoms = "\n".join(
        f"      {SYMBOLS[int(z)]} " + " ".join(f"{x:.12f}" for x in p)
        for z, p in zip(frame.numbers, positions, strict=True)
    )
    return f"""    &CELL
{rows}
      PERIODIC {periodic(frame)}
    &END CELL
    &COORD
{atoms}
    &END COORD
"""
