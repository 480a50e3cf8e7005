"""Intervals: they hold the truth as often as they say, and groups make them wider than frames alike would."""

import numpy as np
import pytest

from lamkit.bootstrap import Resampled
from lamkit.data.frame import make_frame


def added(values, groups):
    """Frames of one atom with force errors ``values`` on each component."""
    found = Resampled()
    for value, group in zip(values, groups, strict=True):
        frame = make_frame([1], np.zeros((1, 3)), energy=0.0, forces=np.zeros((1, 3)), group=group)
        found.add(frame, {"energy": value, "forces": np.full((1, 3), value)})
    return found.result()


def test_the_interval_holds_the_true_error_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        low, high = added(rng.normal(size=80), [""] * 80)["forces_rmse"]
        hits += low < 1.0 < high
    assert 50 <= hits <= 60


def test_frames_of_one_trajectory_are_not_independent():
    rng = np.random.default_rng(1)
    values = np.repeat(rng.normal(size=10), 50)
    alike = added(values, np.repeat([f"g{i}" for i in range(10)], 50))
    apart = added(values, [""] * 500)
    assert (alike["by"], alike["n"]) == ("group", 10)
    assert (apart["by"], apart["n"]) == ("frame", 500)
    width = {k: r["forces_mae"][1] - r["forces_mae"][0] for k, r in (("alike", alike), ("apart", apart))}
    assert width["alike"] > 4 * width["apart"]
    assert "stress_mae" not in alike


def test_two_groups_are_too_few_and_so_are_two_frames():
    assert added([1.0, 2.0, 3.0, 4.0], ["a", "a", "b", "b"])["by"] == "frame"
    assert added([1.0, 2.0], ["", ""]) == {}


def test_many_groups_are_put_into_blocks_that_give_the_same_interval(monkeypatch):
    values = np.random.default_rng(2).normal(size=3000)
    whole = added(values, [""] * 3000)["forces_mae"]
    monkeypatch.setattr("lamkit.bootstrap.BLOCKS", 300)
    assert added(values, [""] * 3000)["forces_mae"] == pytest.approx(whole, rel=0.02)
