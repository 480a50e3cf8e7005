"""Molecular dynamics that explores: one seeded trajectory with guards, by any ASE calculator.

A trajectory that leaves the physical world (forces, temperature or distances out of bounds, numbers that are
not finite) is stopped, the reason is noted, and the frames that were sane are kept.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pydantic

from lamkit.config import Model
from lamkit.data.frame import Frame, make_frame
from lamkit.data.selection import Limits, why_not
from lamkit.errors import UserError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

HYDROGEN = 1


class Dynamics(Model):
    """How a trajectory runs.

    Attributes:
        ensemble: nvt (Langevin thermostat) or nve (velocity Verlet, started at the temperature).
        steps: time steps of each trajectory.
        timestep: fs; None takes 0.5 fs where there is hydrogen and 1 fs elsewhere.
        friction: of the Langevin thermostat, 1/fs.
        save_every: steps between frames that are kept.
        equilibrate: steps at the start of which no frame is kept; counted in ``steps``.
        max_heating: stop when the temperature exceeds the target by this factor.
        limits: what each kept frame must keep to; leaving them stops the trajectory.
    """

    ensemble: Literal["nvt", "nve"] = "nvt"
    steps: int = pydantic.Field(400, ge=1)
    timestep: float | None = pydantic.Field(None, gt=0)
    friction: float = pydantic.Field(0.02, gt=0)
    save_every: int = pydantic.Field(10, ge=1)
    equilibrate: int = pydantic.Field(0, ge=0)
    max_heating: float = pydantic.Field(5.0, gt=1)
    limits: Limits = Limits()


@dataclass
class Trajectory:
    """What a trajectory left.

    Attributes:
        frames: sane frames, with the labels of the calculator that ran it.
        steps: steps done.
        stopped: why it ended early; None if it ran to the end.
        seconds: wall time of the dynamics.
    """

    frames: list[Frame] = field(default_factory=list)
    steps: int = 0
    stopped: str | None = None
    seconds: float = 0.0


def timestep_for(atoms: Atoms, dynamics: Dynamics) -> float:
    """Time step in fs: what was asked for, else what the lightest element allows."""
    if dynamics.timestep is not None:
        return dynamics.timestep
    return 0.5 if (atoms.numbers == HYDROGEN).any() else 1.0


def run_trajectory(
    atoms: Atoms,
    calculator: Calculator,
    dynamics: Dynamics,
    *,
    temperature: float,
    seed: int,
    labels: dict[str, Any] | None = None,
    on_step: Callable[[int], None] = lambda done: None,
) -> Trajectory:
    """Run one trajectory; the same arguments give the same trajectory (up to rounding of the calculator).

    Args:
        atoms: the start; not changed.
        calculator: gives energies and forces.
        dynamics: how it runs.
        temperature: K.
        seed: of velocities and thermostat.
        labels: fields of every kept :class:`Frame`, such as ``group`` and ``source``.
        on_step: called with the number of steps done, for progress.

    Raises:
        UserError: the calculator refuses the start itself (an unknown element, for example).
    """
    atoms = atoms.copy()
    atoms.set_constraint()
    if hasattr(calculator, "reset"):
        calculator.reset()  # neighbour lists of an earlier trajectory change the rounding, and so the path
    atoms.calc = calculator
    integrator = _integrator(atoms, dynamics, temperature, np.random.default_rng(seed))
    result = Trajectory()
    began = time.perf_counter()
    forces = atoms.get_forces(md=True)  # errors of the start itself are the user's to see
    result.stopped = _trouble(atoms, forces, dynamics, temperature)
    while result.stopped is None and result.steps < dynamics.steps:
        try:
            forces = integrator.step(forces)
        except (UserError, ArithmeticError, np.linalg.LinAlgError) as error:
            result.stopped = f"calculator failed: {error}"
            break
        result.steps += 1
        result.stopped = _trouble(atoms, forces, dynamics, temperature)
        if result.stopped is None and _due(result.steps, dynamics):
            result.stopped = _keep(atoms, dynamics, temperature, labels or {}, result)
        on_step(result.steps)
    result.seconds = time.perf_counter() - began
    return result


def _due(step: int, dynamics: Dynamics) -> bool:
    return step > dynamics.equilibrate and step % dynamics.save_every == 0


def _keep(
    atoms: Atoms, dynamics: Dynamics, temperature: float, labels: dict[str, Any], result: Trajectory
) -> str | None:
    """Keep the present frame, or say why it is not sane."""
    # The dynamics goes on in these very arrays, and so do some calculators: copy them.
    results = copy.deepcopy(atoms.calc.results)
    fields = {"step": result.steps, **labels, "info": {"temperature": float(temperature)}}
    frame = make_frame(
        atoms.numbers.copy(),
        atoms.positions.copy(),
        atoms.cell.array.copy(),
        atoms.pbc.copy(),
        energy=results.get("free_energy", results.get("energy")),
        forces=results.get("forces"),
        stress=results.get("stress"),
        **fields,
    )
    reason = why_not(frame, dynamics.limits)
    if reason is None:
        result.frames.append(frame)
    return reason


def _trouble(atoms: Atoms, forces: np.ndarray, dynamics: Dynamics, temperature: float) -> str | None:
    """Why the trajectory must stop here; cheap enough for every step."""
    if not np.isfinite(forces).all() or not np.isfinite(atoms.positions).all():
        return "forces or positions are not finite"
    largest = float(np.sqrt(np.square(forces).sum(axis=1).max(initial=0.0)))
    limit = dynamics.limits.max_force
    if limit is not None and largest > limit:
        return f"force of {largest:.0f} eV/Å (limit {limit:g})"
    # 3N degrees of freedom; few atoms fluctuate by their nature: sigma(T)/T = sqrt(2/3N).
    ceiling = temperature * (dynamics.max_heating + 3 * np.sqrt(2 / (3 * len(atoms))))
    hot = atoms.get_temperature()
    if temperature > 0 and hot > ceiling:
        return f"temperature of {hot:.0f} K (target {temperature:g})"
    return None


def _integrator(atoms: Atoms, dynamics: Dynamics, temperature: float, rng: np.random.Generator) -> Any:
    """ASE integrator with velocities drawn and the drift taken out."""
    from ase import units
    from ase.md.langevin import Langevin
    from ase.md.verlet import VelocityVerlet

    masses = atoms.get_masses()[:, None]
    momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * temperature)
    if len(atoms) > 1:
        momenta -= masses * momenta.sum(axis=0) / masses.sum()
    atoms.set_momenta(momenta)
    step = timestep_for(atoms, dynamics) * units.fs
    if dynamics.ensemble == "nve":
        return VelocityVerlet(atoms, timestep=step)
    return Langevin(
        atoms,
        timestep=step,
        temperature_K=temperature,
        friction=dynamics.friction / units.fs,
        rng=rng,
        fixcm=False,
    )
