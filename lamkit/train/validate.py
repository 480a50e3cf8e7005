"""Errors of a network on the validation frames of each head, in constant shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamkit.data.batch import Batch, Graph, collate, make_graph, shape_of
from lamkit.data.buckets import Buckets, holds
from lamkit.data.curvature import STEP, product
from lamkit.metrics import ErrorSums
from lamkit.model.config import Architecture
from lamkit.model.inference import Predictor
from lamkit.train.tasks import Task

Errors = dict[str, Any]


class Validator:
    """Holds the validation batches of every head and evaluates a network on them.

    Args:
        tasks: the heads, in the order of the network.
        buckets: padded shapes, shared with training.
        trunk: for the cutoff.
        limit: frames per head at most, evenly spread over the validation part.
        curved: whether products with the Hessian are compared, too; each takes two more evaluations.

    Attributes:
        squares: head → squared errors of each frame in the last validation, see :func:`squares_of`.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        buckets: Buckets,
        trunk: Architecture,
        limit: int,
        *,
        curved: bool = False,
    ) -> None:
        self.tasks, self.buckets, self.trunk, self.limit = list(tasks), buckets, trunk, limit
        self.curved = curved
        self.squares: dict[str, list[list[float]]] = {}
        self._batches: dict[str, list[Batch]] = {}

    def batches(self, head: int) -> list[Batch]:
        """Validation batches of one head; made once."""
        task = self.tasks[head]
        if task.valid is None:
            return []
        if task.name not in self._batches:
            count = min(self.limit, len(task.valid))
            chosen = np.linspace(0, len(task.valid) - 1, count).round().astype(int)
            graphs = (
                make_graph(task.valid.frame(int(i)), self.trunk.cutoff, self.trunk.max_neighbors)
                for i in np.unique(chosen)
            )
            self._batches[task.name] = [
                collate(group, self.buckets.shape_for(group, head), task.reference.reference)
                for group in grouped(graphs, self.buckets.of_head(head))
            ]
        return self._batches[task.name]

    def errors(self, predictor: Predictor) -> dict[str, Errors]:
        """Errors per head; heads without validation frames are left out."""
        found: dict[str, Errors] = {}
        predictor.refresh()
        for index, task in enumerate(self.tasks):
            if batches := self.batches(index):
                sums = ErrorSums()
                self.squares[task.name] = []
                for batch in batches:
                    predicted = predictor.predict(batch, index)
                    if self.curved and batch.products_mask.any():
                        predicted["hessian"] = products(predictor, batch, index)
                    add_batch(sums, batch, predicted)
                    self.squares[task.name] += squares_of(batch, predicted).tolist()
                found[task.name] = sums.result()
        return found


def grouped(graphs: Iterator[Graph], shape: Any) -> Iterator[list[Graph]]:
    """Consecutive graphs in groups that fit ``shape``; a graph larger than it comes alone."""
    group: list[Graph] = []
    for graph in graphs:
        if group and not holds(shape, shape_of([*group, graph])):
            yield group
            group = []
        group.append(graph)
    if group:
        yield group


def products(predictor: Predictor, batch: Batch, head: int) -> NDArray[np.floating]:
    """The network's Hessian times the directions of a batch, [N, 3] eV/Å²: see :mod:`lamkit.data.curvature`.

    Args:
        predictor: of the network.
        batch: with directions.
        head: index of the head.
    """
    moved = STEP * (batch.directions[batch.receivers] - batch.directions[batch.senders])
    ahead, behind = (
        predictor.predict(batch._replace(vectors=batch.vectors + way), head)["forces"]
        for way in (moved, -moved)
    )
    return product(ahead, behind)


def add_batch(sums: ErrorSums, batch: Batch, predicted: Mapping[str, np.ndarray]) -> None:
    """Count the real frames of a padded batch; labels that are masked count as missing."""
    frames = batch.graph_mask > 0
    atoms = batch.node_mask > 0
    counts = batch.n_atoms[frames].astype(int)
    energy = np.where(batch.energy_mask > 0, batch.energy, np.nan)[frames]
    forces = np.where(batch.forces_mask[:, None] > 0, batch.forces, np.nan)[atoms]
    stress = np.where(batch.stress_mask > 0, batch.stress, np.nan)[frames]
    sums.add(
        counts,
        predicted["energy"][frames].astype(float) * counts,
        energy.astype(float) * counts,
        predicted["forces"][atoms],
        forces,
        predicted["stress"][frames],
        stress,
    )
    if "atom_energies" in predicted:
        true = np.where(batch.atom_energies_mask > 0, batch.atom_energies, np.nan)
        sums.add_extra("atom_energies", predicted["atom_energies"][atoms], true[atoms])
    if "hessian" in predicted:
        true = np.where(batch.products_mask[:, None] > 0, batch.products, np.nan)
        sums.add_extra("hessian", predicted["hessian"][atoms], true[atoms])


def squares_of(batch: Batch, predicted: Mapping[str, np.ndarray]) -> NDArray[np.float64]:
    """Squared errors of each real frame of a batch, 0 where a label is missing.

    Returns:
        [n_frames, 2]: of the forces, summed over the atoms, eV²/Å²; of the energy per atom, eV².
    """
    frames = batch.graph_mask > 0
    wrong = np.where(batch.forces_mask[:, None] > 0, predicted["forces"] - batch.forces, 0.0)
    forces = np.bincount(batch.node_graph, np.square(wrong).sum(axis=1), len(frames))
    energy = np.where(batch.energy_mask > 0, predicted["energy"] - batch.energy, 0.0)
    return np.stack([forces, np.square(energy)], axis=1)[frames].astype(np.float64)


def score(errors: Mapping[str, Errors], tasks: Sequence[Task]) -> float:
    """One number to choose the best checkpoint by; smaller is better.

    Geometric mean over heads of the force RMSE in units of the head's force scale, or of the energy RMSE where
    a head has no forces; nan where nothing was validated.
    """
    logs = []
    for task in tasks:
        found = errors.get(task.name)
        if found is None:
            continue
        if found["forces_rmse"] is not None:
            logs.append(math.log(max(found["forces_rmse"], 1e-12) / task.scales.forces))
        elif found["energy_rmse"] is not None:
            logs.append(math.log(max(found["energy_rmse"], 1e-12) / task.scales.energy))
    return math.exp(sum(logs) / len(logs)) if logs else math.nan
