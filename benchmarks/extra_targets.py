"""What energies of atoms and products with the Hessian are worth as extra targets of a student.

The teacher is EMT (copper, 4 atoms in a cell, strained and rattled), which gives all of them exactly. Students of one
preset and one budget of steps learn from the same frames: from energy, forces and stress alone, with energies of
atoms, with products, with both; and, as products cost two evaluations of the teacher each, from three times as many
frames. Errors on frames that none has seen. A finished row is not measured again.

    python benchmarks/extra_targets.py --out extra [--frames 60] [--steps 3000]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT

from lamkit.calculator import LamCalculator
from lamkit.console import log, table
from lamkit.data.frame import Frame, from_atoms, to_atoms
from lamkit.data.heads import HeadConfig
from lamkit.stages import student
from lamkit.stages.distill_options import Options
from lamkit.stages.engine import FrameList, engine_of, write_data
from lamkit.stages.extra_labels import Extra, evaluate_all
from lamkit.stages.label import label_frames

N_TEST = 100
ROWS: dict[str, dict[str, Any]] = {
    "energy, forces, stress": {},
    "+ energies of atoms": {"atom_energy": 1.0},
    "+ products with the Hessian": {"hessian": 1.0},
    "+ both": {"atom_energy": 1.0, "hessian": 1.0},
    "three times the frames": {"frames": 3},
}


def structures(n: int, seed: int) -> list[Frame]:
    """Cells of fcc copper, by up to 3 % larger or smaller than EMT's, atoms displaced by 0.1 Å."""
    rng, found = np.random.default_rng(seed), []
    for i in range(n):
        atoms = bulk("Cu", "fcc", a=3.61 * rng.uniform(0.97, 1.03), cubic=True)
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        found.append(from_atoms(atoms, source=f"seed {seed}", step=i, group=f"{seed}-{i}"))
    return found


def measured(out: Path, name: str, n_frames: int, steps: int) -> dict[str, Any]:
    """Train one student and test it."""
    weights = dict(ROWS[name])
    n_frames *= int(weights.pop("frames", 1))
    teacher = engine_of(EMT())
    extra = Extra("atom_energy" in weights, 1 if "hessian" in weights else 0)
    frames, _ = label_frames(structures(n_frames, 1), teacher, extra)
    folder = out / name.replace(" ", "-")
    for part, some in (
        ("train", frames[: -max(1, n_frames // 10)]),
        ("valid", frames[-max(1, n_frames // 10) :]),
    ):
        write_data(some, folder / "data" / part, teacher, name)
    train = {
        "max_steps": steps,
        "batch_atoms": 32,
        "valid_every": steps,
        "save_every": steps,
        "loss": weights,
    }
    options = Options(student="deeppot-se-small", train=train)
    head = HeadConfig(name="cu", level_of_theory=teacher.level)
    began = time.monotonic()
    student.fit(folder / "data", head, options.student, options.train, folder / "run")
    return {"row": name, "frames": n_frames, "seconds": time.monotonic() - began, **errors(folder / "run")}


def errors(run: Path) -> dict[str, float]:
    """Errors on frames that were not trained on; energies and forces of the student in double precision."""
    everything = Extra(True, 1)
    frames, _ = label_frames(structures(N_TEST, 2), engine_of(EMT()), everything)
    calculator = LamCalculator(run, dtype="float64")
    found = student.errors(calculator.predict, FrameList(frames))
    predicted = evaluate_all(engine_of(calculator), [to_atoms(f) for f in frames], everything)
    of_atoms, products = [], []
    for frame, own in zip(frames, predicted, strict=True):
        assert frame.atom_energies is not None
        assert frame.hessian is not None
        of_atoms.append(own["energies"] - frame.atom_energies)
        products.append(own["hessian"][:, 1] - frame.hessian[:, 1])
    return {
        "energy_rmse": found["energy_rmse"],
        "forces_rmse": found["forces_rmse"],
        "atom_energies_rmse": float(np.sqrt(np.mean(np.square(of_atoms)))),
        "products_rmse": float(np.sqrt(np.mean(np.square(products)))),
    }


def scale() -> tuple[float, float]:
    """Root mean square of forces and products of the test frames."""
    frames, _ = label_frames(structures(N_TEST, 2), engine_of(EMT()), Extra(False, 1))
    forces = np.concatenate([f.forces for f in frames if f.forces is not None])
    products = np.concatenate([f.hessian[0, 1] for f in frames if f.hessian is not None])
    return float(np.sqrt(np.mean(forces**2))), float(np.sqrt(np.mean(products**2)))


def main() -> None:
    """Measure what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--steps", type=int, default=3000)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for name in ROWS:
        if name not in {r["row"] for r in rows}:
            rows.append(measured(given.out, name, given.frames, given.steps))
            with open(file, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(rows[-1]) + "\n")
    forces, products = scale()
    log.info("root mean square of the test frames: forces %.3f eV/Å, products %.1f eV/Å²", forces, products)
    lines = [
        (
            r["row"], r["frames"], f"{1000 * r['energy_rmse']:.2f}", f"{1000 * r['forces_rmse']:.1f}",
            f"{1000 * r['atom_energies_rmse']:.1f}", f"{r['products_rmse']:.3f}", f"{r['seconds']:.0f}",
        )
        for r in rows
    ]  # fmt: skip
    titles = ("targets", "frames", "E meV/atom", "F meV/Å", "E of atoms meV", "H v eV/Å²", "s")
    log.info("%s", table(lines, titles))


if __name__ == "__main__":
    main()
