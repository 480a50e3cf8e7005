"""Tasks of denoising pre-training: the frames of a data set without their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lamkit.data.denoise import NoisyView
from lamkit.data.frame import SYMBOLS
from lamkit.data.heads import HeadConfig
from lamkit.data.reference import ReferenceFit
from lamkit.errors import UserError
from lamkit.train.config import NoiseConfig, TrainConfig
from lamkit.train.tasks import Scales, Task, training_parts

SUFFIX = "-denoise"  # of the heads' names, so that no later run takes them for heads of energies


def denoising_task(
    name: str,
    path: str | Path,
    head: HeadConfig,
    config: TrainConfig,
    noise: NoiseConfig,
    *,
    n_frames: int | None = None,
) -> Task:
    """The task that takes noise off the frames of one data set; its labels are not read.

    Args:
        name: head that the data are of.
        path: data set, or a folder with ``train/`` and ``valid/``.
        head: facts of the head.
        config: for the split and the seed.
        noise: how much.
        n_frames: use only so many training frames.

    Raises:
        UserError: nothing to train on.
    """
    train, valid = training_parts(Path(path), name, config.split, config.valid_fraction, config.seed)
    if not len(train):
        raise UserError(f"{path}: no training frames for head '{name}'")
    if n_frames is not None and n_frames < len(train):
        chosen = np.random.default_rng([config.seed, 77]).permutation(len(train))[:n_frames]
        train = train.subset(np.sort(chosen))
    bounds = (noise.smallest, noise.largest, config.seed)
    facts = head.model_copy(
        update={
            "name": name + SUFFIX,
            "labels": ["forces"],
            "title": f"denoising of {name}",
            "loss": _ONLY_FORCES,
        }
    )
    nothing = ReferenceFit(np.zeros(119), 0, 0, [], 0.0, 0.0, 0)
    return Task(
        name + SUFFIX,
        NoisyView(train, *bounds),
        NoisyView(valid, *bounds) if valid is not None else None,
        facts,
        nothing,
        Scales(mean=0.0, output=1.0, energy=1.0, forces=1.0, stress=1.0),
        tuple(SYMBOLS[z] for z in train.elements),
    )


_ONLY_FORCES = HeadConfig.model_fields["loss"].default.model_copy(
    update={"energy": 0.0, "forces": 1.0, "stress": 0.0}
)
