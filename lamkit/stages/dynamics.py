"""Molecular dynamics of one structure, a step at a time, by any ASE calculator: what explore and md share.

The integrators are ASE's; the Langevin thermostat is ours, for its conserved quantity. A trajectory that leaves
the physical world (forces, temperature or distances out of bounds, numbers that are not finite) is stopped and
the reason is noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pydantic

from lamkit.config import Model
from lamkit.data.selection import Limits
from lamkit.errors import UserError
from lamkit.stages.engine import FAILURES, reason

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

HYDROGEN = 1


class Dynamics(Model):
    """How a trajectory runs.

    Attributes:
        ensemble: nvt (thermostat), nve (velocity Verlet, started at the temperature) or npt (thermostat and
            barostat of Martyna, Tobias and Klein; needs a cell that is periodic in three directions).
        thermostat: of nvt: langevin (Bussi and Parrinello), nose-hoover (chain of three, deterministic) or bussi
            (stochastic velocity rescaling; disturbs diffusion least).
        cell: of npt: isotropic (the shape is kept) or full.
        pressure: of npt, GPa.
        steps: time steps of each trajectory.
        timestep: fs; None takes 0.5 fs where there is hydrogen and 1 fs elsewhere.
        friction: of the Langevin thermostat, 1/fs.
        thermostat_time: relaxation time of the other thermostats, fs.
        barostat_time: relaxation time of the barostat, fs.
        save_every: steps between frames that are kept.
        equilibrate: steps at the start of which no frame is kept; counted in ``steps``.
        max_heating: stop when the temperature exceeds the target by this factor.
        limits: what each kept frame must keep to; leaving them stops the trajectory.
    """

    ensemble: Literal["nvt", "nve", "npt"] = "nvt"
    thermostat: Literal["langevin", "nose-hoover", "bussi"] = "langevin"
    cell: Literal["isotropic", "full"] = "isotropic"
    pressure: float = pydantic.Field(0.0, allow_inf_nan=False)
    steps: int = pydantic.Field(400, ge=1)
    timestep: float | None = pydantic.Field(None, gt=0)
    friction: float = pydantic.Field(0.02, gt=0)
    thermostat_time: float = pydantic.Field(100.0, gt=0)
    barostat_time: float = pydantic.Field(1000.0, gt=0)
    save_every: int = pydantic.Field(10, ge=1)
    equilibrate: int = pydantic.Field(0, ge=0)
    max_heating: float = pydantic.Field(5.0, gt=1)
    limits: Limits = Limits()

    def require_frames(self) -> None:
        """Refuse a trajectory of which no frame would be kept.

        Raises:
            ValueError: it ends before the first frame is due.
        """
        if self.steps // self.save_every <= self.equilibrate // self.save_every:
            first = (self.equilibrate // self.save_every + 1) * self.save_every
            raise ValueError(
                f"dynamics: {self.steps} steps keep no frame, the first is due at step {first} (save_every "
                f"{self.save_every}, equilibrate {self.equilibrate}); raise steps, or lower these"
            )


def timestep_for(atoms: Atoms, dynamics: Dynamics) -> float:
    """Time step in fs: what was asked for, else what the lightest element allows."""
    if dynamics.timestep is not None:
        return dynamics.timestep
    return 0.5 if (atoms.numbers == HYDROGEN).any() else 1.0


class Walk:
    """A trajectory under way; the same arguments give the same steps (up to rounding of the calculator).

    Args:
        atoms: the start; goes on from here in place, with its constraints.
        calculator: gives energies and forces.
        dynamics: how it runs.
        temperature: K; several are gone through at even pace during the steps of ``dynamics``.
        seed: of velocities and thermostat.
        pressure: of npt, GPa, one or several like ``temperature``; None takes that of ``dynamics``.
        keep_velocities: take those of ``atoms`` instead of drawing them.

    Attributes:
        atoms: the structure as it is now.
        temperature: K, the target at this step.
        step: steps done.
        timestep: fs.
        stopped: why it cannot go on; None while it can.

    Raises:
        UserError: the ensemble does not suit the structure, or the calculator refuses it.
    """

    def __init__(
        self,
        atoms: Atoms,
        calculator: Calculator,
        dynamics: Dynamics,
        *,
        temperature: float | Sequence[float],
        seed: int,
        pressure: float | Sequence[float] | None = None,
        keep_velocities: bool = False,
    ) -> None:
        from lamkit.stages.thermostats import integrator

        self._temperatures = _ladder(temperature)
        self._pressures = _ladder(dynamics.pressure if pressure is None else pressure)
        _check_ensemble(atoms, dynamics, self._temperatures, self._pressures)
        if hasattr(calculator, "reset"):
            calculator.reset()
        self.atoms, self.dynamics, self.temperature = atoms, dynamics, self._temperatures[0]
        self.step = 0
        self.stopped: str | None = None
        self.timestep = timestep_for(atoms, dynamics)
        self._rng = np.random.default_rng(seed)
        if not keep_velocities:
            draw_velocities(atoms, self.temperature, self._rng)
        self.n_free = degrees_of_freedom(atoms, dynamics)
        if self.n_free < 1:
            raise UserError("its constraints leave no atom free to move")
        atoms.calc = calculator
        self._integrator = integrator(
            atoms,
            dynamics.model_copy(update={"pressure": self._pressures[0]}),
            self.timestep,
            self.temperature,
            n_free=self.n_free,
            rng=self._rng,
        )

    def begin(self) -> None:
        """Evaluate the present structure.

        Raises:
            UserError: the calculator cannot do the start itself.
        """
        from ase.calculators.calculator import PropertyNotImplementedError

        try:
            forces = self.atoms.get_forces(md=True)
        except UserError:
            raise
        except FAILURES as error:
            formula = self.atoms.get_chemical_formula()
            raise UserError(
                f"the calculator cannot do the starting structure {formula} ({reason(error)}). Mend the calculator, or "
                "take starts that it can do"
            ) from error
        self.stopped = self._trouble(forces)
        if self.dynamics.ensemble == "npt":
            try:
                self.atoms.get_stress()
            except PropertyNotImplementedError:
                raise UserError(
                    "dynamics.ensemble npt needs a stress, which this model does not give; take nvt"
                ) from None

    def advance(self) -> None:
        """One step; failures on the way set :attr:`stopped`."""
        self._follow()
        try:
            self._integrator.step()
            forces = self.atoms.get_forces(md=True)
        except FAILURES as error:
            self.stopped = f"calculator failed: {reason(error)}"
            return
        self.step += 1
        self.stopped = self._trouble(forces)

    def _follow(self) -> None:
        """Set the thermostat and the barostat to where the schedule is at this step."""
        from lamkit.stages.thermostats import retarget

        if len(self._temperatures) == len(self._pressures) == 1:
            return
        way = self.step / max(self.dynamics.steps - 1, 1)
        self.temperature, pressure = (_along(ladder, way) for ladder in (self._temperatures, self._pressures))
        scale = self.n_free / (3 * len(self.atoms))
        retarget(self._integrator, self.temperature, pressure, chain_scale=scale)

    def due(self) -> bool:
        """Whether the present frame is one to be kept."""
        return self.step > self.dynamics.equilibrate and self.step % self.dynamics.save_every == 0

    def kelvin(self) -> float:
        """Temperature of the free coordinates, K."""
        from ase import units

        return float(2.0 * self.atoms.get_kinetic_energy() / (self.n_free * units.kB))

    def conserved(self, potential: float) -> float:
        """What the exact dynamics would keep, eV; its drift is the error of the time step.

        The energy less what the thermostat gave (nve, langevin, bussi), or that of the extended system.

        Args:
            potential: potential energy of the present structure, eV.
        """
        from lamkit.stages.thermostats import extension

        return float(potential + self.atoms.get_kinetic_energy() + extension(self._integrator))

    def _trouble(self, forces: np.ndarray) -> str | None:
        """Why the trajectory must stop here; cheap enough for every step."""
        if not np.isfinite(forces).all() or not np.isfinite(self.atoms.positions).all():
            return "forces or positions are not finite"
        largest = float(np.sqrt(np.square(forces).sum(axis=1).max(initial=0.0)))
        limit = self.dynamics.limits.max_force
        if limit is not None and largest > limit:
            return f"force of {largest:.0f} eV/Å (limit {limit:g})"
        # Few atoms fluctuate by their nature: sigma(T)/T = sqrt(2/n).
        ceiling = self.temperature * (self.dynamics.max_heating + 3 * np.sqrt(2 / self.n_free))
        hot = self.kelvin()
        if self.temperature > 0 and hot > ceiling:
            return f"temperature of {hot:.0f} K (target {self.temperature:g})"
        return None

    def state(self) -> dict[str, Any]:
        """All that the next steps depend on: arrays, and under ``rng`` the state of the random numbers."""
        arrays = {
            "positions": self.atoms.positions.copy(),
            "momenta": self.atoms.get_momenta(),
            "cell": self.atoms.cell.array.copy(),
            **{f"integrator.{name}": np.copy(value) for name, _, _, value in _numbers(self._integrator)},
        }
        return {
            "arrays": arrays,
            "step": self.step,
            "stopped": self.stopped,
            "rng": self._rng.bit_generator.state,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on as the walk whose :meth:`state` this is would have."""
        arrays = state["arrays"]
        self.atoms.cell[:] = arrays["cell"]
        self.atoms.positions[:] = arrays["positions"]
        self.atoms.set_momenta(arrays["momenta"], apply_constraint=False)
        for name, owner, key, value in list(_numbers(self._integrator)):
            saved = np.asarray(arrays[f"integrator.{name}"])
            setattr(owner, key, saved.copy() if isinstance(value, np.ndarray) else saved.item())
        self.step, self.stopped = int(state["step"]), state["stopped"]
        self._rng.bit_generator.state = state["rng"]


def _numbers(owner: Any, prefix: str = "") -> Iterator[tuple[str, Any, str, Any]]:
    """Every number and array of an ASE integrator and of the thermostat and barostat inside it."""
    for key, value in vars(owner).items():
        if isinstance(value, (int, float, np.ndarray, np.number)) and not isinstance(value, bool):
            yield prefix + key, owner, key, value
        elif type(value).__module__.startswith("ase.md"):
            yield from _numbers(value, f"{prefix}{key}.")


def _chained(dynamics: Dynamics) -> bool:
    return dynamics.ensemble == "npt" or (dynamics.ensemble, dynamics.thermostat) == ("nvt", "nose-hoover")


def degrees_of_freedom(atoms: Atoms, dynamics: Dynamics) -> int:
    """Coordinates that carry kinetic energy: the centre of mass does not, unless something pushes it."""
    n = int(atoms.get_number_of_degrees_of_freedom())
    pushed = (dynamics.ensemble, dynamics.thermostat) == ("nvt", "langevin")
    return n if pushed or atoms.constraints or len(atoms) == 1 else n - 3


def draw_velocities(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Maxwell-Boltzmann momenta; without net momentum unless something is constrained."""
    from ase import units

    masses = atoms.get_masses()[:, None]
    momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * temperature)
    if len(atoms) > 1 and not atoms.constraints:
        momenta -= masses * momenta.sum(axis=0) / masses.sum()
    atoms.set_momenta(momenta)


def _ladder(values: float | Sequence[float]) -> tuple[float, ...]:
    return (float(values),) if isinstance(values, (int, float)) else tuple(float(v) for v in values)


def _along(ladder: Sequence[float], way: float) -> float:
    """The value at ``way`` (0 to 1) between values at even distances, joined by straight lines."""
    return float(np.interp(way * (len(ladder) - 1), range(len(ladder)), ladder))


def _check_ensemble(
    atoms: Atoms, dynamics: Dynamics, temperatures: Sequence[float], pressures: Sequence[float]
) -> None:
    if _chained(dynamics) and atoms.constraints:
        names = ", ".join(sorted({type(c).__name__ for c in atoms.constraints}))
        raise UserError(
            f"constraints ({names}) do not go with {dynamics.ensemble} and its Nose-Hoover chains; take nve, or "
            "nvt with the thermostat langevin or bussi, or remove the constraints"
        )
    if dynamics.ensemble == "npt" and not atoms.pbc.all():
        raise UserError(
            f"dynamics.ensemble npt needs a cell that is periodic in three directions, pbc is "
            f"{atoms.pbc.tolist()}; take nvt"
        )
    if dynamics.ensemble != "nve" and min(temperatures) <= 0:
        raise UserError(f"temperature {min(temperatures):g} K: a thermostat needs more than 0; take nve")
    if dynamics.ensemble == "nve" and len(temperatures) > 1:
        raise UserError("a schedule of temperatures needs a thermostat: dynamics.ensemble nvt or npt")
    if dynamics.ensemble != "npt" and len(pressures) > 1:
        raise UserError("a schedule of pressures needs a barostat: dynamics.ensemble npt")
