"""Small data sets labelled by EMT, so that training tests take seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from lamkit.data.dataset import write_dataset
from lamkit.data.facts import DatasetFacts
from lamkit.data.frame import from_atoms
from lamkit.data.heads import LevelOfTheory


def emt_frames(symbols: list[str], n: int, seed: int, shift: float = 0.0):
    """Rattled and strained fcc cells with EMT energies, ``shift`` eV added per atom."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        atoms = bulk(symbols[i % len(symbols)], "fcc", a=3.9, cubic=True)
        atoms.set_cell(atoms.cell * (1 + rng.uniform(-0.04, 0.04)), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
        atoms.calc = EMT()
        energy = atoms.get_potential_energy() + shift * len(atoms)
        forces, stress = atoms.get_forces(), atoms.get_stress()
        atoms.calc = None
        yield from_atoms(
            atoms, energy=energy, forces=forces, stress=stress, source=f"{symbols}.xyz", step=i, group=f"g{i}"
        )


def make_dataset(path: Path, symbols: list[str], n: int, seed: int = 0, shift: float = 0.0) -> Path:
    """Write a data set of EMT frames."""
    level = LevelOfTheory(method="empirical", functional=f"EMT {shift:+g} eV/atom")
    write_dataset(
        emt_frames(symbols, n, seed, shift), path, DatasetFacts(head=path.name, level_of_theory=level)
    )
    return path


@pytest.fixture(scope="session")
def emt_data(tmp_path_factory) -> dict[str, Path]:
    """Two levels of theory on overlapping chemistry, and a third set that is left out."""
    root = tmp_path_factory.mktemp("emt")
    return {
        "cu": make_dataset(root / "cu", ["Cu"], 24, seed=1),
        "alloy": make_dataset(root / "alloy", ["Cu", "Ag"], 24, seed=2, shift=-100.0),
        "ag": make_dataset(root / "ag", ["Ag"], 16, seed=3, shift=5.0),
    }


TINY = {
    "version": "v3", "output": "conservative", "latent": 12, "hidden": 16, "layers": 1, "head_hidden": 8,
    "cutoff": 4.0, "bessel": 4, "lmax": 1, "repulsion_rule": "physical",
}  # fmt: skip
FAST = {
    "max_steps": 12, "batch_atoms": 16, "warmup_steps": 2, "valid_every": 6, "save_every": 4, "valid_frames": 4,
    "learning_rate": 0.01,
}  # fmt: skip
