"""Splitting a data set into parts without leaks.

Frames of one trajectory are alike: if some are trained on and others validated on, the error looks better
than it is. So whole groups go to one part. Where the groups are too few for that, each trajectory is cut
into contiguous blocks with a gap between them; that is said, and never done by drawing frames at random.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lamkit.console import log
from lamkit.data.dataset import Dataset, View
from lamkit.data.frame import reduced_formula
from lamkit.errors import UserError

By = Literal["group", "random", "composition"]
GAP = 0.02  # of a trajectory, at each cut: frames that stand in no part
TOO_LARGE = 2.0  # a part that got more than this many times its fraction was not split well


@dataclass(frozen=True)
class SplitPlan:
    """Which frame goes where.

    Attributes:
        parts: name of a part -> indices of its frames, ascending.
        method: ``group``, ``composition``, ``random`` or ``blocks`` (contiguous pieces of trajectories).
        left_out: frames in no part: the gaps between blocks.
        notes: what the user should know, in sentences.
    """

    parts: dict[str, NDArray[np.int64]]
    method: str
    left_out: int = 0
    notes: list[str] = field(default_factory=list)


def split_indices(
    dataset: Dataset | View, fractions: Mapping[str, float], by: By = "group", seed: int = 0
) -> dict[str, NDArray[np.int64]]:
    """Indices of each part of a split; what :func:`plan_split` has to say goes to the log.

    Args:
        dataset: frames.
        fractions: share of each part, for example ``{"train": 0.9, "valid": 0.1}``; scaled to sum to one.
        by: what may not be torn apart: groups, compositions, or nothing (random).
        seed: of the choice; the same seed gives the same parts.
    """
    plan = plan_split(dataset, fractions, by, seed)
    for note in plan.notes:
        log.warning("%s: %s", dataset.path, note)
    return plan.parts


def plan_split(
    dataset: Dataset | View, fractions: Mapping[str, float], by: By = "group", seed: int = 0
) -> SplitPlan:
    """Decide which frame goes to which part (see :func:`split_indices`).

    Raises:
        UserError: wrong fractions, or too few frames.
    """
    shares = _checked(fractions, len(dataset))
    if by == "random":
        return _random(dataset, shares, seed)
    labels = _composition_labels(dataset) if by == "composition" else _group_labels(dataset)
    parts = _whole_groups(labels, shares, seed)
    if parts is not None:
        return SplitPlan(parts, by)
    if by == "composition":
        n = len(set(labels))
        raise UserError(
            f"{dataset.path}: {n} composition{'s' * (n > 1)}, too few or too uneven to split into "
            f"{', '.join(f'{k} {v:.3g}' for k, v in shares.items())}; use --by group"
        )
    return _blocks(dataset, labels, shares)


def _checked(fractions: Mapping[str, float], n_frames: int) -> dict[str, float]:
    shares = {name: float(share) for name, share in fractions.items() if share}
    if not shares or min(shares.values()) < 0 or not np.isfinite(sum(shares.values())):
        raise UserError(f"fractions of a split must be positive, found {dict(fractions)}")
    if n_frames < len(shares):
        raise UserError(f"{n_frames} frames cannot be split into {len(shares)} parts")
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def _group_labels(dataset: Dataset | View) -> NDArray[np.str_]:
    return np.array(dataset.group_names, dtype=np.str_)[dataset.groups]


def _composition_labels(dataset: Dataset | View) -> NDArray[np.str_]:
    labels = np.empty(len(dataset), dtype=object)
    numbers = dataset.elements if isinstance(dataset, Dataset) else dataset.dataset.elements
    for piece, counts in dataset.composition_chunks():
        rows, where = np.unique(counts, axis=0, return_inverse=True)
        names = np.array([reduced_formula(numbers, row) for row in rows], dtype=object)
        labels[piece] = names[where.ravel()]
    return labels.astype(np.str_)


def _whole_groups(
    labels: NDArray[np.str_], shares: Mapping[str, float], seed: int
) -> dict[str, NDArray[np.int64]] | None:
    """Deal whole groups to the parts; None if that cannot come near the shares.

    Groups come in an order that depends on their names and the seed only, and each goes to the part that
    lacks most frames; the last ones go to parts that would stay empty.
    """
    names, group_of, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < len(shares):
        return None
    order = sorted(range(len(names)), key=lambda k: _draw(str(names[k]), seed))
    target = {part: share * len(labels) for part, share in shares.items()}
    got = dict.fromkeys(shares, 0)
    part_of = np.empty(len(names), dtype=object)
    for n_done, k in enumerate(order):
        empty = [part for part in shares if got[part] == 0]
        candidates = empty if len(order) - n_done <= len(empty) else list(shares)
        part = max(candidates, key=lambda p: target[p] - got[p])
        part_of[k] = part
        got[part] += int(sizes[k])
    largest_allowed = {p: max(TOO_LARGE * target[p], target[p] + 1) for p in shares}
    if any(got[p] == 0 or (shares[p] < 0.5 and got[p] > largest_allowed[p]) for p in shares):
        return None
    return {p: np.flatnonzero((part_of == p)[group_of]) for p in shares}


def _draw(name: str, seed: int) -> bytes:
    """A pseudo-random key of a group, the same on every machine and for every order of the frames."""
    return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()


def _blocks(dataset: Dataset | View, labels: NDArray[np.str_], shares: Mapping[str, float]) -> SplitPlan:
    """Cut each trajectory into contiguous blocks, one for each part, with gaps between them."""
    sources, steps = dataset.source_ids, dataset.steps
    pieces: dict[str, list[NDArray[np.int64]]] = {part: [] for part in shares}
    names = np.unique(labels)
    for name in names:
        members = np.flatnonzero(labels == name)
        members = members[np.lexsort((steps[members], sources[members]))]
        for part, block in _cut(members, shares).items():
            pieces[part].append(block)
    none = np.empty(0, dtype=np.int64)
    parts = {part: np.sort(np.concatenate([none, *blocks])) for part, blocks in pieces.items()}
    empty = [part for part, indices in parts.items() if len(indices) == 0]
    if empty:
        raise UserError(
            f"{dataset.path}: {len(dataset)} frames in {len(names)} groups leave nothing for "
            f"{', '.join(empty)}; ask for larger fractions, use --by random, or give each part as a data set"
        )
    left_out = len(dataset) - sum(len(indices) for indices in parts.values())
    note = (
        f"{len(names)} group{'s' * (len(names) > 1)} of frames cannot be dealt out whole "
        f"({', '.join(f'{k} {v:.3g}' for k, v in shares.items())}): each was cut into contiguous blocks in "
        f"the order of its steps, {left_out} frames at the cuts left out. The parts come from the same "
        "trajectories, so errors on them are lower than on independent ones"
    )
    return SplitPlan(parts, "blocks", left_out, [note])


def _cut(members: NDArray[np.int64], shares: Mapping[str, float]) -> dict[str, NDArray[np.int64]]:
    """One trajectory's frames in order -> a block for each part; short ones go to the largest part whole."""
    n, largest = len(members), max(shares, key=lambda p: shares[p])
    if n * min(shares.values()) < 1:
        return {largest: members}
    gap = max(1, round(GAP * n)) if n >= 10 * len(shares) else 0
    blocks, start, total = {}, 0, 0.0
    for part, share in shares.items():
        total += share
        stop = round(total * n)
        blocks[part] = members[start:stop]
        start = min(stop + gap, n)
    return blocks


def _random(dataset: Dataset | View, shares: Mapping[str, float], seed: int) -> SplitPlan:
    order = np.random.default_rng(seed).permutation(len(dataset))
    edges = np.rint(np.cumsum(list(shares.values())) * len(dataset)).astype(int)
    parts = {p: np.sort(ids) for p, ids in zip(shares, np.split(order, edges[:-1]), strict=True)}
    n_groups = len(np.unique(dataset.groups))
    notes = []
    if n_groups < len(dataset):
        notes.append(
            f"frames were drawn at random, though {len(dataset)} frames belong to {n_groups} groups only: "
            "frames of one trajectory stand in several parts, and errors on them look better than they are"
        )
    return SplitPlan(parts, "random", 0, notes)
