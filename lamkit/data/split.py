"""Splitting a data set into parts without leaks.

Frames of one trajectory are alike: if some are trained on and others validated on, the error looks better
than it is. So whole groups go to one part. Where the groups are too few for that, each trajectory is cut
into contiguous blocks with a gap between them; that is said, and never done by drawing frames at random.

Frames that show the same structure (:mod:`lamkit.data.twins`) stay on one side, whatever group they are of:
groups that are largely alike are dealt as one, and of single frames that come again in another part only those of
the largest part (training) stay; the others are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lamkit.console import Progress, log
from lamkit.data.dataset import Dataset, View
from lamkit.data.dealing import (
    By,
    Stratum,
    Units,
    by_temperature,
    deal,
    elements_of,
    find_units,
    link,
    strata,
)
from lamkit.data.frame import SYMBOLS
from lamkit.data.twins import like_classes
from lamkit.errors import UserError

__all__ = ["By", "SplitPlan", "Stratum", "plan_split", "split_indices"]

RARE = 10  # units with an element: with more of them, some are trained on anyway
GAP = 0.02  # of a trajectory, at each cut: frames that stand in no part


@dataclass(frozen=True)
class SplitPlan:
    """Which frame goes where.

    Attributes:
        parts: name of a part -> indices of its frames, ascending.
        method: the rule, or ``blocks`` (contiguous pieces of trajectories).
        left_out: frames in no part: the gaps between blocks, and those that are alike.
        alike: frames left out because the same structure stands in another part.
        notes: what the user should know, in sentences.
    """

    parts: dict[str, NDArray[np.int64]]
    method: str
    left_out: int = 0
    alike: int = 0
    notes: list[str] = field(default_factory=list)


def split_indices(
    dataset: Dataset | View, fractions: Mapping[str, float], by: By = "group", seed: int = 0
) -> dict[str, NDArray[np.int64]]:
    """Indices of each part of a split; what :func:`plan_split` has to say goes to the log.

    Args:
        dataset: frames.
        fractions: share of each part, for example ``{"train": 0.9, "valid": 0.1}``; scaled to sum to one.
        by: what may not be torn apart: groups, materials, compositions, temperatures, or nothing (random).
        seed: of the choice; the same seed gives the same parts.
    """
    plan = plan_split(dataset, fractions, by, seed)
    for note in plan.notes:
        log.warning("%s: %s", dataset.path, note)
    return plan.parts


def plan_split(
    dataset: Dataset | View,
    fractions: Mapping[str, float],
    by: By = "group",
    seed: int = 0,
    stratify: Sequence[Stratum] = (),
) -> SplitPlan:
    """Decide which frame goes to which part (see :func:`split_indices`).

    Args:
        dataset: frames.
        fractions: share of each part.
        by: what stays together.
        seed: of the choice.
        stratify: quantities that all parts get the same mixture of.

    Raises:
        UserError: wrong fractions, or too few frames.
    """
    shares = _checked(fractions, len(dataset))
    if by == "temperature":
        return _cleaned(dataset, _by_temperature(dataset, shares, stratify), shares)
    units, classes = find_units(dataset, by, seed), None
    if by != "composition":  # frames that are alike are of one composition anyway
        classes = _like_classes(dataset, units.of_frame)
    part_of = _dealt(dataset, units, classes, shares, stratify)
    if part_of is not None:
        plan = SplitPlan(_parts(part_of, shares), by)
        if by == "random":
            plan = replace(plan, notes=_warning_of_leaks(dataset))
        return _cleaned(dataset, plan, shares, classes)
    if by == "composition":
        n = len(units.keys)
        raise UserError(
            f"{dataset.path}: {n} composition{'s' * (n > 1)}, too few or too uneven to split into "
            f"{', '.join(f'{k} {v:.3g}' for k, v in shares.items())}; use --by group"
        )
    if stratify:
        raise UserError(
            f"{dataset.path}: {len(units.keys)} groups of frames are too few or too uneven to be dealt whole, so "
            f"they cannot be stratified by {', '.join(stratify)}; leave that out, or use --by random"
        )
    labels = dataset.groups.astype(np.int64)  # as given: what is alike is left out afterwards
    return _cleaned(dataset, _blocks(dataset, labels, shares), shares)


def _checked(fractions: Mapping[str, float], n_frames: int) -> dict[str, float]:
    shares = {name: float(share) for name, share in fractions.items() if share}
    if not shares or min(shares.values()) < 0 or not np.isfinite(sum(shares.values())):
        raise UserError(f"fractions of a split must be positive, found {dict(fractions)}")
    if n_frames < len(shares):
        raise UserError(f"{n_frames} frames cannot be split into {len(shares)} parts")
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def _like_classes(dataset: Dataset | View, units: NDArray[np.integer]) -> NDArray[np.int64]:
    with Progress(None, "comparing structures") as progress:

        def told(done: int, total: int) -> None:
            progress.total = total
            progress.update(done)

        return like_classes(dataset, units, told)


def _dealt(
    dataset: Dataset | View,
    units: Units,
    classes: NDArray[np.int64] | None,
    shares: Mapping[str, float],
    stratify: Sequence[Stratum],
) -> NDArray[np.int64] | None:
    """Part of each frame; None if the units are too few or too uneven.

    Units that are largely alike are dealt as one, and a unit with each rare element goes to the largest part,
    unless nothing else is left to deal then; what that means is left out or said afterwards.
    """
    linked = units if classes is None else link(units, classes)
    for some in (linked, units) if linked is not units else (units,):
        groups = strata(dataset, some, stratify) if stratify else None
        for pinned in (_pinned(dataset, some), None):
            part_of_unit = deal(some, shares, groups, pinned)
            if part_of_unit is not None:
                return part_of_unit[some.of_frame]
    return None


def _parts(part_of: NDArray[np.int64], shares: Mapping[str, float]) -> dict[str, NDArray[np.int64]]:
    return {part: np.flatnonzero(part_of == k) for k, part in enumerate(shares)}


def _pinned(dataset: Dataset | View, units: Units) -> NDArray[np.bool_]:
    """One unit for each rare element: nothing can be said of an element that is not trained on."""
    present = elements_of(dataset, units)
    pinned = np.zeros(len(units.keys), dtype=bool)
    for column in present.T[present.sum(axis=0) < RARE]:
        members = np.flatnonzero(column)
        if len(members):
            pinned[members[np.argmin(units.keys[members])]] = True
    return pinned


def _warning_of_leaks(dataset: Dataset | View) -> list[str]:
    n_groups = len(np.unique(dataset.groups))
    if n_groups == len(dataset):
        return []
    return [
        f"frames were drawn at random, though {len(dataset)} frames belong to {n_groups} groups only: "
        "frames of one trajectory stand in several parts, and errors on them look better than they are"
    ]


def _by_temperature(
    dataset: Dataset | View, shares: Mapping[str, float], stratify: Sequence[Stratum]
) -> SplitPlan:
    """Whole temperatures, the highest for the last part, as potentials are asked to extrapolate upwards."""
    if stratify:
        raise UserError("a split by temperature follows the temperatures; it cannot be stratified too")
    part_of, n_unknown = by_temperature(dataset, shares)
    notes = []
    if n_unknown:
        notes.append(f"{n_unknown} frames of unknown temperature went to {next(iter(shares))}")
    for k, part in enumerate(shares):
        kelvin = dataset.temperatures[part_of == k]
        levels = np.unique(np.rint(kelvin[np.isfinite(kelvin)]))
        notes.append(f"{part}: {', '.join(f'{t:.0f}' for t in levels)} K")
    return SplitPlan(_parts(part_of, shares), "temperature", notes=notes)


def _cleaned(
    dataset: Dataset | View,
    plan: SplitPlan,
    shares: Mapping[str, float],
    classes: NDArray[np.int64] | None = None,
) -> SplitPlan:
    """The plan without frames whose structure stands in another part too; the largest part keeps its own.

    Args:
        dataset: frames.
        plan: parts as dealt.
        shares: fractions, which give the order of the parts.
        classes: frames that are alike, where they are known between all parts.

    Raises:
        UserError: nothing is left of a part.
    """
    ranked = sorted(shares, key=lambda part: -shares[part])
    rank = np.full(len(dataset), len(ranked))
    for k, part in enumerate(ranked):
        rank[plan.parts[part]] = k
    if classes is None:
        classes = _like_classes(dataset, rank)
    best = np.full(len(dataset), len(ranked))
    np.minimum.at(best, classes, rank)
    torn = rank > best[classes]
    torn &= rank < len(ranked)
    parts = {part: frames[~torn[frames]] for part, frames in plan.parts.items()}
    notes = list(plan.notes)
    for part, frames in parts.items():
        if not len(frames):
            raise UserError(
                f"{dataset.path}: each structure of {part} stands in another part too (to 0.01 Å), so nothing "
                "is left to test on; the data hold copies of each other"
            )
        if n := len(plan.parts[part]) - len(frames):
            notes.append(
                f"{n} frames left out of {part}: the same structure (to 0.01 Å) stands in another part"
            )
    notes += _unseen(dataset, parts, ranked[0])
    n_alike = int(torn.sum())
    return replace(plan, parts=parts, alike=n_alike, left_out=plan.left_out + n_alike, notes=notes)


def _unseen(dataset: Dataset | View, parts: Mapping[str, NDArray[np.int64]], first: str) -> list[str]:
    """Sentences about elements that are held out altogether."""
    known = set(dataset.subset(parts[first]).elements)
    sentences = []
    for part, frames in parts.items():
        strange = [SYMBOLS[z] for z in dataset.subset(frames).elements if z not in known]
        if strange:
            sentences.append(f"{part} holds {', '.join(strange)}, which {first} does not")
    return sentences


def _blocks(dataset: Dataset | View, labels: NDArray[np.int64], shares: Mapping[str, float]) -> SplitPlan:
    """Cut each trajectory into contiguous blocks, one for each part, with gaps between them."""
    order = np.lexsort((dataset.steps, dataset.source_ids, labels))
    trajectories = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    pieces: dict[str, list[NDArray[np.int64]]] = {part: [] for part in shares}
    for members in trajectories:
        for part, block in _cut(members, shares).items():
            pieces[part].append(block)
    none = np.empty(0, dtype=np.int64)
    parts = {part: np.sort(np.concatenate([none, *blocks])) for part, blocks in pieces.items()}
    n = len(trajectories)
    empty = [part for part, indices in parts.items() if len(indices) == 0]
    if empty:
        raise UserError(
            f"{dataset.path}: {len(dataset)} frames in {n} groups leave nothing for "
            f"{', '.join(empty)}; ask for larger fractions, use --by random, or give each part as a data set"
        )
    left_out = len(dataset) - sum(len(indices) for indices in parts.values())
    note = (
        f"{n} group{'s' * (n > 1)} of frames cannot be dealt out whole "
        f"({', '.join(f'{k} {v:.3g}' for k, v in shares.items())}): each was cut into contiguous blocks in "
        f"the order of its steps, {left_out} frames at the cuts left out. The parts come from the same "
        "trajectories, so errors on them are lower than on independent ones"
    )
    return SplitPlan(parts, "blocks", left_out, notes=[note])


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
