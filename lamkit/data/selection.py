"""Which frames are worth a label: geometric filters, frame descriptors and farthest-point selection.

Plain NumPy. Features may be memory-mapped; distances are worked out in blocks, so that the memory needed is
one number per frame, however many frames there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lamkit.config import Model
from lamkit.data.frame import SYMBOLS, Frame
from lamkit.data.neighbors import neighbor_list

BLOCK = 65536  # rows of features that are in memory at once
SAME = 1e-4  # features are float32: below this part of the largest distance two frames are the same


class Limits(Model):
    """What a frame must keep to in order to count as sane.

    Attributes:
        min_distance: smallest allowed distance between two atoms, as a fraction of the sum of their covalent
            radii (a bond is near 1, a thermal collision rarely below 0.6).
        max_force: largest allowed force on an atom, eV/Å; None for no limit.
        max_skew: largest allowed deviation of a cell angle from 90 degrees; None for no limit.
    """

    min_distance: float = 0.5
    max_force: float | None = 50.0
    max_skew: float | None = 75.0


def why_not(frame: Frame, limits: Limits) -> str | None:
    """Why ``frame`` is not sane, in words; None for a frame that keeps to ``limits``."""
    if not np.isfinite(frame.positions).all() or not np.isfinite(frame.cell).all():
        return "positions are not finite"
    if limits.max_skew is not None and frame.pbc.all():
        skew = np.abs(90.0 - _angles(frame.cell)).max()
        if skew > limits.max_skew:
            return "cell is too skewed"
    gap, pair = closest_pair(frame, limits.min_distance)
    if gap < limits.min_distance:
        return f"{pair} too close"
    if frame.forces is not None:
        largest = np.linalg.norm(frame.forces, axis=1).max() if len(frame) else 0.0
        if not np.isfinite(largest):
            return "forces are not finite"
        if limits.max_force is not None and largest > limits.max_force:
            return "force too large"
    return None


def closest_pair(frame: Frame, search: float = 1.0) -> tuple[float, str]:
    """Smallest distance in units of the sum of covalent radii, and the elements it is between.

    Args:
        frame: the structure.
        search: look no further than this; without a pair that close the answer is ``(inf, "")``.
    """
    from ase.data import covalent_radii

    radii = covalent_radii[frame.numbers]
    if len(frame) == 0 or search <= 0:
        return np.inf, ""
    cutoff = 2 * float(radii.max()) * search
    pairs = neighbor_list(frame.positions, frame.cell, frame.pbc, cutoff, None)
    if not len(pairs.senders):
        return np.inf, ""
    ratio = pairs.distances / (radii[pairs.senders] + radii[pairs.receivers])
    k = int(ratio.argmin())
    names = sorted(SYMBOLS[frame.numbers[i]] for i in (pairs.senders[k], pairs.receivers[k]))
    return float(ratio[k]), "-".join(names)


def _angles(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    unit = cell / np.maximum(np.linalg.norm(cell, axis=1, keepdims=True), 1e-12)
    cosines = [unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]]
    return np.degrees(np.arccos(np.clip(cosines, -1, 1)))


def describe(latent: NDArray[np.floating]) -> NDArray[np.float32]:
    """Descriptor of a frame from its atoms' features: their mean and their standard deviation.

    Both are intensive, so that large frames are not favoured; the spread is what tells a frame with one odd
    atom from an ordinary one.

    Args:
        latent: features of the atoms, ``[n_atoms, n_features]``.

    Returns:
        ``[2 n_features]``.
    """
    latent = np.asarray(latent, dtype=np.float64)
    return np.concatenate([latent.mean(axis=0), latent.std(axis=0)]).astype(np.float32)


class Choice(NamedTuple):
    """Frames in the order in which they were chosen.

    Attributes:
        indices: ``[n_chosen]``.
        distances: distance of each to all that were chosen before it, at the time of choosing, in units of
            standard deviations per feature, ``[n_chosen]``. It never rises (after the first).
        rest: largest distance of a frame not chosen to its nearest chosen one.
        redundancy: how much of the spread the choice has covered: 0 nothing, 1 the rest repeats what was
            chosen; None where nobody looked.
    """

    indices: NDArray[np.int64]
    distances: NDArray[np.float64]
    rest: float
    redundancy: float | None


def farthest_points(
    features: NDArray[np.floating], n: int, *, taken: NDArray[np.floating] | None = None
) -> Choice:
    """Choose ``n`` rows, each the farthest from all chosen so far (Gonzalez 1985: at most twice the optimum).

    The first is the row farthest from the mean. Frames that repeat a chosen one are never added, so fewer
    than ``n`` may come back. The result depends on the features alone; ties go to the lowest index.

    Args:
        features: ``[n_frames, n_features]``; each column is standardised first.
        n: how many.
        taken: features of frames chosen in an earlier round, ``[n_taken, n_features]``: new ones keep away
            from these.
    """
    n_frames = len(features)
    if n_frames == 0 or n <= 0:
        return Choice(np.empty(0, dtype=np.int64), np.empty(0), 0.0, 1.0)
    mean, scale = _moments(features)
    nearest = np.full(n_frames, np.inf)
    for row in taken if taken is not None else ():
        np.minimum(nearest, _distances(features, row, scale), out=nearest)
    from_mean = _distances(features, mean, scale)
    threshold = SAME * max(float(from_mean.max()), 1e-12)
    indices: list[int] = []
    distances: list[float] = []
    candidate = nearest if taken is not None and len(taken) else from_mean
    while len(indices) < n:
        k = int(candidate.argmax())
        if candidate[k] <= threshold and (indices or candidate is nearest):
            break
        indices.append(k)
        distances.append(float(candidate[k]))
        np.minimum(nearest, _distances(features, features[k], scale), out=nearest)
        nearest[k] = 0.0
        candidate = nearest
    rest, largest = float(nearest.max()), max(distances, default=0.0)
    return Choice(
        np.array(indices, dtype=np.int64),
        np.array(distances),
        rest,
        1.0 - rest / largest if largest > 0 else 1.0,
    )


def random_points(n_frames: int, n: int, seed: int) -> NDArray[np.int64]:
    """``n`` of ``n_frames`` at random, in random order."""
    return np.random.default_rng(seed).permutation(n_frames)[:n]


def _moments(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of each column and 1/standard deviation (0 for a column that does not vary), read in blocks."""
    blocks = range(0, len(features), BLOCK)
    mean = sum(np.asarray(features[i : i + BLOCK], np.float64).sum(0) for i in blocks) / len(features)
    square = sum(((np.asarray(features[i : i + BLOCK], np.float64) - mean) ** 2).sum(0) for i in blocks)
    deviation = np.sqrt(square / len(features))
    # What varies less than float32 can tell is not a feature but rounding.
    flat = (deviation <= 1e-6 * np.abs(mean)) | (deviation <= 1e-9 * deviation.max())
    return mean, np.where(flat, 0.0, 1.0 / np.where(flat, 1.0, deviation))


def _distances(
    features: NDArray[np.floating], point: NDArray[np.floating], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Root-mean-square difference per feature between each row and ``point``, in standard deviations."""
    result = np.empty(len(features))
    used = max(int((scale > 0).sum()), 1)
    point = np.asarray(point, dtype=np.float64)
    for i in range(0, len(features), BLOCK):
        difference = (features[i : i + BLOCK] - point) * scale
        result[i : i + BLOCK] = np.sqrt(np.einsum("ij,ij->i", difference, difference) / used)
    return result


def spread_evenly(n_items: int, n: int, offset: int = 0) -> Sequence[int]:
    """``n`` of ``n_items`` at even spacing, shifted by ``offset``; all of them if there are fewer.

    Frames that follow each other in a trajectory are alike; evenly spaced ones are the most different that
    can be had without looking inside.
    """
    n = min(n, n_items)
    return sorted({(int((i + 0.5) * n_items / n) + offset) % n_items for i in range(n)})
