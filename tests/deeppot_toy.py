"""A small DeepPot of water with random weights, as a checkpoint, and structures for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule

from lamkit.data.heads import HeadConfig, LevelOfTheory
from lamkit.model.config import DeepPotConfig, Surroundings
from lamkit.train import checkpoint

KNOWN = Surroundings(
    elements=["H", "O"],
    sel=[72, 40],
    slots=90,  # another number than the file's: an export has to make up for it
    deviations=[(0.12, 0.08), (0.14, 0.09)],
    min_distance=0.9,
)
SIZES = {"cutoff": 5.0, "smooth_from": 0.5, "embedding": [8, 16, 32], "axis": 4, "fitting": [24, 24]}


def write_student(folder: Path) -> Path:
    """A checkpoint whose energies differ by tenths of an eV from place to place."""
    from lamkit.model.build import build
    from lamkit.model.runtime import setup

    setup("CPU")
    trunk = DeepPotConfig(version="deeppot-se", **SIZES, surroundings=KNOWN)
    potential = build(trunk, ["water"], seed=2)
    potential.set_scale("water", "energy", 0.05, 0.7)
    weights, rng = potential.state(), np.random.default_rng(1)
    for element in KNOWN.elements:
        shape = weights[f"model.descriptor.{element}.centre"].shape
        weights[f"model.descriptor.{element}.centre"] = rng.normal(0, 0.02, shape).astype(np.float32)
        weights[f"model.descriptor.{element}.spread"] = rng.uniform(0.02, 0.05, shape).astype(np.float32)
        weights[f"heads.water.fitting.{element}.2.weight"] *= 5
    reference = np.zeros(119)
    reference[[1, 8]] = -13.6, -431.2
    level = LevelOfTheory(method="DFT", functional="PBE")
    checkpoint.write(
        folder,
        checkpoint.Checkpoint(
            folder,
            trunk,
            ("water",),
            weights,
            {"water": reference},
            {"water": HeadConfig(name="water", level_of_theory=level)},
            {"water": ["H", "O"]},
        ),
    )
    return folder


def water(n: int = 3, seed: int = 0) -> Atoms:
    """``n``³ rattled molecules in a triclinic cell, at the density of water."""
    rng, spacing = np.random.default_rng(seed), 3.1
    cell = spacing * n * np.array([[1.0, 0, 0], [0.2, 1.0, 0], [0.1, -0.15, 1.05]])
    atoms = Atoms(cell=cell, pbc=True)
    for place in np.ndindex(n, n, n):
        one = molecule("H2O")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3))
        one.positions += np.array(place) / n @ cell
        atoms += one
    atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
    atoms.wrap()
    return atoms
