"""Normalisers: mean and variance of the labels of a head, which turn network outputs into physical units.

They are statistics of data, never trained. Needs no MindSpore.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lamkit.errors import UserError
from lamkit.model.config import Architecture

# What has a scale of its own; diag and offdiag are the two halves of a Voigt stress.
SCALES = ("energy", "forces", "stress_diag", "stress_offdiag")
# A smaller deviation would blow rounding errors up.
SMALLEST_DEVIATION = 1e-6


class Statistic(NamedTuple):
    """Mean and variance of a label, and the number of batches that they were taken from."""

    mean: float = 0.0
    variance: float = 1.0
    batches: int = 0


class Normalizer(NamedTuple):
    """One normaliser of a head.

    Attributes:
        quantity: what it normalises.
        place: its name in a checkpoint, after the head's.
        columns: indices into :data:`SCALES` that it serves.
    """

    quantity: str
    place: str
    columns: tuple[int, ...]


def normalizers(config: Architecture) -> tuple[Normalizer, ...]:
    """Those of each head, with the names of the public models.

    Conservative models use theirs for forces and stress in the loss only.
    """
    energy = Normalizer("energy", "energy.normalizer", (0,))
    if config.conservative:
        forces = Normalizer("forces", "grad_forces_normalizer", (1,))
        return energy, forces, Normalizer("stress", "grad_stress_normalizer", (2, 3))
    forces = Normalizer("forces", "forces.normalizer", (1,))
    if not config.stress:
        return energy, forces
    if config.version == "v2":
        return energy, forces, Normalizer("stress", "stress.normalizer", (2, 3))
    diagonal = Normalizer("stress_diag", "stress.diag_normalizer", (2,))
    return energy, forces, diagonal, Normalizer("stress_offdiag", "stress.offdiag_normalizer", (3,))


def checked(statistic: Statistic, name: str) -> Statistic:
    """``statistic`` if it can be divided by.

    Raises:
        UserError: not finite, or the deviation is too small.
    """
    mean, variance, _ = statistic
    if not (np.isfinite(mean) and np.isfinite(variance) and variance >= SMALLEST_DEVIATION**2):
        raise UserError(
            f"{name} has mean {mean} and variance {variance}; the deviation must be at least "
            f"{SMALLEST_DEVIATION}: are all labels of this data set equal?"
        )
    return statistic


def observed(statistic: Statistic, values: ArrayLike) -> Statistic:
    """``statistic`` after one more batch of labels, as Orb's training counts them.

    The cumulative average over batches m of their means and unbiased variances:
    x <- x + (x_m - x) / (m + 1). A single value has no variance and is skipped.

    Args:
        statistic: so far.
        values: labels of the batch in physical units, of any shape: (E - reference)/N, or all components.
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    if flat.size < 2:
        return statistic
    return counted(statistic, float(flat.mean()), float(flat.var(ddof=1)))


def counted(statistic: Statistic, mean: float, variance: float) -> Statistic:
    """:func:`observed`, of a batch whose mean and unbiased variance are known."""
    weight = 1.0 / (statistic.batches + 1)
    return Statistic(
        (1.0 - weight) * statistic.mean + weight * mean,
        (1.0 - weight) * statistic.variance + weight * variance,
        statistic.batches + 1,
    )
