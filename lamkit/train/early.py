"""What can be refused before any data are read: an hour of conversion should not end with it."""

from __future__ import annotations

from lamkit.train import launch
from lamkit.train.board import require_tensorboard
from lamkit.train.config import TrainConfig


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
