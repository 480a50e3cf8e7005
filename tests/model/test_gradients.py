"""Gradients with respect to weights, through forces and stress, against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor, nn, ops
from small import batch_of, ms, small_potential, structures

from lamkit.data.batch import Shape
from lamkit.model.gradients import Gather, MeanSquare, SegmentSum, Silu
from lamkit.model.potential import inputs

# Sixth-order differences reach this in double precision; a wrong term shows at 1e-2.
AGREEMENT = 1e-8
SHAPE = Shape(20, 400, 6)


class Loss(nn.Cell):
    """A loss of energy, forces and stress with targets of zero, dummies masked."""

    def __init__(self, potential, batch):
        super().__init__(auto_prefix=False)
        self.potential = potential
        self.graphs = Tensor(batch.graph_mask, ms.float64)
        self.nodes = Tensor(batch.node_mask[:, None], ms.float64)
        self.cells = Tensor((batch.volume > 1)[:, None] * 1.0, ms.float64)

    def construct(self, slices, scales, *batch):
        energy, forces, stress, *_ = self.potential.outputs(slices, scales, *batch)
        total = ops.sum(self.graphs * energy * energy) + ops.sum(self.nodes * forces * forces)
        return total + 100.0 * ops.sum(self.cells * stress * stress)


class Gradient(nn.Cell):
    """Loss and its gradient with respect to one head's slices and the trunk."""

    def __init__(self, potential, batch):
        super().__init__(auto_prefix=False)
        self.potential = potential
        self.trunk = ParameterTuple(potential.trunk_parameters())
        self.gradient = ms.value_and_grad(Loss(potential, batch), grad_position=0, weights=self.trunk)

    def construct(self, head, *batch):
        slices = self.potential.head_slices(head)
        return self.gradient(slices, self.potential.head_scales(head), *batch)


def difference(loss, parameters, directions, step=1e-3):
    """Sixth-order central difference of ``loss()`` along a direction in several parameters at once."""
    starts = [p.asnumpy().copy() for p in parameters]
    step = step / np.sqrt(sum((d**2).sum() for d in directions))
    values = {}
    for k in (-3, -2, -1, 1, 2, 3, 0):  # 0 last: puts the weights back
        for p, start, d in zip(parameters, starts, directions, strict=True):
            p.set_data(Tensor(start + k * step * d, ms.float64))
        values[k] = loss() if k else None
    d = {k: values[k] - values[-k] for k in (1, 2, 3)}
    return (45 * d[1] - 9 * d[2] + d[3]) / (60 * step)


@pytest.mark.parametrize(
    "choices",
    [{"conditioning": True, "confidence": True}, {"output": "direct"}, {"version": "v2", "repulsion": False}],
    ids=["v3 conservative, conditioned", "v3 direct", "v2 conservative"],
)
def test_weight_gradients_of_an_energy_force_stress_loss_are_right(choices, monkeypatch):
    # The plain network; test_native.py ties the C++ operators to it, at weights that float32 holds, because MindSpore
    # hands float64 weights to operators rounded, and small steps of the weights would be lost.
    monkeypatch.setattr("lamkit.model.native.cells.available", lambda *_: False)
    potential = small_potential(**choices)
    batch = batch_of(structures()[:3], SHAPE)
    tensors = inputs(batch, ms.float64)
    step, head = Gradient(potential, batch), Tensor(1, ms.int32)
    trunk, heads = potential.trunk_parameters(), potential.head_parameters()
    # MindSpore passes these through float32 even here: only numbers that it holds can be moved by small steps.
    rounded = [p for p in trunk if p.name.endswith("_waves")]
    for parameter in rounded:
        parameter.set_data(Tensor(np.round(parameter.asnumpy() * 2**16) / 2**16, ms.float64))
    _, (of_slices, of_trunk) = step(head, *tensors)
    assert len(of_trunk) == len(trunk)
    assert len(of_slices) == len(heads)
    rng = np.random.default_rng(0)

    def loss():
        return float(step(head, *tensors)[0].asnumpy())

    gradients = [g.asnumpy() for g in of_trunk]
    for gradient, parameter in zip(of_slices, heads, strict=True):
        whole = np.zeros(parameter.shape)  # nothing for the head that is not drawn
        whole[1] = gradient.asnumpy()
        gradients.append(whole)
    parameters = [*trunk, *heads]
    # Few parameters at a time, so that a wrong one is not hidden behind large gradients of others.
    smooth = [i for i, p in enumerate(parameters) if not any(p is q for q in rounded)]
    assert len(smooth) + len(rounded) == len(parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if any(parameter is q for q in rounded):
            ones = np.ones(parameter.shape)
            expected = difference(loss, [parameter], [ones], 2**-11 * np.sqrt(ones.size))
            assert float(gradient.sum()) == pytest.approx(expected, rel=AGREEMENT, abs=10 * AGREEMENT)
    for group in np.array_split(smooth, 12):
        directions = [rng.normal(size=parameters[i].shape) for i in group]
        expected = difference(loss, [parameters[i] for i in group], directions)
        found = sum(float((gradients[i] * d).sum()) for i, d in zip(group, directions, strict=True))
        assert found == pytest.approx(expected, rel=AGREEMENT, abs=10 * AGREEMENT), [
            parameters[i].name for i in group
        ]

    before = loss()
    for parameter in heads:  # the loss does not know the head that is not drawn
        values = parameter.asnumpy().copy()
        values[0] += 1.0
        parameter.set_data(Tensor(values, ms.float64))
    assert loss() == before


def test_gradients_stay_finite_in_single_precision_with_padding_and_edges_at_the_cutoff():
    potential = small_potential(ms.float32)
    batch = batch_of(structures()[:3], Shape(SHAPE.n_atoms, SHAPE.n_edges + 1, SHAPE.n_graphs), np.float32)
    lengths = np.linalg.norm(batch.vectors, axis=1, keepdims=True)
    nearest = np.argsort(np.abs(lengths[:, 0] - 4.0))[:5]
    batch.vectors[nearest] *= (4.0 * (1 - 1e-6)) / lengths[nearest]
    batch32 = inputs(batch)

    class Single(Loss):
        def __init__(self, potential, batch):
            super().__init__(potential, batch)
            self.graphs, self.nodes, self.cells = (
                Tensor(x.asnumpy(), ms.float32) for x in (self.graphs, self.nodes, self.cells)
            )

    gradient = ms.value_and_grad(
        Single(potential, batch), grad_position=0, weights=ParameterTuple(potential.trunk_parameters())
    )

    class Step(nn.Cell):
        def __init__(self):
            super().__init__(auto_prefix=False)
            self.potential = potential

        def construct(self, head, *batch):
            return gradient(self.potential.head_slices(head), self.potential.head_scales(head), *batch)

    loss, (of_slices, of_trunk) = Step()(Tensor(0, ms.int32), *batch32)
    assert np.isfinite(float(loss.asnumpy()))
    for part in (*of_slices, *of_trunk):
        assert np.isfinite(part.asnumpy()).all()
        assert np.abs(part.asnumpy()).max() < 1e6


class Twice(nn.Cell):
    """Second derivative of sum(f(x) * c) along a direction, by autodiff."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.first = ms.grad(self.value, grad_position=0)
        self.second = ms.grad(self.slope, grad_position=0)

    def value(self, x, c):
        return ops.sum(self.function(x) * c)

    def slope(self, x, c):
        return ops.sum(self.first(x, c) * c)

    def construct(self, x, c):
        return self.value(x, c), self.first(x, c), self.second(x, c)


@pytest.mark.parametrize(
    ("cell", "value", "first", "second"),
    [
        (
            Silu,
            lambda x, s: x * s,
            lambda x, s: s * (1 + x * (1 - s)),
            lambda x, s: s * (1 - s) * (2 + x * (1 - 2 * s)),
        ),
    ],
    ids=["silu"],
)
def test_hand_written_slopes_and_curvatures(cell, value, first, second):
    x = np.linspace(-30, 30, 61).reshape(1, -1)
    s = 1 / (1 + np.exp(-x))
    c = np.ones_like(x)
    out = [t.asnumpy() for t in Twice(cell())(Tensor(x, ms.float64), Tensor(c, ms.float64))]
    assert out[0] == pytest.approx(value(x, s).sum())
    np.testing.assert_allclose(out[1], first(x, s), atol=1e-14)
    np.testing.assert_allclose(out[2], second(x, s), atol=1e-14)


def test_mean_square_twice():
    x = np.random.default_rng(0).normal(size=(3, 5))
    c = np.ones((3, 5))
    out = [t.asnumpy() for t in Twice(MeanSquare())(Tensor(x, ms.float64), Tensor(c, ms.float64))]
    assert out[0] == pytest.approx((x**2).mean(1).sum() * 5)
    np.testing.assert_allclose(out[1], 2 * x, atol=1e-14)
    np.testing.assert_allclose(out[2], np.full((3, 5), 2.0), atol=1e-14)


class GatherAndSum(nn.Cell):
    """Gradient of a gather followed by a sum over other indices, cubed to make it matter twice."""

    def __init__(self, gather, total):
        super().__init__()
        self.gather, self.total = gather, total
        self.first = ms.grad(self.value, grad_position=0)
        self.second = ms.grad(self.slope, grad_position=0)

    def value(self, x, i, j):
        rows = self.total(self.gather(x, i), j, x)
        return ops.sum(rows * rows * rows)

    def slope(self, x, i, j):
        first = self.first(x, i, j)
        return ops.sum(first * first)

    def construct(self, x, i, j):
        return self.first(x, i, j), self.second(x, i, j)


def test_gather_and_sum_are_each_other_s_gradient_twice():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 3))
    i, j = rng.integers(0, 4, 9), rng.integers(0, 4, 9)
    take, add = np.eye(4)[i], np.eye(4)[j]
    m = add.T @ take  # rows = m x
    first = m.T @ (3 * (m @ x) ** 2)
    second = m.T @ (6 * (m @ x) * (m @ (2 * first)))
    args = Tensor(x, ms.float64), Tensor(i, ms.int32), Tensor(j, ms.int32)
    out = [t.asnumpy() for t in GatherAndSum(Gather(), SegmentSum())(*args)]
    np.testing.assert_allclose(out[0], first, atol=1e-12)
    np.testing.assert_allclose(out[1], second, atol=1e-12)
