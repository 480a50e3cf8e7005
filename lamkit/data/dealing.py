"""Dealing frames to the parts of a split: the units that stay whole, their order, and who gets which.

A unit is what may not be torn apart: a trajectory, a material, all frames of one composition, or a frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lamkit.data.dataset import Dataset, View
from lamkit.data.frame import reduced_formula
from lamkit.data.reference import fit_dataset_reference, residuals
from lamkit.data.twins import composition_hashes
from lamkit.errors import UserError

By = Literal["group", "mp-id", "composition", "temperature", "random"]
Stratum = Literal["elements", "size", "energy", "forces"]
BINS = 5  # quantiles of a quantity that the parts are alike in
TOO_LARGE = 2.0  # a part that got more than this many times its fraction was not split well
LINKED = 0.5  # of the frames of one unit are like frames of another: both are one unit
_CROWD = 32  # units that share a structure and are compared pair by pair


class Units(NamedTuple):
    """What stays whole.

    Attributes:
        of_frame: unit of each frame, ``[n_frames]``, from 0.
        keys: a pseudo-random number of each unit, ``[n_units]``: the order in which they are dealt.
    """

    of_frame: NDArray[np.int64]
    keys: NDArray[np.uint64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Frames of each unit, ``[n_units]``."""
        return np.bincount(self.of_frame, minlength=len(self.keys))


def find_units(dataset: Dataset | View, by: By, seed: int) -> Units:
    """The units of a rule; their order depends on their names and the seed only, not on the order of frames.

    Raises:
        UserError: the data do not say what the rule needs.
    """
    if by == "random":
        order = np.random.default_rng(seed).permutation(len(dataset))
        return Units(np.arange(len(dataset)), order.astype(np.uint64))
    if by == "composition":
        return _by_composition(dataset, seed)
    if by == "temperature":
        raise ValueError("temperatures are dealt in their order, see by_temperature")
    numbers = dataset.groups.astype(np.int64)
    names: Sequence[str] = dataset.group_names
    if by == "mp-id":
        known = dataset.materials >= 0
        if not known.any():
            raise UserError(
                f"{dataset.path}: no frame names its material (mp-id); split by group, or convert the source "
                "again if it names materials"
            )
        numbers = np.where(known, dataset.materials, len(dataset.material_names) + numbers)
        names = [*dataset.material_names, *names]
    present, of_frame = np.unique(numbers, return_inverse=True)
    return Units(of_frame, _keys((names[k] for k in present), seed))


def _by_composition(dataset: Dataset | View, seed: int) -> Units:
    _, first, of_frame = np.unique(composition_hashes(dataset), return_index=True, return_inverse=True)
    counts, numbers = dataset.subset(first).compositions()
    return Units(of_frame, _keys((reduced_formula(numbers, row) for row in counts), seed))


def _keys(names: Iterable[str], seed: int) -> NDArray[np.uint64]:
    digests = (hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest() for name in names)
    return np.array([int.from_bytes(digest) for digest in digests], dtype=np.uint64)


def link(units: Units, classes: NDArray[np.int64]) -> Units:
    """Make one unit of those that are largely alike.

    Args:
        units: as they are.
        classes: frames that are alike, of :func:`lamkit.data.twins.like_classes`.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n_units, sizes = len(units.keys), units.sizes
    pairs, counts = np.unique(np.stack([classes, units.of_frame], axis=1), axis=0, return_counts=True)
    starts = np.flatnonzero(np.r_[True, np.diff(pairs[:, 0]) != 0])
    lengths = np.diff(np.r_[starts, len(pairs)])
    edges: list[tuple[int, int]] = []
    overlap: dict[tuple[int, int], int] = {}
    for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
        members, frames = pairs[start : start + length, 1], counts[start : start + length]
        mostly = members[frames >= LINKED * sizes[members]]
        edges += [(int(mostly[0]), int(u)) for u in mostly[1:]]
        for a, n in zip(members[:_CROWD], frames, strict=False):
            for b in members[:_CROWD]:
                if a != b:
                    overlap[int(a), int(b)] = overlap.get((int(a), int(b)), 0) + int(n)
    edges += [(a, b) for (a, b), n in overlap.items() if n >= LINKED * sizes[a]]
    if not edges:
        return units
    rows, columns = np.array(edges).T
    graph = coo_matrix((np.ones(len(edges)), (rows, columns)), shape=(n_units, n_units))
    n_linked, new = connected_components(graph, directed=False)
    keys = np.full(n_linked, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(keys, new, units.keys)
    return Units(new[units.of_frame].astype(np.int64), keys)


def strata(dataset: Dataset | View, units: Units, kinds: Sequence[Stratum]) -> NDArray[np.int64]:
    """Stratum of each unit, ``[n_units]``: units that are alike in all ``kinds``.

    ``elements``: the same set of elements; ``size``: mean number of atoms, ``energy``: mean energy per atom
    after the composition fit, ``forces``: root mean square force, each in fifths of the units.
    """
    columns = []
    for kind in kinds:
        if kind == "elements":
            columns.append(np.unique(elements_of(dataset, units), axis=0, return_inverse=True)[1].ravel())
            continue
        values = _VALUES[kind](dataset)
        known = np.isfinite(values)
        weights = np.bincount(units.of_frame, known, len(units.keys))
        sums = np.bincount(units.of_frame, np.where(known, values, 0.0), len(units.keys))
        means = np.divide(sums, weights, out=np.full(len(weights), np.nan), where=weights > 0)
        edges = np.nanquantile(means, np.arange(1, BINS) / BINS) if (weights > 0).any() else []
        columns.append(np.where(weights > 0, np.searchsorted(edges, means), BINS))
    return np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].ravel()


def _energies(dataset: Dataset | View) -> NDArray[np.float64]:
    if not np.isfinite(dataset.energies).any():
        raise UserError(f"{dataset.path}: no frame has an energy to stratify by")
    return residuals(dataset, fit_dataset_reference(dataset).reference)


def _squared_forces(dataset: Dataset | View) -> NDArray[np.float64]:
    """Mean square force component of each frame; NaN where there are no forces."""
    whole, indices = (
        (dataset, np.arange(len(dataset)))
        if isinstance(dataset, Dataset)
        else (dataset.dataset, dataset.indices)
    )
    values = np.full(len(dataset), np.nan)
    for places, _, place, rows in whole.blocks(indices):
        arrays = place.arrays()
        for start in range(0, len(rows), 512) if "force" in arrays else ():
            some = slice(start, start + 512)
            values[places[some]] = np.square(np.asarray(arrays["force"][rows[some]])).mean(axis=1)
    return values


_VALUES = {
    "size": lambda dataset: dataset.n_atoms.astype(np.float64),
    "energy": _energies,
    "forces": _squared_forces,
}


def elements_of(dataset: Dataset | View, units: Units) -> NDArray[np.bool_]:
    """Which elements occur in each unit, ``[n_units, n_elements]``, columns as ``dataset.elements``."""
    whole = dataset if isinstance(dataset, Dataset) else dataset.dataset
    width = len(whole.elements)
    present = np.zeros((len(units.keys), width), dtype=bool)
    for piece, counts in dataset.composition_chunks():
        rows, columns = np.nonzero(counts)
        present[units.of_frame[piece][rows], columns] = True
    return present


def deal(
    units: Units,
    shares: Mapping[str, float],
    order_first: NDArray[np.int64] | None = None,
    pinned: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64] | None:
    """Part of each unit, an index into ``shares``; None if whole units cannot come near the shares.

    Each unit goes to the part that lacks most frames of those dealt so far; the last ones go to parts that
    would stay empty. Units of a stratum come one after another, so each stratum is shared out in proportion.

    Args:
        units: what stays whole.
        shares: part -> fraction, summing to one.
        order_first: stratum of each unit, or None.
        pinned: units that must go to the largest part.
    """
    fractions = np.array(list(shares.values()))
    n_units, n_parts = len(units.keys), len(fractions)
    if n_units < n_parts:
        return None
    sizes, largest = units.sizes, int(np.argmax(fractions))
    part_of, got = np.full(n_units, largest), np.zeros(n_parts)
    if pinned is not None:
        got[largest] += sizes[pinned].sum()
    free = np.arange(n_units) if pinned is None else np.flatnonzero(~pinned)
    first = np.zeros(n_units) if order_first is None else order_first
    order = free[np.lexsort((units.keys[free], first[free]))]
    dealt = got.sum()
    for n_done, unit in enumerate(order):
        empty = np.flatnonzero(got == 0)
        candidates = empty if 0 < len(order) - n_done <= len(empty) else np.arange(n_parts)
        dealt += sizes[unit]
        part = int(candidates[np.argmax((fractions * dealt - got)[candidates])])
        part_of[unit] = part
        got[part] += sizes[unit]
    target = fractions * sizes.sum()
    allowed = np.maximum(TOO_LARGE * target, target + 1)
    if (got == 0).any() or ((fractions < 0.5) & (got > allowed)).any():
        return None
    return part_of


def by_temperature(dataset: Dataset | View, shares: Mapping[str, float]) -> tuple[NDArray[np.int64], int]:
    """Part of each frame when whole temperatures are dealt: the first part gets the lowest, the last the highest.

    Returns:
        Parts, ``[n_frames]``; the number of frames of unknown temperature, which go to the first.

    Raises:
        UserError: fewer temperatures than parts.
    """
    kelvin = np.rint(dataset.temperatures.astype(np.float64))
    known = np.isfinite(kelvin)
    levels, counts = np.unique(kelvin[known], return_counts=True)
    if len(levels) < len(shares):
        raise UserError(
            f"{dataset.path}: {len(levels)} different temperatures are known of its frames, too few for "
            f"{', '.join(shares)}; split by group"
        )
    reached, ends = np.cumsum(counts) - counts / 2, np.cumsum(list(shares.values())) * counts.sum()
    cuts: list[int] = []  # index of the first level of each part but the first; each part gets one at least
    for k in range(1, len(shares)):
        cut = int(np.searchsorted(reached, ends[k - 1]))
        cuts.append(min(max(cut, k, cuts[-1] + 1 if cuts else 1), len(levels) - len(shares) + k))
    part_of_level = np.searchsorted(cuts, np.arange(len(levels)), side="right")
    parts = np.zeros(len(dataset), dtype=np.int64)
    parts[known] = part_of_level[np.searchsorted(levels, kelvin[known])]
    return parts, int((~known).sum())
