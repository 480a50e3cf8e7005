"""Energy references under a trained network: refitting them, and which head fits new data without training.

With the network fixed, E = n_atoms · e(x) + Σ reference[Z]; so the reference is the least-squares solution
for E − n_atoms · e(x) instead of E, regularised toward the reference that the head had.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamkit.console import log
from lamkit.data.batch import collate, make_graph
from lamkit.data.buckets import Buckets, measure
from lamkit.data.dataset import View
from lamkit.data.reference import ReferenceFit, fit_reference
from lamkit.errors import UserError
from lamkit.metrics import ErrorSums
from lamkit.model.inference import Predictor
from lamkit.train.checkpoint import Checkpoint
from lamkit.train.restore import build
from lamkit.train.tasks import Task
from lamkit.train.validate import add_batch, grouped

RANK_FRAMES = 48  # frames that every head is scored on
BATCH_ATOMS = 192


class Network:
    """A checkpoint's network, evaluated on frames in constant shapes."""

    def __init__(self, start: Checkpoint, view: View, device: str) -> None:
        self.start, self.view = start, view
        self.predictor = Predictor(build(start, device))
        trunk = start.trunk
        self.buckets = Buckets([measure(view, trunk.cutoff, trunk.max_neighbors, BATCH_ATOMS, seed=0)], [1.0])

    def run(self, head: str, reference: NDArray[np.float64]) -> tuple[NDArray[np.float64], ErrorSums]:
        """Energies of the network alone (eV, references left out), [n_frames], and errors with ``reference``."""
        trunk, index = self.start.trunk, self.start.heads.index(head)
        graphs = (
            make_graph(self.view.frame(i), trunk.cutoff, trunk.max_neighbors) for i in range(len(self.view))
        )
        sums, energies = ErrorSums(), []
        for group in grouped(graphs, self.buckets.of_head(0)):
            batch = collate(group, self.buckets.shape_for(group, 0), reference)
            predicted = self.predictor.predict(batch, index)
            add_batch(sums, batch, predicted)
            energies.append((predicted["energy"].astype(float) * batch.n_atoms)[: len(group)])
        return np.concatenate(energies), sums


def refit(start: Checkpoint, head: str, view: View, energies: NDArray[np.float64]) -> ReferenceFit:
    """Reference of ``head`` on the frames of ``view``, given the network's energies of them."""
    counts, numbers = view.compositions()
    before = np.where(start.references[head] != 0, start.references[head], np.nan)
    labels = view.energies
    # Toward the old reference plus the mean shift per atom: another code's total energies may differ by
    # thousands of eV, which is no information on any single element.
    rest = labels - energies
    known = np.isfinite(rest)
    if not known.any():
        raise UserError(
            f"{view.path}: no frame has an energy, so the reference of head '{head}' cannot be refitted"
        )
    baseline = counts @ np.nan_to_num(before[numbers])
    shift = np.mean((rest - baseline)[known] / counts.sum(axis=1)[known])
    return fit_reference(counts, numbers, rest, before + shift)


def refitted(start: Checkpoint, head: str, task: Task, *, device: str = "CPU") -> Task:
    """``task`` with its reference refitted under the network of ``head``; elements it lacks keep the old one."""
    energies, _ = Network(start, task.train, device).run(head, start.references[head])
    fit = refit(start, head, task.train, energies)
    log.info(
        "reference of %s refitted on %d frames: rank %d of %d elements, residual %.1f meV/atom",
        task.name, fit.n_frames, fit.rank, fit.n_elements, 1000 * fit.residual_std,
    )  # fmt: skip
    counts, numbers = task.train.compositions()
    present = np.asarray(numbers)[counts.sum(axis=0) > 0]
    reference = start.references[head].copy()
    reference[present] = fit.reference[present]
    return replace(task, reference=replace(fit, reference=reference))


def rank_heads(start: Checkpoint, task: Task, *, device: str = "CPU") -> list[dict[str, Any]]:
    """Zero-shot errors of every head on the training frames, best force RMSE first.

    Returns:
        Per head ``head``, ``forces_rmse`` (eV/Å), ``energy_rmse`` (eV/atom, reference refitted).
    """
    some = np.linspace(0, len(task.train) - 1, min(RANK_FRAMES, len(task.train))).round().astype(int)
    view = task.train.subset(np.unique(some))
    network = Network(start, view, device)
    ranking = []
    for head in start.heads:
        energies, sums = network.run(head, start.references[head])
        fit = refit(start, head, view, energies)
        forces = sums.result()["forces_rmse"]
        ranking.append(
            {
                "head": head,
                "forces_rmse": float("nan") if forces is None else float(forces),
                "energy_rmse": float(np.hypot(fit.residual_std, fit.residual_mean)),
            }
        )
    return sorted(ranking, key=lambda r: (np.isnan(r["forces_rmse"]), r["forces_rmse"], r["energy_rmse"]))
