"""Frames that show the same structure, wherever they come from: they must not stand in two parts of a split.

Two frames are alike where the atoms see their neighbours at the same distances, to 0.01 Å. That does not depend
on the order of the atoms, on the origin, on the orientation or on the choice of the cell: a supercell is like
its primitive cell.

Compared are, for the atoms of each element, the distances to the six nearest neighbours and the surroundings
``Σ_j √Z_j / 3 · (1 − r_ij²/R²)³`` within R = 5 Å: of each of these the smallest value, the largest, the mean and five
in between. Only frames of one composition and nearly one volume per atom are looked at, so that large data sets
cost little.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lamkit.data.dataset import Dataset, View
from lamkit.data.frame import Frame
from lamkit.data.neighbors import neighbor_list

REACH = 5.0  # Å
TOLERANCE = 0.01  # Å of a distance; the surroundings change by about as much when one neighbour moves so far
NEAREST = 6  # neighbours whose distances are compared
VOLUME = 0.01  # of the volume per atom, relative
_BETWEEN = (0.1, 0.3, 0.5, 0.7, 0.9)  # quantiles; a supercell has the same ones
_HASH_SEED = 20260

Told = Callable[[int, int], None]


def like_classes(
    view: Dataset | View, units: NDArray[np.integer], told: Told | None = None
) -> NDArray[np.int64]:
    """Class of each frame, ``[n_frames]``: frames of different units that are alike have the same class.

    Frames within a unit are not compared for their own sake, so classes are complete between units only.

    Args:
        view: frames.
        units: what each frame belongs to anyway, such as its group, ``[n_frames]``.
        told: called with (frames looked at, frames to look at).
    """
    classes = np.arange(len(view), dtype=np.int64)
    runs = _candidates(view, units)
    total, done = sum(len(run) for run in runs), 0
    for run in runs:
        vectors = []
        for i in run:
            vectors.append(descriptor(view.frame(int(i))))
            done += 1
            if told is not None:
                told(done, total)
        classes[run] = run[_joined(np.array(vectors))]
    return classes


def composition_hashes(view: Dataset | View) -> NDArray[np.int64]:
    """A number for the reduced composition of each frame, ``[n_frames]``."""
    hashes = np.empty(len(view), dtype=np.int64)
    n_elements = len((view if isinstance(view, Dataset) else view.dataset).elements)
    weights = np.random.default_rng(_HASH_SEED).integers(1, 2**62, n_elements)
    for piece, counts in view.composition_chunks():
        reduced = counts // np.gcd.reduce(counts, axis=1)[:, None]
        hashes[piece] = (reduced * weights).sum(axis=1)  # modulo 2**64
    return hashes


def _candidates(view: Dataset | View, units: NDArray[np.integer]) -> list[NDArray[np.int64]]:
    """Runs of frames, of one composition and periodicity and of volumes that follow closely, of several units."""
    dataset, indices = (
        (view, np.arange(len(view))) if isinstance(view, Dataset) else (view.dataset, view.indices)
    )
    hashes = composition_hashes(view)
    sizes = np.zeros(len(view))
    for places, system, place, rows in dataset.blocks(indices):
        flags = int(system.pbc @ (1, 2, 4))
        hashes[places] += flags
        if flags == 7:
            boxes = np.asarray(place.arrays()["box"][rows], dtype=np.float64).reshape(-1, 3, 3)
            sizes[places] = np.abs(np.linalg.det(boxes))
    sizes = np.where(sizes > 0, np.log(np.maximum(sizes, 1e-6) / view.n_atoms), 0.0)
    order = np.lexsort((sizes, hashes))
    apart = (np.diff(hashes[order]) != 0) | (np.diff(sizes[order]) > VOLUME)
    runs = np.split(order, np.flatnonzero(apart) + 1)
    return [run for run in runs if len(run) > 1 and (units[run] != units[run[0]]).any()]


def descriptor(frame: Frame) -> NDArray[np.float64]:
    """What is compared of a frame; as long for all frames of the same elements."""
    edges = neighbor_list(frame.positions, frame.cell, frame.pbc, REACH)
    near = (1.0 - (edges.distances / REACH) ** 2) ** 3
    weight = np.sqrt(frame.numbers[edges.receivers]) / 3.0
    values = np.full((len(frame), NEAREST + 1), REACH)
    values[:, NEAREST] = np.bincount(edges.senders, near * weight, len(frame))
    order = np.lexsort((edges.distances, edges.senders))
    senders = edges.senders[order]
    rank = np.arange(len(order)) - np.searchsorted(senders, senders)
    first = rank < NEAREST
    values[senders[first], rank[first]] = edges.distances[order[first]]
    parts = []
    for number in np.unique(frame.numbers):
        ordered = np.sort(values[frame.numbers == number], axis=0)
        chosen = (np.array(_BETWEEN) * len(ordered)).astype(np.int64)
        parts += [ordered[:1], ordered[chosen], ordered[-1:], ordered.mean(axis=0, keepdims=True)]
    return np.concatenate(parts).ravel()


def _joined(vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each vector the first one that it is joined to, directly or through others.

    Vectors within ``TOLERANCE`` in every component are joined for certain, those further apart than twice that
    only through others: small boxes stand for their members, so that many frames that are all alike do not
    have to be compared in pairs.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    size = TOLERANCE / 4
    boxes = np.floor(vectors / size)
    _, first, box_of = np.unique(boxes, axis=0, return_index=True, return_inverse=True)
    pairs = KDTree(vectors[first]).query_pairs(TOLERANCE + 2 * size, p=np.inf, output_type="ndarray")
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(first), len(first)))
    _, part = connected_components(links, directed=False)
    part = part[box_of.ravel()]
    _, earliest = np.unique(part, return_index=True)
    return earliest[part]
