"""Checks of a whole data set, from what is written in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamkit.data.quality.outliers import outlying, robust_residuals
from lamkit.data.quality.work import Factor, factors
from lamkit.data.quality_settings import Checks

if TYPE_CHECKING:
    from lamkit.data.dataset import Dataset, View
    from lamkit.data.frame import Frame

MOST_FRAMES = 20_000  # looked at by the checks that need positions, spread evenly over the groups
MOST_OF_GROUP = 64  # consecutive frames of one trajectory
HIGH_FORCE = 30.0  # eV/Å, median over frames of the largest force
HIGH_STRESS = 0.5  # eV/Å³, median over frames of the largest component: 80 GPa
FEW = 5  # frames below which a median says nothing

Told = Callable[[int, int], None]


@dataclass(frozen=True)
class SetFinding:
    """Something found on a data set.

    Attributes:
        check: name of the check, as in the ``checks:`` block of a head.
        action: ``reject`` or ``flag``.
        reason: in words.
        frames: which frames it is about; empty: the data set as a whole.
        value: the number behind it; None if there is none.
    """

    check: str
    action: str
    reason: str
    frames: list[int] = field(default_factory=list)
    value: float | None = None


def survey(dataset: Dataset | View, checks: Checks = Checks(), told: Told | None = None) -> list[SetFinding]:  # noqa: B008
    """All checks of the whole data set.

    Args:
        dataset: the data.
        checks: what is checked, and the limits.
        told: called with (frames looked at, frames to look at).
    """
    found = list(energy_outliers(dataset, checks))
    if checks.work == "off" and checks.scales == "off":
        return found
    largest_force, largest_stress = [], []
    groups = list(_sample(dataset))
    total, done = sum(len(rows) for rows in groups), 0
    wrong: dict[tuple[str, str], tuple[list[int], list[Factor]]] = {}
    for rows in groups:
        frames = [dataset.frame(int(i)) for i in rows]
        done += len(rows)
        if told is not None:
            told(done, total)
        for frame in frames:
            largest_force.append(_largest(frame.forces))
            largest_stress.append(_largest(frame.stress))
        for factor in _factors(frames) if checks.work != "off" else ():
            reason = factor.reason()
            if reason is not None:
                members, values = wrong.setdefault((factor.kind, reason), ([], []))
                members += rows.tolist()
                values.append(factor)
    for (_, reason), (members, values) in wrong.items():
        middle = float(np.median([factor.value for factor in values]))
        found.append(
            SetFinding("work", "flag", f"{reason} (factor {middle:.3g})", sorted(set(members)), middle)
        )
    if checks.scales != "off":
        found += _scales(np.array(largest_force), np.array(largest_stress))
    return found


def energy_outliers(dataset: Dataset | View, checks: Checks) -> Iterator[SetFinding]:
    """Frames whose energy per atom is far from what their composition makes of it."""
    limits = checks.energy_outlier
    if limits.flag is None and limits.reject is None:
        return
    energies = dataset.energies
    n_elements = next((counts.shape[1] for _, counts in dataset.composition_chunks()), 0)
    if not n_elements or np.isfinite(energies).sum() < 2 * FEW:
        return
    sigmas = outlying(robust_residuals(dataset.composition_chunks, energies, n_elements))
    beyond = np.nan_to_num(sigmas)
    far = beyond > (limits.reject if limits.reject is not None else np.inf)
    odd = (beyond > (limits.flag if limits.flag is not None else np.inf)) & ~far
    for rows, action, limit in ((far, "reject", limits.reject), (odd, "flag", limits.flag)):
        if rows.any():
            reason = f"energy more than {limit:g} robust standard deviations from the fit on the composition"
            members = np.flatnonzero(rows).tolist()
            yield SetFinding("energy_outlier", action, reason, members, float(beyond[rows].max()))


def _sample(dataset: Dataset | View) -> Iterator[NDArray[np.int64]]:
    """Frames of each group, no more than ``MOST_FRAMES`` in all: runs of neighbours from groups spread evenly."""
    groups = np.asarray(dataset.groups)
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0]) if len(order) else np.empty(0, int)
    sizes = np.diff(np.r_[starts, len(order)])
    wanted = np.minimum(sizes, MOST_OF_GROUP)
    every = max(1, int(np.ceil(wanted.sum() / MOST_FRAMES)))
    for start, n in list(zip(starts, wanted, strict=True))[::every]:
        yield np.sort(order[start : start + n])


def _factors(frames: list[Frame]) -> list[Factor]:
    """Factors of a group, apart for each set of atoms in it."""
    kinds: dict[bytes, list[Frame]] = {}
    for frame in frames:
        kinds.setdefault(frame.numbers.tobytes(), []).append(frame)
    return [factor for some in kinds.values() if len(some) > 1 for factor in factors(some)]


def _largest(values: NDArray[np.float64] | None) -> float:
    if values is None or not values.size or np.isnan(values).all():
        return float("nan")
    return float(np.nanmax(np.abs(values)))


def _scales(largest_force: NDArray[np.float64], largest_stress: NDArray[np.float64]) -> list[SetFinding]:
    """Medians that are too high for eV and Å."""
    found = []
    for values, limit, what, cure in (
        (largest_force, HIGH_FORCE, "eV/A: forces in kcal/mol/A or meV/A?", "--units"),
        (largest_stress, HIGH_STRESS, "eV/A^3: stress in kB, GPa or bar?", "--stress-unit"),
    ):
        known = values[np.isfinite(values)]
        if len(known) >= FEW and np.median(known) > limit:
            middle = float(np.median(known))
            reason = f"half of the frames have a largest component above {middle:.3g} {what} ({cure})"
            found.append(SetFinding("scales", "flag", reason, [], middle))
    return found
