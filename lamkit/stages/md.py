"""MD: simulate structures with any checkpoint, head, student or ASE calculator, one after another.

Each structure leaves a trajectory, a table of thermodynamic quantities and a state from which the same
trajectory goes on, to the last bit, after Ctrl-C, kill -9 or a request for more steps.
"""

from __future__ import annotations

import io
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pydantic

from lamkit.config import InputPath, Model
from lamkit.console import Progress, log, table
from lamkit.data.selection import why_not
from lamkit.errors import Interrupted, UserError
from lamkit.files import atomic_write
from lamkit.stages import parts
from lamkit.stages.dynamics import Dynamics, Walk
from lamkit.stages.engine import Engine, resumable
from lamkit.stages.recorder import TRAJECTORIES, Table, read_table, still
from lamkit.stages.structures import Structure, check, complain, prepare
from lamkit.stages.trajectory import snapshot

if TYPE_CHECKING:
    from lamkit.train.interrupt import StopSignal

COLUMNS = (
    "step", "time_ps", "temperature_K", "potential_eV", "kinetic_eV", "total_eV", "conserved_eV",
    "pressure_GPa", "volume_A3",
)  # fmt: skip
MAY_CHANGE = ("dynamics.steps",)  # a run may be resumed with more steps


class Options(Model):
    """Options of the stage ``md``.

    Attributes:
        structures: files that ASE reads, globs or data sets; every structure in them is simulated. Empty takes
            a sample structure.
        model: checkpoint whose forces drive the MD.
        head: head of the checkpoint.
        calculator: instead of ``model``, ``module:function`` that returns an ASE calculator.
        temperature: K.
        dynamics: ensemble, thermostat, pressure, steps and limits.
        velocities: draw (from the seed, at the temperature) or keep (those of the file).
        trajectory: format, extxyz or traj (ASE's binary).
        log_every: steps between rows of the table.
        checkpoint_seconds: wall time between states that are written.
        skip_bad: leave out structures that the model cannot evaluate instead of refusing the run.
        seed: of velocities and thermostat.
        device: device of the checkpoint's network.
        resume: go on with the run in the output folder; ``dynamics.steps`` may be raised.
    """

    structures: list[InputPath] = []
    model: InputPath | None = None
    head: str | None = None
    calculator: str | None = None
    temperature: float = pydantic.Field(300.0, ge=0, allow_inf_nan=False)
    dynamics: Dynamics = Dynamics(steps=1000)
    velocities: Literal["draw", "keep"] = "draw"
    trajectory: Literal["extxyz", "traj"] = "extxyz"
    log_every: int = pydantic.Field(10, ge=1)
    checkpoint_seconds: float = pydantic.Field(30.0, gt=0)
    skip_bad: bool = False
    seed: int = 0
    device: str = "CPU"
    resume: bool = False


def run(options: Options, out: Path) -> dict[str, Any]:
    """Simulate every structure.

    Args:
        options: see :class:`Options`.
        out: run folder.

    Returns:
        Counts and a row per structure: steps, frames, why it stopped, means, drift of the conserved quantity,
        files.
    """
    from lamkit.train.interrupt import StopSignal

    out = Path(out)
    finished = parts.begin(out, options, options.resume, "md", MAY_CHANGE)
    if finished is not None:
        return finished
    engine, structures = prepare(
        options.structures, options.model, options.head, options.calculator, options.device
    )
    structures = check(engine, structures, options.skip_bad)
    for structure in structures:  # what does not suit the ensemble is said before anything is written
        _walk(structure, engine, options)
    parts.start(out, options)
    rows = []
    total = len(structures) * options.dynamics.steps
    with resumable(out, "md"), Progress(total, "MD steps") as progress, StopSignal() as signal:
        for k, structure in enumerate(structures):
            simulation = Simulation(structure, engine, options, out)
            simulation.run(progress, k * options.dynamics.steps, signal)
            rows.append(simulation.row())
    stopped = [row for row in rows if row["stopped"]]
    log.info("%s", summary(rows))
    complain([complaint(row) for row in stopped])
    return parts.finish(out, {"n_structures": len(rows), "n_stopped": len(stopped), "structures": rows})


def _walk(structure: Structure, engine: Engine, options: Options) -> Walk:
    keep = options.velocities == "keep"
    atoms = structure.atoms.copy()
    if keep and not atoms.has("momenta"):
        raise UserError(f"{structure.where}: has no velocities to keep; leave velocities: keep away")
    try:
        return Walk(
            atoms,
            engine.calculator,
            options.dynamics,
            temperature=options.temperature,
            seed=parts.seed_for(options.seed, "md", structure.name),
            keep_velocities=keep,
        )
    except UserError as error:
        raise UserError(f"{structure.where}: {error}") from None


class Simulation:
    """One structure's run and its files.

    Args:
        structure: the start.
        engine: gives energies and forces.
        options: of the run.
        out: run folder.
    """

    def __init__(self, structure: Structure, engine: Engine, options: Options, out: Path) -> None:
        self.structure, self.engine, self.options = structure, engine, options
        writer = TRAJECTORIES[options.trajectory]
        self.state_path = out / "parts" / f"{structure.name}.state.npz"
        self.trajectory_path = out / f"{structure.name}{writer.suffix}"
        self.table_path = out / f"{structure.name}.csv"
        self.walk = _walk(structure, engine, options)
        saved = load_state(self.state_path)
        self.seconds_before, self.n_frames = 0.0, 0
        lengths = [0, 0]
        if saved is not None:
            self.walk.restore(saved)
            if hasattr(engine.calculator, "restore"):
                engine.calculator.restore(saved["calculator"])
            self.seconds_before, self.n_frames, lengths = (
                saved["seconds"],
                saved["n_frames"],
                saved["lengths"],
            )
        self.fresh = saved is None
        self.table = Table(self.table_path, COLUMNS, lengths[0])
        self.trajectory = writer(self.trajectory_path, lengths[1])

    def run(self, progress: Progress, before: int, signal: StopSignal) -> None:
        """Go to the end, or to the step at which the trajectory leaves the physical world.

        Args:
            progress: shared by all structures.
            before: steps that stand for the structures before this one.
            signal: whether the user wants to stop.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; the state is saved.
        """
        steps, walk = self.options.dynamics.steps, self.walk
        if self.fresh:
            walk.begin()
            self._record()
        else:
            progress.first = before + walk.step  # steps of an earlier run tell nothing about the time left
        self.began = saved_at = time.perf_counter()  # what was compiled before is not MD
        while walk.stopped is None and walk.step < steps:
            walk.advance()
            self._record()
            progress.update(before + walk.step, self._text())
            if signal.received or time.perf_counter() - saved_at > self.options.checkpoint_seconds:
                self._save()
                saved_at = time.perf_counter()
            if signal.received and walk.step < steps:
                out = self.table_path.parent
                raise Interrupted(f"Saved in {out}; go on with 'lamkit md --out {out} --resume'")
        self._save()
        self.table.close()
        self.trajectory.close()

    def _text(self) -> str:
        return f"{self.structure.name} {self.walk.kelvin():.0f} K"

    def _record(self) -> None:
        """Write what is due of the present step, if it is sane."""
        walk, dynamics = self.walk, self.options.dynamics
        due = walk.due() or (walk.step == 0 and dynamics.equilibrate == 0)
        if walk.stopped is None and due:
            walk.stopped = why_not(snapshot(walk), dynamics.limits)
            if walk.stopped is None:
                time_fs = walk.step * walk.timestep
                self.trajectory.add(still(walk.atoms, step=walk.step, time_fs=time_fs))
                self.n_frames += 1
        if walk.stopped is None and walk.step % self.options.log_every == 0:
            self.table.add(thermodynamics(walk))

    def _save(self) -> None:
        """Write the state, after the files that it speaks of."""
        lengths = [self.table.flush(), self.trajectory.flush()]
        self.seconds = self.seconds_before + time.perf_counter() - self.began
        calculator = self.engine.calculator
        state = self.walk.state()
        notes = {k: v for k, v in state.items() if k != "arrays"} | {
            "calculator": calculator.state() if hasattr(calculator, "state") else None,
            "lengths": lengths,
            "n_frames": self.n_frames,
            "seconds": self.seconds,
        }
        stream = io.BytesIO()
        text = np.frombuffer(json.dumps(notes).encode(), dtype=np.uint8)
        np.savez(stream, notes=text, **state["arrays"])
        atomic_write(self.state_path, stream.getvalue())

    def row(self) -> dict[str, Any]:
        """What became of it; means are over the rows after ``dynamics.equilibrate``."""
        walk, n_atoms = self.walk, len(self.structure.atoms)
        values = read_table(self.table_path)
        used = values["step"] >= min(self.options.dynamics.equilibrate, walk.step)
        means = {
            name: float(np.mean(column[used])) if used.any() else None for name, column in values.items()
        }
        return {
            "name": self.structure.name,
            "source": self.structure.source,
            "index": self.structure.index,
            "n_atoms": n_atoms,
            "steps": walk.step,
            "wanted": self.options.dynamics.steps,
            "stopped": walk.stopped,
            "frames": self.n_frames,
            "temperature_K": _rounded(means["temperature_K"], 1),
            "pressure_GPa": _rounded(means["pressure_GPa"], 4),
            "volume_A3": _rounded(means["volume_A3"], 3),
            "drift_eV_atom_ps": drift(values["time_ps"][used], values["conserved_eV"][used] / n_atoms),
            "ms_per_step": round(1e3 * self.seconds / max(walk.step, 1), 3),
            "trajectory": str(self.trajectory_path),
            "table": str(self.table_path),
        }


def load_state(path: Path) -> dict[str, Any] | None:
    """A state that a simulation saved; None if there is none."""
    if not path.is_file():
        return None
    with np.load(path) as data:
        notes = json.loads(data["notes"].tobytes())
        return {**notes, "arrays": {k: data[k] for k in data.files if k != "notes"}}


def thermodynamics(walk: Walk) -> dict[str, float | None]:
    """The row of the table for the present step."""
    from ase import units
    from ase.calculators.calculator import PropertyNotImplementedError

    atoms = walk.atoms
    potential = float(atoms.calc.results.get("free_energy", np.nan))
    if np.isnan(potential):  # many calculators know only one energy
        potential = float(atoms.get_potential_energy())
    kinetic = float(atoms.get_kinetic_energy())
    periodic = bool(atoms.pbc.all())
    pressure = None
    if periodic:
        with suppress(PropertyNotImplementedError):
            stress = atoms.get_stress(include_ideal_gas=True, apply_constraint=False)
            pressure = -float(stress[:3].mean()) / units.GPa
    return {
        "step": walk.step,
        "time_ps": 1e-3 * walk.step * walk.timestep,
        "temperature_K": walk.kelvin(),
        "potential_eV": potential,
        "kinetic_eV": kinetic,
        "total_eV": potential + kinetic,
        "conserved_eV": walk.conserved(potential),
        "pressure_GPa": pressure,
        "volume_A3": float(atoms.get_volume()) if periodic else None,
    }


def drift(time_ps: np.ndarray, energy: np.ndarray) -> float | None:
    """Slope of a straight line through the energies, per ps; None where there are too few."""
    if len(time_ps) < 3 or np.ptp(time_ps) == 0:
        return None
    return float(np.polyfit(time_ps, energy - energy[0], 1)[0])


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, digits)


def summary(rows: list[dict[str, Any]]) -> str:
    """One line per structure."""
    columns = (
        "name",
        "n_atoms",
        "steps",
        "frames",
        "temperature_K",
        "pressure_GPa",
        "ms_per_step",
        "stopped",
    )
    return table([[row[c] for c in columns] for row in rows], [c.replace("_", " ") for c in columns])


def complaint(row: dict[str, Any]) -> str:
    """What to say of a trajectory that ended early."""
    return (
        f"{row['source']}, structure {row['index']}: stopped at step {row['steps']} of {row['wanted']}: "
        f"{row['stopped']}; {row['frames']} sane frames are in {row['trajectory']}. Try a shorter "
        "dynamics.timestep or a lower temperature, relax the structure first, and check that the head knows "
        "such structures"
    )
