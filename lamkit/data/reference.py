"""Reference energies per element: least squares of the energy on the composition, as a stream.

``E ≈ Σ_k n_k b_k`` is fitted per atom: with ``x = n / N`` and ``y = E / N`` minimise ``Σ_f (y − x·b)²``.
Instead of the normal equations ``XᵀX b = Xᵀy`` themselves, the triangular factor R of the rows ``[x | y]``
is carried on (``RᵀR = [X|y]ᵀ[X|y]``): the same few numbers, which add up over pieces of the data and over
workers, but without the digits that squaring costs, so that energies of −17660 eV keep their meV.
Everything else follows from R: rank, null space, solution toward any prior, and mean and scatter of the
residual of any reference whatever. What the data leave open is taken from a prior and reported in words.

Tall-skinny QR: Demmel, Grigori, Hoemmen, Langou, SIAM J. Sci. Comput. 34, A206 (2012).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lamkit.data.dataset import Dataset, View
from lamkit.data.frame import SYMBOLS, reduced_formula
from lamkit.errors import UserError

N_ELEMENTS = 119  # arrays by atomic number; index 0 stands for no element
PRIOR_WIDTH = 3.0  # eV: how far a reference energy may reasonably be from its prior
_RANK_TOLERANCE = 1e-9  # smallest over largest eigenvalue of the normal matrix that counts as determined
_FORMULA = 8  # elements up to which a formula says more than a list
_ROWS = 4096  # frames taken into the factor at once


@dataclass(frozen=True)
class ReferenceFit:
    """Result of :meth:`CompositionFit.fit`.

    Attributes:
        reference: eV by atomic number, shape ``[119]``, float64.
        rank: number of independent combinations of elements that the data determine.
        n_elements: number of elements in the data.
        null_space: what the data cannot tell, in words; empty if everything is determined.
        residual_std: standard deviation of ``(E − Σ n_k b_k) / N``, eV/atom.
        residual_mean: mean of it, eV/atom.
        n_frames: frames that have an energy.
    """

    reference: NDArray[np.float64]
    rank: int
    n_elements: int
    null_space: list[str]
    residual_std: float
    residual_mean: float
    n_frames: int


class CompositionFit:
    """Least squares of energies on compositions: add frames, merge, fit.

    Attributes:
        numbers: atomic numbers of the columns, ascending, ``[n_elements]``.
        factor: R, ``[≤ n_elements + 1, n_elements + 1]``; the last column belongs to the energy, eV/atom.
        n_frames: frames with an energy that went in.
    """

    def __init__(self) -> None:
        self.numbers = np.zeros(0, dtype=np.int64)
        self.factor = np.zeros((0, 1))
        self.n_frames = 0

    def add(self, counts: ArrayLike, numbers: ArrayLike, energies: ArrayLike) -> None:
        """Take in frames.

        Args:
            counts: atoms of each element in each frame, ``[n, k]``.
            numbers: atomic numbers of its columns, ``[k]``, each once.
            energies: total energies in eV, ``[n]``; frames with NaN are left out.
        """
        counts, numbers = np.asarray(counts), np.asarray(numbers, dtype=np.int64)
        energies = np.asarray(energies, dtype=np.float64)
        present = counts.any(axis=0)
        self._widen(numbers[present])
        columns = np.searchsorted(self.numbers, numbers[present])
        known = np.flatnonzero(np.isfinite(energies))
        for start in range(0, len(known), _ROWS):
            some = known[start : start + _ROWS]
            atoms = counts[some].sum(axis=1, dtype=np.float64)
            rows = np.zeros((len(some), len(self.numbers) + 1))
            rows[:, columns] = counts[some][:, present] / atoms[:, None]
            rows[:, -1] = energies[some] / atoms
            self._append(rows)
        self.n_frames += len(known)

    def merge(self, other: CompositionFit) -> None:
        """Take in what ``other`` took in."""
        self._widen(other.numbers)
        rows = np.zeros((len(other.factor), len(self.numbers) + 1))
        rows[:, np.searchsorted(self.numbers, other.numbers)] = other.factor[:, :-1]
        rows[:, -1] = other.factor[:, -1]
        self._append(rows)
        self.n_frames += other.n_frames

    def _widen(self, numbers: NDArray[np.int64]) -> None:
        """Make columns for elements that were not seen before."""
        union = np.union1d(self.numbers, numbers)
        if len(union) == len(self.numbers):
            return
        wider = np.zeros((len(self.factor), len(union) + 1))
        wider[:, np.searchsorted(union, self.numbers)] = self.factor[:, :-1]
        wider[:, -1] = self.factor[:, -1]
        self.numbers, self.factor = union, wider

    def _append(self, rows: NDArray[np.float64]) -> None:
        if len(rows):
            self.factor = np.asarray(np.linalg.qr(np.concatenate([self.factor, rows]), mode="r"))

    def to_json(self) -> dict[str, Any]:
        """Everything, in types that JSON knows, to the last bit."""
        return {
            "numbers": self.numbers.tolist(),
            "factor": self.factor.tolist(),
            "n_frames": self.n_frames,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CompositionFit:
        """The inverse of :meth:`to_json`."""
        self = cls()
        self.numbers = np.array(data["numbers"], dtype=np.int64)
        self.factor = np.array(data["factor"], dtype=np.float64).reshape(-1, len(self.numbers) + 1)
        self.n_frames = data["n_frames"]
        return self

    def residual(self, reference: NDArray[np.float64]) -> tuple[float, float]:
        """Mean and standard deviation of ``(E − Σ n_k b_k) / N`` for any reference, eV/atom.

        Fractions sum to one, so the sum of the residuals is ``1ᵀ Xᵀ (y − X b)``, which R gives too.

        Args:
            reference: b, eV by atomic number, ``[119]``.
        """
        if not self.n_frames:
            return float("nan"), float("nan")
        rest = self.factor[:, -1] - self.factor[:, :-1] @ reference[self.numbers]
        mean = float(self.factor[:, :-1].sum(axis=1) @ rest) / self.n_frames
        return mean, float(np.sqrt(max(float(rest @ rest) / self.n_frames - mean**2, 0.0)))

    def fit(self, prior: NDArray[np.float64] | None = None, *, ridge: float | None = None) -> ReferenceFit:
        """Least-squares energy per element, drawn toward a prior.

        Args:
            prior: eV by atomic number, ``[119]``, NaN where unknown: the answer where the data have none.
                Without it, elements that the data cannot tell apart share the mean energy per atom.
            ridge: strength of the pull toward the prior, in frames of a pure element; None chooses the
                Bayesian value, (scatter of the data / width of the prior)², and none without a prior.

        Raises:
            UserError: no frame has an energy.
        """
        if self.n_frames == 0:
            raise UserError("no frame has an energy, so no reference energy can be fitted")
        seen = self.factor[:, :-1].any(axis=0)
        numbers, rows = self.numbers[seen], self.factor[:, :-1][:, seen]
        given = np.full(N_ELEMENTS, np.nan) if prior is None else np.asarray(prior, dtype=np.float64)
        known = np.isfinite(given[numbers])
        mean = float(rows.sum(axis=1) @ self.factor[:, -1]) / self.n_frames
        centre = np.where(known, given[numbers], mean)  # a mean energy per atom is neutral between elements
        left, singular, right = np.linalg.svd(rows, full_matrices=False)
        determined = singular**2 > _RANK_TOLERANCE * singular[0] ** 2
        strength, directions = singular[determined] ** 2, right[determined].T
        offset = (left[:, determined].T @ (self.factor[:, -1] - rows @ centre)) / singular[determined]
        reference = np.where(np.isfinite(given), given, 0.0)
        reference[numbers] = centre + directions @ offset
        if ridge is None and known.any():
            ridge = self.residual(reference)[1] ** 2 / PRIOR_WIDTH**2
        if ridge:  # shrink each direction toward the prior by what the data know of it
            reference[numbers] = centre + directions @ (offset * strength / (strength + ridge))
        average, scatter = self.residual(reference)
        return ReferenceFit(
            reference=reference,
            rank=int(determined.sum()),
            n_elements=len(numbers),
            null_space=describe_null_space(rows.T @ rows, directions, numbers),
            residual_std=scatter,
            residual_mean=average,
            n_frames=self.n_frames,
        )


def fit_reference(
    compositions: ArrayLike,
    numbers: ArrayLike,
    energies: ArrayLike,
    prior: NDArray[np.float64] | None = None,
    *,
    ridge: float | None = None,
) -> ReferenceFit:
    """Least-squares energy per element of frames in memory; see :class:`CompositionFit`."""
    sums = CompositionFit()
    sums.add(compositions, numbers, energies)
    return sums.fit(prior, ridge=ridge)


def composition_fit(dataset: Dataset | View) -> CompositionFit:
    """The fit's sums over a data set, read in pieces."""
    whole = dataset if isinstance(dataset, Dataset) else dataset.dataset
    sums, energies = CompositionFit(), dataset.energies
    for piece, counts in dataset.composition_chunks():
        sums.add(counts, whole.elements, energies[piece])
    return sums


def fit_dataset_reference(
    dataset: Dataset | View, prior: NDArray[np.float64] | None = None, *, ridge: float | None = None
) -> ReferenceFit:
    """Least-squares energy per element of a data set, read in pieces."""
    return composition_fit(dataset).fit(prior, ridge=ridge)


def residuals(dataset: Dataset | View, reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(E − Σ n_k b_k) / N`` of every frame, eV/atom, ``[n_frames]``; NaN where there is no energy.

    Args:
        dataset: frames.
        reference: b, eV by atomic number, ``[119]``.
    """
    whole = dataset if isinstance(dataset, Dataset) else dataset.dataset
    energy_of, rest = reference[whole.elements], np.empty(len(dataset))
    energies = dataset.energies
    for piece, counts in dataset.composition_chunks():
        rest[piece] = (energies[piece] - counts @ energy_of) / counts.sum(axis=1)
    return rest


def describe_null_space(
    matrix: NDArray[np.float64], directions: NDArray[np.float64], numbers: NDArray[np.int64]
) -> list[str]:
    """What the compositions leave open, a sentence for each set of elements bound together.

    Args:
        matrix: normal matrix of the composition fractions, ``[n, n]``.
        directions: its determined eigenvectors, ``[n, rank]``.
        numbers: atomic numbers of its rows, ``[n]``.
    """
    from scipy.sparse.csgraph import connected_components

    open_part = np.eye(len(numbers)) - directions @ directions.T  # projector on what is not determined
    linked = np.abs(open_part) > 1e-5
    undetermined = np.diag(open_part) > 1e-5
    n_parts, part = connected_components(linked, directed=False)
    sentences = []
    for k in range(n_parts):
        members = np.flatnonzero((part == k) & undetermined)
        if len(members) < 2:
            continue
        block = matrix[np.ix_(members, members)]
        names = [SYMBOLS[z] for z in numbers[members]]
        listed = ", ".join(names[:-1]) + " and " + names[-1]
        values, vectors = np.linalg.eigh(block)
        independent = int((values > _RANK_TOLERANCE * values[-1]).sum())
        if independent == 1:
            few = len(members) <= _FORMULA
            ratio = _whole_numbers(np.abs(vectors[:, -1])) if few else None
            what = reduced_formula(numbers[members], ratio) if ratio is not None else "in one proportion"
            where = f"only {what}" if len(members) == len(numbers) else f"always {what}"
            sentences.append(f"{where}: {listed} cannot be told apart")
        else:
            sentences.append(
                f"{listed}: {len(members)} elements in only {independent} independent proportions"
            )
    return sentences


def _whole_numbers(ratio: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """Small whole numbers in the given ratio; None if there are none up to 200."""
    ratio = ratio / ratio.min()
    for factor in range(1, 201):
        rounded = np.rint(ratio * factor)
        if np.abs(ratio * factor - rounded).max() < 1e-3 * factor**0.5 and rounded.min() > 0:
            return rounded.astype(np.int64)
    return None
