"""Options that turn out wrong: refused before data are read where that can be, and without a trace in the folder."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from lamkit.errors import UserError, suggest
from lamkit.files import atomic_write
from lamkit.train import launch
from lamkit.train.board import require_tensorboard
from lamkit.train.config import TrainConfig

RECORDS = ("config.yaml", "train.log", "versions.json", "lcurve.out", "metrics.csv", "ranks", "tensorboard")


def refuse_impossible(config: TrainConfig, device: str) -> None:
    """Raise where a run with these options cannot be started on this machine.

    Args:
        config: training options.
        device: CPU, GPU or Ascend.

    Raises:
        UserError: ranks that cannot be shared among the machines, a device that is not there, or TensorBoard asked
            for and not installed.
    """
    launch.refuse_misfit(config.ranks)
    if config.tensorboard:
        require_tensorboard()
    if device != "CPU":
        from lamkit.model.runtime import setup

        setup(device)


def refuse_unknown_heads(config: TrainConfig, heads: Collection[str]) -> None:
    """Raise where training options name a head that the run does not have.

    Args:
        config: training options.
        heads: names of the run's heads.

    Raises:
        UserError: naming the option and the head.
    """
    named = {
        "weights": config.weights,
        "epochs": config.epochs,
        "head_batch_atoms": config.head_batch_atoms,
        "loss.heads": config.loss.heads,
    }
    for option, given in named.items():
        for name in given or ():
            if name not in heads:
                raise UserError(f"train.{option}: no head named '{name}'.{suggest(name, heads)}")


@contextmanager
def traceless(out: Path) -> Iterator[None]:
    """Leave the run folder as it was where something of the user's is wrong and nothing has been trained.

    So the corrected command may use the folder, and a run that was to go on with wrong options can go on without.
    """
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    config, state = out / "config.yaml", out / "checkpoints" / "last" / "state.json"
    before, saved = config.read_bytes() if config.is_file() else None, _time(state)
    try:
        yield
    except UserError:
        if before is not None and config.read_bytes() != before and _time(state) == saved:
            atomic_write(config, before)
        if not (out / "checkpoints").exists():
            for name in set(RECORDS) - there:
                shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink(missing_ok=True)
        raise


def _time(file: Path) -> int | None:
    return file.stat().st_mtime_ns if file.is_file() else None
