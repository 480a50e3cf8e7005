"""Which teacher, which head and which starting structures a distillation takes when the user names none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lamkit.console import log
from lamkit.data.dataset import View, open_dataset
from lamkit.data.frame import reduced_formula
from lamkit.errors import UserError
from lamkit.stages.engine import dataset_folder

if TYPE_CHECKING:
    from lamkit.train.checkpoint import Checkpoint

DEFAULT_RUNS = ("lamkit-finetune", "lamkit-pretrain")


def default_teacher() -> Path:
    """The newest default run folder that holds a checkpoint, else the sample model.

    Raises:
        UserError: neither is there.
    """
    from lamkit import presets

    places = [Path(run) for run in DEFAULT_RUNS if (Path(run) / "checkpoints" / "best").is_dir()]
    sample = presets.examples() / "model"
    places += [sample] if (sample / "model.safetensors").is_file() else []
    if not places:
        raise UserError(
            f"no teacher: give one with --teacher CKPT (looked for {', '.join(DEFAULT_RUNS)} and the sample model)"
        )
    log.info("no teacher named: using %s (--teacher CKPT --head NAME for another)", places[0])
    return places[0]


def default_head(teacher: Checkpoint, given: bool) -> str:
    """The only head; of a teacher that the user did not choose, the head it was made for or the first.

    Raises:
        UserError: the user chose a teacher with several heads and no head.
    """
    if given or len(teacher.heads) == 1:
        return teacher.head(None)
    made_for = teacher.config.get("head")
    head = made_for if made_for in teacher.heads else teacher.heads[0]
    log.info("using its head %s; --head NAME for another of %s", head, ", ".join(teacher.heads))
    return str(head)


def default_starts(teacher: Checkpoint, head: str, cache: Path) -> str:
    """Structures that the head was trained on: those of its run if still there, else the shipped samples.

    Raises:
        UserError: neither is there.
    """
    from lamkit.stages import sources

    recorded = teacher.config.get("data")
    path = recorded.get(head) if isinstance(recorded, dict) else recorded
    if not (isinstance(path, str) and Path(path).exists() and teacher.config.get("head", head) == head):
        try:
            path = str(sources.gather([head], {}, cache)[head][0])
        except UserError as error:
            raise UserError(f"no starting structures: give some with --starts PATH ({error})") from None
    log.info("starting structures: %s (--starts PATH for others)", path)
    return str(dataset_folder(path))


def one_system(path: str) -> View:
    """The frames of the commonest composition: a small student is made for one system, not for all.

    Args:
        path: data set.
    """
    data = open_dataset(path)
    counts, numbers = data.compositions()
    kinds, kind_of, sizes = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
    commonest = int(sizes.argmax())
    chosen = np.flatnonzero(kind_of.reshape(-1) == commonest)
    if len(kinds) > 1:
        name = reduced_formula(numbers, kinds[commonest])
        log.info(
            "of these only %s (%d of %d frames): a student is for one system", name, len(chosen), len(data)
        )
    return data.subset(chosen)
