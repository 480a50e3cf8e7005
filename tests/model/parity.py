"""The reference set of the public models: their configurations, weights, structures and numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
from small import ms

from lamkit.data.batch import Batch, Graph, Shape, collate, make_graph, shape_of
from lamkit.data.frame import Frame, volume
from lamkit.model.config import TrunkConfig
from lamkit.model.potential import Potential

REFERENCE = "heads.energy.reference.linear.weight"


def config_of(facts: dict) -> TrunkConfig:
    """The architecture that an entry of configs.json describes."""
    v3 = "v3" in facts["arch"]
    return TrunkConfig(
        version="v3" if v3 else "v2",
        output="conservative" if "conservative" in facts["arch"] else "direct",
        latent=facts["latent_dim"],
        hidden=facts["base_mlp_hidden_dim"],
        layers=facts["num_message_passing_steps"],
        head_hidden=facts["head_mlp_hidden_dim"],
        cutoff=facts["radius"],
        max_neighbors=facts["max_num_neighbors"],
        repulsion=v3,
        repulsion_rule="orb",
        confidence=v3,
        conditioning=facts["charge_spin"],
        stress=facts["has_stress"],
        decoder=True,
    )


def ours(name: str) -> str:
    """The name in ``Potential.state`` of a public name, the head being called "one"."""
    if name.startswith(("heads.", "grad_")):
        return "heads.one." + name.removeprefix("heads.")
    return name


class PublicModel:
    """One model of the reference set with its weights, and batches of the structures for it."""

    def __init__(self, folder: Path, name: str, dtype=None) -> None:
        facts = json.loads((folder / "configs.json").read_text())["models"][name]
        self.folder, self.name, self.facts = folder, name, facts
        self.config = config_of(facts)
        self.dtype = dtype or ms.float64
        self.numpy_dtype = np.float64 if self.dtype == ms.float64 else np.float32
        self.weights = dict(np.load(folder / "weights" / f"{name}.npz"))
        self.potential = Potential(self.config, ["one"], dtype=self.dtype)
        self.potential.load_state({ours(k): v for k, v in self.weights.items() if k != REFERENCE})
        self.reference = np.zeros(119)
        self.reference[:118] = self.weights[REFERENCE].ravel()

    def graph(self, frame: Frame) -> Graph:
        """The graph of a frame; the public code gives a stress also to a molecule in a box."""
        graph = make_graph(frame, self.config.cutoff, self.config.max_neighbors, self.numpy_dtype)
        return graph._replace(volume=volume(frame) or 1.0)

    def batch(self, graphs: list[Graph], shape: Shape) -> Batch:
        """The graphs, padded; energies without their references."""
        return collate(graphs, shape, self.reference, self.numpy_dtype)

    def expected(self, what: str) -> dict[str, np.ndarray]:
        """Reference numbers of one structure, or of BATCH_ALL."""
        return dict(np.load(self.folder / "reference" / f"{self.name}__{what}.npz"))


def roomy(graphs: list[Graph]) -> Shape:
    """A shape with some padding of every kind."""
    tight = shape_of(graphs)
    return Shape(tight.n_atoms + 3, tight.n_edges + 11, tight.n_graphs + 1)


def frames_of(folder: Path) -> list[Frame]:
    """The structures; a box around a molecule is kept, as the public code looks at the cell alone."""
    return [
        Frame(
            numbers=a.numbers,
            positions=a.positions,
            cell=a.cell.array,
            pbc=a.pbc,
            source=a.info["name"],
            info={"charge": float(a.info["charge"]), "spin": float(a.info["spin"])},
        )
        for a in ase.io.read(folder / "structures.extxyz", ":")
    ]


def labelled(folder: Path, name: str) -> tuple[list[Frame], dict, dict[str, np.ndarray]]:
    """Frames with the labels of a LOSS file, its numbers and its arrays."""
    numbers = json.loads((folder / "reference" / f"{name}__LOSS.json").read_text())
    arrays = dict(np.load(folder / "reference" / f"{name}__LOSS.npz"))
    known = {frame.source: frame for frame in frames_of(folder)}
    frames = [
        replace(
            known[structure],
            energy=float(arrays[f"targets/{structure}/energy"].item()),
            forces=arrays[f"targets/{structure}/forces"],
            stress=arrays[f"targets/{structure}/stress"].ravel(),
        )
        for structure in numbers["structures_in_batch_order"]
    ]
    return frames, numbers, arrays
