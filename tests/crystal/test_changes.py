"""Supercells, strains and random displacements."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule

from lamkit.crystal.changes import Perturb, displacements, perturbed, strained, supercell
from lamkit.errors import UserError

CUBE = bulk("Cu", cubic=True)


@pytest.mark.parametrize(
    ("style", "largest", "mean_square"),
    [("normal", np.inf, 1.0), ("uniform", 1.0, 3 / 5), ("const", 1.0, 1.0)],
)
def test_displacements_have_the_length_asked_for(style, largest, mean_square):
    perturb = Perturb(n=1, distance=0.2, style=style)
    lengths = np.linalg.norm(displacements(20000, perturb, np.random.default_rng(0)), axis=1) / 0.2
    assert np.mean(lengths**2) == pytest.approx(mean_square, rel=0.02)
    assert lengths.max() <= largest + 1e-12


def test_random_strain_keeps_to_its_limit_and_is_symmetric():
    rng = np.random.default_rng(1)
    for _ in range(50):
        copy = perturbed(CUBE, Perturb(n=1, distance=0.0, cell=0.04), rng)
        strain = np.linalg.solve(CUBE.cell.array, copy.cell.array) - np.eye(3)
        np.testing.assert_allclose(strain, strain.T, atol=1e-12)
        assert np.abs(np.diag(strain)).max() <= 0.04
        assert np.abs(strain - np.diag(np.diag(strain))).max() <= 0.02
        np.testing.assert_allclose(copy.get_scaled_positions(), CUBE.get_scaled_positions(), atol=1e-9)


def test_a_molecule_is_displaced_and_not_strained():
    water = molecule("H2O")
    copy = perturbed(water, Perturb(n=1, distance=0.05), np.random.default_rng(2))
    assert not copy.cell.any()
    assert 0 < np.abs(copy.positions - water.positions).max() < 0.3


@pytest.mark.parametrize(("mode", "ratio"), [("volume", 1.02**3), ("a", 1.02), ("ab", 1 - 0.01**2)])
def test_strain_changes_the_volume_as_its_mode_says(mode, ratio):
    assert strained(CUBE, mode, 0.02).get_volume() / CUBE.get_volume() == pytest.approx(ratio, rel=1e-12)


def test_supercells_by_repeats_and_by_a_matrix_hold_the_same_crystal():
    assert len(supercell(CUBE, [2, 1, 3])) == 24
    primitive = bulk("Cu")
    cubic = supercell(primitive, [-1, 1, 1, 1, -1, 1, 1, 1, -1])
    assert len(cubic) == 4
    np.testing.assert_allclose(cubic.cell.cellpar(), CUBE.cell.cellpar(), atol=1e-9)


@pytest.mark.parametrize("size", [[2, 2], [0, 1, 1], [1, 0, 0, 1, 0, 0, 0, 0, 1]])
def test_what_spans_no_cell_is_refused(size):
    with pytest.raises(UserError, match="supercell"):
        supercell(CUBE, size)
