"""Fine-tune: one head of a checkpoint on new data, or a new head on the same trunk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pydantic

from lamkit import config
from lamkit.config import InputPath, Model
from lamkit.console import log, table
from lamkit.errors import UserError, suggest
from lamkit.files import atomic_write
from lamkit.stages import sources
from lamkit.train.config import TrainConfig, TrainOption

if TYPE_CHECKING:
    from lamkit.train.checkpoint import Checkpoint
    from lamkit.train.tasks import Task


class Options(Model):
    """Options of ``lamkit finetune``.

    Attributes:
        head: name of the head. One of the checkpoint's heads goes on from its own weights; another name
            makes a new head.
        checkpoint: model to start from.
        data: data set of the head; null takes the head's shipped sample data.
        init: head that a new head begins as: a head of the checkpoint, ``auto`` (the one whose forces fit
            the new data best before any training) or ``random``.
        n_frames: use only so many training frames.
        train: how to train: a preset of ``configs/train``, or its keys.
        device: CPU, GPU or Ascend.
        resume: go on with the run in the output folder.
    """

    head: str
    checkpoint: InputPath | None = None
    data: InputPath | None = None
    init: str = "auto"
    n_frames: int | None = pydantic.Field(None, ge=1)
    train: Annotated[TrainConfig, TrainOption] = pydantic.Field("finetune", validate_default=True)
    device: str = "CPU"
    resume: bool = False


def run(options: Options, out: Path) -> dict[str, Any]:
    """Fine-tune; the run folder is ``out``, its checkpoints hold the other heads unchanged.

    Raises:
        UserError: something of the input is wrong.
    """
    from lamkit.train import checkpoint
    from lamkit.train.run import Run, train
    from lamkit.train.tasks import make_task

    path = options.checkpoint or sources.default_checkpoint("lamkit-pretrain")
    start = checkpoint.read(path)
    data = {options.head: options.data} if options.data is not None else {}
    [(name, (folder, head))] = sources.gather([options.head], data, out / "data").items()
    task = make_task(
        name,
        folder,
        head,
        split=options.train.split,
        valid_fraction=options.train.valid_fraction,
        seed=options.train.seed,
        n_frames=options.n_frames,
    )
    _warn(start, task)
    origin, task, ranking = _begin(start, task, options)
    resolved = config.dump(options.model_copy(update={"checkpoint": str(path), "resume": False}))
    plan = Run(
        tasks=[task],
        trunk=start.trunk,
        config=options.train,
        out=out,
        start=start,
        init={name: origin},
        resolved={"verb": "finetune", **resolved, "began_as": origin},
        device=options.device,
        resume_hint=f"lamkit finetune --head {name} --from {path} --out {out} --resume",
    )
    if plan.kept:
        log.info(
            "the other heads (%s) stay in the checkpoint; the trunk under them changes, so check them with "
            "lamkit evaluate before using them",
            ", ".join(plan.kept),
        )
    result = {**train(plan, resume=options.resume), "head": name, "began_as": origin, "ranking": ranking}
    atomic_write(out / "result.json", json.dumps(result, indent=1))
    log.info("best checkpoint: %s (step %d)", result["checkpoint"], result["best_step"])
    return result


def _begin(start: Checkpoint, task: Task, options: Options) -> tuple[str | None, Task, list[dict[str, Any]]]:
    """The head to begin as, and the task with its reference refitted under that head's network."""
    from lamkit.train import rebias

    if task.name in start.heads:
        origin, ranking = task.name, []
        log.info("head %s goes on from its own weights; its reference is refitted on the new data", task.name)
    elif options.init == "random":
        log.info("head %s is new and begins with random weights, as asked", task.name)
        return None, task, []
    elif options.init == "auto":
        ranking = rebias.rank_heads(start, task, device=options.device)
        origin = str(ranking[0]["head"])
        rows = [
            (r["head"], f"{1000 * r['forces_rmse']:.0f}", f"{1000 * r['energy_rmse']:.1f}") for r in ranking
        ]
        log.info("heads on the new data, reference refitted, before any training:")
        log.info("%s", table(rows, ("head", "F RMSE meV/Å", "E RMSE meV/atom")))
        log.info(
            "head %s is new and begins as %s, which fits best (--init HEAD for another)", task.name, origin
        )
    elif options.init in start.heads:
        origin, ranking = options.init, []
        log.info("head %s is new and begins as %s", task.name, origin)
    else:
        raise UserError(
            f"init: no head named '{options.init}' in {start.path}.{suggest(options.init, start.heads)} "
            f"Known: auto, random, {', '.join(start.heads)}"
        )
    return origin, rebias.refitted(start, origin, task, device=options.device), ranking


def _warn(start: Checkpoint, task: Task) -> None:
    """Say aloud what the user may not have meant."""
    seen = {e for elements in start.elements.values() for e in elements}
    if new := [e for e in task.elements if e not in seen]:
        log.warning(
            "%s: %s never occurred in the data of %s; what the model knows of them starts from random numbers",
            task.name, ", ".join(new), start.path,
        )  # fmt: skip
    if task.name in start.head_configs:
        before = start.head_configs[task.name].level_of_theory.functional
        now = task.head.level_of_theory.functional
        if before != now:
            log.warning(
                "head %s was trained on %s, the new data are %s: use a new name to keep both",
                task.name, before, now,
            )  # fmt: skip
