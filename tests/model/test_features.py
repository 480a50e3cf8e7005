"""Radial and angular functions, envelope and pair repulsion against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from ase.data import covalent_radii
from mindspore import Tensor, nn
from small import ms, small_config

from lamkit.model.features import Envelope, harmonic_table
from lamkit.model.layers import ShiftedSoftplus
from lamkit.model.repulsion import Repulsion


def harmonics(unit: np.ndarray) -> np.ndarray:
    n = len(unit)
    second = np.einsum("ni,nj->nij", unit, unit)
    third = np.einsum("nij,nk->nijk", second, unit)
    monomials = [np.ones((n, 1)), unit, second.reshape(n, 9), third.reshape(n, 27)]
    return np.concatenate(monomials, 1) @ harmonic_table(3)


def directions(n: int = 20000) -> np.ndarray:
    """Directions spread evenly over the sphere (Fibonacci lattice)."""
    k = np.arange(n) + 0.5
    z = 1 - 2 * k / n
    angle = np.pi * (1 + np.sqrt(5)) * k
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], 1)


def test_harmonics_of_a_degree_have_the_same_length_in_every_direction():
    y = harmonics(directions(100))
    start = 0
    for degree in range(4):
        block = y[:, start : start + 2 * degree + 1]
        np.testing.assert_allclose((block**2).sum(1), 2 * degree + 1, rtol=1e-12)
        start += 2 * degree + 1


def test_harmonics_are_orthonormal_over_the_sphere():
    y = harmonics(directions())
    np.testing.assert_allclose(y.T @ y / len(y), np.eye(16), atol=1e-5)  # limited by the lattice


def test_envelope_is_the_polynomial_and_ends_smoothly():
    r = np.array([0.0, 0.3, 2.0, 4.9, 4.9999, 5.0, 5.1, 10.0])
    q = r / 5.0
    expected = np.where(q < 1, 1 - 15 * q**4 + 24 * q**5 - 10 * q**6, 0)
    found = Envelope(5.0, ms.float64)(Tensor(r, ms.float64)).asnumpy()
    np.testing.assert_allclose(found, expected, atol=1e-14)
    assert (found[:5] > 0).all()
    assert (found[5:] == 0).all()


@pytest.mark.parametrize(("rule", "shift"), [("physical", 0), ("orb", 1)])
def test_repulsion_is_the_screened_coulomb_law_switched_off_at_the_radii(rule, shift):
    r = np.array([0.2, 0.5, 0.9, 1.2, 1.6, 2.5])
    numbers = np.array([6, 8])
    zi, zj = numbers + shift
    radii = covalent_radii[zi] + covalent_radii[zj]
    t = r / (0.4543 * 0.529 / (zi**0.3 + zj**0.3))
    terms = zip((0.1818, 0.5099, 0.2802, 0.02817), (3.2, 0.9423, 0.4028, 0.2016), strict=True)
    phi = sum(a * np.exp(-b * t) for a, b in terms)
    q = r / radii
    switch = np.where(q < 1, 1 - 28 * q**6 + 48 * q**7 - 21 * q**8, 0)
    expected = 0.5 * 14.3996 * zi * zj / r * phi * switch
    i, j = np.zeros(6), np.ones(6)
    found = Repulsion(small_config(repulsion_rule=rule), ms.float64)(
        Tensor(r, ms.float64), Tensor(numbers, ms.int32), Tensor(i, ms.int32), Tensor(j, ms.int32)
    ).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert found[0] > 10
    assert found[-1] == 0


def test_shifted_softplus_is_exact_and_does_not_overflow():
    x = np.array([-800.0, -20.0, -1.0, 0.0, 1.0, 19.0, 800.0])
    expected = np.logaddexp(0, x) - np.log(2)

    class Cell(nn.Cell):
        def __init__(self):
            super().__init__()
            self.act = ShiftedSoftplus(ms.float64)

        def construct(self, x):
            return self.act(x)

    np.testing.assert_allclose(Cell()(Tensor(x, ms.float64)).asnumpy(), expected, atol=1e-14)
