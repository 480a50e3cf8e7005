"""Fine-tune: one or several heads of a checkpoint on new data, old ones or new ones on the same trunk."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pydantic

from lamkit import config
from lamkit.config import InputPath, Model
from lamkit.console import log
from lamkit.errors import Interrupted, UserError, suggest
from lamkit.files import atomic_write
from lamkit.stages import beginning, retention, sources
from lamkit.stages import replay as replaying
from lamkit.stages.beginning import AUTO, Beginning
from lamkit.stages.deepmd_systems import Systems
from lamkit.stages.replay import Replay
from lamkit.train import launch
from lamkit.train.config import TrainConfig, TrainOption

if TYPE_CHECKING:
    from lamkit.stages.retention import Watched
    from lamkit.train.checkpoint import Checkpoint
    from lamkit.train.run import Run
    from lamkit.train.tasks import Task


class Options(Model):
    """Options of ``lamkit finetune``.

    Attributes:
        head: name of the head, or several names. One of the checkpoint's heads goes on from its own weights;
            another name makes a new head; ``auto`` makes one called after its data, begun as the head that fits.
        checkpoint: model to start from.
        data: data set of the head, or head → data set; null takes a head's shipped sample data.
        init: head that a head begins as: a head of the checkpoint, ``auto`` (the one whose forces fit the new
            data best before any training) or ``random``; null takes the head of the same name where there is one,
            else ``auto``. Or a choice for each head.
        n_frames: use only so many training frames.
        replay: old heads that train along, so that they are not forgotten; null lets none.
        retention: old heads are measured before and after on so many frames each; 0 does not.
        train: how to train: a preset of ``configs/train``, or its keys.
        device: CPU, GPU or Ascend.
        resume: go on with the run in the output folder.
    """

    head: str | list[str]
    checkpoint: InputPath | None = None
    data: InputPath | Systems | dict[str, InputPath | Systems] | None = None
    init: str | dict[str, str] | None = None
    n_frames: int | None = pydantic.Field(None, ge=1)
    replay: Replay | None = None
    retention: int = pydantic.Field(24, ge=0)
    train: Annotated[TrainConfig, TrainOption] = pydantic.Field("finetune", validate_default=True)
    device: str = "CPU"
    resume: bool = False


def run(options: Options, out: Path) -> dict[str, Any]:
    """Fine-tune; the run folder is ``out``, its checkpoints hold the old heads, too.

    Raises:
        UserError: something of the input is wrong.
    """
    from lamkit.train import checkpoint, rebias
    from lamkit.train.early import refuse_impossible, refuse_unknown_heads
    from lamkit.train.elements import with_rows
    from lamkit.train.run import train
    from lamkit.train.tune import describe

    refuse_impossible(options.train, options.device)
    path = options.checkpoint or sources.default_checkpoint("lamkit-pretrain")
    start = checkpoint.read(path)
    wanted = beginning.named_by_data(options.head, options.data)
    refuse_unknown_heads(options.train, [*wanted, *(start.heads if options.replay is not None else ())])
    targets = _targets(options, wanted, out)
    if options.replay is not None:
        replaying.check(start, options.replay, targets)  # before anything takes long
    start, new = with_rows(start, [e for t in targets for e in t.elements])
    for task in targets:
        beginning.warn(start, task, new, options.train.tune)
    log.info("training %s", describe(options.train.tune))
    choices = _choices(options, targets)
    network = rebias.predictor(start, options.device)
    beginnings = [beginning.begin(start, t, choices[t.name], network) for t in targets]
    targets = [b.task for b in beginnings]
    resolved = config.dump(options.model_copy(update={"checkpoint": str(path), "resume": False}))
    resume_hint = _resume_hint(targets, path, out)
    given = options.replay.data if options.replay is not None else {}
    with launch.turn(out):  # of several machines
        old = _replayed(options, start, targets, resolved, resume_hint, out)
        watched = retention.watch(
            start, targets, old, given, options.train, options.retention, out, options.device
        )
    before = retention.errors(start, watched, network)
    del network  # its memory is for training
    plan = _plan(options, start, beginnings, old, resolved, out)
    result = train(replace(plan, resume_hint=resume_hint), resume=options.resume)
    _say_whether_better(result, targets)
    result |= _retained(options, start, result, watched, before, targets, old)
    result |= {
        "head": targets[0].name if len(targets) == 1 else [t.name for t in targets],
        "began_as": _one_or_all({b.task.name: b.origin for b in beginnings}),
        "ranking": _one_or_all({b.task.name: b.ranking for b in beginnings}),
        "energy_rmse_before_rebias": _one_or_all({b.task.name: b.before for b in beginnings}),
        "new_elements": new,
        "replayed": [t.name for t in old],
    }
    atomic_write(out / "result.json", json.dumps(result, indent=1))
    log.info("best checkpoint: %s (step %d)", result["checkpoint"], result["best_step"])
    return result


def _targets(options: Options, wanted: Mapping[str, Any], out: Path) -> list[Task]:
    """The heads that the run is about (name → data), with their frames."""
    from lamkit.train.tasks import make_task

    data = {name: folder for name, folder in wanted.items() if folder is not None}
    return [
        make_task(
            name,
            folder,
            head,
            split=options.train.split,
            valid_fraction=options.train.valid_fraction,
            seed=options.train.seed,
            n_frames=options.n_frames,
        )
        for name, (folder, head) in sources.gather(list(wanted), data, out / "data").items()
    ]


def _choices(options: Options, targets: Sequence[Task]) -> dict[str, str | None]:
    """What each head is to begin as; one that was called ``auto`` as the one that fits best.

    Raises:
        UserError: a choice for a head that the run does not train.
    """
    init, names = options.init, [t.name for t in targets]
    asked = [options.head] if isinstance(options.head, str) else options.head
    usual = [AUTO if head == AUTO else None for head in asked]
    if not isinstance(init, Mapping):
        return {name: init or other for name, other in zip(names, usual, strict=True)}
    if unused := [name for name in init if name not in names]:
        raise UserError(f"init: '{unused[0]}' is no head of this run.{suggest(unused[0], names)}")
    return {name: init.get(name, other) for name, other in zip(names, usual, strict=True)}


def _resume_hint(targets: Sequence[Task], path: str | Path, out: Path) -> str:
    heads = [word for t in targets for word in ("--head", t.name)]
    return shlex.join(["lamkit", "finetune", *heads, "--from", str(path), "--out", str(out), "--resume"])


def _replayed(
    options: Options,
    start: Checkpoint,
    targets: Sequence[Task],
    resolved: Mapping[str, Any],
    resume_hint: str,
    out: Path,
) -> list[Task]:
    """Tasks of the old heads that train along; what was explored for them survives a stop."""
    if options.replay is None:
        return []
    if not (out / "config.yaml").is_file():  # --resume needs it
        config.write_yaml(out / "config.yaml", {"verb": "finetune", **resolved})
    try:
        return replaying.tasks(start, options.replay, targets, options.train, out, options.device)
    except (Interrupted, KeyboardInterrupt):
        raise Interrupted(f"what old heads have explored is kept; go on with {resume_hint}") from None


def _plan(
    options: Options,
    start: Checkpoint,
    beginnings: Sequence[Beginning],
    old: Sequence[Task],
    resolved: Mapping[str, Any],
    out: Path,
) -> Run:
    """The training run: new and replayed heads together, judged by the new ones."""
    from lamkit.train.run import Run

    targets = [b.task for b in beginnings]
    origins = {b.task.name: b.origin for b in beginnings}
    train = options.train
    if old and options.replay is not None:
        weights = replaying.chances(targets, old, options.replay, train)
        train = train.model_copy(update={"weights": weights})
    return Run(
        tasks=[*targets, *old],
        trunk=start.trunk,
        config=train,
        out=out,
        start=start,
        init={**origins, **{t.name: t.name for t in old}},
        judged=[t.name for t in targets],
        resolved={"verb": "finetune", **resolved, "began_as": _one_or_all(origins)},
        device=options.device,
    )


def _say_whether_better(result: dict[str, Any], targets: Sequence[Task]) -> None:
    """Which of start and training was returned, by the validation errors of the heads that the run is about."""
    first, best = result["first"], result["heads"]
    unjudged = [t.name for t in targets if t.name not in first]
    if unjudged:
        log.warning(
            "%s: too few frames to hold any out for validation, so nothing says whether training helped",
            ", ".join(unjudged),
        )
    if result["best_step"] == 0 and not unjudged:
        log.warning(
            "no validation had force errors lower than the start by more than chance (two standard errors over the "
            "frames): the checkpoint returned is the start with its reference refitted. More data, a smaller "
            "train.learning_rate or --tune heads may help"
        )
    for task in targets:
        if task.name in first and task.name in best:
            label = "energy" if best[task.name]["forces_rmse"] is None else "forces"
            unit = "meV/atom" if label == "energy" else "meV/Å"
            a, b = (1000 * errors[task.name][f"{label}_rmse"] for errors in (first, best))
            log.info("%s: validation RMSE of the %s %.4g -> %.4g %s", task.name, label, a, b, unit)


def _retained(
    options: Options,
    start: Checkpoint,
    result: Mapping[str, Any],
    watched: Mapping[str, Watched],
    before: Mapping[str, Any],
    targets: Sequence[Task],
    old: Sequence[Task],
) -> dict[str, Any]:
    """The retention table, printed, and its part of the result."""
    from lamkit.train import checkpoint, rebias
    from lamkit.train.tune import changes_trunk

    fixed = not old and not changes_trunk(options.train.tune)
    if fixed or not watched:
        after = before
    else:
        tuned = checkpoint.read(result["checkpoint"])
        after = retention.errors(tuned, watched, rebias.predictor(tuned, options.device))
    found = retention.compare(watched, before, after)
    others = [h for h in start.heads if h not in {t.name for t in targets}] if options.retention else []
    unmeasured = [h for h in others if h not in found]
    retention.report(found, unmeasured, fixed=fixed, replayed=bool(old))
    return {"retention": found, "not_measured": unmeasured}


def _one_or_all(values: Mapping[str, Any]) -> Any:
    """The value of a single head, or head → value."""
    return next(iter(values.values())) if len(values) == 1 else dict(values)
