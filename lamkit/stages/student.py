"""The student of a distillation: trained on the teacher's labels, measured on trajectories it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lamkit.console import Progress
from lamkit.data.frame import NUMBERS, Frame, to_atoms
from lamkit.metrics import ErrorSums

if TYPE_CHECKING:
    from lamkit.calculator import LamCalculator
    from lamkit.data.heads import HeadConfig
    from lamkit.data.reference import ReferenceFit
    from lamkit.model.config import Architecture
    from lamkit.stages.engine import Frames
    from lamkit.train.checkpoint import Checkpoint
    from lamkit.train.config import TrainConfig

BOOTSTRAP = 1000  # resamplings of whole trajectories: frames of one are not independent
CHUNK = 64


def fit(
    data: Path,
    head: HeadConfig,
    trunk: Architecture,
    config: TrainConfig,
    out: Path,
    *,
    warm: Path | None = None,
    device: str = "CPU",
    resolved: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a student on ``data``; an unfinished training in ``out`` goes on.

    Args:
        data: labelled data set.
        head: facts of the student's head.
        trunk: architecture of the student.
        config: how to train.
        out: run folder.
        warm: student of the round before, whose weights it starts from.
        device: CPU, GPU or Ascend.
        resolved: configuration for the checkpoint's ``config.yaml``.
    """
    from lamkit.train import checkpoint
    from lamkit.train.run import Run, train
    from lamkit.train.tasks import make_task

    task = make_task(
        head.name, data, head, split=config.split, valid_fraction=config.valid_fraction, seed=config.seed
    )
    start = None
    if warm is not None:
        start = checkpoint.read(warm)
        task = replace(task, reference=_as_before(task.reference, start, head.name))
    plan = Run(
        tasks=[task],
        trunk=trunk,
        config=config,
        out=out,
        start=start,
        init={head.name: head.name if start is not None else None},
        resolved={"verb": "distill", **(resolved or {})},
        device=device,
        resume_hint="the same 'lamkit distill' command with --resume",
    )
    return train(plan, resume=(out / "checkpoints").is_dir())


def _as_before(fit: ReferenceFit, start: Checkpoint, head: str) -> ReferenceFit:
    """The reference that the weights were trained under; elements new in this round take the fitted one."""
    reference = fit.reference.copy()
    known = [NUMBERS[s] for s in start.elements[head]]
    reference[known] = start.references[head][known]
    return replace(fit, reference=reference)


def errors(calculator: LamCalculator, source: Frames) -> dict[str, Any]:
    """Errors of a model on labelled frames, with an interval for the force error.

    Returns:
        As :meth:`lamkit.metrics.ErrorSums.result`, and ``forces_rmse_interval``: 95 %, eV/Å, by resampling
        whole groups (trajectories); None for a single group.
    """
    sums = ErrorSums()
    squares: dict[str, float] = {}
    counts: dict[str, int] = {}
    with Progress(len(source), "held-out frames") as progress:
        for start in range(0, len(source), CHUNK):
            frames = [source.frame(i) for i in range(start, min(start + CHUNK, len(source)))]
            predicted = calculator.predict([to_atoms(f) for f in frames])
            for frame, values in zip(frames, predicted, strict=True):
                _add(sums, frame, values)
                if frame.forces is not None:
                    square = float(np.square(values["forces"] - frame.forces).sum())
                    squares[frame.group] = squares.get(frame.group, 0.0) + square
                    counts[frame.group] = counts.get(frame.group, 0) + frame.forces.size
            progress.update(start + len(frames))
    return {**sums.result(), "forces_rmse_interval": _interval(list(squares.values()), list(counts.values()))}


def _add(sums: ErrorSums, frame: Frame, values: dict[str, Any]) -> None:
    sums.add(
        len(frame),
        energy_pred=values["energy"] if frame.energy is not None else None,
        energy_true=frame.energy,
        forces_pred=values["forces"],
        forces_true=frame.forces,
        stress_pred=values.get("stress"),
        stress_true=frame.stress,
    )


def _interval(squares: Sequence[float], counts: Sequence[int]) -> list[float] | None:
    """95 % bootstrap interval of the RMSE over groups."""
    if len(squares) < 2:
        return None
    drawn = np.random.default_rng(0).integers(0, len(squares), (BOOTSTRAP, len(squares)))
    rmse = np.sqrt(np.array(squares)[drawn].sum(axis=1) / np.array(counts)[drawn].sum(axis=1))
    return [float(v) for v in np.percentile(rmse, [2.5, 97.5])]
