"""Which frames surprise most: choice by the entropy of atomic surroundings, without any model.

After QUESTS (Schwalbe-Koda et al., Nat. Commun. 16, 4014, 2025): each atom is described by sorted inverse distances
to and among its neighbours; a Gaussian kernel density over the chosen atoms says how well each other atom is
covered. What differs from it: distances count in sums of covalent radii, so that the elements matter; a frame's
score is the mean over its atoms, so that large frames are not favoured; and the same number of atoms of every
frame takes part, so that memory is bounded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lamkit.data.frame import Frame
from lamkit.data.neighbors import neighbor_list
from lamkit.data.selection import BLOCK, Choice

ATOMS = 24  # of each frame, evenly spaced over it
NEIGHBORS = 32  # numbers in either half of a descriptor: the largest
CUTOFF = 5.0  # Å
BANDWIDTH = 0.04  # of the kernel; QUESTS' 0.015 / Å times a typical sum of covalent radii
SAME = 1e-6  # surprise that is rounding
FLOOR = -700.0  # log of the smallest density: exp(-745) is zero in double precision


def surroundings(frame: Frame) -> NDArray[np.float32]:
    """Descriptors of ``ATOMS`` atoms of a frame, flat; a smaller frame is filled up with NaN.

    Of an atom with neighbours j at r_j, the largest first: w(r_j) / d_j, and the mean over j of the sorted
    sqrt(w(r_j) w(r_l)) / d_jl, with w = (1 - (r / cutoff)²)² and d the distance in sums of covalent radii.

    Returns:
        ``[ATOMS * 2 * NEIGHBORS]``.
    """
    from ase.data import covalent_radii

    n = len(frame)
    centres = np.unique(np.linspace(0, n - 1, min(n, ATOMS)).round().astype(int))
    pairs = neighbor_list(frame.positions, frame.cell, frame.pbc, CUTOFF, None)
    radii = covalent_radii[frame.numbers]
    result = np.full((ATOMS, 2, NEIGHBORS), np.nan)
    result[: len(centres)] = 0.0
    first = np.searchsorted(pairs.senders, np.arange(n + 1))
    for row, i in enumerate(centres):
        edges = slice(first[i], first[i + 1])
        reach, of = pairs.vectors[edges], radii[pairs.receivers[edges]]
        weight = (1.0 - (pairs.distances[edges] / CUTOFF) ** 2) ** 2
        own = np.sort(weight * (radii[i] + of) / pairs.distances[edges])[::-1][:NEIGHBORS]
        result[row, 0, : len(own)] = own
        result[row, 1, : len(own)] = _among(reach, of, weight)[:NEIGHBORS]
    return result.reshape(-1).astype(np.float32)


def _among(reach: NDArray, radii: NDArray, weight: NDArray) -> NDArray:
    """Mean over neighbours of their sorted, weighted inverse distances to the other neighbours."""
    if not len(reach):
        return np.zeros(0)
    distances = np.linalg.norm(reach[:, None] - reach[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    inverse = np.sqrt(weight[:, None] * weight) * (radii[:, None] + radii) / np.maximum(distances, 1e-3)
    return np.sort(inverse, axis=1)[:, ::-1].mean(axis=0)


def most_surprising(
    features: NDArray[np.floating], n: int, *, taken: NDArray[np.floating] | None = None
) -> Choice:
    """Choose ``n`` frames, each the one whose atoms are covered worst by those chosen so far.

    An atom's surprise is δH = -log of the sum of kernels at the chosen atoms: zero where one of them is the
    same, below zero where several are. Frames of no surprise are never added, so fewer than ``n`` may come back.

    Args:
        features: rows of :func:`surroundings`, ``[n_frames, ATOMS * 2 * NEIGHBORS]``; may be memory-mapped.
        n: how many.
        taken: rows of frames that were chosen in an earlier round.

    Returns:
        The choice; ``distances`` are mean surprises at the time of choosing, ``redundancy`` is the part of the
        other frames' atoms that bring no surprise.
    """
    n_frames = len(features)
    if n_frames == 0 or n <= 0:
        return Choice(np.empty(0, dtype=np.int64), np.empty(0), 0.0, 1.0)
    absent = np.isnan(np.asarray(features[:, :: features.shape[1] // ATOMS]))
    log_density = np.where(absent, np.nan, FLOOR)
    for row in taken if taken is not None else ():
        _cover(features, row, log_density)
    indices: list[int] = []
    scores: list[float] = []
    left = np.ones(n_frames, dtype=bool)
    while len(indices) < min(n, n_frames):
        surprise = np.where(left, -np.nanmean(log_density, axis=1), -np.inf)
        fresh = not indices and (taken is None or not len(taken))
        k = _farthest_from_mean(features) if fresh else int(surprise.argmax())
        if not fresh and surprise[k] <= SAME:
            break
        indices.append(k)
        scores.append(0.0 if fresh else float(surprise[k]))
        left[k] = False
        _cover(features, features[k], log_density)
    rest = -log_density[left]
    largest = float(np.nanmean(rest, axis=1).max()) if left.any() else 0.0
    redundancy = float((rest <= SAME).sum() / np.isfinite(rest).sum()) if left.any() else 1.0
    if len(scores) > 1:
        scores[0] = max(scores[1:])  # the first surprises without bound
    return Choice(np.array(indices, dtype=np.int64), np.array(scores), largest, redundancy)


def _cover(features: NDArray[np.floating], chosen: NDArray[np.floating], log_density: NDArray) -> None:
    """Add the kernels of a chosen frame's atoms, in place; features are read in blocks."""
    centres = np.asarray(chosen, np.float64).reshape(ATOMS, -1)
    centres = centres[np.isfinite(centres[:, 0])]
    squares = np.square(centres).sum(axis=1)
    step = max(BLOCK // (4 * ATOMS), 1)
    for start in range(0, len(features), step):
        rows = np.asarray(features[start : start + step], np.float64).reshape(-1, centres.shape[1])
        distance = np.square(rows).sum(axis=1)[:, None] + squares - 2.0 * rows @ centres.T
        exponent = -np.maximum(distance, 0.0) / (2.0 * BANDWIDTH**2)
        highest = exponent.max(axis=1)
        new = highest + np.log(np.exp(exponent - highest[:, None]).sum(axis=1))
        part = log_density[start : start + step]
        with np.errstate(invalid="ignore"):  # places of atoms that a small frame does not have stay NaN
            part[:] = np.logaddexp(part, np.maximum(new, FLOOR).reshape(part.shape))


def _farthest_from_mean(features: NDArray[np.floating]) -> int:
    """The frame whose atoms are on average farthest from the mean atom of all."""
    step = max(BLOCK // (4 * ATOMS), 1)
    blocks = range(0, len(features), step)
    total, count = np.zeros(features.shape[1] // ATOMS), 0
    for i in blocks:
        rows = np.asarray(features[i : i + step], np.float64).reshape(-1, len(total))
        total += np.nansum(rows, axis=0)
        count += int(np.isfinite(rows[:, 0]).sum())
    far = []
    for i in blocks:
        rows = np.asarray(features[i : i + step], np.float64).reshape(-1, ATOMS, len(total))
        far.append(np.nanmean(np.square(rows - total / count).sum(axis=2), axis=1))
    return int(np.concatenate(far).argmax())
