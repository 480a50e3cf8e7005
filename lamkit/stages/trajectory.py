"""One trajectory in memory: the frames that exploration keeps, with the labels of the model that ran it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lamkit.data.frame import Frame, make_frame
from lamkit.data.selection import why_not
from lamkit.stages.dynamics import Dynamics, Walk

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator


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
        atoms: the start; not changed, and its constraints are not regarded.
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
    walk = Walk(atoms, calculator, dynamics, temperature=temperature, seed=seed)
    frames = []
    began = time.perf_counter()
    walk.begin()
    while walk.stopped is None and walk.step < dynamics.steps:
        walk.advance()
        if walk.stopped is None and walk.due():
            frame = snapshot(walk, **(labels or {}))
            walk.stopped = why_not(frame, dynamics.limits)
            if walk.stopped is None:
                frames.append(frame)
        on_step(walk.step)
    return Trajectory(frames, walk.step, walk.stopped, time.perf_counter() - began)


def snapshot(walk: Walk, **labels: Any) -> Frame:
    """The present frame of a walk with the labels of its calculator."""
    atoms = walk.atoms
    # The dynamics goes on in these very arrays, and so do some calculators: copy them.
    results = copy.deepcopy(atoms.calc.results)
    fields = {"step": walk.step, **labels, "info": {"temperature": float(walk.temperature)}}
    return make_frame(
        atoms.numbers.copy(),
        atoms.positions.copy(),
        atoms.cell.array.copy(),
        atoms.pbc.copy(),
        energy=results.get("free_energy", results.get("energy")),
        forces=results.get("forces"),
        stress=results.get("stress"),
        **fields,
    )
