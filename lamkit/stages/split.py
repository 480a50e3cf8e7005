"""Split a data set into train, valid and test parts, each a data set of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lamkit import config
from lamkit.console import log, table
from lamkit.data.dataset import Dataset, open_dataset, write_dataset
from lamkit.data.split import SplitPlan, plan_split
from lamkit.data.write import require_free
from lamkit.errors import UserError


class Options(config.Model):
    """How to split.

    Attributes:
        data: data set to split.
        by: what stays together: groups (trajectories, materials), compositions, or nothing (random).
        valid: share of the frames for validation.
        test: share of the frames for the test.
        seed: of the choice.
    """

    data: config.InputPath
    by: Literal["group", "random", "composition"] = "group"
    valid: float = Field(default=0.1, ge=0, lt=1)
    test: float = Field(default=0.0, ge=0, lt=1)
    seed: int = 0


def run(options: Options, out: Path) -> dict[str, Any]:
    """Write ``out/train``, ``out/valid`` and ``out/test`` (those with a share).

    Returns:
        ``parts`` (name -> frames), ``method``, ``left_out``, ``notes``, ``paths``.

    Raises:
        UserError: nothing to split, or a part's folder is taken.
    """
    dataset = open_dataset(options.data)
    train = 1.0 - options.valid - options.test
    if train <= 0:
        raise UserError(f"valid {options.valid} and test {options.test} leave nothing to train on")
    shares = {"train": train, "valid": options.valid, "test": options.test}
    plan = plan_split(dataset, shares, options.by, options.seed)
    paths = {part: out / part for part in plan.parts}
    for path in paths.values():
        require_free(path)
    for part, path in paths.items():
        _write(dataset, plan, part, path, options)
    for note in plan.notes:
        log.warning("%s: %s", options.data, note)
    rows = [(part, len(plan.parts[part]), str(path)) for part, path in paths.items()]
    log.info("%s", table(rows, ("part", "frames", "data set")))
    return {
        "parts": {part: len(indices) for part, indices in plan.parts.items()},
        "method": plan.method,
        "left_out": plan.left_out,
        "notes": plan.notes,
        "paths": {part: str(path) for part, path in paths.items()},
    }


def _write(dataset: Dataset, plan: SplitPlan, part: str, path: Path, options: Options) -> None:
    record = {
        "part": part,
        "by": options.by,
        "method": plan.method,
        "seed": options.seed,
        "shares": {"valid": options.valid, "test": options.test},
        "frames": {name: len(indices) for name, indices in plan.parts.items()},
        "left_out": plan.left_out,
        "notes": plan.notes,
        "from": str(options.data),
    }
    frames = (dataset.frame(int(i)) for i in plan.parts[part])
    write_dataset(frames, path, dataset.facts.model_copy(update={"split": record}), split=part)
