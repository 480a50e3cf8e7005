"""Small potentials in float64 and batches for them; one compiled shape serves many tests."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

from lamkit.data.batch import Batch, Shape, collate, make_graph
from lamkit.data.frame import Frame, from_atoms
from lamkit.model.config import TrunkConfig
from lamkit.model.runtime import setup

ms = setup()

from lamkit.model.inference import Predictor  # noqa: E402
from lamkit.model.potential import Potential  # noqa: E402

CUTOFF = 4.0
SHAPE = Shape(60, 1400, 9)


def small_config(**choices) -> TrunkConfig:
    """A v3 conservative trunk of a few thousand weights; keywords override."""
    sizes = {"latent": 8, "hidden": 10, "layers": 2, "head_hidden": 6, "cutoff": CUTOFF}
    return TrunkConfig(**{**sizes, "repulsion_rule": "physical", **choices})


def small_potential(dtype=None, heads=("one", "two"), seed=1, **choices) -> Potential:
    """A potential with normalisers that are not trivial."""
    potential = Potential(small_config(**choices), list(heads), seed, dtype or ms.float64)
    for i, head in enumerate(heads):
        potential.set_scale(head, "energy", 0.3 - i, 1.7 + i)
    return potential


def rattled(atoms: Atoms, seed: int = 0, size: float = 0.15) -> Atoms:
    """The structure with every atom moved."""
    atoms = atoms.copy()
    atoms.rattle(size, seed=seed)
    return atoms


def structures() -> list[Atoms]:
    """A crystal, a molecule, a tiny cell, a slab."""
    slab = rattled(bulk("Al", cubic=True), 3)
    slab.pbc = (True, True, False)
    found = [
        rattled(bulk("NaCl", "rocksalt", a=4.8), 1),
        rattled(molecule("CH3OH"), 2, 0.05),
        rattled(bulk("Cu", a=3.5), 0, 0.0),
        slab,
    ]
    for k, atoms in enumerate(found):
        atoms.info = {"charge": k - 1, "spin": k}
    return found


def batch_of(atoms: list[Atoms], shape: Shape = SHAPE, dtype=np.float64, neighbors=None) -> Batch:
    """The structures in one padded batch."""
    frames = [a if isinstance(a, Frame) else from_atoms(a, info=a.info) for a in atoms]
    return collate([make_graph(f, CUTOFF, neighbors, dtype) for f in frames], shape, dtype=dtype)


class Model:
    """Total energies (eV), forces and stresses of structures, one compiled cell behind it."""

    def __init__(self, **choices) -> None:
        self.potential = small_potential(**choices)
        self.predictor = Predictor(self.potential)

    def __call__(self, atoms: list[Atoms], head: int = 0) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        batch = batch_of(atoms)
        out = self.predictor.predict(batch, head)
        counts = np.array([len(a) for a in atoms])
        forces = np.split(out["forces"][: counts.sum()], np.cumsum(counts)[:-1])
        return out["energy"][: len(atoms)] * counts, forces, out["stress"][: len(atoms)]
