"""What a potential makes of matter: pair distribution, mean-square displacement, and whether two models agree.

Averages of a trajectory are correlated in time; their errors come from block averages (Flyvbjerg and Petersen,
J. Chem. Phys. 91, 461, 1989): each trajectory is cut into blocks, and the means of the blocks count as independent.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamkit.data.frame import SYMBOLS, Frame
from lamkit.data.neighbors import neighbor_list

BLOCKS = 5  # of each trajectory
BIN = 0.1  # Å, of pair distributions


@dataclass(frozen=True)
class Curve:
    """A property as a function of something, with the error of its mean.

    Attributes:
        x: distances in Å, or times in ps, ``[n]``.
        mean: ``[n]``.
        error: standard error of the mean, from blocks, ``[n]``.
    """

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    error: NDArray[np.float64]


def deviation(a: Curve, b: Curve) -> float:
    """How far two curves are apart, in standard errors of their difference.

    Root mean square of the difference over that of its standard error: about 1 where both are samples of the
    same, and little disturbed by single points whose error happens to come out as zero.
    """
    difference = float(np.sqrt(np.mean(np.square(a.mean - b.mean))))
    error = float(np.sqrt(np.mean(np.square(a.error) + np.square(b.error))))
    if difference <= 1e-12:
        return 0.0
    return difference / error if error > 0 else float("inf")


def pair_distributions(
    trajectories: Sequence[Sequence[Frame]], cutoff: float = 6.0, blocks: int = BLOCKS
) -> dict[str, Curve]:
    """Radial distribution functions g(r) of every pair of elements.

    Args:
        trajectories: frames of each, with the same atoms in all frames.
        cutoff: Å.
        blocks: of each trajectory.

    Returns:
        ``"O-H"`` → g(r); structures that are not periodic have no density, and there it is the number of
        neighbours per Å instead.
    """
    edges = np.arange(0.0, cutoff + 0.5 * BIN, BIN)
    counts: dict[str, list[NDArray]] = {}
    for part in _blocks(trajectories, blocks):
        for pair, values in _pairs_of_block(part, edges).items():
            counts.setdefault(pair, []).append(values)
    return {pair: _curve(0.5 * (edges[1:] + edges[:-1]), values) for pair, values in counts.items()}


def _pairs_of_block(frames: Sequence[Frame], edges: NDArray) -> dict[str, NDArray]:
    numbers = frames[0].numbers
    kinds = [int(z) for z in np.unique(numbers)]
    found = {pair: np.zeros(len(edges) - 1) for pair in itertools.combinations_with_replacement(kinds, 2)}
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    for frame in frames:
        pairs = neighbor_list(frame.positions, frame.cell, frame.pbc, float(edges[-1]), None)
        centre, other = numbers[pairs.senders], numbers[pairs.receivers]
        for (a, b), total in found.items():
            chosen = (centre == a) & (other == b)
            histogram = np.histogram(pairs.distances[chosen], edges)[0] / max((numbers == a).sum(), 1)
            if frame.pbc.all():
                density = (numbers == b).sum() / abs(np.linalg.det(frame.cell))
                total += histogram / (shells * density)
            else:
                total += histogram / np.diff(edges)
    return {f"{SYMBOLS[a]}-{SYMBOLS[b]}": total / len(frames) for (a, b), total in found.items()}


def displacements(
    trajectories: Sequence[Sequence[Frame]], interval: float, blocks: int = BLOCKS
) -> dict[str, Curve]:
    """Mean-square displacement of every element against time, Å², without the motion of the centre of mass.

    Positions must not be wrapped into the cell. Within a block all pairs of frames count, up to half its length.

    Args:
        trajectories: frames of each, at even intervals.
        interval: ps between frames.
        blocks: of each trajectory.
    """
    found: dict[str, list[NDArray]] = {}
    for part in _blocks(trajectories, blocks):
        lags = max(len(part) // 2, 1)
        paths = np.array([f.positions - f.positions.mean(axis=0) for f in part])
        moved = [np.square(paths[k:] - paths[:-k]).sum(axis=2).mean(axis=0) for k in range(1, lags + 1)]
        for z in np.unique(part[0].numbers):
            chosen = part[0].numbers == z
            found.setdefault(SYMBOLS[z], []).append(np.array([m[chosen].mean() for m in moved]))
    shortest = min((len(v) for values in found.values() for v in values), default=0)
    times = interval * np.arange(1, shortest + 1)
    return {s: _curve(times, [v[:shortest] for v in values]) for s, values in found.items()}


def diffusion(curve: Curve) -> tuple[float, float]:
    """Diffusion coefficient in Å²/ps and its error: a sixth of the slope of the second half of the curve."""
    half = len(curve.x) // 2
    x, y = curve.x[half:] - curve.x[half:].mean(), curve.mean[half:]
    if len(x) < 2:
        return float("nan"), float("nan")
    slope = float((x * (y - y.mean())).sum() / np.square(x).sum())
    spread = float(curve.error[-1] / max(curve.x[-1], 1e-12))
    return slope / 6.0, spread / 6.0


def _blocks(trajectories: Sequence[Sequence[Frame]], blocks: int) -> list[Sequence[Frame]]:
    """Consecutive parts of equal length (what is left over at the start is left out), of two frames at least."""
    parts = []
    for frames in trajectories:
        length = max(len(frames) // blocks, 2)
        ends = range(len(frames), length - 1, -length)
        parts += [frames[end - length : end] for end in ends][:blocks]
    return parts


def _curve(x: NDArray, values: Sequence[NDArray]) -> Curve:
    stack = np.array(values)
    n = len(stack)
    error = stack.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.zeros(stack.shape[1])
    return Curve(np.asarray(x, dtype=float), stack.mean(axis=0), error)


def worst(a: Mapping[str, Curve], b: Mapping[str, Curve]) -> dict[str, float]:
    """The :func:`deviation` of each curve that both have."""
    return {name: deviation(curve, b[name]) for name, curve in a.items() if name in b}
