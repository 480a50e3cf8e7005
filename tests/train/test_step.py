"""The compiled step against plain numpy and central differences."""

from typing import NamedTuple

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from toy_data import TINY, emt_frames

from lamkit.data.batch import collate, make_graph, shape_of
from lamkit.model.config import TrunkConfig
from lamkit.model.potential import Potential
from lamkit.model.runtime import setup
from lamkit.train import normalizing
from lamkit.train.config import LossConfig, TrainConfig
from lamkit.train.objective import Objective, tensors
from lamkit.train.step import TrainStep
from lamkit.train.tasks import Scales

setup()
TRUNK = TrunkConfig(**TINY)


class Fitted(NamedTuple):
    """What a normaliser is fitted to: the part of a task that it reads."""

    name: str
    scales: Scales


def batch_of(n=3, dtype=np.float32, seed=0):
    graphs = [make_graph(f, TRUNK.cutoff, None, dtype) for f in emt_frames(["Cu", "Ag"], n, seed)]
    shape = shape_of(graphs)._replace(n_atoms=20, n_graphs=n + 3)
    return collate(graphs, shape, np.zeros(119), dtype)


def numbers(rate, step, head_step, config, average=0.9):
    b1, b2 = config.beta1, config.beta2
    return Tensor(
        np.array([rate, b1**step, b2**step, b1**head_step, b2**head_step, average, average]), ms.float32
    )


def test_a_head_that_is_not_drawn_is_not_touched():
    config = TrainConfig(weight_decay=0.1)
    potential, average = Potential(TRUNK, ["a", "b", "c"]), Potential(TRUNK, ["a", "b", "c"])
    step = TrainStep(potential, average, config)
    groups = (*step.heads, *step.heads_m, *step.heads_v, *step.heads_average)
    before = [p.asnumpy().copy() for p in groups]
    for network in (potential, average):
        normalizing.fit(network, Fitted("b", Scales(0.3, 2.0, 0.1, 1.5, 0.02)))
    ones = Tensor(np.ones(3), ms.float32)
    for k in range(1, 3):
        step(Tensor(1, ms.int32), numbers(0.01, k, k, config), ones, ones, *tensors(batch_of()))
    for parameter, old in zip(groups, before, strict=True):
        new = parameter.asnumpy()
        np.testing.assert_array_equal(new[[0, 2]], old[[0, 2]])
        assert np.abs(new[1] - old[1]).max() > 0
    # Normalisers are statistics of data: no step moves them, not even those of the head that was drawn.
    assert not any("normal" in p.name or "scale" in p.name for p in (*step.trunk, *step.heads))
    for network in (potential, average):
        found = network.statistic("b", "energy")
        assert (found.mean, found.variance) == pytest.approx((0.3, 4.0))
        assert network.statistic("b", "forces").variance == pytest.approx(2.25)


def test_the_step_is_adamw_with_a_global_norm():
    config = TrainConfig(weight_decay=0.05, clip_norm=0.5)
    potential, average = Potential(TRUNK, ["a"]), Potential(TRUNK, ["a"])
    step = TrainStep(potential, average, config)
    batch, ones = batch_of(), Tensor(np.ones(3), ms.float32)
    gradient = nn_gradient(potential, batch, config)
    old = {p.name: p.asnumpy().copy() for p in (*step.trunk, *step.heads)}
    _, norm, *_ = step(Tensor(0, ms.int32), numbers(0.01, 1, 1, config), ones, ones, *tensors(batch))
    flat = np.sqrt(sum(float(np.square(g).sum()) for g in gradient.values()))
    assert float(norm.asnumpy()) == pytest.approx(flat, rel=1e-4)
    scale = min(1.0, 0.5 / flat)
    for parameter, decays in zip(
        (*step.trunk, *step.heads), (*step.trunk_decays, *step.heads_decays), strict=True
    ):
        g = gradient[parameter.name] * scale
        m, v = 0.1 * g, (1 - config.beta2) * g * g
        direction = (m / 0.1) / (np.sqrt(v / (1 - config.beta2)) + 1e-8)
        expected = old[parameter.name] - 0.01 * (direction + decays * 0.05 * old[parameter.name])
        moved = np.abs(g) > 1e-4 * flat * scale  # a sign is not defined where the gradient is rounding
        np.testing.assert_allclose(parameter.asnumpy()[moved], expected[moved], rtol=0, atol=2e-5)


def nn_gradient(potential, batch, config):
    """Gradient of the loss by parameter name, that of a head's slices with the leading axis put back."""
    cell, ones = LossAndGradient(potential, config.loss), Tensor(np.ones(3), ms.float32)
    _, (of_slices, of_trunk) = cell(Tensor(0, ms.int32), ones, ones, *tensors(batch))
    found = {p.name: g.asnumpy() for p, g in zip(potential.trunk_parameters(), of_trunk, strict=True)}
    heads = potential.head_parameters()
    return found | {p.name: g.asnumpy()[None] for p, g in zip(heads, of_slices, strict=True)}


class LossAndGradient(nn.Cell):
    """Loss of a step and its gradients by one head's slices and the trunk."""

    def __init__(self, potential, config):
        super().__init__(auto_prefix=False)
        self.objective = Objective(potential, config)
        self.gradient = ops.value_and_grad(
            self.objective, 0, ms.ParameterTuple(potential.trunk_parameters()), has_aux=True
        )

    def construct(self, head, weights, units, *batch):
        slices = self.objective.potential.head_slices(head)
        return self.gradient(slices, head, weights, units, *batch)


@pytest.mark.parametrize(
    ("trunk", "loss"),
    [
        (TRUNK, LossConfig(kind="huber")),
        (TRUNK, LossConfig(kind="mse", units="physical", intensive=False)),
        (TRUNK, LossConfig(kind="orb-huber", equigrad=1.0)),
        (TRUNK.model_copy(update={"confidence": True, "output": "direct"}), LossConfig(kind="orb-huber")),
    ],
    ids=["huber", "DeePMD's", "orb-huber with equigrad", "orb-huber, direct, with confidence"],
)
def test_gradient_of_the_loss_agrees_with_central_differences_in_float64(trunk, loss, monkeypatch):
    # The plain network: MindSpore hands float64 weights to the C++ operators rounded, and small steps would be lost.
    monkeypatch.setattr("lamkit.model.native.cells.available", lambda *_: False)
    potential = Potential(trunk, ["a"], dtype=ms.float64)
    cell = LossAndGradient(potential, loss)
    # Confidence would contradict differences: it does not pull on the trunk, but moves with it.
    fixed = np.array([float(name != "confidence") for name in cell.objective.loss.names])
    units = Tensor(np.ones(3), ms.float64)
    arrays = tensors(batch_of(2, np.float64), ms.float64)

    def evaluate(weights):
        return cell(Tensor(0, ms.int32), Tensor(weights, ms.float64), units, *arrays)

    _, (of_slices, of_trunk) = evaluate(fixed)
    parameters = [*potential.trunk_parameters(), *potential.head_parameters()]
    gradients = [g.asnumpy() for g in of_trunk] + [g.asnumpy()[None] for g in of_slices]
    rng = np.random.default_rng(0)
    for k in [*rng.permutation(len(of_trunk))[:5], len(of_trunk), len(of_trunk) + 2]:
        value = parameters[k].asnumpy().copy()
        direction, eps, found = rng.normal(size=value.shape), 1e-5, []
        for sign in (1, -1):
            parameters[k].set_data(Tensor(value + sign * eps * direction))
            found.append(float(evaluate(fixed)[0][0].asnumpy()))
        parameters[k].set_data(Tensor(value))
        slope = (found[0] - found[1]) / (2 * eps)
        assert slope == pytest.approx(float((gradients[k] * direction).sum()), rel=1e-5, abs=1e-8)
    if "confidence" in cell.objective.loss.names:
        _, (of_slices, of_trunk) = evaluate(1.0 - fixed)
        assert not any(g.asnumpy().any() for g in of_trunk)
        assert [bool(g.asnumpy().any()) for g in of_slices] == [False] * 12 + [True] * 4


def test_a_step_sees_normalisers_that_moved_after_it_was_compiled():
    """Online normalisers change between steps."""
    config = TrainConfig(loss=LossConfig(kind="orb-huber"), learning_rate=1e-9)
    potential, average = Potential(TRUNK, ["a"]), Potential(TRUNK, ["a"])
    step, batch, ones = TrainStep(potential, average, config), batch_of(), Tensor(np.ones(3), ms.float32)

    def loss():
        outputs = step(Tensor(0, ms.int32), numbers(1e-12, 1, 1, config), ones, ones, *tensors(batch))
        return float(outputs[0].asnumpy())

    before = [loss(), loss()]
    assert before[0] == pytest.approx(before[1], rel=1e-4)
    normalizing.observe((potential, average), "a", batch)
    assert potential.statistic("a", "forces") == average.statistic("a", "forces")
    assert potential.statistic("a", "forces").batches == 1
    known = batch.forces[batch.forces_mask > 0]
    assert potential.statistic("a", "forces").variance == pytest.approx(known.var(ddof=1), rel=1e-6)
    assert loss() != pytest.approx(before[1], rel=0.1)
