"""Replay: old heads train along, so that the trunk does not forget them; on real data or on the model's own labels.

Without the data that a checkpoint was trained on, its knowledge is still in its weights: each old head labels
structures that short MD with that very head and random displacements lead to, and these labels are trained on
beside the new data (pseudo-labelled multi-head replay).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic

from lamkit.config import InputPath, Model
from lamkit.console import log
from lamkit.data.dataset import write_dataset
from lamkit.data.frame import Frame, without_labels
from lamkit.errors import UserError, suggest
from lamkit.stages import old_heads

if TYPE_CHECKING:
    from lamkit.data.dataset import View
    from lamkit.train.checkpoint import Checkpoint
    from lamkit.train.config import TrainConfig
    from lamkit.train.tasks import Task

STARTS = 8  # structures that exploration begins from
APART = 20  # MD steps between frames that are kept


class Replay(Model):
    """Which old heads train along, and on what.

    Attributes:
        heads: old heads; null takes all that there are structures for.
        data: head → real data of it, where they are still there; the others get labels of the starting model.
        structures: head → data set whose structures its own labels are made for. Else those it was trained on or
            the shipped sample, where they are there; and always the new frames whose elements it knows.
        probability: chance that a step draws one of them.
        n_frames: frames with own labels, for each head.
        temperatures: K, of the MD that finds half of them; the rest are displaced and strained copies.
    """

    heads: list[str] | None = None
    data: dict[str, InputPath] = {}
    structures: dict[str, InputPath] = {}
    probability: float = pydantic.Field(0.5, gt=0, lt=1)
    n_frames: int = pydantic.Field(96, ge=4)
    temperatures: list[float] = pydantic.Field([300.0, 1000.0], min_length=1)


def tasks(
    start: Checkpoint, replay: Replay, targets: Sequence[Task], train: TrainConfig, out: Path, device: str
) -> list[Task]:
    """A task for each old head that trains along, with the reference that it has.

    Args:
        start: checkpoint.
        replay: which and on what.
        targets: the heads that the run is about.
        train: options of the training.
        out: run folder; finished data sets in it are used again.
        device: where own labels are made.

    Raises:
        UserError: a head that was asked for by name without any structure for it.
    """
    known = check(start, replay, targets)
    found = []
    for head in replay.heads or known:
        path = replay.data.get(head) or _own_labels(start, head, replay, targets, out, train.seed, device)
        if path is not None:
            found.append(_task(start, head, path, train))
        elif replay.heads:
            raise UserError(
                f"replay: no structures for head {head}: none of the new frames holds only elements that it knows "
                f"({', '.join(start.elements[head])}); name some: replay.structures.{head}=DIR"
            )
        else:
            log.warning("replay: no structures for head %s, which may be forgotten", head)
    return found


def check(start: Checkpoint, replay: Replay, targets: Sequence[Task]) -> list[str]:
    """The old heads.

    Raises:
        UserError: one is named that is none, or data that are not there.
    """
    names = {t.name for t in targets}
    known = [h for h in start.heads if h not in names]
    for name in (*(replay.heads or ()), *replay.data, *replay.structures):
        if name not in known:
            raise UserError(
                f"replay: '{name}' is no old head of {start.path}.{suggest(name, known)} It has: {', '.join(known)}"
            )
    for option, folders in (("data", replay.data), ("structures", replay.structures)):
        for name, folder in folders.items():
            if not Path(folder).is_dir():
                raise UserError(f"replay.{option}: {folder}: no such data set (for head '{name}')")
    return known


def _task(start: Checkpoint, head: str, path: str | Path, train: TrainConfig) -> Task:
    from lamkit.train.tasks import make_task

    task = make_task(
        head, path, start.head_configs[head],
        split=train.split, valid_fraction=train.valid_fraction, seed=train.seed,
    )  # fmt: skip
    # Its own reference, which its weights belong to; not one fitted to a few of its frames.
    return replace(task, reference=replace(task.reference, reference=start.references[head]))


def chances(
    targets: Sequence[Task], old: Sequence[Task], replay: Replay, train: TrainConfig
) -> dict[str, float]:
    """Weight of each head: the old ones together have ``replay.probability``, whatever their number."""
    given: Mapping[str, float] = train.weights or {}
    if old and all(t.name in given for t in old):
        return dict(given)
    new = {t.name: given.get(t.name, float(len(t.train)) ** train.sampling_exponent) for t in targets}
    before = {t.name: float(len(t.train)) ** train.sampling_exponent for t in old}
    share = {**dict.fromkeys(new, 1 - replay.probability), **dict.fromkeys(before, replay.probability)}
    return {
        name: share[name] * weight / sum(group.values())
        for group in (new, before)
        for name, weight in group.items()
    }


def _own_labels(
    start: Checkpoint, head: str, replay: Replay, targets: Sequence[Task], out: Path, seed: int, device: str
) -> Path | None:
    """Data set of explored structures labelled by the head itself; None without structures to start from."""
    from lamkit.stages import explore, label

    folder = out / "replay" / head
    if not (folder / "starts" / "dataset.yaml").is_file():
        frames = _starts(start, head, replay, targets, out)
        if not frames:
            return None
        write_dataset(frames, folder / "starts")
    n_starts = len(old_heads.structures(folder / "starts"))
    each = max(1, round(replay.n_frames / 2 / n_starts))
    of_md = max(1, round(each / len(replay.temperatures)))
    log.info("replay: head %s explores and labels some %d structures of its own", head, replay.n_frames)
    common: dict[str, Any] = {"model": str(start.path), "head": head, "device": device, "resume": True}
    try:
        explore.run(
            explore.Options(
                starts=[str(folder / "starts")],
                n_starts=n_starts,
                temperatures=replay.temperatures,
                dynamics={"steps": APART * of_md, "save_every": APART},
                perturb={"n": each},
                seed=seed,
                **common,
            ),
            folder / "explored",
        )
    except UserError as error:
        raise UserError(
            f"replay of head {head}: {error}\nOr give real data: replay.data.{head}=DIR, or leave the head out "
            "(replay.heads)"
        ) from None
    label.run(label.Options(data=str(folder / "explored" / "data"), **common), folder / "labelled")
    return folder / "labelled" / "data"


def _starts(start: Checkpoint, head: str, replay: Replay, targets: Sequence[Task], out: Path) -> list[Frame]:
    """Structures to start from, half of them the old head's own where there are any."""
    pools: list[View] = []
    if head in replay.structures:
        pools.append(old_heads.within(old_heads.structures(replay.structures[head]), start.elements[head]))
    elif (kept := old_heads.labelled(start, head, {}, out / "data")) is not None:
        pools.append(old_heads.within(old_heads.structures(kept.path), start.elements[head]))
        log.info(
            "replay: real data of head %s are at hand; --replay %s=%s trains on them", head, head, kept.path
        )
    pools += [old_heads.within(t.train, start.elements[head]) for t in targets]
    pools = [p for p in pools if len(p)]
    frames = []
    for pool in pools:
        n = min(len(pool), max(1, STARTS // len(pools)))
        chosen = np.unique(np.linspace(0, len(pool) - 1, n).round().astype(int))
        frames += [without_labels(pool.frame(int(i))) for i in chosen]
    return frames
