"""An untrained checkpoint and data that it labelled itself, with errors put in on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

from lamkit.data.dataset import write_dataset
from lamkit.data.facts import DatasetFacts
from lamkit.data.frame import Frame, from_atoms
from lamkit.data.heads import HeadConfig, LevelOfTheory
from lamkit.model.config import TrunkConfig
from lamkit.train import checkpoint

if TYPE_CHECKING:
    from lamkit.calculator import LamCalculator

PBE = LevelOfTheory(method="DFT", functional="PBE")
ELEMENTS = {"metals": ["Cu", "Al"], "water": ["H", "O"]}


def write_model(folder: Path, elements: dict[str, list[str]] = ELEMENTS) -> Path:
    """A checkpoint with one small head for each entry of ``elements``."""
    from lamkit.model.potential import Potential
    from lamkit.model.runtime import setup

    setup("CPU")
    trunk = TrunkConfig(latent=8, hidden=12, layers=1, head_hidden=8, cutoff=3.6, bessel=4, lmax=1)
    reference = np.zeros(119)
    reference[[1, 8, 13, 29]] = -13.6, -2000.0, -500.0, -1000.0
    heads = tuple(elements)
    written = checkpoint.Checkpoint(
        path=folder,
        trunk=trunk,
        heads=heads,
        weights=Potential(trunk, list(heads), seed=1).state(),
        references=dict.fromkeys(heads, reference),
        head_configs={h: HeadConfig(name=h, level_of_theory=PBE, citation=f"Paper on {h}") for h in heads},
        elements=elements,
        state={"step": 7, "best_step": 5, "best": 0.5, "best_errors": {"metals": {"forces_rmse": 0.1}}},
    )
    checkpoint.write(folder, written)
    return folder


def metals(n: int, seed: int = 0) -> list[Atoms]:
    """Rattled periodic cells of copper and aluminium."""
    found = []
    for i in range(n):
        atoms = bulk("Cu", "fcc", a=3.8, cubic=True)
        atoms.symbols[i % 4] = "Al"
        atoms.rattle(0.1, seed=seed + i)
        found.append(atoms)
    return found


def waters(n: int, seed: int = 0) -> list[Atoms]:
    """Rattled molecules of water without a cell."""
    found = []
    for i in range(n):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=seed + i)
        found.append(atoms)
    return found


@cache
def calculator(model: Path, head: str) -> LamCalculator:
    """The calculator of a head; kept, since each one compiles its own network."""
    from lamkit.calculator import LamCalculator

    return LamCalculator(model, head=head)


def write_labelled(
    folder: Path,
    model: Path,
    head: str,
    structures: Sequence[Atoms],
    change: Callable[[Frame], Frame] | None = None,
) -> Path:
    """A data set with the model's own labels, each frame then passed through ``change``."""
    predictions = calculator(model, head).predict(list(structures))
    frames = [
        from_atoms(atoms, source="made.xyz", step=i, group=f"g{i}", **labels)
        for i, (atoms, labels) in enumerate(zip(structures, predictions, strict=True))
    ]
    facts = DatasetFacts(head=head, level_of_theory=PBE, citation=f"Data of {head}")
    write_dataset([change(f) if change else f for f in frames], folder, facts)
    return folder


def shifted(energy_per_atom: float, force: float, stress: float) -> Callable[[Frame], Frame]:
    """A change that adds constant errors: eV/atom, eV/Å on every component, eV/Å³ on every component."""

    def change(frame: Frame) -> Frame:
        return replace(
            frame,
            energy=frame.energy + energy_per_atom * len(frame),
            forces=frame.forces + force,
            stress=None if frame.stress is None else frame.stress + stress,
        )

    return change
