"""Split a data set into train, valid and test parts: recorded in it, or each as a data set of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from lamkit import config
from lamkit.console import log, table
from lamkit.data import split_file
from lamkit.data.dataset import Dataset, open_dataset, write_dataset
from lamkit.data.split import By, SplitPlan, Stratum, plan_split
from lamkit.data.write import require_free
from lamkit.errors import UserError


class Options(config.Model):
    """How to split.

    Attributes:
        data: data set to split.
        by: what stays together: ``group`` (trajectories, materials), ``mp-id``, ``composition``,
            ``temperature`` (the highest for the test) or nothing (``random``).
        stratify: what all parts get the same mixture of: ``elements`` (sets of elements), ``size`` (atoms),
            ``energy`` (per atom, after the composition fit), ``forces`` (root mean square); the last three
            in fifths.
        valid: share of the frames for validation.
        test: share of the frames for the test.
        seed: of the choice.
        name: of the split, where it is recorded in the data set.
    """

    data: config.InputPath
    by: By = "group"
    stratify: list[Stratum] = []
    valid: float = Field(default=0.1, ge=0, lt=1)
    test: float = Field(default=0.0, ge=0, lt=1)
    seed: int = 0
    name: str = Field(default=split_file.DEFAULT, pattern=r"^[A-Za-z0-9_-]+$")


def run(options: Options, out: Path | None) -> dict[str, Any]:
    """Record the split in the data set, or write ``out/train``, ``out/valid`` and ``out/test``.

    Args:
        options: see :class:`Options`.
        out: folder for the parts as data sets of their own; None records the split in ``data``.

    Returns:
        ``parts`` (name -> frames), ``method``, ``left_out``, ``alike``, ``notes``, ``paths``.

    Raises:
        UserError: nothing to split, or a part's folder is taken.
    """
    dataset = open_dataset(options.data)
    train = 1.0 - options.valid - options.test
    if train <= 0:
        raise UserError(f"valid {options.valid} and test {options.test} leave nothing to train on")
    shares = {"train": train, "valid": options.valid, "test": options.test}
    paths = {} if out is None else {part: out / part for part, share in shares.items() if share}
    for path in paths.values():
        require_free(path)
    plan = plan_split(dataset, shares, options.by, options.seed, options.stratify)
    if out is None:
        paths = {"record": _record(dataset, plan, options, shares)}
    for part in plan.parts if out is not None else ():
        _write(dataset, plan, part, paths[part], options)
    for note in plan.notes:
        log.warning("%s: %s", options.data, note)
    rows = [
        (part, len(frames), str(paths.get(part, paths.get("record")))) for part, frames in plan.parts.items()
    ]
    log.info("%s", table(rows, ("part", "frames", "written to")))
    if out is None:
        log.info(
            "pretrain, finetune and evaluate use these parts of %s%s",
            options.data,
            ""
            if options.name == split_file.DEFAULT
            else f" where it is named: --set train.split={options.name}, evaluate --split {options.name}",
        )
    return {
        "parts": {part: len(indices) for part, indices in plan.parts.items()},
        "method": plan.method,
        "left_out": plan.left_out,
        "alike": plan.alike,
        "notes": plan.notes,
        "paths": {part: str(path) for part, path in paths.items()},
    }


def _record(dataset: Dataset, plan: SplitPlan, options: Options, shares: dict[str, float]) -> Path:
    facts = split_file.make_facts(
        dataset,
        name=options.name,
        by=options.by,
        stratify=options.stratify,
        shares={part: share for part, share in shares.items() if share},
        seed=options.seed,
        method=plan.method,
        frames={part: len(frames) for part, frames in plan.parts.items()},
        left_out=plan.left_out,
        alike=plan.alike,
        notes=plan.notes,
    )
    return split_file.save(dataset, facts, plan.parts)


def _write(dataset: Dataset, plan: SplitPlan, part: str, path: Path, options: Options) -> None:
    record = {
        "part": part,
        "by": options.by,
        "stratify": list(options.stratify),
        "method": plan.method,
        "seed": options.seed,
        "shares": {"valid": options.valid, "test": options.test},
        "frames": {name: len(indices) for name, indices in plan.parts.items()},
        "left_out": plan.left_out,
        "alike": plan.alike,
        "notes": plan.notes,
        "from": str(options.data),
    }
    frames = (dataset.frame(int(i)) for i in plan.parts[part])
    write_dataset(frames, path, dataset.facts.model_copy(update={"split": record}), split=part)
