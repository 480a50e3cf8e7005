"""The student of a distillation: trained on the teacher's labels, measured on trajectories it never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lamkit.console import Progress
from lamkit.data.frame import NUMBERS, Frame, to_atoms
from lamkit.metrics import ErrorSums
from lamkit.stages.properties import BLOCKS

if TYPE_CHECKING:
    from ase import Atoms

    from lamkit.data.heads import HeadConfig
    from lamkit.data.reference import ReferenceFit
    from lamkit.model.config import Architecture
    from lamkit.stages.engine import Frames
    from lamkit.train.checkpoint import Checkpoint
    from lamkit.train.config import TrainConfig

BOOTSTRAP = 1000  # resamplings of whole trajectories: frames of one are not independent
CHUNK = 64
Predict = Callable[[list["Atoms"]], Sequence[dict[str, Any]]]
EXAMPLE = "structure.xyz"  # in the checkpoint of a distillation: what an exported student can begin MD with


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


def write_example(data: Path, checkpoint: Path) -> None:
    """Put the first frame of a data set into a checkpoint folder."""
    import ase.io

    from lamkit.data.dataset import open_dataset

    atoms = to_atoms(open_dataset(data).frame(0))
    atoms.calc = None
    ase.io.write(checkpoint / EXAMPLE, atoms, format="extxyz")


def errors(predict: Predict, source: Frames) -> dict[str, Any]:
    """Errors of a model on labelled frames, with an interval for the force error.

    Args:
        predict: structures → results, as of ``LamCalculator``.
        source: the frames.

    Returns:
        As :meth:`lamkit.metrics.ErrorSums.result`, and ``forces_rmse_interval``: 95 %, eV/Å, by resampling
        whole groups (trajectories), or consecutive blocks where there is only one; None for a single frame.
    """
    sums = ErrorSums()
    squares: dict[str, list[float]] = {}
    counts: dict[str, list[int]] = {}
    with Progress(len(source), "held-out frames") as progress:
        for start in range(0, len(source), CHUNK):
            frames = [source.frame(i) for i in range(start, min(start + CHUNK, len(source)))]
            predicted = predict([to_atoms(f) for f in frames])
            for frame, values in zip(frames, predicted, strict=True):
                _add(sums, frame, values)
                if frame.forces is not None:
                    square = float(np.square(values["forces"] - frame.forces).sum())
                    squares.setdefault(frame.group, []).append(square)
                    counts.setdefault(frame.group, []).append(frame.forces.size)
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


def _interval(squares: Sequence[Sequence[float]], counts: Sequence[Sequence[int]]) -> list[float] | None:
    """95 % bootstrap interval of the RMSE over groups, each with the values of its frames in their order.

    Of a single group consecutive blocks are resampled: frames that follow each other are alike.
    """
    if len(squares) == 1:
        squares, counts = (
            [part.tolist() for part in np.array_split(np.array(values[0]), min(BLOCKS, len(values[0])))]
            for values in (squares, counts)
        )
    if len(squares) < 2:
        return None
    drawn = np.random.default_rng(0).integers(0, len(squares), (BOOTSTRAP, len(squares)))
    totals, sizes = (np.array([sum(group) for group in values]) for values in (squares, counts))
    rmse = np.sqrt(totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return [float(v) for v in np.percentile(rmse, [2.5, 97.5])]
