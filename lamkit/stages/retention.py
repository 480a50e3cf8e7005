"""Retention: what fine-tuning did to the heads that it was not about, measured before and after.

On real data of the old head where there are any; else on structures that the starting model labelled itself, so
that the error afterwards is the distance that the head has moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lamkit.console import log, table
from lamkit.data.dataset import open_dataset, write_dataset
from lamkit.report.text import number
from lamkit.stages import old_heads

if TYPE_CHECKING:
    from lamkit.data.dataset import View
    from lamkit.model.inference import Predictor
    from lamkit.train.checkpoint import Checkpoint
    from lamkit.train.config import TrainConfig
    from lamkit.train.tasks import Task

REAL, OWN = "real", "own"
COPIES = 4  # displaced copies of each new frame, where nothing else is there


class Watched(NamedTuple):
    """Frames that an old head is measured on.

    Attributes:
        view: frames with labels.
        labels: ``real``, or ``own``: labels of the starting model.
        words: where they are from.
    """

    view: View
    labels: str
    words: str


def watch(
    start: Checkpoint,
    targets: Sequence[Task],
    replayed: Sequence[Task],
    given: Mapping[str, str],
    train: TrainConfig,
    n_frames: int,
    out: Path,
    device: str,
) -> dict[str, Watched]:
    """Frames for every old head that there are any for.

    Args:
        start: checkpoint.
        targets: heads that the run is about.
        replayed: old heads that train along; without real data they are measured on what is held out of it.
        given: head → real data of the user.
        train: options of the training.
        n_frames: of each head at most.
        out: run folder; data sets made here are used again.
        device: where own labels are made.
    """
    names = {t.name for t in targets}
    held_out = {t.name: t.valid for t in replayed if t.valid is not None}
    found: dict[str, Watched] = {}
    for head in (h for h in start.heads if h not in names) if n_frames else ():
        if head in given and head in held_out:
            found[head] = Watched(_some(held_out[head], n_frames), REAL, "given, held out")
            continue
        kept = old_heads.labelled(start, head, given, out / "data")
        if kept is not None:
            view = old_heads.within(old_heads.held_out(kept, train.split), start.elements[head])
            if len(view):
                found[head] = Watched(_some(view, n_frames), REAL, kept.words)
                continue
        if head in held_out:
            found[head] = Watched(_some(held_out[head], n_frames), OWN, "held out of replay")
        elif (copies := _displaced(start, head, targets, n_frames, out, device)) is not None:
            found[head] = Watched(copies, OWN, "displaced new frames")
    return found


def _some(view: View, n: int) -> View:
    return view.subset(np.unique(np.linspace(0, len(view) - 1, min(n, len(view))).round().astype(int)))


def _displaced(
    start: Checkpoint, head: str, targets: Sequence[Task], n_frames: int, out: Path, device: str
) -> View | None:
    """New frames of elements that the head knows, displaced, with its own labels."""
    from lamkit.data.selection import Limits
    from lamkit.stages.engine import load_engine
    from lamkit.stages.label import label_frames
    from lamkit.stages.perturb import Perturb, perturbed

    folder = out / "retention" / head
    if not (folder / "dataset.yaml").is_file():
        pools = [
            _some(p, max(1, n_frames // COPIES))
            for t in targets
            if len(p := old_heads.within(t.train, start.elements[head]))
        ]
        frames = [pool.frame(i) for pool in pools for i in range(len(pool))]
        copies = perturbed(frames, Perturb(n=COPIES), old_heads.SEED, Limits())[:n_frames]
        if not copies:
            return None
        labelled, _ = label_frames(copies, load_engine(str(start.path), head, None, device))
        if not labelled:
            return None
        write_dataset(labelled, folder)
    return old_heads.everything(open_dataset(folder))


def errors(
    model: Checkpoint, watched: Mapping[str, Watched], predictor: Predictor
) -> dict[str, dict[str, Any]]:
    """Errors of each old head of ``model`` on its frames, as :meth:`lamkit.metrics.ErrorSums.result`."""
    from lamkit.train.rebias import Network

    if not watched:
        return {}
    network = Network(model, [w.view for w in watched.values()], predictor)
    return {
        head: network.run(head, model.references[head], place)[1].result()
        for place, head in enumerate(watched)
    }


def compare(
    watched: Mapping[str, Watched], before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Head → labels, frames and errors before and after, eV/Å and eV/atom; ``forces_change``: relative, or None."""
    found = {}
    for head, w in watched.items():
        old, new = before[head], after[head]
        growth = None
        if w.labels == REAL and old["forces_rmse"]:
            growth = new["forces_rmse"] / old["forces_rmse"] - 1
        found[head] = {
            "labels": w.labels,
            "frames_from": w.words,
            "n_frames": len(w.view),
            **{
                f"{label}_rmse_{when}": e[f"{label}_rmse"]
                for label in ("forces", "energy")
                for when, e in (("before", old), ("after", new))
            },
            "forces_rms": new["forces_rms_target"],
            "forces_change": growth,
        }
    return found


def report(
    found: Mapping[str, Mapping[str, Any]], unmeasured: Sequence[str], *, fixed: bool, replayed: bool
) -> None:
    """Print the table, and what follows from it.

    Args:
        found: from :func:`compare`.
        unmeasured: old heads without any frame.
        fixed: trunk and old heads are the same weights as before.
        replayed: old heads trained along.
    """
    if found:
        rows = [
            (
                head, r["n_frames"], f"{r['labels']} ({r['frames_from']})",
                *(_milli(r[f"forces_rmse_{when}"]) for when in ("before", "after")),
                *(_milli(r[f"energy_rmse_{when}"]) for when in ("before", "after")),
                _milli(r["forces_rms"]),
            )
            for head, r in found.items()
        ]  # fmt: skip
        headers = ("old head", "frames", "labels", "F before", "F after", "E before", "E after", "F rms")
        log.info("retention, RMSE in meV/Å and meV/atom:\n%s", table(rows, headers))
        if any(r["labels"] == OWN for r in found.values()):
            log.info(
                "own labels: those of the starting model, so its error is 0 and the rest is what has moved"
            )
    if unmeasured:
        log.warning(
            "retention of %s was not measured: no data of theirs, and no new frame of elements that they know "
            "(replay.data.HEAD=DIR)", ", ".join(unmeasured),
        )  # fmt: skip
    worse = [h for h, r in found.items() if _forgot(r)]
    if fixed and (found or unmeasured):
        log.info("the trunk and the other heads were not trained: they are what they were")
    elif worse and not replayed:
        log.warning(
            "%s lost more than a tenth of the accuracy: --replay lets old heads train along, --tune heads leaves the "
            "trunk alone", ", ".join(worse),
        )  # fmt: skip


def _forgot(row: Mapping[str, Any]) -> bool:
    if row["forces_change"] is not None:
        return bool(row["forces_change"] > 0.1)
    return bool(row["forces_rms"] and row["forces_rmse_after"] > 0.1 * row["forces_rms"])


def _milli(value: float | None) -> str:
    return number(None if value is None else 1000 * value)
