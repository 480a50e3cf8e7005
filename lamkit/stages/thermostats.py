"""The integrator of each ensemble: ASE's, and a Langevin thermostat whose heat is accounted for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units
from ase.md.bussi import Bussi
from ase.md.verlet import VelocityVerlet

from lamkit.errors import UserError

if TYPE_CHECKING:
    from ase import Atoms

    from lamkit.stages.dynamics import Dynamics


class Langevin(VelocityVerlet):
    """Langevin dynamics (Bussi and Parrinello, Phys. Rev. E 75, 056707, 2007).

    Half a step of the thermostat, p <- c p + sqrt((1 - c^2) m k T) R with c = exp(-friction dt / 2), which is
    exact; a step of velocity Verlet; half a step of the thermostat. The energy less the heat that the thermostat
    gave is conserved as well as velocity Verlet conserves the energy.

    Args:
        atoms: the structure, with momenta.
        timestep: ASE's unit of time.
        temperature: K.
        friction: per ASE's unit of time.
        rng: of the noise.

    Attributes:
        transferred_energy: heat given by the thermostat so far, eV.
    """

    def __init__(
        self, atoms: Atoms, timestep: float, temperature: float, friction: float, rng: np.random.Generator
    ) -> None:
        super().__init__(atoms, timestep)
        self.keep = float(np.exp(-0.5 * friction * timestep))
        self.rng = rng
        self.transferred_energy = 0.0
        self.aim(temperature)

    def aim(self, temperature: float) -> None:
        """Heat or cool towards ``temperature`` (K) from now on."""
        self.noise = np.sqrt((1.0 - self.keep**2) * self.masses * units.kB * temperature)

    def step(self, forces: np.ndarray | None = None) -> np.ndarray:
        """Advance by one time step; returns the forces at its end."""
        self._exchange()
        forces = super().step(forces)
        self._exchange()
        return forces

    def _exchange(self) -> None:
        before = self.atoms.get_kinetic_energy()
        noise = self.noise * self.rng.standard_normal((len(self.atoms), 3))
        self.atoms.set_momenta(self.keep * self.atoms.get_momenta() + noise)
        self.transferred_energy += float(self.atoms.get_kinetic_energy() - before)


def integrator(
    atoms: Atoms,
    dynamics: Dynamics,
    timestep: float,
    temperature: float,
    *,
    n_free: int,
    rng: np.random.Generator,
) -> Any:
    """The integrator that ``dynamics`` asks for.

    Args:
        atoms: the structure with momenta and calculator.
        dynamics: ensemble, thermostat, barostat and their times.
        timestep: fs.
        temperature: K.
        n_free: coordinates that carry kinetic energy.
        rng: of stochastic thermostats.
    """
    from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, NoseHooverChainNVT

    step, relaxation = timestep * units.fs, dynamics.thermostat_time * units.fs
    # ASE's chains hold sum p²/m at 3 N kT, though fewer coordinates than 3 N may be free.
    per_coordinate = temperature * n_free / (3 * len(atoms))
    if dynamics.ensemble == "nve":
        return VelocityVerlet(atoms, timestep=step)
    if dynamics.ensemble == "npt":
        barostat = MTKNPT if dynamics.cell == "full" else IsotropicMTKNPT
        return barostat(
            atoms,
            timestep=step,
            temperature_K=per_coordinate,
            pressure_au=dynamics.pressure * units.GPa,
            tdamp=relaxation,
            pdamp=dynamics.barostat_time * units.fs,
        )
    if dynamics.thermostat == "langevin":
        return Langevin(atoms, step, temperature, dynamics.friction / units.fs, rng)
    if dynamics.thermostat == "bussi":
        return _bussi(atoms, step, temperature, relaxation, n_free, rng)
    return NoseHooverChainNVT(atoms, timestep=step, temperature_K=per_coordinate, tdamp=relaxation)


def retarget(running: Any, temperature: float, pressure: float, *, chain_scale: float) -> None:
    """Let a running integrator aim at another temperature and pressure.

    The masses of Nose-Hoover chains and of the barostat stay those of the start: only its relaxation times
    depend on them, not what it relaxes to.

    Args:
        running: from :func:`integrator`.
        temperature: K.
        pressure: GPa; regarded by barostats only.
        chain_scale: free coordinates per 3 N, by which ASE's chains are to be corrected.
    """
    if isinstance(running, Langevin):
        running.aim(temperature)
    elif isinstance(running, Bussi):
        running.temp = units.kB * temperature
        running.target_kinetic_energy = 0.5 * running.temp * running.ndof
    else:
        owners: list[Any] = [running, running._thermostat, getattr(running, "_barostat", None)]
        for owner in owners:
            if hasattr(owner, "_kT"):
                owner._kT = units.kB * temperature * chain_scale
        if hasattr(running, "_pressure_au"):
            running._pressure_au = pressure * units.GPa


def _bussi(
    atoms: Atoms, step: float, temperature: float, relaxation: float, n_free: int, rng: np.random.Generator
) -> Bussi:
    if not atoms.get_kinetic_energy() > 0:
        raise UserError("the thermostat bussi scales velocities, and these are all zero; take langevin")
    thermostat = Bussi(atoms, timestep=step, temperature_K=temperature, taut=relaxation, rng=rng)
    thermostat.ndof = n_free  # ASE counts the centre of mass
    thermostat.target_kinetic_energy = 0.5 * thermostat.temp * n_free
    return thermostat


def extension(integrator: Any) -> float:
    """What belongs to the conserved quantity beside potential and kinetic energy, eV.

    Less the heat that a stochastic thermostat gave; plus the energies of Nose-Hoover chains, of the moving cell and
    of its work against the pressure. ASE adds these up itself only for calculators with a free energy.
    """
    energy = -getattr(integrator, "transferred_energy", 0.0)
    if hasattr(integrator, "_thermostat"):
        energy += integrator._thermostat.get_thermostat_energy()
    if hasattr(integrator, "_barostat"):
        momentum = integrator._p_g if hasattr(integrator, "_p_g") else integrator._p_eps
        energy += integrator._barostat.get_barostat_energy()
        energy += float(np.sum(np.square(momentum))) / (2.0 * integrator._barostat.W)
        energy += integrator._pressure_au * integrator._get_volume()
    return float(energy)
