import itertools

import pytest

from lamkit.train import schedule
from lamkit.train.config import TrainConfig


def test_rate_warms_up_to_its_peak_and_ends_at_its_final_fraction():
    config = TrainConfig(max_steps=100, learning_rate=1.0, warmup_steps=10, final_learning_rate=0.1)
    assert schedule.learning_rate(0, 0.0, config) == pytest.approx(0.1)
    assert schedule.learning_rate(9, 0.09, config) == pytest.approx(1.0)
    assert schedule.learning_rate(99, 1.0, config) == pytest.approx(0.1)


@pytest.mark.parametrize("decay", ["cosine", "exponential"])
def test_rate_never_rises_after_warmup(decay):
    config = TrainConfig(max_steps=100, warmup_steps=5, decay=decay)
    rates = [schedule.learning_rate(s, schedule.progress(s, 0, config), config) for s in range(5, 100)]
    assert all(a >= b for a, b in itertools.pairwise(rates))


def test_progress_follows_the_nearer_of_steps_and_time():
    config = TrainConfig(max_steps=100, max_minutes=10)
    assert schedule.progress(50, 1, config) == pytest.approx(0.5)
    assert schedule.progress(10, 9, config) == pytest.approx(0.9)
    assert schedule.progress(200, 20, config) == 1.0


def test_average_forgets_the_start():
    config = TrainConfig(ema=0.999)
    assert schedule.ema_decay(0, config) == pytest.approx(0.1)
    assert schedule.ema_decay(10**6, config) == 0.999
    assert schedule.ema_decay(10, TrainConfig(ema=0)) == 0.0


def test_the_average_of_a_rare_head_forgets_as_fast_as_that_of_the_trunk():
    config = TrainConfig(ema=0.99)
    assert schedule.head_ema_decay(5000, 5000, config) == schedule.ema_decay(5000, config)
    rare = schedule.head_ema_decay(5999, 999, config)  # each sixth step is its own
    assert rare == pytest.approx(0.99**6)
    assert schedule.head_ema_decay(100, 0, TrainConfig(ema=0)) == 0.0
