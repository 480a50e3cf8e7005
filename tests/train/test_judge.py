"""Which checkpoint is the best one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lamkit.train.config import TrainConfig
from lamkit.train.judge import Judge, stale, won
from lamkit.train.run import Run
from lamkit.train.standing import Recent, Standing

HEADS = ("a", "b")


def errors(a: float, b: float) -> dict:
    """Validation errors with these force errors, eV/Å."""
    rest = dict.fromkeys(("energy_mae", "energy_rmse", "forces_mae", "stress_mae", "stress_rmse"), 0.1)
    rest["forces_rms_target"] = 0.5
    return {"a": {**rest, "forces_rmse": a}, "b": {**rest, "forces_rmse": b}}


@pytest.fixture
def verdicts(tmp_path):
    """Verdicts on validations one after the other, the first of them before any step."""

    def judge(judged, *found, squares=()) -> list[bool]:
        tasks = [SimpleNamespace(name=n, valid=[0], scales=SimpleNamespace(forces=1.0)) for n in HEADS]
        run = Run(
            tasks=tasks, trunk=None, config=TrainConfig(), out=Path(tmp_path), init={n: n for n in HEADS}, judged=judged
        )  # fmt: skip
        coming = iter(found)
        validator = SimpleNamespace(errors=lambda predictor: next(coming), squares={})
        plan = SimpleNamespace(batches=dict.fromkeys(HEADS, 1))
        judge = Judge(run, plan, validator, None, None)
        at, recent, said = Standing.at_start(2), Recent(2), []
        for step in range(len(found)):
            at.step = step
            if squares:
                here = dict(zip(HEADS, squares[step], strict=True))
                validator.squares = {n: [[square, 0.0] for square in of_head] for n, of_head in here.items()}
            said.append(judge.validate(at, recent, 0.0, 0.0))
        return said

    return judge


def test_fine_tuning_takes_no_checkpoint_in_which_one_of_its_heads_got_worse(verdicts):
    assert verdicts(HEADS, errors(0.4, 0.4), errors(0.2, 0.41), errors(0.3, 0.39)) == [True, False, True]


def test_pre_training_that_goes_on_may_lose_a_little_on_one_head(verdicts):
    assert verdicts(None, errors(0.4, 0.4), errors(0.2, 0.41), errors(0.3, 0.39)) == [True, True, False]


START, CHANCE, SURE = [1.0] * 8, [0.1, *[1.1] * 7], [0.9, *[0.95] * 7]


def test_fine_tuning_takes_no_gain_that_is_chance(verdicts):
    """Of eight frames one got much better and the others a little worse, then all of them better."""
    found = (errors(0.40, 0.40), errors(0.39, 0.39), errors(0.38, 0.38))
    squares = [(START, START), (CHANCE, CHANCE), (SURE, SURE)]
    assert verdicts(HEADS, *found, squares=squares) == [True, False, True]
    assert verdicts(None, *found, squares=squares) == [True, True, True]


def test_a_gain_of_all_frames_counts_though_one_of_them_makes_nearly_all_of_the_error(verdicts):
    start = [50.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01]
    half = [0.5 * square for square in start]
    worse_but_one = [25.0, *[1.3 * square for square in start[1:]]]
    found = (errors(0.40, 0.40), errors(0.30, 0.30))
    assert verdicts(HEADS, *found, squares=[(start, start), (half, half)]) == [True, True]
    assert won(np.array(start), np.array(half))
    assert won(np.array(start), np.array(worse_but_one))  # nearly all of the error is one frame's
    assert not won(np.zeros(8), np.zeros(8))


def test_fine_tuning_goes_on_while_errors_fall_though_none_is_surely_better_yet():
    config = TrainConfig(patience=2, valid_every=10)
    at = Standing(step=20, best=1.0, best_step=0, lowest=0.9, lowest_step=10)
    assert not stale(at, config)
    at.step = 30
    assert stale(at, config)


def test_of_several_heads_one_that_surely_won_is_enough(verdicts):
    found = (errors(0.40, 0.40), errors(0.38, 0.40))
    assert verdicts(HEADS, *found, squares=[(START, START), (SURE, START)]) == [True, True]


@pytest.mark.parametrize(
    ("forces", "target", "draws", "said"),
    [(0.49, 0.5, 400, False), (0.495, 0.5, 400, True), (0.495, 0.5, 399, False), (0.08, 0.05, 4000, False)],
)
def test_a_head_whose_forces_are_worth_nothing_after_many_batches_is_named(
    verdicts, monkeypatch, caplog, forces, target, draws, said
):
    monkeypatch.setattr(Standing, "at_start", lambda n: Standing(head_steps=[draws] * n, draws=[draws] * n))
    found = errors(0.2, forces)
    found["b"]["forces_rms_target"] = target
    with caplog.at_level("WARNING", logger="lamkit"):
        verdicts(None, found)
    assert (f"b: forces are no better than none ({1000 * forces:.0f} of 500 meV/Å)" in caplog.text) == said
    assert "a: forces" not in caplog.text
