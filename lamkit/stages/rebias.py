"""Rebias: refit only the reference energies of a head on new data; the network stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lamkit.config import InputPath, Model
from lamkit.console import log, table
from lamkit.stages import sources


class Options(Model):
    """Options of ``lamkit rebias``.

    Attributes:
        checkpoint: model.
        head: head whose reference is refitted.
        data: data set with energies.
        device: CPU, GPU or Ascend.
    """

    checkpoint: InputPath
    head: str
    data: InputPath
    device: str = "CPU"


def run(options: Options, out: Path) -> dict[str, Any]:
    """Write a checkpoint to ``out/checkpoints/best`` whose head has its reference refitted.

    Raises:
        UserError: unknown head, or data without energies.
    """
    from lamkit.data.frame import SYMBOLS
    from lamkit.train import checkpoint, rebias
    from lamkit.train.tasks import make_task

    start = checkpoint.read(options.checkpoint)
    head = start.head(options.head)
    facts = sources.head_of(head, options.data)
    task = make_task(head, options.data, facts, valid_fraction=0.1, seed=0)
    fitted = rebias.refitted(start, head, task, device=options.device)
    reference = fitted.reference.reference
    before = start.references[head]
    rows = [
        (s, f"{before[z]:.4f}", f"{reference[z]:.4f}", f"{reference[z] - before[z]:+.4f}")
        for s in task.elements
        for z in [SYMBOLS.index(s)]
    ]
    log.info("%s", table(rows, ("element", "before eV", "after eV", "shift eV")))
    new = replace(
        start,
        references={**start.references, head: reference},
        elements={**start.elements, head: sorted({*start.elements[head], *task.elements})},
        config={**start.config, "rebias": {"head": head, "data": str(options.data)}},
    )
    checkpoint.write(out / "checkpoints" / "best", new)
    return {
        "checkpoint": str(out / "checkpoints" / "best"),
        "head": head,
        "rank": fitted.reference.rank,
        "n_elements": fitted.reference.n_elements,
        "residual_std": fitted.reference.residual_std,
        "reference": {s: float(reference[SYMBOLS.index(s)]) for s in task.elements},
    }
