"""Explore: MD and random displacements that lead to structures a data set does not hold yet.

Each trajectory (a start at a temperature) is one part and one split group. Finished trajectories survive a
stop; every trajectory has its own seed, so that the result does not depend on where a run was stopped.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from lamkit.config import InputPath, Model
from lamkit.console import Progress, log, table
from lamkit.data.frame import Frame, formula, from_atoms, to_atoms
from lamkit.data.selection import spread_evenly, why_not
from lamkit.errors import UserError
from lamkit.stages import parts
from lamkit.stages.dynamics import Dynamics
from lamkit.stages.engine import (
    Engine,
    enlarge,
    frames_at,
    load_engine,
    read_frames,
    resumable,
    write_data,
)
from lamkit.stages.trajectory import Trajectory, run_trajectory


class Perturb(Model):
    """Random copies of each start, which cover what MD at low temperature does not reach.

    Attributes:
        n: copies of each start; 0 switches them off.
        rattle: standard deviation of the displacement of each coordinate, Å.
        strain: largest component of a random symmetric strain of the cell.
    """

    n: int = pydantic.Field(0, ge=0)
    rattle: float = pydantic.Field(0.1, ge=0)
    strain: float = pydantic.Field(0.03, ge=0, lt=0.5)


class Options(Model):
    """Options of the stage ``explore``.

    Attributes:
        starts: data sets or structure files that hold the starting structures.
        model: checkpoint whose forces drive the MD.
        head: head of the checkpoint.
        calculator: instead of ``model``, ``module:function`` that returns an ASE calculator.
        n_starts: how many structures to start from, evenly spaced over ``starts``.
        offset: shift of these structures, to get others in another round.
        temperatures: K; each start runs at each of them.
        dynamics: how a trajectory runs.
        perturb: random copies of the starts.
        min_atoms: repeat smaller periodic cells until they have as many atoms.
        seed: of velocities, thermostat and displacements.
        device: device of the checkpoint's network.
        resume: go on with the run in the output folder.
    """

    starts: list[InputPath] = pydantic.Field(min_length=1)
    model: InputPath | None = None
    head: str | None = None
    calculator: str | None = None
    n_starts: int = pydantic.Field(4, ge=1)
    offset: int = pydantic.Field(0, ge=0)
    temperatures: list[float] = pydantic.Field([300.0, 600.0], min_length=1)
    dynamics: Dynamics = Dynamics()
    perturb: Perturb = Perturb()
    min_atoms: int = pydantic.Field(1, ge=1)
    seed: int = pydantic.Field(0, ge=0)
    device: str = "CPU"
    resume: bool = False


@dataclass(frozen=True)
class Task:
    """One trajectory to be run.

    Attributes:
        name: group of its frames and name of its part.
        start: structure at step 0.
        temperature: K.
        seed: of this trajectory alone.
    """

    name: str
    start: Frame
    temperature: float
    seed: int


def run(options: Options, out: Path) -> dict[str, Any]:
    """Explore, and write the frames found as the data set ``out/data``.

    Args:
        options: see :class:`Options`.
        out: run folder.

    Returns:
        Counts, a row per trajectory and the path of the data set.
    """
    out = Path(out)
    finished = parts.begin(out, options, options.resume, "explore")
    if finished is not None:
        return finished
    engine = load_engine(options.model, options.head, options.calculator, options.device)
    sources = [read_frames(path) for path in options.starts]
    total = sum(len(s) for s in sources)
    chosen = frames_at(sources, spread_evenly(total, options.n_starts, options.offset))
    starts = [enlarge(f, options.min_atoms) for f in chosen]
    tasks = plan(starts, options.temperatures, options.seed)
    copies = perturbed(starts, options.perturb, options.seed, options.dynamics)
    parts.start(out, options)
    with resumable(out, "explore"):
        result = collect(tasks, copies, engine, options.dynamics, out)
    return parts.finish(out, result)


def collect(
    tasks: list[Task], copies: list[Frame], engine: Engine, dynamics: Dynamics, out: Path
) -> dict[str, Any]:
    """Run the trajectories, and write their frames and the perturbed copies as the data set ``out/data``.

    Returns:
        What :func:`run` returns.
    """
    rows = run_tasks(tasks, engine, dynamics, out / "parts")
    frames = itertools.chain(frames_of(tasks, out / "parts"), copies)
    n_frames = write_data(frames, out / "data", engine, f"MD by {engine.name}")
    log.info("%s", summary(rows))
    stopped = Counter(row["stopped"].split(" of ")[0] for row in rows if row["stopped"])
    return {
        "data": str(out / "data"),
        "n_frames": n_frames,
        "n_trajectories": len(rows),
        "n_perturbed": len(copies),
        "stopped": dict(stopped),
        "trajectories": rows,
    }


def plan(starts: list[Frame], temperatures: list[float], seed: int, prefix: str = "md") -> list[Task]:
    """Each start at each temperature, with a name and a seed of its own."""
    return [
        Task(
            name=f"{prefix}-{i:03d}-{temperature:g}K",
            start=start,
            temperature=temperature,
            seed=parts.seed_for(seed, prefix, i, temperature),
        )
        for i, start in enumerate(starts)
        for temperature in temperatures
    ]


def run_tasks(tasks: list[Task], engine: Engine, dynamics: Dynamics, folder: Path) -> list[dict[str, Any]]:
    """Run every trajectory whose part is not in ``folder`` yet; returns a row for each.

    Raises:
        UserError: no trajectory left a single sane frame.
    """
    total = len(tasks) * dynamics.steps
    rows = []
    with Progress(total, "MD steps") as progress:
        for k, task in enumerate(tasks):
            part = folder / f"{task.name}.npz"
            if not part.is_file():
                done = k * dynamics.steps
                trajectory = run_trajectory(
                    to_atoms(task.start),
                    engine.calculator,
                    dynamics,
                    temperature=task.temperature,
                    seed=task.seed,
                    labels={"group": task.name, "source": task.start.source or task.name},
                    on_step=lambda n, done=done, task=task: progress.update(done + n, task.name),  # type: ignore[misc]
                )
                parts.save_frames(part, trajectory.frames, _row(task, trajectory))
            else:
                progress.first = (k + 1) * dynamics.steps
            rows.append(parts.load_notes(part))
    if tasks and not any(row["frames"] for row in rows):
        reasons = "; ".join(f"{row['name']}: {row['stopped']}" for row in rows[:5])
        raise UserError(
            f"no trajectory left a sane frame ({reasons}). The model does not hold these structures "
            "together: lower dynamics.timestep or temperatures, check head and starting structures, or "
            "widen dynamics.limits"
        )
    return rows


def _row(task: Task, trajectory: Trajectory) -> dict[str, Any]:
    n_atoms = len(task.start)
    steps = max(trajectory.steps, 1)
    return {
        "name": task.name,
        "formula": formula(task.start),
        "n_atoms": n_atoms,
        "temperature": task.temperature,
        "steps": trajectory.steps,
        "frames": len(trajectory.frames),
        "stopped": trajectory.stopped,
        "ms_per_step": round(1e3 * trajectory.seconds / steps, 3),
    }


def frames_of(tasks: list[Task], folder: Path) -> Iterator[Frame]:
    """The frames of finished trajectories, one part in memory at a time."""
    for task in tasks:
        yield from parts.load_frames(folder / f"{task.name}.npz")


def perturbed(
    starts: list[Frame], perturb: Perturb, seed: int, dynamics: Dynamics, prefix: str = "start"
) -> list[Frame]:
    """Rattled and strained copies of the starts, without labels; copies with atoms too close are left out."""
    copies = []
    for i, start in enumerate(starts):
        rng = np.random.default_rng(parts.seed_for(seed, "perturb", i))
        for k in range(perturb.n):
            atoms = to_atoms(start)
            atoms.calc = None
            if start.pbc.any():
                strain = rng.uniform(-perturb.strain, perturb.strain, (3, 3))
                deformation = np.eye(3) + 0.5 * (strain + strain.T)
                atoms.set_cell(start.cell @ deformation, scale_atoms=True)
            atoms.positions += rng.normal(scale=perturb.rattle, size=atoms.positions.shape)
            frame = from_atoms(atoms, group=f"{prefix}-perturbed-{i:03d}", source=start.source, step=k)
            if why_not(frame, dynamics.limits) is None:
                copies.append(frame)
    return copies


def summary(rows: list[dict[str, Any]]) -> str:
    """One line per trajectory."""
    columns = ("name", "formula", "n_atoms", "temperature", "steps", "frames", "ms_per_step", "stopped")
    return table([[row[c] for c in columns] for row in rows], [c.replace("_", " ") for c in columns])
