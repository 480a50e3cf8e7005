"""One CP2K single point: write the input, run it, read energy, forces and stress back.

Shared by ``make_oxides.py`` and ``make_bnbzto.py``. Gaussian and plane waves (GPW), GTH
pseudopotentials, DZVP-MOLOPT-SR-GTH basis. A :class:`Level` says how to compute,
:func:`single_point` does it and returns the labelled frame, or raises
:class:`NotConverged` / :class:`EngineFailed`, in which case there is no frame.

Needs the executable ``cp2k.psmp`` (Debian and Ubuntu: ``apt-get install cp2k cp2k-data``;
conda-forge: ``cp2k``) and its data files (``CP2K_DATA_DIR``).
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator

# Valence electrons of the GTH-PBE pseudopotential that belongs to the MOLOPT-SR basis.
VALENCE = {"O": 6, "Na": 9, "Ti": 12, "Zr": 12, "Ba": 10, "Bi": 5}

# The GTH-PBE pseudopotentials serve both functionals, as is usual; CP2K has none for PBEsol.
FUNCTIONALS = {"PBE": "ORIG", "PBEsol": "PBESOL"}


class EngineFailed(RuntimeError):
    """CP2K ended without a result."""


class NotConverged(EngineFailed):
    """The self-consistency cycle did not reach its threshold."""


@dataclass(frozen=True)
class Level:
    """How a frame is computed.

    The default cutoff is high because the grid noise of O and Ti is: with 350 Ry the forces on
    a rattled BaTiO3 add up to 0.5 eV/Å, with 800 Ry to 0.02 eV/Å, and the step costs the same
    (the Gaussians spread better over the five grids).

    Attributes:
        functional: a key of ``FUNCTIONALS``.
        cutoff: plane-wave cutoff of the density grid, Ry.
        rel_cutoff: cutoff of the Gaussian mapping, Ry.
        eps_scf: convergence threshold of the self-consistency cycle.
        kpoints: Monkhorst-Pack mesh, or None for the zone centre alone.
    """

    functional: str
    cutoff: float = 800.0
    rel_cutoff: float = 40.0
    eps_scf: float = 5e-6
    kpoints: tuple[int, int, int] | None = None

    def describe(self) -> str:
        """One line with everything that fixes the numbers."""
        mesh = "Gamma only" if self.kpoints is None else "MP {}x{}x{}".format(*self.kpoints)
        return (
            f"GPW, DZVP-MOLOPT-SR-GTH, GTH-PBE pseudopotentials, cutoff {self.cutoff:g} Ry, "
            f"rel_cutoff {self.rel_cutoff:g} Ry, {mesh}, diagonalisation, eps_scf {self.eps_scf:g}, "
            "no smearing, spin-restricted"
        )


def single_point(
    atoms: Atoms, level: Level, *, folder: Path, guess: Path | None = None, timeout: float = 3600.0
) -> Atoms:
    """Compute one frame in ``folder``; return a copy of ``atoms`` that carries the labels.

    Args:
        atoms: a periodic frame of the elements in ``VALENCE``.
        level: how to compute it.
        folder: where CP2K works; emptied of the files of an earlier run first.
        guess: wave function (``*.wfn``, or ``*.kp`` with k-points) of a similar frame to start
            from. :func:`wave_function` names the one that this run leaves behind.
        timeout: seconds after which the run is given up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("frame[-.]*"):
        if guess is None or old.resolve() != guess.resolve():
            old.unlink()
    (folder / "frame.inp").write_text(input_text(atoms, level, guess=guess))
    environment = {"OMP_NUM_THREADS": "1", "CP2K_DATA_DIR": "/usr/share/cp2k", **os.environ}
    try:
        subprocess.run(
            ["cp2k.psmp", "-i", "frame.inp", "-o", "frame.out"],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as slow:
        raise EngineFailed(f"no result after {timeout:.0f} s") from slow
    return read_result(atoms, folder / "frame.out")


def wave_function(folder: Path, level: Level) -> Path:
    """The file in which a run in ``folder`` left its wave function (with k-points: its density)."""
    return folder / ("frame-RESTART.wfn" if level.kpoints is None else "frame-RESTART.kp")


def input_text(atoms: Atoms, level: Level, *, guess: Path | None) -> str:
    """The CP2K input of one energy, force and stress evaluation."""
    cell = "\n".join(
        f"      {name} " + " ".join(f"{x:.10f}" for x in vector)
        for name, vector in zip("ABC", atoms.cell.array, strict=True)
    )
    coordinates = "\n".join(
        f"      {symbol} " + " ".join(f"{x:.10f}" for x in position)
        for symbol, position in zip(atoms.symbols, atoms.positions, strict=True)
    )
    kinds = "\n".join(
        f"    &KIND {symbol}\n      BASIS_SET DZVP-MOLOPT-SR-GTH-q{VALENCE[symbol]}\n"
        f"      POTENTIAL GTH-PBE-q{VALENCE[symbol]}\n    &END KIND"
        for symbol in sorted(set(atoms.symbols))
    )
    restart = "" if guess is None else f"    WFN_RESTART_FILE_NAME {guess}\n"
    return f"""&GLOBAL
  PROJECT frame
  RUN_TYPE ENERGY_FORCE
  PRINT_LEVEL LOW
&END GLOBAL
&FORCE_EVAL
  METHOD Quickstep
  STRESS_TENSOR ANALYTICAL
  &PRINT
    &FORCES ON
    &END FORCES
    &STRESS_TENSOR ON
    &END STRESS_TENSOR
  &END PRINT
  &DFT
    BASIS_SET_FILE_NAME BASIS_MOLOPT
    POTENTIAL_FILE_NAME GTH_POTENTIALS
{restart}{kpoint_section(level)}    &QS
      METHOD GPW
      EPS_DEFAULT 1.0E-10
    &END QS
    &MGRID
      CUTOFF {level.cutoff:g}
      REL_CUTOFF {level.rel_cutoff:g}
      NGRIDS 5
    &END MGRID
    &XC
      &XC_FUNCTIONAL
        &PBE
          PARAMETRIZATION {FUNCTIONALS[level.functional]}
        &END PBE
      &END XC_FUNCTIONAL
    &END XC
{scf_section(level, guess=guess)}  &END DFT
  &SUBSYS
    &CELL
{cell}
      PERIODIC XYZ
    &END CELL
    &COORD
{coordinates}
    &END COORD
{kinds}
  &END SUBSYS
&END FORCE_EVAL
"""


def kpoint_section(level: Level) -> str:
    """The k-point mesh, no symmetry used but time reversal; empty for the zone centre alone."""
    if level.kpoints is None:
        return ""
    mesh = " ".join(str(n) for n in level.kpoints)
    return f"""    &KPOINTS
      SCHEME MONKHORST-PACK {mesh}
      SYMMETRY OFF
      FULL_GRID OFF
    &END KPOINTS
"""


def scf_section(level: Level, *, guess: Path | None) -> str:
    """Diagonalisation with Broyden mixing of the density: the fewest passes over the grid, which is the cost."""
    start = "ATOMIC" if guess is None else "RESTART"
    return f"""    &SCF
      SCF_GUESS {start}
      EPS_SCF {level.eps_scf:g}
      MAX_SCF 80
      &MIXING
        METHOD BROYDEN_MIXING
        ALPHA 0.4
        NBROYDEN 8
      &END MIXING
    &END SCF
"""


def read_result(atoms: Atoms, output: Path) -> Atoms:
    """The labelled frame of a finished run; units eV, eV/Å, eV/Å³, ASE's sign of the stress."""
    text = output.read_text() if output.exists() else ""
    if "NOT converged" in text:
        raise NotConverged("the self-consistency cycle did not converge")
    energy = re.search(r"ENERGY\| Total FORCE_EVAL.*?:\s+(-?\d+\.\d+)", text)
    if energy is None or "PROGRAM ENDED AT" not in text:
        raise EngineFailed(f"no energy; see {output}")
    frame = atoms.copy()
    frame.calc = SinglePointCalculator(
        frame,
        energy=float(energy[1]) * units.Hartree,
        forces=read_forces(text, len(atoms)) * units.Hartree / units.Bohr,
        stress=read_stress(text) * units.GPa,
    )
    version = re.search(r"CP2K\| version string:\s+CP2K version (\S+)", text)
    frame.info["engine"] = f"CP2K {version[1]}" if version else "CP2K"
    return frame


def read_forces(text: str, n_atoms: int) -> np.ndarray:
    """Forces [n_atoms, 3] in Hartree/Bohr from CP2K's table."""
    table = text[text.index("ATOMIC FORCES in [a.u.]") :].splitlines()
    rows = [row.split()[3:6] for row in table if re.match(r"\s+\d+\s+\d+\s+[A-Z]", row)]
    forces = np.array(rows[:n_atoms], dtype=float)
    if forces.shape != (n_atoms, 3):
        raise EngineFailed(f"{len(forces)} rows of forces for {n_atoms} atoms")
    return forces


def read_stress(text: str) -> np.ndarray:
    """Stress in GPa, Voigt xx yy zz yz xz xy, tension positive (CP2K prints the opposite sign)."""
    table = text[text.index("STRESS| Analytical stress tensor [GPa]") :].splitlines()
    rows = [row.split()[2:5] for row in table if re.match(r"\s*STRESS\|\s+[xyz]\s+-?\d", row)]
    tensor = -np.array(rows[:3], dtype=float)
    tensor = (tensor + tensor.T) / 2
    return tensor[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
