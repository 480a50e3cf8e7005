"""Pre-train: one trunk, one head per data set."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pydantic

from lamkit import config
from lamkit.config import InputPath, Model
from lamkit.console import log
from lamkit.data.frame import NUMBERS
from lamkit.errors import UserError
from lamkit.files import atomic_write
from lamkit.model.config import TrunkConfig
from lamkit.stages import sources
from lamkit.stages.deepmd_systems import Systems
from lamkit.train.config import TrainConfig, TrainOption, TrunkOption

if TYPE_CHECKING:
    from lamkit.data.heads import HeadConfig
    from lamkit.train.checkpoint import Checkpoint
    from lamkit.train.tasks import Task


class Options(Model):
    """Options of ``lamkit pretrain``.

    Attributes:
        heads: heads to train; null takes those of ``data``, or the shipped sample heads.
        data: head → data set, a folder with ``train/`` and ``valid/``, or DeePMD systems.
        trunk: architecture: a preset of ``configs/trunk``, or its keys; weights (``init``) bring theirs.
        train: how to train: a preset of ``configs/train``, or its keys.
        n_frames: use only so many training frames of each head (for learning curves).
        init: checkpoint whose trunk and heads of the same names the weights start from.
        device: CPU, GPU or Ascend.
        resume: go on with the run in the output folder.
    """

    heads: list[str] | None = None
    data: dict[str, InputPath | Systems] = {}
    trunk: Annotated[TrunkConfig, TrunkOption] = pydantic.Field("orb-v3-small", validate_default=True)
    train: Annotated[TrainConfig, TrainOption] = pydantic.Field("pretrain", validate_default=True)
    n_frames: int | None = pydantic.Field(None, ge=1)
    init: InputPath | None = None
    device: str = "CPU"
    resume: bool = False


def run(options: Options, out: Path) -> dict[str, Any]:
    """Train all heads together; the run folder is ``out``.

    Raises:
        UserError: something of the input is wrong; nothing has been written to ``checkpoints`` then.
    """
    from lamkit.train import checkpoint
    from lamkit.train.early import refuse_impossible, refuse_unknown_heads
    from lamkit.train.run import Run, train

    refuse_impossible(options.train, options.device)
    refuse_unknown_heads(options.train, sources.names(options.heads, options.data))
    start = checkpoint.read(options.init) if options.init is not None else None
    if start is not None:
        options = _with_trunk_of(start, options)
    found = sources.gather(options.heads, options.data, out / "data")
    tasks = [_task(name, path, head, options) for name, (path, head) in found.items()]
    if start is not None:
        tasks = _going_on(tasks, start)
    resolved = config.dump(options.model_copy(update={"resume": False}))
    plan = Run(
        tasks=tasks,
        trunk=options.trunk,
        config=options.train,
        out=out,
        start=start,
        init={t.name: t.name if start is not None and t.name in start.heads else None for t in tasks},
        resolved={"verb": "pretrain", **resolved},
        device=options.device,
        resume_hint=shlex.join(["lamkit", "pretrain", "--multitask", "--out", str(out), "--resume"]),
    )
    result = train(plan, resume=options.resume)
    atomic_write(out / "result.json", json.dumps(result, indent=1))
    log.info("best checkpoint: %s (step %d)", result["checkpoint"], result["best_step"])
    return result


def _with_trunk_of(start: Checkpoint, options: Options) -> Options:
    """The options with the architecture that the weights belong to.

    Raises:
        UserError: another one is asked for, or it is none that can be shared.
    """
    if not isinstance(start.trunk, TrunkConfig):
        raise UserError(
            f"{start.path}: a DeepPot, which has no trunk to share; expected a checkpoint of an Orb"
        )
    if "trunk" in options.model_fields_set and start.trunk != options.trunk:
        raise UserError(
            f"{start.path}: its trunk is not the one of this run; name none (the weights bring their own), or take "
            f"that of {start.path}/config.yaml"
        )
    return options.model_copy(update={"trunk": start.trunk})


def _task(name: str, path: Path, head: HeadConfig, options: Options) -> Task:
    """A head's data as they are trained on: with their labels, or with noise in place of them."""
    from lamkit.train.denoise import denoising_task
    from lamkit.train.tasks import make_task

    train = options.train
    if train.denoise is not None:
        return denoising_task(name, path, head, train, train.denoise, n_frames=options.n_frames)
    return make_task(
        name,
        path,
        head,
        split=train.split,
        valid_fraction=train.valid_fraction,
        seed=train.seed,
        n_frames=options.n_frames,
    )


def _going_on(tasks: list[Task], start: Checkpoint) -> list[Task]:
    """The tasks, those that go on from a head of ``start`` with the reference that its weights belong to."""
    old = [t.name for t in tasks if t.name in start.heads]
    if new := [t.name for t in tasks if t.name not in start.heads]:
        log.warning(
            "%s: no head of %s, so random weights to begin with (lamkit finetune begins as the head that fits best)",
            ", ".join(new), start.path,
        )  # fmt: skip
    result = []
    for task in tasks:
        reference = task.reference.reference.copy()
        if task.name in old:
            known = [NUMBERS[s] for s in start.elements[task.name]]
            reference[known] = start.references[task.name][known]
        result.append(replace(task, reference=replace(task.reference, reference=reference)))
    return result
