"""The compiled step against plain numpy and central differences."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from toy_data import TINY, emt_frames

from lamkit.data.batch import collate, make_graph, shape_of
from lamkit.model.config import TrunkConfig
from lamkit.model.potential import INPUTS, Potential
from lamkit.model.runtime import setup
from lamkit.train.config import TrainConfig
from lamkit.train.loss import terms
from lamkit.train.step import LABELS, N_INPUTS, TrainStep, tensors

setup()
TRUNK = TrunkConfig(**TINY)


def batch_of(n=3, dtype=np.float32, seed=0):
    graphs = [make_graph(f, TRUNK.cutoff, None, dtype) for f in emt_frames(["Cu", "Ag"], n, seed)]
    shape = shape_of(graphs)._replace(n_atoms=20, n_graphs=n + 3)
    return collate(graphs, shape, np.zeros(119), dtype)


def numbers(rate, step, head_step, config, average=0.9):
    b1, b2 = config.beta1, config.beta2
    return Tensor(np.array([rate, b1**step, b2**step, b1**head_step, b2**head_step, average]), ms.float32)


def test_a_head_that_is_not_drawn_is_not_touched():
    config = TrainConfig(weight_decay=0.1)
    potential, average = Potential(TRUNK, ["a", "b", "c"]), Potential(TRUNK, ["a", "b", "c"])
    step = TrainStep(potential, average, config)
    groups = (*step.heads, *step.heads_m, *step.heads_v, *step.heads_average)
    before = [p.asnumpy().copy() for p in groups]
    ones = Tensor(np.ones(3), ms.float32)
    for k in range(1, 3):
        step(Tensor(1, ms.int32), numbers(0.01, k, k, config), ones, ones, *tensors(batch_of()))
    for parameter, old in zip(groups, before, strict=True):
        new = parameter.asnumpy()
        np.testing.assert_array_equal(new[[0, 2]], old[[0, 2]])
        assert np.abs(new[1] - old[1]).max() > 0


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
    cell = LossAndGradient(potential, config.loss.kind, config.loss.delta)
    (_, _), (of_slices, of_trunk) = cell(Tensor(0, ms.int32), *tensors(batch))
    found = {p.name: g.asnumpy() for p, g in zip(potential.trunk_parameters(), of_trunk, strict=True)}
    heads = potential.head_parameters()
    return found | {p.name: g.asnumpy()[None] for p, g in zip(heads, of_slices, strict=True)}


class LossAndGradient(nn.Cell):
    """Loss of a step with all weights and units 1, and its gradients by one head's slices and the trunk."""

    def __init__(self, potential, kind, delta):
        super().__init__(auto_prefix=False)
        self.potential, self.kind, self.delta = potential, kind, delta
        self.trunk = ms.ParameterTuple(potential.trunk_parameters())

    def construct(self, head, *batch):
        slices = self.potential.head_slices(head)
        return ops.value_and_grad(self.loss, 0, self.trunk, has_aux=True)(slices, head, batch)

    def loss(self, slices, head, batch):
        scales = self.potential.head_scales(head)
        predicted = self.potential.outputs(slices, scales, *batch[:N_INPUTS])
        target = (batch[N_INPUTS], batch[N_INPUTS + 2], batch[N_INPUTS + 4])
        masks = (batch[N_INPUTS + 1], batch[N_INPUTS + 3], batch[N_INPUTS + 5])
        units = ops.ones((3,), predicted[0].dtype)
        energy, forces, stress = terms(self.kind, self.delta, predicted, target, masks, units)
        return energy + forces + stress, energy


@pytest.mark.parametrize("kind", ["huber", "mse"])
def test_gradient_of_the_loss_agrees_with_central_differences_in_float64(kind):
    potential = Potential(TRUNK, ["a"], dtype=ms.float64)
    batch = batch_of(2, np.float64)
    inputs = tuple(
        Tensor(a, ms.int32 if a.dtype.kind == "i" else ms.float64)
        for a in (getattr(batch, name) for name in (*INPUTS, *LABELS))
    )
    cell, head = LossAndGradient(potential, kind, 0.1), Tensor(0, ms.int32)
    (_, _), (of_slices, of_trunk) = cell(head, *inputs)
    parameters = [*potential.trunk_parameters(), *potential.head_parameters()]
    gradients = [g.asnumpy() for g in of_trunk] + [g.asnumpy()[None] for g in of_slices]
    rng = np.random.default_rng(0)
    for k in [*rng.permutation(len(of_trunk))[:5], len(of_trunk), len(of_trunk) + 2]:
        value = parameters[k].asnumpy().copy()
        direction, eps, found = rng.normal(size=value.shape), 1e-5, []
        for sign in (1, -1):
            parameters[k].set_data(Tensor(value + sign * eps * direction))
            found.append(float(cell(head, *inputs)[0][0].asnumpy()))
        parameters[k].set_data(Tensor(value))
        slope = (found[0] - found[1]) / (2 * eps)
        assert slope == pytest.approx(float((gradients[k] * direction).sum()), rel=1e-5, abs=1e-8)
