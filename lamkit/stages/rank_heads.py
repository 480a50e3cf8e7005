"""Rank heads: which head of a checkpoint fits a data set before any training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lamkit import config
from lamkit.config import InputPath, Model
from lamkit.data.dataset import open_dataset
from lamkit.files import atomic_write
from lamkit.stages import beginning


class Options(Model):
    """Options of ``lamkit rank-heads``.

    Attributes:
        model: checkpoint or run folder.
        data: data set; of a folder with ``train/`` that part, so that nothing is learned of the others.
        device: CPU, GPU or Ascend.
    """

    model: InputPath
    data: InputPath
    device: str = "CPU"


def run(options: Options, out: Path | None) -> dict[str, Any]:
    """Score every head on up to 48 frames, its reference refitted on them; best force RMSE first.

    Returns:
        ``ranking``, rows as of :func:`lamkit.train.rebias.rank_heads` with ``level_of_theory`` and ``citation``
        beside the errors, ``best``, and ``table``, the same as text.
    """
    from lamkit.train import checkpoint, rebias
    from lamkit.train.tasks import everything

    start = checkpoint.read(options.model)
    path = Path(options.data)
    view = everything(open_dataset(path / "train" if (path / "train").is_dir() else path))
    ranking = rebias.rank_heads(start, view, rebias.predictor(start, options.device))
    rows: list[dict[str, Any]] = []
    for r in ranking:
        head = start.head_configs[r["head"]]
        forces = None if r["forces_rmse"] != r["forces_rmse"] else r["forces_rmse"]  # JSON has no NaN
        level = config.dump(head.level_of_theory)
        rows.append({**r, "forces_rmse": forces, "level_of_theory": level, "citation": head.citation})
    result = {
        "ranking": rows, "best": rows[0]["head"], "data": str(path), "table": beginning.ranking_table(ranking, start),
    }  # fmt: skip
    if out is not None:
        atomic_write(Path(out) / "result.json", json.dumps(result, indent=1) + "\n")
    return result
