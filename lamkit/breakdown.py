"""Where force errors sit: by element, and by the size of the force that the data say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamkit.data.frame import SYMBOLS, Frame
from lamkit.metrics import NO_DIRECTION

EDGES = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, np.inf)  # eV/Å, classes of |F| of the data
_COLUMNS = ("n_atoms", "abs", "sq", "target_sq", "cosine", "cosine_n")


class Breakdown:
    """Streaming sums of force errors, apart for each element and for each class of forces."""

    def __init__(self) -> None:
        self._of_element = np.zeros((len(SYMBOLS), len(_COLUMNS)))
        self._of_size = np.zeros((len(EDGES) - 1, len(_COLUMNS)))

    def add(self, frame: Frame, prediction: Mapping[str, Any]) -> None:
        """Add one frame; atoms whose forces are not known are left out."""
        if frame.forces is None:
            return
        known = ~np.isnan(frame.forces).any(axis=1)
        target = np.asarray(frame.forces, dtype=np.float64)[known]
        predicted = np.asarray(prediction["forces"], dtype=np.float64)[known]
        size, error = np.linalg.norm(target, axis=1), predicted - target
        product = size * np.linalg.norm(predicted, axis=1)
        some = size > NO_DIRECTION
        cosine = np.divide(
            np.einsum("ij,ij->i", predicted, target), product, out=np.zeros_like(size), where=product > 0
        )
        rows = np.stack(
            [
                np.ones_like(size),
                np.abs(error).mean(axis=1),
                np.square(error).mean(axis=1),
                np.square(target).mean(axis=1),
                np.where(some, cosine, 0.0),
                some.astype(float),
            ],
            axis=1,
        )
        np.add.at(self._of_element, frame.numbers[known], rows)
        np.add.at(self._of_size, np.searchsorted(EDGES, size, side="right") - 1, rows)

    def by_element(self) -> dict[str, dict[str, Any]]:
        """Symbol → errors of the forces on these atoms (see :func:`_errors`), in the order of atomic numbers."""
        return {SYMBOLS[z]: _errors(row) for z, row in enumerate(self._of_element) if row[0]}

    def by_force(self) -> list[dict[str, Any]]:
        """The same for each class of forces, ``from`` and ``to`` in eV/Å; the last class has no upper end (None)."""
        return [
            {"from": low, "to": None if np.isinf(high) else high, **_errors(row)}
            for low, high, row in zip(EDGES[:-1], EDGES[1:], self._of_size, strict=True)
            if row[0]
        ]


def _errors(row: NDArray[np.float64]) -> dict[str, Any]:
    """``n_atoms``; ``forces_mae``, ``forces_rmse``, ``forces_rms_target`` in eV/Å; ``forces_cosine``."""
    n, absolute, square, target, cosine, directed = row.tolist()
    return {
        "n_atoms": int(n),
        "forces_mae": absolute / n,
        "forces_rmse": float(np.sqrt(square / n)),
        "forces_rms_target": float(np.sqrt(target / n)),
        "forces_cosine": cosine / directed if directed else None,
    }
