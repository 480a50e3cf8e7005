"""Explore: MD and random displacements that lead to structures a data set does not hold yet.

Each trajectory (a start at a temperature and a pressure) is one part and one split group. With a model that
evaluates batches many trajectories advance together. Finished trajectories survive a stop, and so do those under
way but for their last half minute; every trajectory has its own seed, so that the result does not depend on where
a run was stopped.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pydantic

from lamkit.config import InputPath, Model
from lamkit.console import Progress, log, table
from lamkit.data.frame import Frame, formula, to_atoms
from lamkit.data.selection import spread_evenly
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
from lamkit.stages.perturb import Perturb, perturbed
from lamkit.stages.trajectory import Trajectory, new_trajectory, run_together

TOGETHER_ATOMS = 4000  # atoms that advance together at most: what a batch gains is reached long before
# One value, or several that a trajectory goes through at even pace.
Schedule = float | Annotated[list[float], pydantic.Field(min_length=2)]


class Options(Model):
    """Options of the stage ``explore``.

    Attributes:
        starts: data sets or structure files that hold the starting structures.
        model: checkpoint whose forces drive the MD.
        head: head of the checkpoint.
        calculator: instead of ``model``, ``module:function`` that returns an ASE calculator.
        n_starts: how many structures to start from, evenly spaced over ``starts``.
        offset: shift of these structures, to get others in another round.
        temperatures: K; each start runs at each of them. A list among them, such as [300, 900, 300], is a
            schedule: one trajectory that goes through these at even pace.
        pressures: GPa, of npt; each start runs at each temperature and each pressure, or along a schedule of
            them. Empty takes dynamics.pressure.
        dynamics: how a trajectory runs.
        perturb: structures beside MD: random copies of the starts, squeezed pairs, dimers.
        together: trajectories that advance at once where the model evaluates batches.
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
    temperatures: list[Schedule] = pydantic.Field([300.0, 600.0], min_length=1)
    pressures: list[Schedule] = pydantic.Field(default=[])
    dynamics: Dynamics = Dynamics()
    perturb: Perturb = Perturb()
    together: int = pydantic.Field(16, ge=1)
    min_atoms: int = pydantic.Field(1, ge=1)
    seed: int = pydantic.Field(0, ge=0)
    device: str = "CPU"
    resume: bool = False

    @pydantic.model_validator(mode="after")
    def _keeps_frames(self) -> Options:
        self.dynamics.require_frames()
        return self


@dataclass(frozen=True)
class Task:
    """One trajectory to be run.

    Attributes:
        name: group of its frames and name of its part.
        start: structure at step 0.
        temperature: K; several are a schedule.
        seed: of this trajectory alone.
        pressure: GPa; several are a schedule, None takes that of the dynamics.
    """

    name: str
    start: Frame
    temperature: Schedule
    seed: int
    pressure: Schedule | None = None


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
    starts, tasks = _planned(options)
    copies = perturbed(starts, options.perturb, options.seed, options.dynamics.limits)
    parts.start(out, options)
    with resumable(out, "explore"):
        result = collect(tasks, copies, engine, options.dynamics, out, together=options.together)
    return parts.finish(out, result)


def _planned(options: Options) -> tuple[list[Frame], list[Task]]:
    """The starting structures and all trajectories; no model is loaded for it.

    Raises:
        UserError: pressures without an ensemble that has one.
    """
    if options.pressures and options.dynamics.ensemble != "npt":
        raise UserError(f"pressures: need dynamics.ensemble npt, not {options.dynamics.ensemble}")
    sources = [read_frames(path) for path in options.starts]
    total = sum(len(s) for s in sources)
    chosen = frames_at(sources, spread_evenly(total, options.n_starts, options.offset))
    starts = [enlarge(f, options.min_atoms) for f in chosen]
    return starts, plan(starts, options.temperatures, options.seed, pressures=options.pressures)


def part_names(options: Options) -> list[str]:
    """The trajectories, which several processes or cluster jobs may share."""
    return [task.name for task in _planned(options)[1]]


def do_parts(options: Options, out: Path, names: Iterable[str]) -> None:
    """Run the trajectories of these names, as many together as the model evaluates at once."""
    tasks = {task.name: task for task in _planned(options)[1]}
    engine = load_engine(options.model, options.head, options.calculator, options.device)
    given = iter(names)
    while group := [tasks[n] for n in itertools.islice(given, options.together if engine.batched else 1)]:
        run_tasks(group, engine, options.dynamics, out / "parts", options.together)


def cores_per_part(options: Options) -> int:
    """A model's threads use all cores for the trajectories that advance together (0); a calculator uses one."""
    return 0 if options.model is not None else 1


def collect(
    tasks: list[Task],
    copies: list[Frame],
    engine: Engine,
    dynamics: Dynamics,
    out: Path,
    *,
    together: int = 16,
) -> dict[str, Any]:
    """Run the trajectories, and write their frames and the perturbed copies as the data set ``out/data``.

    Returns:
        What :func:`run` returns.

    Raises:
        UserError: no trajectory left a single sane frame.
    """
    rows = run_tasks(tasks, engine, dynamics, out / "parts", together)
    if tasks and not any(row["frames"] for row in rows):
        reasons = "; ".join(f"{row['name']}: {row['stopped']}" for row in rows[:5])
        raise UserError(
            f"no trajectory left a sane frame ({reasons}). The model does not hold these structures "
            "together: lower dynamics.timestep or temperatures, check head and starting structures, or "
            "widen dynamics.limits"
        )
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


def plan(
    starts: Sequence[Frame],
    temperatures: Sequence[Schedule],
    seed: int,
    prefix: str = "md",
    pressures: Sequence[Schedule] = (),
) -> list[Task]:
    """Each start at each temperature and each pressure, with a name and a seed of its own."""
    tasks = []
    for (i, start), temperature, pressure in itertools.product(
        enumerate(starts), temperatures, pressures or (None,)
    ):
        words = [prefix, i, temperature, *([] if pressure is None else [pressure])]
        name = f"{prefix}-{i:03d}-{_in_name(temperature)}K"
        name += "" if pressure is None else f"-{_in_name(pressure)}GPa"
        tasks.append(Task(name, start, temperature, parts.seed_for(seed, *words), pressure))
    return tasks


def _in_name(value: Schedule) -> str:
    return "-".join(f"{v:g}" for v in (value if isinstance(value, list) else [value]))


def run_tasks(
    tasks: Sequence[Task], engine: Engine, dynamics: Dynamics, folder: Path, together: int = 16
) -> list[dict[str, Any]]:
    """Run every trajectory whose part is not in ``folder`` yet; returns a row for each.

    Args:
        tasks: the trajectories.
        engine: gives energies and forces.
        dynamics: how they run.
        folder: holds a part for each.
        together: trajectories that advance at once where the engine evaluates batches.
    """
    done = 0
    with Progress(len(tasks) * dynamics.steps, "MD steps") as progress:
        for group in _groups(tasks, together if engine.batched else 1):
            if all((folder / f"{t.name}.npz").is_file() for t in group):
                progress.first = done + len(group) * dynamics.steps
            else:
                _run_group(group, engine, dynamics, folder, progress, done)
            done += len(group) * dynamics.steps
    return [parts.load_notes(folder / f"{task.name}.npz") for task in tasks]


def _groups(tasks: Sequence[Task], size: int) -> Iterator[list[Task]]:
    """Tasks that advance together: no more than ``size``, and no more atoms than bring any gain."""
    group: list[Task] = []
    for task in tasks:
        if group and (len(group) == size or sum(len(t.start) for t in [*group, task]) > TOGETHER_ATOMS):
            yield group
            group = []
        group.append(task)
    if group:
        yield group


def _run_group(
    group: list[Task], engine: Engine, dynamics: Dynamics, folder: Path, progress: Progress, done: int
) -> None:
    """Run some trajectories together and save each as a part; one that was saved under way goes on."""
    trajectories = [
        new_trajectory(
            to_atoms(task.start),
            engine,
            dynamics,
            temperature=task.temperature,
            pressure=task.pressure,
            seed=task.seed,
            labels={"group": task.name, "source": task.start.source or task.name},
        )
        for task in group
    ]
    text = group[0].name if len(group) == 1 else f"{group[0].name} and {len(group) - 1} more"
    under_way = folder / "under-way" / f"{group[0].name}.npz"
    run_together(trajectories, engine, under_way, on_step=lambda n: progress.update(done + n, text))
    for task, trajectory in zip(group, trajectories, strict=True):
        parts.save_frames(folder / f"{task.name}.npz", trajectory.frames, _row(task, trajectory))
    under_way.unlink(missing_ok=True)


def _row(task: Task, trajectory: Trajectory) -> dict[str, Any]:
    n_atoms = len(task.start)
    steps = max(trajectory.steps, 1)
    return {
        "name": task.name,
        "formula": formula(task.start),
        "n_atoms": n_atoms,
        "temperature": task.temperature,
        "pressure": task.pressure,
        "steps": trajectory.steps,
        "frames": len(trajectory.frames),
        "stopped": trajectory.stopped,
        "ms_per_step": round(1e3 * trajectory.seconds / steps, 3),
    }


def frames_of(tasks: list[Task], folder: Path) -> Iterator[Frame]:
    """The frames of finished trajectories, one part in memory at a time."""
    for task in tasks:
        yield from parts.load_frames(folder / f"{task.name}.npz")


def summary(rows: list[dict[str, Any]]) -> str:
    """One line per trajectory."""
    columns = ("name", "formula", "n_atoms", "temperature", "steps", "frames", "ms_per_step", "stopped")
    return table([[row[c] for c in columns] for row in rows], [c.replace("_", " ") for c in columns])
