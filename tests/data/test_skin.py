"""The skin list against the list made anew, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule

from lamkit.data.neighbors import neighbor_list
from lamkit.data.skin import SkinList

CUTOFF = 4.0


def crystal():
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.rattle(0.1, seed=1)
    return atoms


def slab():
    return fcc111("Cu", (2, 2, 3), vacuum=6.0)


def assert_exact(skin: SkinList, atoms) -> None:
    ours = skin.edges(atoms.positions, atoms.cell.array, atoms.pbc)
    exact = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF, skin.max_neighbors)
    for name, array in ours._asdict().items():
        np.testing.assert_array_equal(array, getattr(exact, name), err_msg=name)


@pytest.mark.parametrize("max_neighbors", [None, 7])
@pytest.mark.parametrize(
    "make", [crystal, slab, lambda: molecule("C6H6")], ids=["crystal", "slab", "molecule"]
)
def test_moving_atoms_have_the_edges_of_a_new_search_to_the_last_bit(make, max_neighbors):
    atoms, skin, rng = make(), SkinList(CUTOFF, max_neighbors, 0.8), np.random.default_rng(1)
    for _ in range(15):
        assert_exact(skin, atoms)
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    assert skin.n_builds < 10


@pytest.mark.parametrize("max_neighbors", [None, 7])
def test_a_breathing_and_shearing_cell_has_the_edges_of_a_new_search(max_neighbors):
    atoms, skin, rng = crystal(), SkinList(CUTOFF, max_neighbors, 0.8), np.random.default_rng(2)
    for _ in range(40):
        assert_exact(skin, atoms)
        strain = rng.normal(scale=1e-2, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
    assert 1 < skin.n_builds < 20


def test_a_sudden_change_is_never_missed():
    atoms, skin = crystal(), SkinList(CUTOFF, None, 0.8)
    assert_exact(skin, atoms)
    atoms.set_cell(atoms.cell.array * 0.8, scale_atoms=True)
    assert_exact(skin, atoms)
    atoms.set_cell(atoms.cell.array * 1.3)  # the atoms stay where they are
    assert_exact(skin, atoms)
    atoms.pbc = (True, False, True)
    assert_exact(skin, atoms)
    assert_exact(skin, atoms[:5])
    assert skin.n_builds >= 4


def test_ties_at_the_limit_are_broken_alike():
    atoms, skin = (
        bulk("Cu", cubic=True) * 2,
        SkinList(CUTOFF, 15, 0.8),
    )  # a perfect crystal: 12 + 6 neighbours
    for _ in range(4):
        assert_exact(skin, atoms)
        atoms.positions += 0.01
    assert skin.n_builds == 1


def test_translation_of_everything_needs_no_search():
    atoms, skin = crystal(), SkinList(CUTOFF, None, 0.5)
    for _ in range(5):
        assert_exact(skin, atoms)
        atoms.positions += [3.0, -1.0, 0.2]
    assert skin.n_builds == 1


def test_without_a_skin_every_call_searches():
    atoms, skin = crystal(), SkinList(CUTOFF, None, 0.0)
    for _ in range(3):
        assert_exact(skin, atoms)
    assert skin.n_builds == 3
