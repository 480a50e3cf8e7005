"""Energies that do not fit: what is left of the energy per atom after a robust fit on the composition."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

PASSES = 8
MAD_TO_SIGMA = 1.4826  # median absolute deviation -> standard deviation of a normal distribution
LEAST_SIGMA = 0.01  # eV/atom; below it a spread says nothing about what is an outlier

# () -> (which frames, atoms of each element in them [n, n_elements]) ...
Pieces = Callable[[], Iterable[tuple[NDArray[np.int64] | slice, NDArray]]]


def robust_residuals(pieces: Pieces, energies: NDArray[np.float64], n_elements: int) -> NDArray[np.float64]:
    """``E/N - x·b`` of each frame in eV/atom, ``b`` fitted so that outliers do not pull it.

    The sum of ``|E/N - x·b|`` is minimised by least squares with weights 1/|residual| of the pass before
    (iteratively reweighted least squares); each pass streams the compositions.

    Args:
        pieces: compositions, which can be gone through again and again.
        energies: total energies, eV, ``[n_frames]``; NaN where unknown.
        n_elements: number of columns of the compositions.

    Returns:
        Residuals, ``[n_frames]``, NaN where the energy is unknown.
    """
    residual = np.full(len(energies), np.nan)
    solution = np.zeros(n_elements)
    for n_pass in range(PASSES + 1):
        matrix, right = np.zeros((n_elements, n_elements)), np.zeros(n_elements)
        for rows, counts in pieces():
            atoms = np.asarray(counts, dtype=np.float64)
            n = atoms.sum(axis=1)
            x, y = atoms / n[:, None], energies[rows] / n
            if n_pass:
                residual[rows] = y - x @ solution
            use = np.isfinite(y)
            weight = (
                1.0 / np.maximum(np.abs(residual[rows][use]), LEAST_SIGMA) if n_pass else np.ones(use.sum())
            )
            matrix += (x[use] * weight[:, None]).T @ x[use]
            right += (x[use] * weight[:, None]).T @ y[use]
        solution = np.linalg.lstsq(matrix, right, rcond=1e-9)[0]
    return residual


def outlying(residual: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each residual from the median in robust standard deviations, ``[n]``; NaN stays NaN."""
    known = residual[np.isfinite(residual)]
    if not len(known):
        return np.full(len(residual), np.nan)
    centre = np.median(known)
    sigma = max(MAD_TO_SIGMA * float(np.median(np.abs(known - centre))), LEAST_SIGMA)
    return np.abs(residual - centre) / sigma
