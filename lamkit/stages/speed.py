"""How fast models are in ASE MD: the same structure, the same integrator, in turn, in one process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lamkit.data.frame import Frame, formula, to_atoms
from lamkit.stages.dynamics import Dynamics, draw_velocities, timestep_for

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

WARM_UP = 25  # steps that compile, and settle the shapes
BLOCKS = 5  # each model has so many turns; the median turn counts


def compare(
    calculators: Mapping[str, Calculator], start: Frame, steps: int = 10, temperature: float = 300.0
) -> dict[str, Any]:
    """Time MD steps (velocity Verlet) of several calculators on one structure.

    Args:
        calculators: name → calculator.
        start: the structure.
        steps: of each turn.
        temperature: K, of the starting velocities.

    Returns:
        ``n_atoms``, ``formula`` and per name ``ms_per_step`` and ``us_per_step_atom``.
    """
    runs = {name: _prepared(start, calculator, temperature) for name, calculator in calculators.items()}
    for dynamics in runs.values():
        dynamics.run(WARM_UP)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(BLOCKS):
        for name, dynamics in runs.items():  # in turn, so that other load on the machine hits all alike
            began = time.perf_counter()
            dynamics.run(steps)
            times[name].append((time.perf_counter() - began) / steps)
    seconds = {name: float(np.median(t)) for name, t in times.items()}
    return {
        "formula": formula(start),
        "n_atoms": len(start),
        "models": {
            name: {
                "ms_per_step": round(1e3 * t, 4),
                "us_per_step_atom": round(1e6 * t / len(start), 3),
            }
            for name, t in seconds.items()
        },
    }


def _prepared(start: Frame, calculator: Calculator, temperature: float) -> Any:
    from ase import units
    from ase.md.verlet import VelocityVerlet

    atoms = to_atoms(start)
    atoms.calc = calculator
    draw_velocities(atoms, temperature, np.random.default_rng(0))
    return VelocityVerlet(atoms, timestep=timestep_for(atoms, Dynamics()) * units.fs)
