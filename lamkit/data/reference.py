"""Reference energies per element and the statistics that normalise a head.

``E ≈ Σ_k n_k b_k`` is fitted per atom: with ``x = n / N`` and ``y = E / N`` minimise ``Σ_f (y − x·b)²``.
The normal equations are summed in float64 over pieces of the data, solved in the directions that the data
determine, and refined on the residual, which restores the digits that squaring costs: energies of
−17660 eV keep their meV. What the data leave open is taken from a prior and reported in chemical words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lamkit.data.dataset import Dataset, View
from lamkit.data.frame import SYMBOLS, reduced_formula
from lamkit.errors import UserError

N_ELEMENTS = 119  # arrays by atomic number; index 0 stands for no element
PRIOR_WIDTH = 3.0  # eV: how far a reference energy may reasonably be from its prior
_RANK_TOLERANCE = 1e-9  # smallest over largest eigenvalue of the normal matrix that counts as determined
_REFINEMENTS = 3
_KEEP = 50_000_000  # counts held in memory between the passes over the data: 200 MB

Pieces = Callable[[], Iterable[tuple[NDArray, NDArray]]]  # () -> (counts [n, k], energies [n]) ...


@dataclass(frozen=True)
class ReferenceFit:
    """Result of :func:`fit_reference`.

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


@dataclass(frozen=True)
class Statistics:
    """What a head's normalisers need.

    Attributes:
        energy_mean: mean of the energy per atom after the reference is taken off, eV/atom.
        energy_std: its standard deviation, eV/atom.
        forces_rms: root mean square of all force components, eV/Å; NaN without forces.
        stress_rms: root mean square of the known stress components, eV/Å³; NaN without stress.
        n_frames: number of frames.
        mean_atoms: mean number of atoms of a frame.
    """

    energy_mean: float
    energy_std: float
    forces_rms: float
    stress_rms: float
    n_frames: int
    mean_atoms: float


def fit_reference(
    compositions: ArrayLike,
    numbers: ArrayLike,
    energies: ArrayLike,
    prior: NDArray[np.float64] | None = None,
    *,
    ridge: float | None = None,
) -> ReferenceFit:
    """Least-squares energy per element.

    Args:
        compositions: atoms of each element in each frame, ``[n_frames, n_elements]``.
        numbers: atomic numbers that the columns stand for, ``[n_elements]``.
        energies: total energies in eV, ``[n_frames]``; NaN where unknown.
        prior: eV by atomic number, ``[119]``, NaN where unknown: the answer where the data have none.
            Without it, elements that the data cannot tell apart share the mean energy per atom.
        ridge: strength of the pull toward the prior, in frames of a pure element; None chooses the
            Bayesian value, (scatter of the data / width of the prior)², and none without a prior.

    Raises:
        UserError: no frame has an energy.
    """
    counts, values = np.asarray(compositions), np.asarray(energies, dtype=np.float64)
    return _fit(lambda: [(counts, values)], np.asarray(numbers, dtype=np.int64), prior, ridge)


def fit_dataset_reference(
    dataset: Dataset | View, prior: NDArray[np.float64] | None = None, *, ridge: float | None = None
) -> ReferenceFit:
    """:func:`fit_reference` of a data set, reading it in pieces."""
    energies = dataset.energies
    elements = dataset.elements if isinstance(dataset, Dataset) else dataset.dataset.elements

    def pieces() -> Iterator[tuple[NDArray, NDArray]]:
        for piece, counts in dataset.composition_chunks():
            yield counts, energies[piece]

    small = len(dataset) * len(elements) < _KEEP
    held = list(pieces()) if small else []
    return _fit((lambda: held) if small else pieces, np.array(elements, dtype=np.int64), prior, ridge)


def _fit(
    pieces: Pieces, numbers: NDArray[np.int64], prior: NDArray[np.float64] | None, ridge: float | None
) -> ReferenceFit:
    matrix, mean, n_frames = _normal_matrix(pieces, len(numbers))
    seen = np.diag(matrix) > 0
    given = np.full(N_ELEMENTS, np.nan) if prior is None else np.asarray(prior, dtype=np.float64)
    known = np.isfinite(given[numbers])
    centre = np.where(known, given[numbers], mean)  # a mean energy per atom is neutral between elements
    matrix, scale = matrix[np.ix_(seen, seen)], np.linalg.eigvalsh(matrix[np.ix_(seen, seen)])[-1]
    values, vectors = np.linalg.eigh(matrix)
    determined = values > _RANK_TOLERANCE * scale
    base, directions = values[determined], vectors[:, determined]
    solution = centre.copy()
    for _ in range(_REFINEMENTS):  # to the exact least squares in what is determined
        gradient, _, _ = _residual(pieces, solution)
        solution[seen] += directions @ ((directions.T @ gradient[seen]) / base)
    if ridge is None and known.any():
        _, total, square = _residual(pieces, solution)
        ridge = max(square / n_frames - (total / n_frames) ** 2, 0.0) / PRIOR_WIDTH**2
    if ridge:  # shrink each direction toward the prior by what the data know of it
        offset = directions.T @ (solution - centre)[seen]
        solution[seen] = centre[seen] + directions @ (offset * base / (base + ridge))
    _, total, square = _residual(pieces, solution)
    reference = np.where(np.isfinite(given), given, 0.0)
    reference[numbers[seen]] = solution[seen]
    average = total / n_frames
    return ReferenceFit(
        reference=reference,
        rank=int(determined.sum()),
        n_elements=int(seen.sum()),
        null_space=describe_null_space(matrix, directions, numbers[seen]),
        residual_std=float(np.sqrt(max(square / n_frames - average**2, 0.0))),
        residual_mean=float(average),
        n_frames=n_frames,
    )


def _fractions(counts: NDArray, energies: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Composition as fractions and energy per atom of the frames that have an energy."""
    use = np.isfinite(energies)
    counts = np.asarray(counts[use], dtype=np.float64)
    atoms = counts.sum(axis=1)
    return counts / atoms[:, None], energies[use] / atoms


def _normal_matrix(pieces: Pieces, n_elements: int) -> tuple[NDArray[np.float64], float, int]:
    """``Σ xᵀx``, mean energy per atom and number of frames."""
    matrix, total, n_frames = np.zeros((n_elements, n_elements)), 0.0, 0
    for counts, energies in pieces():
        x, y = _fractions(counts, energies)
        matrix += x.T @ x
        total += y.sum()
        n_frames += len(y)
    if n_frames == 0:
        raise UserError("no frame has an energy, so no reference energy can be fitted")
    return matrix, total / n_frames, n_frames


def _residual(pieces: Pieces, solution: NDArray[np.float64]) -> tuple[NDArray[np.float64], float, float]:
    """``Σ x r``, ``Σ r`` and ``Σ r²`` of the residual ``r = y − x·b``, eV/atom."""
    gradient, total, square = np.zeros(len(solution)), 0.0, 0.0
    for counts, energies in pieces():
        x, y = _fractions(counts, energies)
        rest = y - x @ solution
        gradient += x.T @ rest
        total += float(rest.sum())
        square += float(rest @ rest)
    return gradient, total, square


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
            ratio = _whole_numbers(np.abs(vectors[:, -1]))
            what = reduced_formula(numbers[members], ratio) if ratio is not None else "one fixed proportion"
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


@dataclass
class _Sum:
    """Running mean square."""

    square: float = 0.0
    n: int = 0

    def add(self, values: NDArray) -> None:
        values = np.asarray(values, dtype=np.float64)
        values = values[np.isfinite(values)]
        self.square += float(values @ values)
        self.n += len(values)

    def rms(self) -> float:
        return float(np.sqrt(self.square / self.n)) if self.n else float("nan")


def statistics(dataset: Dataset | View, reference: NDArray[np.float64]) -> Statistics:
    """Statistics of the labels of a data set, read piece by piece.

    Args:
        dataset: frames.
        reference: energy per element in eV by atomic number, ``[119]``.
    """
    view = dataset if isinstance(dataset, View) else dataset.subset(np.arange(len(dataset)))
    numbers = np.array(view.dataset.elements, dtype=np.int64)
    energies, n_atoms = view.energies, view.n_atoms
    rest = np.empty(len(view))
    for piece, counts in view.composition_chunks():
        rest[piece] = energies[piece] - counts @ reference[numbers]
    rest = (rest / n_atoms)[np.isfinite(rest)]
    forces, stress = _Sum(), _Sum()
    for _, system, place, rows in view.dataset.blocks(view.indices):
        arrays = place.arrays()
        for start in range(0, len(rows), 512):
            some = rows[start : start + 512]
            if "force" in arrays:
                values = np.asarray(arrays["force"][some])
                if system.mixed:
                    real = np.repeat(arrays["real_atom_types"][some] >= 0, 3, axis=1)
                    values = values[real]
                forces.add(values.ravel())
            stress.add(_stress_components(arrays, some))
    return Statistics(
        energy_mean=float(rest.mean()) if len(rest) else 0.0,
        energy_std=float(rest.std()) if len(rest) else 1.0,
        forces_rms=forces.rms(),
        stress_rms=stress.rms(),
        n_frames=len(view),
        mean_atoms=float(n_atoms.mean()),
    )


def _stress_components(arrays: object, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Known stress components of rows of a set, eV/Å³, flat."""
    if "stress" in arrays:  # type: ignore[operator]
        return np.asarray(arrays["stress"][rows]).ravel()  # type: ignore[index]
    if "virial" in arrays and "box" in arrays:  # type: ignore[operator]
        virial = np.asarray(arrays["virial"][rows], dtype=np.float64)  # type: ignore[index]
        box = np.asarray(arrays["box"][rows], dtype=np.float64).reshape(-1, 3, 3)  # type: ignore[index]
        volume = np.abs(np.linalg.det(box))
        return (-virial[:, [0, 4, 8, 5, 2, 1]] / volume[:, None]).ravel()
    return np.empty(0)
