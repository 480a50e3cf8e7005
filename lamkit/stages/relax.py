"""Relax: positions and cells of any number of structures, with any checkpoint, head, student or calculator.

Every finished structure is kept; after a stop the run goes on with the structure that was under way, from its
last geometry.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Literal

import ase.io

from lamkit.config import InputPath, Model
from lamkit.console import Progress, log, table
from lamkit.data.frame import to_atoms
from lamkit.errors import UserError
from lamkit.files import atomic_write
from lamkit.stages import parts
from lamkit.stages.engine import Engine, resumable
from lamkit.stages.minimize import Minimizer, Relaxation, check_periodic
from lamkit.stages.structures import Structure, check, complain, prepare

COLUMNS = (
    "name", "source", "index", "n_atoms", "converged", "steps", "energy_start_eV", "energy_eV", "fmax_eV_A",
    "smax_GPa", "volume_start_A3", "volume_A3", "spacegroup_start", "spacegroup", "why",
)  # fmt: skip
MAY_CHANGE = ("minimizer.max_steps",)  # a run may be resumed with more steps


class Options(Model):
    """Options of the stage ``relax``.

    Attributes:
        structures: files that ASE reads, globs or data sets; every structure in them is relaxed. Empty takes a
            sample structure.
        model: checkpoint whose forces are followed.
        head: head of the checkpoint.
        calculator: instead of ``model``, ``module:function`` that returns an ASE calculator.
        minimizer: optimizer, cell, pressure, symmetry and when it has converged.
        trajectory: format, extxyz or traj (ASE's binary); none writes the final structures only.
        skip_bad: leave out structures that the model cannot evaluate instead of refusing the run.
        device: device of the checkpoint's network.
        resume: go on with the run in the output folder; ``minimizer.max_steps`` may be raised.
    """

    structures: list[InputPath] = []
    model: InputPath | None = None
    head: str | None = None
    calculator: str | None = None
    minimizer: Minimizer = Minimizer()
    trajectory: Literal["extxyz", "traj", "none"] = "extxyz"
    skip_bad: bool = False
    device: str = "CPU"
    resume: bool = False


def run(options: Options, out: Path) -> dict[str, Any]:
    """Relax every structure; ``relaxed.extxyz`` and ``relaxed.csv`` hold all of them, converged or not.

    Args:
        options: see :class:`Options`.
        out: run folder.

    Returns:
        Counts, files and a row per structure.
    """
    from lamkit.train.interrupt import StopSignal

    out = Path(out)
    finished = parts.begin(out, options, options.resume, "relax", MAY_CHANGE)
    if finished is not None:
        return finished
    if options.minimizer.pressure and options.minimizer.cell == "fixed":
        raise UserError("pressure has no meaning while the cell is fixed; take cell: full or cell: volume")
    engine, structures = prepare(
        options.structures, options.model, options.head, options.calculator, options.device
    )
    structures = check(engine, structures, options.skip_bad)
    for structure in structures:
        check_periodic(structure, options.minimizer)
    parts.start(out, options)
    with resumable(out, "relax"), Progress(len(structures), "structures") as progress, StopSignal() as signal:
        for k, structure in enumerate(structures):
            relax(structure, engine, options, out, k, progress, signal)
    rows = collect(structures, out)
    return parts.finish(out, report(rows, out))


def relax(
    structure: Structure, engine: Engine, options: Options, out: Path, k: int, progress: Progress, signal: Any
) -> None:
    """Relax one structure, unless that was done in an earlier run."""
    part = _part(structure, out)
    if part.is_file():
        row = parts.load_notes(part)
        if row["converged"] or row["failed"] or row["steps"] >= options.minimizer.max_steps:
            progress.first = k + 1
            return
    trajectory = None
    if options.trajectory != "none":
        trajectory = (out / "trajectories" / structure.name, options.trajectory)
    relaxation = Relaxation(structure, engine.calculator, options.minimizer, part, trajectory)
    relaxation.run(
        lambda r: progress.update(k, f"{structure.name} step {r.steps}, {r.row['fmax_eV_A']:.3f} eV/Å"),
        lambda: signal.received,
    )
    progress.update(k + 1, structure.name)


def _part(structure: Structure, out: Path) -> Path:
    return out / "parts" / f"{structure.name}.npz"


def collect(structures: list[Structure], out: Path) -> list[dict[str, Any]]:
    """Write ``relaxed.extxyz`` and ``relaxed.csv`` from the parts; returns the rows."""
    rows, images = [], []
    for structure in structures:
        part = _part(structure, out)
        row = {name: parts.load_notes(part)[name] for name in COLUMNS}
        atoms = to_atoms(parts.load_frames(part)[0])
        atoms.info |= {k: row[k] for k in ("name", "source", "index", "converged", "steps")}
        rows.append(row)
        images.append(atoms)
    text = io.StringIO()
    ase.io.write(text, images, format="extxyz")
    atomic_write(out / "relaxed.extxyz", text.getvalue())
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(out / "relaxed.csv", text.getvalue())
    return rows


def report(rows: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """Say what became of each structure; returns the result of the run."""
    columns = ("name", "n_atoms", "converged", "steps", "energy_eV", "fmax_eV_A", "smax_GPa", "spacegroup")
    shown = [[_short(row[c]) for c in columns] for row in rows]
    log.info("%s", table(shown, ["name", "atoms", "converged", "steps", "energy", "fmax", "smax", "group"]))
    missed = [row for row in rows if not row["converged"]]
    complain([f"{row['source']}, structure {row['index']}: {row['why']}" for row in missed])
    return {
        "n_structures": len(rows),
        "n_converged": len(rows) - len(missed),
        "relaxed": str(out / "relaxed.extxyz"),
        "table": str(out / "relaxed.csv"),
        "structures": rows,
    }


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
