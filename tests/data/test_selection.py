"""Filters and choice: plain geometry and plain numbers."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from lamkit.data.frame import from_atoms, make_frame
from lamkit.data.selection import (
    Limits,
    closest_pair,
    describe,
    farthest_points,
    random_points,
    spread_evenly,
    why_not,
)


def test_farthest_points_are_the_extremes_first():
    points = np.array([[0.0], [0.4], [0.5], [0.6], [1.0], [-3.0], [3.0]])
    choice = farthest_points(points, 3)
    assert {5, 6} == set(choice.indices[:2].tolist())
    assert choice.indices[2] == 0  # then the middle of the gap between them


def test_distances_never_rise():
    points = np.random.default_rng(0).normal(size=(300, 5))
    distances = farthest_points(points, 50).distances
    assert (np.diff(distances[1:]) <= 1e-12).all()


def test_greedy_choice_is_that_of_the_definition():
    points = np.random.default_rng(1).normal(size=(60, 3))
    scaled = (points - points.mean(0)) / points.std(0)
    indices = farthest_points(points, 10).indices
    for k in range(1, 10):
        to_chosen = np.linalg.norm(scaled[:, None] - scaled[indices[:k]][None], axis=2).min(axis=1)
        assert indices[k] == to_chosen.argmax()


def test_duplicates_are_never_added():
    points = np.repeat(np.eye(3), 10, axis=0)
    choice = farthest_points(points, 20)
    assert len(choice.indices) == 3
    assert choice.rest == pytest.approx(0, abs=1e-12)
    assert choice.redundancy == pytest.approx(1)


def test_new_frames_keep_away_from_those_taken():
    points = np.array([[0.0], [1.0], [2.0], [10.0]])
    assert farthest_points(points, 1, taken=np.array([[10.0]])).indices.tolist() == [0]
    assert len(farthest_points(points, 4, taken=points).indices) == 0


def test_units_of_a_feature_do_not_matter():
    points = np.random.default_rng(2).normal(size=(100, 4))
    scaled = points * np.array([1, 1e3, 1e-3, 1]) + 7
    assert (farthest_points(points, 20).indices == farthest_points(scaled, 20).indices).all()


def test_blocks_change_nothing(monkeypatch):
    from lamkit.data import selection

    points = np.random.default_rng(3).normal(size=(100, 4)).astype(np.float32)
    whole = farthest_points(points, 15)
    monkeypatch.setattr(selection, "BLOCK", 7)
    assert (farthest_points(points, 15).indices == whole.indices).all()


def test_equal_frames_give_one():
    assert len(farthest_points(np.ones((5, 3)), 4).indices) == 1
    assert len(farthest_points(np.zeros((0, 3)), 4).indices) == 0


def test_large_frames_are_not_favoured():
    latent = np.random.default_rng(4).normal(size=(7, 3))
    np.testing.assert_allclose(describe(latent), describe(np.tile(latent, (5, 1))), rtol=1e-6)


def test_random_choice_follows_its_seed():
    assert (random_points(50, 10, seed=1) == random_points(50, 10, seed=1)).all()
    assert len(set(random_points(50, 60, seed=2).tolist())) == 50


def test_even_spacing_covers_the_range():
    assert spread_evenly(100, 4) == [12, 37, 62, 87]
    assert spread_evenly(3, 10) == [0, 1, 2]
    assert spread_evenly(0, 3) == []


def test_closest_pair_counts_periodic_images():
    frame = make_frame([29], [[0.0, 0, 0]], np.eye(3) * 1.0)
    ratio, pair = closest_pair(frame)
    assert pair == "Cu-Cu"
    assert ratio == pytest.approx(1.0 / (2 * 1.32))


def test_ordinary_crystals_are_sane():
    for atoms in (bulk("Cu"), bulk("Si"), bulk("NaCl", "rocksalt", a=5.64), Atoms("H2O", np.eye(3))):
        assert why_not(from_atoms(atoms), Limits()) is None


def test_reasons_name_what_is_wrong():
    close = Atoms("CuAl", [[0, 0, 0], [1.0, 0, 0]])
    assert why_not(from_atoms(close), Limits()) == "Al-Cu too close"
    assert why_not(from_atoms(close), Limits(min_distance=0.3)) is None
    forced = from_atoms(bulk("Cu"), forces=np.array([[60.0, 0, 0]]))
    assert why_not(forced, Limits()) == "force too large"
    assert why_not(forced, Limits(max_force=None)) is None
    nan = from_atoms(Atoms("Cu", [[np.nan, 0, 0]]))
    assert why_not(nan, Limits()) == "positions are not finite"
    skewed = make_frame([29], [[0.0, 0, 0]], [[20, 0, 0], [19.9, 5, 0], [0, 0, 20]])
    assert why_not(skewed, Limits(max_skew=60)) == "cell is too skewed"
