"""Curves of a run for TensorBoard, where ``train.tensorboard`` asks for them (``pip install lamkit[tensorboard]``)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lamkit.errors import UserError

SHOWN = {"energy_mae": "meV/atom", "energy_rmse": "meV/atom", "forces_mae": "meV/Å", "forces_rmse": "meV/Å"}
SHOWN |= {"atom_energies_rmse": "meV", "hessian_rmse": "meV/Å²"}  # where the loss has such terms


def require_tensorboard() -> None:
    """Raise where TensorBoard cannot be loaded.

    Raises:
        UserError: with what to install.
    """
    try:
        import tensorboard.compat.proto.event_pb2
        import tensorboard.summary.writer.event_file_writer  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"train.tensorboard: TensorBoard cannot be loaded ({error}): pip install 'lamkit[tensorboard]', "
            "or leave train.tensorboard away; metrics.csv holds the same numbers"
        ) from None


class Board:
    """Writes event files.

    Args:
        folder: for them.
        resumed_at: step that a resumed run goes on from: what was written beyond it is not shown any more.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, resumed_at: int | None) -> None:
        require_tensorboard()
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer: Any = EventFileWriter(str(folder))
        if resumed_at is not None:
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=time.time(), step=resumed_at + 1, session_log=start))

    def write(
        self,
        step: int,
        errors: Mapping[str, Mapping[str, Any]],
        trained: Mapping[str, Sequence[float]],
        rate: float,
        score: float,
    ) -> None:
        """The errors of one validation, in meV units.

        Args:
            step: of the run.
            errors: of each head on its validation frames.
            trained: RMSE of each head on training batches: total, energy per atom, forces.
            rate: learning rate.
            score: by which the best checkpoint is chosen.
        """
        values = {"learning rate": rate, "score": score}
        for head, found in errors.items():
            values |= {
                f"{head}/valid {name} {unit}": 1000 * found[name]
                for name, unit in SHOWN.items()
                if found.get(name) is not None
            }
        for head, rmse in trained.items():
            values[f"{head}/train energy_rmse meV/atom"] = 1000 * rmse[1]
            values[f"{head}/train forces_rmse meV/Å"] = 1000 * rmse[2]
        points = [
            self._summary.Value(tag=tag, simple_value=value)
            for tag, value in values.items()
            if math.isfinite(value)
        ]
        self._writer.add_event(
            self._event(wall_time=time.time(), step=step, summary=self._summary(value=points))
        )
        self._writer.flush()
