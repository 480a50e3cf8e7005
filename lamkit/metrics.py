"""Error sums over any number of frames, in constant memory, under LAMKit's names and under Orb's.

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

# Classes of target forces by their norm, eV/Å, as Orb names them.
BUCKETS = {"-inf-0.10": (0.0, 0.1), "0.10-1.00": (0.1, 1.0), "1.00-inf": (1.0, np.inf)}

# Orb's metrics: the name of orb-models 0.5 and later -> the sum and the count that it is made of.
ORB_METRICS = {
    "energy_mae_raw": ("total_abs", "total_n"),
    "energy_mse_raw": ("total_sq", "total_n"),
    "energy_reference_mae": ("reference_abs", "reference_n"),
    "forces_mae_raw": ("graph_abs", "graph_n"),
    "forces_mse_raw": ("graph_sq", "graph_n"),
    "forces_cosine_sim": ("cosine", "cosine_n"),
    "forces_wt_0.03": ("threshold", "threshold_n"),
    **{f"forces_mae_raw_bucket_{name}": (f"bucket_{name}", "graph_n") for name in BUCKETS},
    "stress_mae_raw": ("stress_abs", "stress_n"),
    "stress_mse_raw": ("stress_sq", "stress_n"),
    "stress_diag_mae_raw": ("diag_abs", "diag_n"),
    "stress_diag_mse_raw": ("diag_sq", "diag_n"),
    "stress_offdiag_mae_raw": ("offdiag_abs", "offdiag_n"),
    "stress_offdiag_mse_raw": ("offdiag_sq", "offdiag_n"),
    "equigrad_loss": ("rotation", "rotation_n"),
    "confidence_accuracy": ("confident", "confident_n"),
}
_SQUARED = {"eV": "eV²", "eV/Å": "(eV/Å)²", "eV/Å³": "(eV/Å³)²"}
# Those that orb-models 0.4 and the MindSpore port have: the name there -> the name of 0.5.
ORB_LEGACY = {
    "energy_reference_mae": "energy_reference_mae",
    "energy_mae_raw": "energy_mae_raw",
    "stress_mae_raw": "stress_mae_raw",
    "node_mae_raw": "forces_mae_raw",
    "node_cosine_sim": "forces_cosine_sim",
    "fwt_0.03": "forces_wt_0.03",
}


def orb_unit(name: str) -> str:
    """Unit of one of Orb's metrics, with or without ``grad-`` before its name."""
    name = name.removeprefix("grad-")
    if any(word in name for word in ("cosine", "_wt_", "accuracy")):
        return "1"
    quantity = name.partition("_")[0]
    unit = {"forces": "eV/Å", "stress": "eV/Å³"}.get(quantity, "eV/atom" if "reference" in name else "eV")
    return _SQUARED[unit] if "_mse_" in name else unit


_SUMS = (
    "frames", "atoms",
    "energy_n", "energy_abs", "energy_sq",
    "forces_n", "forces_abs", "forces_sq", "forces_target_sq",
    "cosine_n", "cosine",
    "stress_n", "stress_abs", "stress_sq",
    "threshold_n", "threshold",
    "total_n", "total_abs", "total_sq", "reference_n", "reference_abs",
    "graph_n", "graph_abs", "graph_sq", *(f"bucket_{name}" for name in BUCKETS),
    "diag_n", "diag_abs", "diag_sq", "offdiag_n", "offdiag_abs", "offdiag_sq",
    "rotation_n", "rotation", "confident_n", "confident",
    *(f"{name}_{part}" for name in ("atom_energies", "hessian") for part in ("n", "abs", "sq")),
)  # fmt: skip
EXTRA = ("atom_energies", "hessian")  # labels that few data have; their errors are told only where they do


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
        energy_reference: ArrayLike | None = None,
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
            energy_reference: sum of the references of the elements, a number or [n_frames], eV.
        """
        counts = np.atleast_1d(np.asarray(n_atoms, dtype=np.int64))
        self.sums["frames"] += len(counts)
        self.sums["atoms"] += int(counts.sum())
        if energy_pred is not None and energy_true is not None:
            self._add_energy(
                counts, _shaped(energy_pred, (len(counts),)), _shaped(energy_true, (len(counts),))
            )
        if energy_reference is not None and energy_true is not None:
            rest = _shaped(energy_true, (len(counts),)) - _shaped(energy_reference, (len(counts),))
            self._count("reference", np.abs(rest / counts))
        if forces_pred is not None and forces_true is not None:
            shape = (int(counts.sum()), 3)
            self._add_forces(counts, _shaped(forces_pred, shape), _shaped(forces_true, shape))
        if stress_pred is not None and stress_true is not None:
            predicted, target = (_shaped(s, (len(counts), 6)) for s in (stress_pred, stress_true))
            self._add_pair("stress", predicted, target)
            self._add_pair("diag", predicted[:, :3], target[:, :3])
            self._add_pair("offdiag", predicted[:, 3:], target[:, 3:])

    def add_rotation(self, rotational_grad: ArrayLike) -> None:
        """Add the rotational gradients of a conservative model, [n_frames, 3, 3] eV."""
        norms = np.linalg.norm(np.asarray(rotational_grad, dtype=np.float64), axis=(1, 2))
        self.sums["rotation_n"] += norms.size
        self.sums["rotation"] += float(norms.sum())

    def add_confidence(
        self, confidence: ArrayLike, bins: ArrayLike, forces_pred: ArrayLike, forces_true: ArrayLike
    ) -> None:
        """Add how often the likeliest class of force errors is the right one.

        Args:
            confidence: [n_atoms, n_bins], probabilities or logits.
            bins: [n_bins + 1], edges of the classes, eV/Å of |ΔF| averaged over x, y, z; an error beyond the
                last is in no class.
            forces_pred: [n_atoms, 3], eV/Å.
            forces_true: the same from the data; NaN where missing.
        """
        guessed, edges = np.asarray(confidence), np.asarray(bins, dtype=np.float64)
        error = np.abs(np.asarray(forces_pred) - np.asarray(forces_true)).mean(axis=1)
        right = np.clip(np.searchsorted(edges, error) - 1, 0, len(edges) - 2)
        hit = (guessed.argmax(axis=1) == right) & (error <= edges[-1])
        self.sums["confident_n"] += int((~np.isnan(error)).sum())
        self.sums["confident"] += int(hit.sum())

    def add_extra(self, name: str, predicted: ArrayLike, true: ArrayLike) -> None:
        """Add energies of atoms (eV) or products with the Hessian (eV/Å²).

        Args:
            name: one of :data:`EXTRA`.
            predicted: any shape.
            true: the same from the data; NaN where missing.
        """
        target = np.asarray(true, dtype=np.float64)
        self._add_pair(name, _shaped(predicted, target.shape), target)

    def _add_energy(self, counts: NDArray, predicted: NDArray, target: NDArray) -> None:
        self._add_pair("energy", predicted / counts, target / counts)
        self._add_pair("total", predicted, target)

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
            if known[start:end].any():
                rows = start + np.flatnonzero(known[start:end])
                self._add_graph(predicted[rows], target[rows])

    def _add_graph(self, predicted: NDArray, target: NDArray) -> None:
        """Orb averages force errors over the atoms of each structure first; a bucket without atoms counts 0."""
        error = np.abs(predicted - target).mean(axis=1)
        size = np.linalg.norm(target, axis=1)
        self.sums["graph_n"] += 1
        self.sums["graph_abs"] += float(error.mean())
        self.sums["graph_sq"] += float(np.square(predicted - target).mean())
        for name, (low, high) in BUCKETS.items():
            inside = (size >= low) & (size < high)
            self.sums[f"bucket_{name}"] += float(error[inside].mean()) if inside.any() else 0.0

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

    def _count(self, name: str, values: NDArray) -> None:
        known = ~np.isnan(values)
        self.sums[f"{name}_n"] += int(known.sum())
        self.sums[f"{name}_abs"] += float(values[known].sum())

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
            of the structures with every force component within 0.03 eV/Å); ``n_frames``, ``n_atoms``. Where data have
            such labels, also ``atom_energies_mae``, ``atom_energies_rmse`` (eV), ``hessian_mae``, ``hessian_rmse``
            (products, eV/Å²).
        """
        extra = {}
        for name in EXTRA:
            if self.sums[f"{name}_n"]:
                extra[f"{name}_mae"] = self._mean(f"{name}_abs", f"{name}_n")
                extra[f"{name}_rmse"] = _root(self._mean(f"{name}_sq", f"{name}_n"))
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
            **extra,
        }

    def orb(self, conservative: bool = False) -> dict[str, float]:
        """The errors so far under the names of orb-models 0.5; what nothing is known of is left out.

        ``energy_mae_raw`` is in eV per structure, forces are averaged over the atoms of each structure and
        then over structures.

        Args:
            conservative: put ``grad-`` before the names of forces and stress, as there.
        """
        found = {}
        for name, (total, count) in ORB_METRICS.items():
            if self.sums[count]:
                gradient = conservative and name.startswith(("forces", "stress"))
                found[f"grad-{name}" if gradient else name] = self.sums[total] / self.sums[count]
        return found

    def orb_legacy(self) -> dict[str, float]:
        """The same errors under the names of orb-models 0.4, as far as it has them."""
        found = self.orb()
        return {old: found[new] for old, new in ORB_LEGACY.items() if new in found}

    def _mean(self, total: str, count: str) -> float | None:
        return self.sums[total] / self.sums[count] if self.sums[count] else None


def _root(value: float | None) -> float | None:
    return None if value is None else float(np.sqrt(value))


def _shaped(values: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size != np.prod(shape):
        raise ValueError(f"array has shape {array.shape}, must have shape {shape}")
    return array.reshape(shape)
