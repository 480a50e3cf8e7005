"""Trajectories in memory: the frames that exploration keeps, with the labels of the model that ran it.

With a batched engine many trajectories advance together; a stop loses at most half a minute of them.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamkit.data.frame import Frame, make_frame
from lamkit.data.selection import why_not
from lamkit.stages import lockstep, parts
from lamkit.stages.dynamics import Dynamics, Walk
from lamkit.stages.engine import Engine, engine_of

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

SAVE_SECONDS = 30.0  # between two savings of trajectories that are under way


@dataclass
class Trajectory:
    """A walk with the frames that it left so far.

    Attributes:
        walk: where it is.
        labels: fields of every kept :class:`Frame`, such as ``group`` and ``source``.
        frames: sane frames, with the labels of the calculator that ran it.
        seconds: its share of the wall time of the dynamics.
    """

    walk: Walk
    labels: dict[str, Any]
    frames: list[Frame] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """Steps done."""
        return self.walk.step

    @property
    def stopped(self) -> str | None:
        """Why it ended early; None if it ran to the end."""
        return self.walk.stopped

    def keep(self) -> None:
        """Keep the present frame if it is due, and stop the walk if it is not sane."""
        walk = self.walk
        if walk.stopped is None and walk.due():
            frame = snapshot(walk, **self.labels)
            walk.stopped = why_not(frame, walk.dynamics.limits)
            if walk.stopped is None:
                self.frames.append(frame)


def new_trajectory(
    atoms: Atoms,
    engine: Engine,
    dynamics: Dynamics,
    *,
    temperature: float | Sequence[float],
    pressure: float | Sequence[float] | None = None,
    seed: int,
    labels: dict[str, Any] | None = None,
) -> Trajectory:
    """A trajectory at its start; constraints of the structure are not regarded.

    Args:
        atoms: the start; not changed.
        engine: gives energies and forces.
        dynamics: how it runs.
        temperature: K; several are gone through at even pace.
        pressure: GPa, the same; None takes that of ``dynamics``.
        seed: of velocities and thermostat.
        labels: fields of every kept :class:`Frame`.
    """
    atoms = atoms.copy()
    atoms.set_constraint()
    calculator = lockstep.Waiting() if engine.batched else engine.calculator
    walk = Walk(atoms, calculator, dynamics, temperature=temperature, pressure=pressure, seed=seed)
    return Trajectory(walk, labels or {})


def run_together(
    trajectories: Sequence[Trajectory],
    engine: Engine,
    saved: Path | None = None,
    on_step: Callable[[int], None] = lambda done: None,
) -> None:
    """Run trajectories to their ends, all at once where the engine evaluates batches.

    Args:
        trajectories: from :func:`new_trajectory` with this engine; with one that is not batched, a single one.
        engine: gives energies and forces.
        saved: file that keeps their state in the meantime; one that is there already is gone on from.
        on_step: called with the number of steps done by all together, for progress.

    Raises:
        UserError: the engine refuses a start (an unknown element, for example).
    """
    if saved is not None and saved.is_file():
        _load(saved, trajectories)
    else:
        lockstep.begin_all([t.walk for t in trajectories], engine)
    clock = last_saved = time.perf_counter()
    while running := [t for t in trajectories if t.stopped is None and t.steps < t.walk.dynamics.steps]:
        lockstep.advance_all([t.walk for t in running], engine)
        now = time.perf_counter()
        for trajectory in running:
            trajectory.keep()
            trajectory.seconds += (now - clock) / len(running)
        clock = now
        if saved is not None and now - last_saved > SAVE_SECONDS:
            _save(saved, trajectories)
            last_saved = now
        on_step(sum(t.steps for t in trajectories))


def run_trajectory(
    atoms: Atoms,
    calculator: Calculator,
    dynamics: Dynamics,
    *,
    temperature: float | Sequence[float],
    seed: int,
) -> Trajectory:
    """Run one trajectory; the same arguments give the same trajectory (up to rounding of the calculator).

    Raises:
        UserError: the calculator refuses the start itself (an unknown element, for example).
    """
    engine = engine_of(calculator)
    trajectory = new_trajectory(atoms, engine, dynamics, temperature=temperature, seed=seed)
    run_together([trajectory], engine)
    return trajectory


def _save(path: Path, trajectories: Sequence[Trajectory]) -> None:
    """All that is needed to go on: the frames so far, and each walk to the last bit (JSON keeps doubles)."""
    states = []
    for t in trajectories:
        state = t.walk.state()
        state["arrays"] = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in state["arrays"].items()}
        states.append({"state": state, "frames": len(t.frames), "seconds": t.seconds})
    parts.save_frames(path, [f for t in trajectories for f in t.frames], {"walks": states})


def _load(path: Path, trajectories: Sequence[Trajectory]) -> None:
    frames, start = parts.load_frames(path), 0
    for t, kept in zip(trajectories, parts.load_notes(path)["walks"], strict=True):
        t.walk.restore(kept["state"])
        t.frames, t.seconds = frames[start : start + kept["frames"]], kept["seconds"]
        start += kept["frames"]


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
