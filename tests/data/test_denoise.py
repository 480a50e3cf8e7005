"""Noise for pre-training without labels."""

import numpy as np
import pytest
from toy_data import emt_data, emt_frames  # noqa: F401

from lamkit.data.buckets import Buckets, measure
from lamkit.data.dataset import open_dataset
from lamkit.data.denoise import NoisyView, displaced, target_scale
from lamkit.data.sampler import Sampler, Source
from lamkit.train.tasks import everything


def test_targets_point_back_and_have_unit_variance():
    [frame] = emt_frames(["Cu"], 1, 0)
    rng = np.random.default_rng(0)
    noisy = [displaced(frame, 0.02, 0.3, rng) for _ in range(4000)]
    s = target_scale(0.02, 0.3)
    for one in noisy[:20]:
        np.testing.assert_allclose(one.positions + s * one.forces, frame.positions, atol=1e-12)
        np.testing.assert_allclose(one.forces.sum(axis=0), 0, atol=1e-12)
        assert one.energy is None
        assert one.stress is None
    # Three quarters of the variance of four atoms: their mean displacement is taken off.
    assert np.var([one.forces for one in noisy]) == pytest.approx(0.75, rel=0.1)


def test_a_schedule_of_one_width_scales_by_it():
    assert target_scale(0.1, 0.1) == 0.1
    assert target_scale(0.1, 0.1000001) == pytest.approx(0.1, rel=1e-5)


def test_noise_is_drawn_anew_in_each_epoch_and_alike_after_a_resume(emt_data):  # noqa: F811
    view = NoisyView(everything(open_dataset(emt_data["cu"])), 0.05, 0.1, seed=3)
    sampler = Sampler(
        [Source("cu", view, np.zeros(119))], {"cu": 1.0}, Buckets([measure(view, 4.0, None, 96, 0)], [1.0]),
        cutoff=4.0, max_neighbors=None, seed=0, turn=False,
    )  # fmt: skip
    first = view.frame_of(5, 0)
    np.testing.assert_array_equal(first.positions, view.frame(5).positions)
    assert np.abs(first.positions - view.frame_of(5, 1).positions).max() > 0.01
    step = 0
    seen = {0: [], 1: []}
    while sampler.positions[0].epoch < 2:
        epoch = sampler.positions[0].epoch
        batch = sampler.item(step).batch
        seen[epoch].append(batch.forces[batch.forces_mask > 0])
        assert not batch.energy_mask.any()
        step += 1
    a, b = (np.sort(np.linalg.norm(np.concatenate(v), axis=1)) for v in seen.values())
    assert len(a) == len(b) == 96
    assert np.abs(a - b).max() > 1e-3
