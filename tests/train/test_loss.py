"""Values of the losses against numpy in float64; their gradients are tested in test_step.py."""

import mindspore as ms
import numpy as np
import pydantic
import pytest
from mindspore import Tensor
from toy_data import TINY

from lamkit.model.config import TrunkConfig
from lamkit.model.runtime import setup
from lamkit.train.config import LossConfig
from lamkit.train.loss import ScaledTerms

setup()
UNITS = np.array([0.5, 2.0, 0.1])
N = np.array([2.0, 3.0, 1.0])  # the last graph is a dummy
VOLUME = np.array([10.0, 20.0, 1.0])
NODE_GRAPH = np.array([0, 0, 1, 1, 1, 2])


def quantities(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=3), rng.normal(size=(6, 3)), 0.1 * rng.normal(size=(3, 6))


MASKS = (
    np.array([1.0, 1, 0]),
    np.array([1.0, 1, 1, 1, 1, 0]),
    np.array([[1.0] * 6, [1, 1, 1, 0, 0, 0], [0] * 6]),
)


def terms(config):
    arrays = [*quantities(1), *quantities(2), *MASKS, UNITS, np.ones(8)]
    t = [Tensor(a, ms.float64) for a in arrays]
    sizes = Tensor(N, ms.float64), Tensor(VOLUME, ms.float64)
    cell = ScaledTerms(config, TrunkConfig(**TINY), ms.float64)
    found = cell(tuple(t[:3]), tuple(t[3:6]), tuple(t[6:9]), t[9], t[10], Tensor(NODE_GRAPH, ms.int32), sizes)
    return [float(v.asnumpy()) for v in found]


def huber(x, delta):
    return np.where(np.abs(x) <= delta, x * x / (2 * delta), np.abs(x) - delta / 2)


def test_deepmds_loss_is_its_formula():
    """L = p_e |ΔE|²/N + p_f mean |ΔF|² + p_v mean₉ |ΔΞ|²/N for each frame (deepmd/pt/loss/ener.py)."""
    (e1, f1, s1), (e2, f2, s2) = quantities(1), quantities(2)
    energy, forces, stress = terms(LossConfig(kind="mse", units="physical", intensive=False))
    total = (e1 - e2) * N  # ΔE of whole frames
    assert energy == pytest.approx(np.mean(total[:2] ** 2 / N[:2]), rel=1e-7)
    assert forces == pytest.approx(np.mean((f1 - f2)[:5] ** 2), rel=1e-7)
    virial = (s1 - s2) * VOLUME[:, None]  # the second frame knows its diagonal only
    sums = sum((w * virial[0, k] ** 2) / N[0] for k, w in enumerate([1, 1, 1, 2, 2, 2]))
    sums += (virial[1, :3] ** 2).sum() / N[1]
    assert stress == pytest.approx(sums / 12, rel=1e-7)


def test_intensive_divides_by_the_square_of_the_size():
    (e1, _, s1), (e2, _, s2) = quantities(1), quantities(2)
    energy, _, stress = terms(LossConfig(kind="mse", units="physical"))
    total = (e1 - e2) * N
    assert energy == pytest.approx(np.mean(total[:2] ** 2 / N[:2] ** 2), rel=1e-7)
    virial = (s1 - s2) * (VOLUME / N)[:, None]
    sums = (virial[0] ** 2 * [1, 1, 1, 2, 2, 2]).sum() + (virial[1, :3] ** 2).sum()
    assert stress == pytest.approx(sums / 12, rel=1e-7)


@pytest.mark.parametrize("kind", ["mae", "huber"])
def test_errors_in_units_of_the_head_go_through_the_penalty(kind):
    penalty = np.abs if kind == "mae" else None
    config = LossConfig(kind=kind, delta=0.3, deltas={"forces": 1.1}, intensive=False)
    (e1, f1, s1), (e2, f2, s2) = quantities(1), quantities(2)
    energy, forces, stress = terms(config)
    of = (lambda x, d: huber(x, d)) if penalty is None else (lambda x, d: penalty(x))
    assert energy == pytest.approx(np.mean((of((e1 - e2) / 0.5, 0.3) * N)[:2]), rel=1e-7)
    assert forces == pytest.approx(np.mean(of((f1 - f2) / 2.0, 1.1)[:5]), rel=1e-7)
    assert stress == pytest.approx(of((s1 - s2) / 0.1, 0.3)[MASKS[2] > 0].mean(), rel=1e-7)


def test_orbs_losses_refuse_units_that_they_would_ignore():
    with pytest.raises(pydantic.ValidationError, match="its own units"):
        LossConfig(kind="orb-huber", units="physical")
