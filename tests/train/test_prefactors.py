from types import SimpleNamespace

import numpy as np
import pytest

from lamkit.data.heads import LossWeights
from lamkit.errors import UserError
from lamkit.train import schedule
from lamkit.train.config import LossConfig, TrainConfig
from lamkit.train.prefactors import Prefactors
from lamkit.train.stepper import Stepper
from lamkit.train.tasks import Scales

NAMES = ("energy", "forces", "stress", "equigrad")
OWN = LossWeights(energy=1.0, forces=1.0, stress=0.5)


def test_weights_move_from_start_to_limit_with_the_learning_rate():
    """p = start α + limit (1 − α), α = lr/lr₀: DeePMD's formula."""
    loss = LossConfig(energy=0.02, forces=1000, stress=0.02, limit={"energy": 1, "forces": 1}, equigrad=0.1)
    weights = Prefactors(loss, "a", OWN, NAMES)
    np.testing.assert_allclose(weights.at(1.0), [0.02, 1000, 0.01, 0.1], rtol=1e-6)
    np.testing.assert_allclose(weights.at(0.0), [1, 1, 0.01, 0.1], rtol=1e-6)
    np.testing.assert_allclose(weights.at(0.25), [0.755, 250.75, 0.01, 0.1], rtol=1e-6)


def test_a_term_whose_start_or_limit_is_zero_is_off():
    loss = LossConfig(energy=1, forces=1, stress=0, limit={"energy": 0, "stress": 1})
    assert Prefactors(loss, "a", OWN, NAMES).at(0.5).tolist() == [0, 1, 0, 0]
    assert Prefactors(LossConfig(), "a", OWN, NAMES, stress=False).at(1.0)[2] == 0
    with pytest.raises(UserError, match="all its loss weights are 0"):
        Prefactors(LossConfig(energy=0, forces=0, stress=0), "a", OWN, NAMES)


def test_a_head_may_have_weights_of_its_own():
    loss = LossConfig(
        energy=2, forces=3, stress=4, limit={"forces": 30}, heads={"b": {"forces": 7, "limit": {"energy": 9}}}
    )
    assert Prefactors(loss, "a", OWN, NAMES).at(0.0).tolist() == [2, 30, 2, 0]
    assert Prefactors(loss, "b", OWN, NAMES).at(1.0).tolist() == [2, 7, 2, 0]
    assert Prefactors(loss, "b", OWN, NAMES).at(0.0).tolist() == [9, 7, 2, 0]


def test_weights_stand_still_while_the_rate_warms_up():
    config = TrainConfig(max_steps=100, warmup_steps=10, learning_rate=0.01)
    assert schedule.rate_fraction(3, schedule.learning_rate(3, 0.03, config), config) == 1.0
    assert schedule.rate_fraction(60, 0.004, config) == pytest.approx(0.4)


def test_a_step_takes_the_weights_of_its_head_at_its_learning_rate():
    config = TrainConfig(max_steps=100, warmup_steps=0, learning_rate=0.01, loss={"limit": {"forces": 1.0}})
    prefactors = [Prefactors(LossConfig(forces=f, limit={"forces": 1}), "a", OWN, NAMES) for f in (5, 9)]
    scales = Scales(mean=0.0, output=1.0, energy=0.2, forces=0.3, stress=0.4)
    stepper = SimpleNamespace(c=config, prefactors=prefactors, tasks=[SimpleNamespace(scales=scales)] * 2)
    for head, rate, forces in ((0, 0.01, 5), (1, 0.01, 9), (1, 0.0025, 3)):
        weights, units = Stepper._of_head(stepper, head, 50, rate)
        assert weights.asnumpy()[1] == pytest.approx(forces)
        np.testing.assert_allclose(units.asnumpy(), [0.2, 0.3, 0.4])
