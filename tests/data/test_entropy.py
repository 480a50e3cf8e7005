"""Choice by surprise: what is covered is not chosen, whatever the size of the frame."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from lamkit.data import entropy
from lamkit.data.entropy import most_surprising, surroundings
from lamkit.data.frame import from_atoms


def rows(images: list[Atoms]) -> np.ndarray:
    return np.array([surroundings(from_atoms(a)) for a in images])


def rattled(seed: int, amount: float = 0.1, repeat: int = 2) -> Atoms:
    atoms = bulk("Cu", cubic=True) * repeat
    atoms.rattle(amount, seed=seed)
    return atoms


def test_surroundings_do_not_depend_on_place_or_direction():
    atoms = rattled(0)
    turned = atoms.copy()
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    turned.positions += [0.3, 11.0, -4.0]
    np.testing.assert_allclose(*rows([atoms, turned]), atol=2e-5)


def test_a_larger_cell_of_the_same_crystal_surprises_nobody():
    choice = most_surprising(rows([bulk("Cu", cubic=True) * n for n in (1, 2, 3)]), 3)
    assert len(choice.indices) == 1
    assert choice.redundancy == pytest.approx(1.0)


def test_what_repeats_is_left_out_and_what_differs_is_taken():
    images = [bulk("Cu", cubic=True) * 2] * 6 + [rattled(s) for s in (1, 2, 3)]
    choice = most_surprising(rows(images), 9)
    assert set(choice.indices) >= {6, 7, 8}
    assert sum(i < 6 for i in choice.indices) == 1


def test_large_frames_are_not_favoured():
    """One strongly distorted small cell surprises more than a large one with the same few kinds of atoms."""
    images = [rattled(0, 0.02, 1), rattled(1, 0.02, 3), rattled(2, 0.4, 1)]
    taken = rows([bulk("Cu", cubic=True) * 2])
    assert most_surprising(rows(images), 1, taken=taken).indices.tolist() == [2]


def test_new_frames_surprise_those_taken_before():
    images = [rattled(s) for s in range(4)]
    described = rows(images)
    assert 2 not in most_surprising(described, 4, taken=described[2:3]).indices
    assert len(most_surprising(described, 4, taken=described).indices) == 0


def test_another_element_in_the_same_place_is_a_surprise():
    described = rows([bulk("Cu", "fcc", a=4.0), bulk("Au", "fcc", a=4.0)])
    assert len(most_surprising(described, 2).indices) == 2


def test_blocks_change_nothing(monkeypatch):
    described = rows([rattled(s) for s in range(7)])
    whole = most_surprising(described, 5)
    monkeypatch.setattr(entropy, "BLOCK", 1)
    assert most_surprising(described, 5).indices.tolist() == whole.indices.tolist()


def test_lone_atoms_and_empty_surroundings_are_described_all_the_same():
    described = rows([Atoms("H"), Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])])
    assert [np.isfinite(r.reshape(entropy.ATOMS, -1)).all(axis=1).sum() for r in described] == [1, 2]
    assert (described[0].reshape(entropy.ATOMS, -1)[0] == 0).all()
