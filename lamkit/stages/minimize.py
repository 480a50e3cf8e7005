"""One structure's way to its minimum: positions, cell, pressure and symmetry, by ASE's optimizers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pydantic

from lamkit.config import Model
from lamkit.data.frame import from_atoms
from lamkit.errors import Interrupted, UserError
from lamkit.stages import parts
from lamkit.stages.recorder import TRAJECTORIES, still
from lamkit.stages.structures import Structure

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

ENDLESS = 1e-30  # eV/Å; the optimizer's own criterion, which never stops it before ours
SAVE_SECONDS = 30.0


class Minimizer(Model):
    """How a structure is relaxed.

    Attributes:
        optimizer: FIRE (robust), BFGS or LBFGS (fewer steps near a minimum; LBFGS for large structures).
        cell: fixed, full (shape and volume) or volume (the shape is kept).
        pressure: GPa, where the cell moves.
        symmetry: keep the space group that the structure starts with.
        symprec: Å, tolerance with which space groups are found.
        fmax: largest force on an atom when converged, eV/Å.
        smax: largest component of stress plus pressure when converged, GPa; where the cell moves.
        max_steps: of each structure.
        max_step: longest step of an atom, Å.
    """

    optimizer: Literal["FIRE", "BFGS", "LBFGS"] = "FIRE"
    cell: Literal["fixed", "full", "volume"] = "fixed"
    pressure: float = pydantic.Field(0.0, allow_inf_nan=False)
    symmetry: bool = False
    symprec: float = pydantic.Field(0.01, gt=0)
    fmax: float = pydantic.Field(0.02, gt=0)
    smax: float = pydantic.Field(0.1, gt=0)
    max_steps: int = pydantic.Field(500, ge=1)
    max_step: float = pydantic.Field(0.2, gt=0)


def check_periodic(structure: Structure, minimizer: Minimizer) -> None:
    """Refuse what needs a full cell where there is none.

    Raises:
        UserError: naming the structure.
    """
    pbc = structure.atoms.pbc
    wanted = [f"cell: {minimizer.cell}"] if minimizer.cell != "fixed" else []
    wanted += ["symmetry: true"] if minimizer.symmetry else []
    if wanted and not pbc.all():
        raise UserError(
            f"{structure.where}: {' and '.join(wanted)} need a cell that is periodic in three directions, pbc is "
            f"{pbc.tolist()}"
        )


class Relaxation:
    """A relaxation under way.

    Args:
        structure: the start.
        calculator: gives energies, forces and stresses.
        minimizer: how.
        part: file that holds its last geometry and its row of the table; found there, it goes on.
        trajectory: file of its trajectory without suffix, and the format; None writes none.

    Attributes:
        steps: done so far, earlier runs included.
        row: what is known about it; see :meth:`_look`.

    Raises:
        UserError: no symmetry can be found, or the model has no stress and the cell is to move.
    """

    def __init__(
        self,
        structure: Structure,
        calculator: Calculator,
        minimizer: Minimizer,
        part: Path,
        trajectory: tuple[Path, str] | None,
    ) -> None:
        self.structure, self.minimizer, self.part = structure, minimizer, part
        self.atoms = structure.atoms.copy()
        self.steps, self.row, length = 0, dict[str, Any](), 0
        if part.is_file():
            self.row = parts.load_notes(part)
            frame = parts.load_frames(part)[0]
            self.atoms.set_cell(frame.cell)
            self.atoms.positions[:] = frame.positions
            self.steps, length = self.row["steps"], self.row.pop("length")
        self._recorded = self.steps if self.row else -1
        self._trajectory: Any = None
        if trajectory is not None:
            writer = TRAJECTORIES[trajectory[1]]
            path = trajectory[0].with_name(trajectory[0].name + writer.suffix)
            self._trajectory = writer(path, length)
        if hasattr(calculator, "reset"):
            calculator.reset()
        self.atoms.calc = calculator
        if minimizer.symmetry:
            self._fix_symmetry()
        self._sane = self.atoms.copy()

    def run(self, on_step: Callable[[Relaxation], None], interrupted: Callable[[], bool]) -> dict[str, Any]:
        """Go to the minimum, or until it fails or has no steps left; returns the row.

        Args:
            on_step: called after each step, for progress.
            interrupted: whether the user wants to stop.

        Raises:
            Interrupted: the user stopped it; the geometry is saved.
        """
        saved_at = time.monotonic()
        try:
            for steps in self._descent():
                self.steps = steps
                self._look()
                on_step(self)
                if self.row["converged"]:
                    break
                if interrupted() or time.monotonic() - saved_at > SAVE_SECONDS:
                    self._save()
                    saved_at = time.monotonic()
                if interrupted():
                    out = self.part.parent.parent
                    raise Interrupted(f"Saved in {out}; go on with 'lamkit relax --out {out} --resume'")
        except (UserError, ArithmeticError, np.linalg.LinAlgError) as error:
            if not self.row:  # the start itself
                raise
            self.row |= {"failed": True, "why": f"stopped at step {self.steps}: {error}"}
        self._save()
        if self._trajectory is not None:
            self._trajectory.close()
        return self.row

    def _descent(self) -> Iterator[int]:
        """Number of steps done, after each one and before the first."""
        from ase import optimize, units
        from ase.filters import FrechetCellFilter

        m, target = self.minimizer, self.atoms
        if m.cell != "fixed":
            self._need_stress()
            pressure = m.pressure * units.GPa
            target = FrechetCellFilter(
                self.atoms, scalar_pressure=pressure, hydrostatic_strain=m.cell == "volume"
            )
        optimizer = getattr(optimize, m.optimizer)(target, logfile=None, maxstep=m.max_step)
        before = self.steps
        for _ in optimizer.irun(fmax=ENDLESS, steps=m.max_steps - before):
            yield before + optimizer.nsteps

    def _need_stress(self) -> None:
        from ase.calculators.calculator import PropertyNotImplementedError

        try:
            self.atoms.get_stress()
        except PropertyNotImplementedError:
            raise UserError(
                f"{self.structure.where}: cell: {self.minimizer.cell} needs a stress, which this model does not "
                "give; take cell: fixed"
            ) from None

    def _fix_symmetry(self) -> None:
        from ase.constraints import FixSymmetry

        try:
            symmetry = FixSymmetry(self.atoms, symprec=self.minimizer.symprec)
        except Exception as error:  # spglib and ASE raise anything; all mean that there is nothing to keep
            raise UserError(
                f"{self.structure.where}: no symmetry was found ({error}); leave symmetry away or change symprec"
            ) from None
        self.atoms.set_constraint([*self.atoms.constraints, symmetry])

    def _look(self) -> None:
        """Bring the row up to date with the present geometry, and record it.

        Raises:
            ArithmeticError: forces or energy are not finite; the last sane geometry is kept.
        """
        energy, fmax, smax = float(self.atoms.get_potential_energy()), *self._residuals()
        if not np.isfinite([energy, fmax, smax]).all():
            raise ArithmeticError("energy or forces are not finite")
        self._sane = still(self.atoms, step=self.steps)
        if self._trajectory is not None and self.steps > self._recorded:
            self._trajectory.add(self._sane)
            self._recorded = self.steps
        m = self.minimizer
        converged = fmax < m.fmax and (m.cell == "fixed" or smax < m.smax)
        periodic = bool(self.atoms.pbc.all())
        now = {"energy_eV": energy, "volume_A3": float(self.atoms.get_volume()) if periodic else None}
        if not self.row:
            self.row = {
                "name": self.structure.name,
                "source": self.structure.source,
                "index": self.structure.index,
                "n_atoms": len(self.atoms),
                "spacegroup_start": space_group(self.atoms, m.symprec),
                "energy_start_eV": now["energy_eV"],
                "volume_start_A3": now["volume_A3"],
            }
        self.row |= {
            **now,
            "converged": bool(converged),
            "failed": False,
            "steps": self.steps,
            "fmax_eV_A": fmax,
            "smax_GPa": None if m.cell == "fixed" else smax,
            "why": None if converged else f"not converged after {self.steps} steps: {self._open(fmax, smax)}",
        }

    def _open(self, fmax: float, smax: float) -> str:
        text = f"largest force {fmax:.4f} eV/Å (fmax {self.minimizer.fmax:g})"
        if self.minimizer.cell != "fixed":
            text += f", largest stress {smax:.3f} GPa (smax {self.minimizer.smax:g})"
        return text

    def _residuals(self) -> tuple[float, float]:
        """Largest force (eV/Å) and, where the cell moves, largest component of stress plus pressure (GPa)."""
        from ase import units

        forces = self.atoms.get_forces()
        fmax = float(np.sqrt(np.square(forces).sum(axis=1).max()))
        if self.minimizer.cell == "fixed":
            return fmax, 0.0
        stress = self.atoms.get_stress() / units.GPa
        stress[:3] += self.minimizer.pressure
        if self.minimizer.cell == "volume":
            stress = stress[:3].mean(keepdims=True)
        return fmax, float(np.abs(stress).max())

    def _save(self) -> None:
        """Write the last sane geometry and the row."""
        self.row["spacegroup"] = space_group(self._sane, self.minimizer.symprec)
        length = 0 if self._trajectory is None else self._trajectory.flush()
        frame = from_atoms(self._sane, source=self.structure.source, step=self.structure.index)
        parts.save_frames(self.part, [frame], self.row | {"length": length})


def space_group(atoms: Atoms, symprec: float) -> str | None:
    """International symbol and number; None for what is not a crystal."""
    if not atoms.pbc.all():
        return None
    import spglib

    found = spglib.get_spacegroup(
        (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec=symprec
    )
    return str(found) if found else None
