"""How fast models are in ASE MD: the same structure, the same integrator, in turn, in one process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lamkit.data.frame import Frame, formula, to_atoms
from lamkit.stages.dynamics import Dynamics, draw_velocities, timestep_for
from lamkit.stages.engine import FAILURES, reason

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

WARM_UP = 25  # steps that compile, and settle the shapes
BLOCKS = 5  # each model has so many turns; the median turn counts
# A calculator that takes seconds for a step (s): fewer steps will do, and their number is cut to what takes so long.
SLOW, WARM_UP_AT_MOST, TURN_AT_MOST = 1.0, 60.0, 10.0


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
        ``n_atoms``, ``formula``; ``models``: per name ``ms_per_step`` and ``us_per_step_atom``; ``failed``: name →
        reason, of calculators that raised an error and are left out.
    """
    runs = {name: _prepared(start, calculator, temperature) for name, calculator in calculators.items()}
    turns: dict[str, int] = {}
    times: dict[str, list[float]] = {name: [] for name in runs}
    failed: dict[str, str] = {}
    for block in range(BLOCKS + 1):
        for name, dynamics in runs.items():  # in turn, so that other load on the machine hits all alike
            if name in failed:
                continue
            try:
                if block:
                    times[name].append(_seconds(dynamics, turns[name]))
                else:
                    turns[name] = max(1, min(steps, int(TURN_AT_MOST / _warm_up(dynamics))))
            except FAILURES as error:
                failed[name] = reason(error)
    seconds = {name: float(np.median(t)) for name, t in times.items() if name not in failed}
    return {
        "formula": formula(start),
        "n_atoms": len(start),
        "failed": failed,
        "models": {
            name: {
                "ms_per_step": round(1e3 * t, 4),
                "us_per_step_atom": round(1e6 * t / len(start), 3),
            }
            for name, t in seconds.items()
        },
    }


def _seconds(dynamics: Any, steps: int) -> float:
    """Seconds that a step takes in the mean."""
    began = time.perf_counter()
    dynamics.run(steps)
    return (time.perf_counter() - began) / steps


def _warm_up(dynamics: Any) -> float:
    """Steps that do not count; seconds of the last."""
    began = time.perf_counter()
    for _ in range(WARM_UP):
        last = _seconds(dynamics, 1)
        if last > SLOW and time.perf_counter() - began > WARM_UP_AT_MOST:
            break
    return last


def _prepared(start: Frame, calculator: Calculator, temperature: float) -> Any:
    from ase import units
    from ase.md.verlet import VelocityVerlet

    atoms = to_atoms(start)
    atoms.calc = calculator
    draw_velocities(atoms, temperature, np.random.default_rng(0))
    return VelocityVerlet(atoms, timestep=timestep_for(atoms, Dynamics()) * units.fs)
