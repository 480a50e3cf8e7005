"""Energy references under a trained network: refitting them, and which head fits new data without training.

With the network fixed, E = n_atoms · e(x) + Σ reference[Z]; so the reference is the least-squares solution
for E − n_atoms · e(x) instead of E, regularised toward the reference that the head had. That is DeePMD's
change-by-statistic, b ← b + lstsq(n, E − E_model), where the data determine b; what they leave open (a single
composition, for example) stays as it was instead of following the norm of b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lamkit.console import log
from lamkit.data.batch import collate, make_graph
from lamkit.data.buckets import Buckets, measure
from lamkit.data.dataset import View
from lamkit.data.frame import SYMBOLS
from lamkit.data.reference import ReferenceFit, fit_reference
from lamkit.errors import UserError
from lamkit.metrics import ErrorSums
from lamkit.model.inference import Predictor
from lamkit.train.checkpoint import Checkpoint
from lamkit.train.restore import build
from lamkit.train.tasks import Task
from lamkit.train.validate import add_batch, grouped

RANK_FRAMES = 48  # frames that every head is scored on
REFIT_FRAMES = 2000  # frames that a reference is fitted on: a few numbers need no more
PER_ELEMENT = 20  # frames among them with each element, where there are so many
BATCH_ATOMS = 192


def predictor(start: Checkpoint, device: str = "CPU") -> Predictor:
    """The network of a checkpoint, ready to predict with."""
    return Predictor(build(start, device))


class Network:
    """A checkpoint's network, evaluated on frames in constant shapes.

    Args:
        start: the checkpoint.
        views: one or several sets of frames.
        predictor: from :func:`predictor`; what it has compiled serves the next network again.
    """

    def __init__(self, start: Checkpoint, views: View | Sequence[View], predictor: Predictor) -> None:
        self.start, self.predictor = start, predictor
        self.views = [views] if isinstance(views, View) else list(views)
        trunk = start.trunk
        needs = [measure(v, trunk.cutoff, trunk.max_neighbors, BATCH_ATOMS, seed=0) for v in self.views]
        self.buckets = Buckets(needs, [1.0 / len(needs)] * len(needs))

    def run(
        self, head: str, reference: NDArray[np.float64], place: int = 0
    ) -> tuple[NDArray[np.float64], ErrorSums]:
        """Energies of the network alone (eV, references left out), [n_frames], and errors with ``reference``.

        Args:
            head: one of the checkpoint's.
            reference: eV by atomic number, [119].
            place: which of the views.
        """
        trunk, index, view = self.start.trunk, self.start.heads.index(head), self.views[place]
        graphs = (make_graph(view.frame(i), trunk.cutoff, trunk.max_neighbors) for i in range(len(view)))
        sums, energies = ErrorSums(), []
        for group in grouped(graphs, self.buckets.of_head(place)):
            batch = collate(group, self.buckets.shape_for(group, place), reference)
            predicted = self.predictor.predict(batch, index)
            add_batch(sums, batch, predicted)
            energies.append((predicted["energy"].astype(float) * batch.n_atoms)[: len(group)])
        return np.concatenate(energies), sums


class Refit(NamedTuple):
    """A task under the refitted reference, and what the refit did.

    Attributes:
        task: with the new reference.
        origin: head whose network and reference it was.
        energy_before: RMSE of the energy with the old reference, eV/atom.
        energy_after: the same with the new one.
        forces_rmse: eV/Å, which references do not change; None without forces.
    """

    task: Task
    origin: str
    energy_before: float
    energy_after: float
    forces_rmse: float | None

    def words(self) -> str:
        """A sentence for the log."""
        forces = (
            "" if self.forces_rmse is None else f"; forces {1000 * self.forces_rmse:.1f} meV/Å, as before"
        )
        before, after = (f"{1000 * value:.1f}" for value in (self.energy_before, self.energy_after))
        return (
            f"head {self.task.name}, network of {self.origin}, before any training: energy RMSE {before} meV/atom with "
            f"the old reference, {after} with the one refitted on {self.task.reference.n_frames} frames{forces}"
        )


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


def refitted(start: Checkpoint, head: str, task: Task, network: Predictor) -> Refit:
    """``task`` with its reference refitted under the network of ``head``; elements it lacks keep the old one.

    Args:
        start: checkpoint.
        head: one of its heads.
        task: frames to refit on.
        network: from :func:`predictor`.

    Raises:
        UserError: no frame has an energy.
    """
    view = few(task.train, REFIT_FRAMES)
    energies, sums = Network(start, view, network).run(head, start.references[head])
    fit = refit(start, head, view, energies)
    for sentence in fit.null_space:
        log.info("head %s: %s; there the old reference stays", task.name, sentence)
    counts, numbers = view.compositions()
    present = np.asarray(numbers)[counts.sum(axis=0) > 0]
    reference = start.references[head].copy()
    reference[present] = fit.reference[present]
    rest = (view.energies - energies) / counts.sum(axis=1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    before, after = (
        float(np.sqrt(np.nanmean(np.square(rest - shares @ values[numbers]))))
        for values in (start.references[head], reference)
    )
    forces = sums.result()["forces_rmse"]
    found = replace(task, reference=replace(fit, reference=reference))
    return Refit(found, head, before, after, None if forces is None else float(forces))


def few(view: View, limit: int) -> View:
    """At most ``limit`` frames of a view, evenly spaced, and some more of elements that are rare among them."""
    if len(view) <= limit:
        return view
    chosen = set(np.linspace(0, len(view) - 1, limit).round().astype(int).tolist())
    counts, _ = view.compositions()
    for column in (counts > 0).T:
        chosen.update(np.flatnonzero(column)[:PER_ELEMENT].tolist())
    return view.subset(np.array(sorted(chosen)))


def rank_heads(start: Checkpoint, view: View, network: Predictor) -> list[dict[str, Any]]:
    """Zero-shot errors of every head, its reference refitted on these frames; best force RMSE first.

    Args:
        start: checkpoint.
        view: frames; up to 48 of them are used.
        network: from :func:`predictor`.

    Returns:
        Per head ``head``, ``forces_rmse`` (eV/Å; nan without forces), ``energy_rmse`` (eV/atom), ``n_frames``
        and ``unseen``, elements of the frames that the head was never trained on.
    """
    some = np.linspace(0, len(view) - 1, min(RANK_FRAMES, len(view))).round().astype(int)
    view = view.subset(np.unique(some))
    frames = Network(start, view, network)
    ranking = []
    for head in start.heads:
        energies, sums = frames.run(head, start.references[head])
        fit = refit(start, head, view, energies)
        forces = sums.result()["forces_rmse"]
        ranking.append(
            {
                "head": head,
                "forces_rmse": float("nan") if forces is None else float(forces),
                "energy_rmse": float(np.hypot(fit.residual_std, fit.residual_mean)),
                "n_frames": len(view),
                "unseen": [SYMBOLS[z] for z in view.elements if SYMBOLS[z] not in start.elements[head]],
            }
        )
    return sorted(ranking, key=lambda r: (np.isnan(r["forces_rmse"]), r["forces_rmse"], r["energy_rmse"]))
