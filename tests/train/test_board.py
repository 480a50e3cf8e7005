"""Curves for TensorBoard, read back as TensorBoard reads them."""

import sys

import pytest

from lamkit.errors import UserError
from lamkit.stages import pretrain
from lamkit.train.board import Board

ERRORS = {
    "cu": {
        "energy_mae": 0.01,
        "energy_rmse": 0.02,
        "forces_mae": 0.1,
        "forces_rmse": None,
        "stress_mae": None,
    }
}


def events(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder))
    found.Reload()
    return found


def test_errors_are_written_in_mev_and_a_resumed_run_replaces_what_it_repeats(tmp_path):
    pytest.importorskip("tensorboard")
    board = Board(tmp_path, None)
    for step in (10, 20, 30):
        board.write(step, ERRORS, {"cu": (0.3, 0.004, 0.3)}, 1e-3, float("nan"))
    Board(tmp_path, 20).write(30, {"cu": {**ERRORS["cu"], "energy_mae": 0.5}}, {}, 1e-3, 0.7)
    found = events(tmp_path)
    points = [(p.step, round(p.value, 3)) for p in found.Scalars("cu/valid energy_mae meV/atom")]
    assert points == [(10, 10.0), (20, 10.0), (30, 500.0)]
    assert found.Scalars("cu/train forces_rmse meV/Å")[0].value == pytest.approx(300)
    assert [p.step for p in found.Scalars("score")] == [30]  # nan is no point
    assert "cu/valid forces_rmse meV/Å" not in found.Tags()["scalars"]


def test_without_tensorboard_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(UserError, match=r"pip install 'lamkit\[tensorboard\]'"):
        Board(tmp_path, None)
    # and it is said before anything is read
    options = pretrain.Options(train={"tensorboard": True})
    with pytest.raises(UserError, match="TensorBoard cannot be loaded"):
        pretrain.run(options, tmp_path / "run")
    assert not (tmp_path / "run").exists()
