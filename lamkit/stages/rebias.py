"""Rebias: refit only the reference energies of a head on new data; the network stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lamkit.config import InputPath, Model
from lamkit.console import log, table
from lamkit.stages import beginning, sources


class Options(Model):
    """Options of ``lamkit rebias``.

    Attributes:
        checkpoint: model.
        head: head whose reference is refitted.
        data: data set with energies; where a split is recorded, its part ``train``.
        device: CPU, GPU or Ascend.
    """

    checkpoint: InputPath
    head: str
    data: InputPath
    device: str = "CPU"


def run(options: Options, out: Path) -> dict[str, Any]:
    """Write a checkpoint to ``out/checkpoints/best`` whose head has its reference refitted.

    Returns:
        The reference of each element (eV), the RMSE of energies before and after (eV/atom), that of forces, which
        stays (eV/Å), rank of the fit, and what new elements begin as.

    Raises:
        UserError: unknown head, or data without energies.
    """
    from lamkit.data.frame import NUMBERS
    from lamkit.train import checkpoint, rebias
    from lamkit.train.elements import with_rows
    from lamkit.train.tasks import make_task

    start = checkpoint.read(options.checkpoint)
    head = start.head(options.head)
    facts = sources.head_of(head, options.data)
    task = make_task(
        head, options.data, facts, valid_fraction=0.0, seed=0
    )  # a fit of a few numbers takes all frames
    start, new = with_rows(start, task.elements)
    beginning.warn(start, task, new, "heads")
    fitted = rebias.refitted(start, head, task, rebias.predictor(start, options.device))
    reference, before = fitted.task.reference.reference, start.references[head]
    rows = [
        (s, f"{before[z]:.4f}", f"{reference[z]:.4f}", f"{reference[z] - before[z]:+.4f}")
        for s in task.elements
        for z in [NUMBERS[s]]
    ]
    log.info("%s\n%s", table(rows, ("element", "before eV", "after eV", "shift eV")), fitted.words())
    written = replace(
        start,
        references={**start.references, head: reference},
        elements={**start.elements, head: sorted({*start.elements[head], *task.elements})},
        config={**start.config, "rebias": {"head": head, "data": str(options.data)}},
    )
    checkpoint.write(out / "checkpoints" / "best", written)
    return {
        "checkpoint": str(out / "checkpoints" / "best"),
        "head": head,
        "rank": fitted.task.reference.rank,
        "n_elements": fitted.task.reference.n_elements,
        "residual_std": fitted.task.reference.residual_std,
        "energy_rmse_before": fitted.energy_before,
        "energy_rmse_after": fitted.energy_after,
        "forces_rmse": fitted.forces_rmse,
        "new_elements": new,
        "reference": {s: float(reference[NUMBERS[s]]) for s in task.elements},
    }
