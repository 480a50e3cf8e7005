"""The normalisers of a run: fitted to the training frames, or kept up to date with the batches that are seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lamkit.data.batch import Batch
from lamkit.model.base import Headed
from lamkit.model.normalizers import Statistic, counted, observed
from lamkit.train.tasks import Task

# Batches that a fitted normaliser counts for: so the first batches of an online run do not throw it over.
START_COUNT = 1000


def fit(network: Headed, task: Task) -> None:
    """Set the normalisers of a head from the scales of its training frames."""
    for quantity in network.quantities:
        mean, deviation = task.scales.normalizer(quantity)
        network.set_statistic(task.name, quantity, Statistic(mean, deviation**2, START_COUNT))


def observe(networks: Iterable[Headed], head: str, batch: Batch) -> None:
    """Count the labels of one batch into the normalisers of its head, the same in all ``networks``.

    Raises:
        UserError: the labels of this head are all equal.
    """
    for network in networks:
        for quantity, values in labels_of(batch, network.quantities).items():
            network.set_statistic(head, quantity, observed(network.statistic(head, quantity), values))


def moments(batch: Batch, quantities: Sequence[str]) -> NDArray[np.float64]:
    """What a batch tells normalisers of itself: number, mean and unbiased variance of each quantity, flat."""
    found = []
    for values in labels_of(batch, quantities).values():
        flat = np.asarray(values, dtype=np.float64)
        known = flat.size >= 2
        found += [flat.size, flat.mean() if known else 0.0, flat.var(ddof=1) if known else 0.0]
    return np.array(found)


def observe_moments(networks: Iterable[Headed], head: str, row: NDArray[np.floating]) -> None:
    """Count :func:`moments` of a batch of any rank, as :func:`observe` counts a batch."""
    for network in networks:
        for k, quantity in enumerate(network.quantities):
            number, mean, variance = (float(v) for v in row[3 * k : 3 * k + 3])
            if number >= 2:
                before = network.statistic(head, quantity)
                network.set_statistic(head, quantity, counted(before, mean, variance))


def copy(source: Headed, target: Headed) -> None:
    """Give ``target`` the normalisers of ``source``."""
    for head in source.heads:
        for quantity in source.quantities:
            target.set_statistic(head, quantity, source.statistic(head, quantity))


def labels_of(batch: Batch, quantities: Sequence[str]) -> dict[str, NDArray[np.floating]]:
    """The labels of a batch that are known, flat, by the names of normalisers.

    Args:
        batch: any batch.
        quantities: of energy, forces, stress, stress_diag, stress_offdiag.
    """
    stress, known = batch.stress, batch.stress_mask > 0
    labels = {
        "energy": batch.energy[batch.energy_mask > 0],
        "forces": batch.forces[batch.forces_mask > 0].ravel(),
        "stress": stress[known],
        "stress_diag": stress[:, :3][known[:, :3]],
        "stress_offdiag": stress[:, 3:][known[:, 3:]],
    }
    return {quantity: labels[quantity] for quantity in quantities}
