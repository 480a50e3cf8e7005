"""Error sums over any number of frames, in constant memory.

Used by validation during training and by ``lamkit evaluate``. Missing labels (None or NaN) are left out of
their sum; a prediction that is not finite is never left out, so that it shows in the result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# A structure counts as solved when every force component is within this error (Orb's `fwt_0.03`), in eV/Å.
FORCE_THRESHOLD = 0.03

# Below this norm (eV/Å) a target force has no direction: symmetry makes it zero up to rounding.
NO_DIRECTION = 1e-6

_SUMS = (
    "frames", "atoms",
    "energy_n", "energy_abs", "energy_sq",
    "forces_n", "forces_abs", "forces_sq", "forces_target_sq",
    "cosine_n", "cosine",
    "stress_n", "stress_abs", "stress_sq",
    "threshold_n", "threshold",
)  # fmt: skip


class ErrorSums:
    """Streaming sums of energy, force and stress errors.

    Attributes:
        sums: name -> sum over everything added so far. Sums of two instances add up (:meth:`merge`), so ranks
            or parts of a data set can be counted apart.
        largest_force_error: largest |ΔF| of one component so far (eV/Å).
    """

    def __init__(self) -> None:
        self.sums: dict[str, float] = dict.fromkeys(_SUMS, 0.0)
        self.largest_force_error = 0.0

    def add(
        self,
        n_atoms: int | ArrayLike,
        energy_pred: ArrayLike | None = None,
        energy_true: ArrayLike | None = None,
        forces_pred: ArrayLike | None = None,
        forces_true: ArrayLike | None = None,
        stress_pred: ArrayLike | None = None,
        stress_true: ArrayLike | None = None,
    ) -> None:
        """Add one frame or a batch of frames; a pair with either side None is skipped.

        Args:
            n_atoms: atoms of each frame, an integer or [n_frames].
            energy_pred: total energies, a number or [n_frames], eV. A shift that is the same in prediction
                and target (the reference of the elements) may be left out of both.
            energy_true: the same from the data; NaN where missing.
            forces_pred: [sum of n_atoms, 3], eV/Å, frames one after the other.
            forces_true: the same from the data; NaN where missing.
            stress_pred: [6] or [n_frames, 6], Voigt xx yy zz yz xz xy, eV/Å³.
            stress_true: the same from the data; NaN for each component that is not known.
        """
        counts = np.atleast_1d(np.asarray(n_atoms, dtype=np.int64))
        self.sums["frames"] += len(counts)
        self.sums["atoms"] += int(counts.sum())
        if energy_pred is not None and energy_true is not None:
            self._add_energy(
                counts, _shaped(energy_pred, (len(counts),)), _shaped(energy_true, (len(counts),))
            )
        if forces_pred is not None and forces_true is not None:
            shape = (int(counts.sum()), 3)
            self._add_forces(counts, _shaped(forces_pred, shape), _shaped(forces_true, shape))
        if stress_pred is not None and stress_true is not None:
            shape = (len(counts), 6)
            self._add_pair("stress", _shaped(stress_pred, shape), _shaped(stress_true, shape))

    def _add_energy(self, counts: NDArray, predicted: NDArray, target: NDArray) -> None:
        self._add_pair("energy", predicted / counts, target / counts)

    def _add_forces(self, counts: NDArray, predicted: NDArray, target: NDArray) -> None:
        self._add_pair("forces", predicted, target)
        known = ~np.isnan(target).any(axis=1)
        self.sums["forces_target_sq"] += float(np.nansum(np.square(target)))
        worst = np.where(known, np.abs(predicted - np.nan_to_num(target)).max(axis=1, initial=0.0), 0.0)
        # np.maximum, unlike max(), keeps a NaN
        self.largest_force_error = float(np.maximum(self.largest_force_error, worst.max(initial=0.0)))
        self._add_cosine(predicted[known], target[known])
        ends = np.cumsum(counts)
        for start, end in zip(ends - counts, ends, strict=True):
            if end > start and known[start:end].all():
                self.sums["threshold_n"] += 1
                self.sums["threshold"] += bool((worst[start:end] < FORCE_THRESHOLD).all())

    def _add_cosine(self, predicted: NDArray, target: NDArray) -> None:
        """Sum of cos(F_pred, F_true) over atoms whose target has a direction; a zero prediction counts 0."""
        norm = np.linalg.norm(target, axis=1)
        some = norm > NO_DIRECTION
        size = np.linalg.norm(predicted[some], axis=1) * norm[some]
        dot = np.einsum("ij,ij->i", predicted[some], target[some])
        self.sums["cosine_n"] += int(some.sum())
        self.sums["cosine"] += float(np.divide(dot, size, out=np.zeros_like(dot), where=size != 0).sum())

    def _add_pair(self, name: str, predicted: NDArray, target: NDArray) -> None:
        known = ~np.isnan(target)
        error = predicted[known] - target[known]
        self.sums[f"{name}_n"] += error.size
        self.sums[f"{name}_abs"] += float(np.abs(error).sum())
        self.sums[f"{name}_sq"] += float(np.square(error).sum())

    def merge(self, other: ErrorSums) -> None:
        """Add everything that ``other`` has counted."""
        for name, value in other.sums.items():
            self.sums[name] += value
        self.largest_force_error = float(np.maximum(self.largest_force_error, other.largest_force_error))

    def result(self) -> dict[str, float | int | None]:
        """The errors so far; None where there was no label.

        Returns:
            ``energy_mae``, ``energy_rmse`` (eV/atom); ``forces_mae``, ``forces_rmse``, ``forces_max``,
            ``forces_rms_target`` (eV/Å; the last is the RMSE that a model of zero forces would have);
            ``forces_cosine`` (mean over atoms); ``stress_mae``, ``stress_rmse`` (eV/Å³); ``fwt_0.03`` (part
            of the structures with every force component within 0.03 eV/Å); ``n_frames``, ``n_atoms``.
        """
        return {
            "energy_mae": self._mean("energy_abs", "energy_n"),
            "energy_rmse": _root(self._mean("energy_sq", "energy_n")),
            "forces_mae": self._mean("forces_abs", "forces_n"),
            "forces_rmse": _root(self._mean("forces_sq", "forces_n")),
            "forces_max": self.largest_force_error if self.sums["forces_n"] else None,
            "forces_cosine": self._mean("cosine", "cosine_n"),
            "forces_rms_target": _root(self._mean("forces_target_sq", "forces_n")),
            "stress_mae": self._mean("stress_abs", "stress_n"),
            "stress_rmse": _root(self._mean("stress_sq", "stress_n")),
            "fwt_0.03": self._mean("threshold", "threshold_n"),
            "n_frames": int(self.sums["frames"]),
            "n_atoms": int(self.sums["atoms"]),
        }

    def _mean(self, total: str, count: str) -> float | None:
        return self.sums[total] / self.sums[count] if self.sums[count] else None


def _root(value: float | None) -> float | None:
    return None if value is None else float(np.sqrt(value))


def _shaped(values: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size != np.prod(shape):
        raise ValueError(f"array has shape {array.shape}, must have shape {shape}")
    return array.reshape(shape)
