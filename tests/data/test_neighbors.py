"""Neighbour lists against ASE's, and the cases that break naive lists."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list as ase_neighbor_list

from lamkit.data.neighbors import neighbor_list
from lamkit.errors import UserError


def rattled(atoms, seed=0):
    atoms.rattle(0.15, seed=seed)
    return atoms


def slab():
    return rattled(fcc111("Cu", (2, 2, 3), vacuum=6.0))


def slab_without_third_vector():
    atoms = slab()
    atoms.cell[2] = 0.0
    return atoms


def wire():
    atoms = rattled(bulk("Al", cubic=True))
    atoms.pbc = (False, False, True)
    return atoms


def far_outside():
    atoms = rattled(bulk("NaCl", "rocksalt", a=5.6))
    atoms.positions += [[31.0, -17.0, 8.0], [-60.0, 4.0, 0.0]]
    return atoms


STRUCTURES = {
    "primitive cell far smaller than the cutoff": lambda: bulk("Cu"),
    "triclinic": lambda: rattled(bulk("Ti", "hcp", a=2.9, c=4.6)),
    "slab": slab,
    "slab without a third vector": slab_without_third_vector,
    "wire": wire,
    "molecule": lambda: rattled(molecule("CH3CH2OH")),
    "atoms outside of the cell": far_outside,
}


def edge_set(senders, receivers, shifts):
    return set(zip(senders.tolist(), receivers.tolist(), map(tuple, shifts.tolist()), strict=True))


@pytest.mark.parametrize("name", STRUCTURES)
def test_edges_are_those_of_ase(name):
    atoms = STRUCTURES[name]()
    edges = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 5.5)
    i, j, shifts = ase_neighbor_list("ijS", atoms, 5.5)
    assert len(edges.senders) == len(i) > 0
    assert edge_set(edges.senders, edges.receivers, edges.shifts) == edge_set(i, j, shifts)


@pytest.mark.parametrize("name", STRUCTURES)
def test_vectors_lead_from_sender_to_receiver_image(name):
    atoms = STRUCTURES[name]()
    edges = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 5.5)
    expected = (
        atoms.positions[edges.receivers] + edges.shifts @ atoms.cell.array - atoms.positions[edges.senders]
    )
    np.testing.assert_allclose(edges.vectors, expected, atol=1e-10)
    np.testing.assert_allclose(edges.distances, np.linalg.norm(expected, axis=1), atol=1e-10)


def test_the_order_of_edges_follows_from_the_structure_alone():
    atoms = rattled(bulk("Cu", cubic=True))
    edges = neighbor_list(atoms.positions, atoms.cell.array, True, 6.0)
    keys = list(zip(edges.senders, edges.receivers, map(tuple, edges.shifts), strict=True))
    assert keys == sorted(keys)
    kept = neighbor_list(atoms.positions, atoms.cell.array, True, 6.0, max_neighbors=7)
    keys = list(zip(kept.senders, kept.receivers, map(tuple, kept.shifts), strict=True))
    assert keys == sorted(keys)


def test_the_nearest_neighbors_are_kept():
    atoms = rattled(bulk("Cu", cubic=True))
    everything = neighbor_list(atoms.positions, atoms.cell.array, True, 6.0)
    kept = neighbor_list(atoms.positions, atoms.cell.array, True, 6.0, max_neighbors=7)
    for atom in range(len(atoms)):
        nearest = np.sort(everything.distances[everything.senders == atom])[:7]
        np.testing.assert_array_equal(np.sort(kept.distances[kept.senders == atom]), nearest)


def test_a_left_handed_cell_has_the_neighbors_of_the_same_crystal_right_handed():
    atoms = rattled(bulk("Ti", "hcp", a=2.9, c=4.6))
    mirror = atoms.cell.array[[1, 0, 2]]
    assert np.linalg.det(mirror) < 0
    ours = neighbor_list(atoms.positions, mirror, True, 6.0)
    theirs = neighbor_list(atoms.positions, atoms.cell.array, True, 6.0)
    swapped = theirs.shifts[:, [1, 0, 2]]
    assert edge_set(ours.senders, ours.receivers, ours.shifts) == edge_set(
        theirs.senders, theirs.receivers, swapped
    )


def test_a_lone_atom_has_no_neighbors_but_its_periodic_images():
    assert len(neighbor_list([[0, 0, 0]], np.zeros((3, 3)), False, 5.0).senders) == 0
    images = neighbor_list([[0, 0, 0]], 3.0 * np.eye(3), True, 4.0)
    assert len(images.senders) == 6
    assert set(images.senders) == set(images.receivers) == {0}


def test_no_atoms_and_atoms_out_of_reach_give_an_empty_list():
    for positions in (np.zeros((0, 3)), [[0, 0, 0], [0, 0, 9.0]]):
        edges = neighbor_list(positions, np.zeros((3, 3)), False, 5.0, max_neighbors=3)
        assert [len(array) for array in edges] == [0] * 5
        assert edges.vectors.shape == edges.shifts.shape == (0, 3)


def test_a_cell_of_zeros_is_not_periodic_whatever_pbc_says():
    edges = neighbor_list([[0, 0, 0], [0, 0, 1.0]], np.zeros((3, 3)), True, 5.0)
    assert len(edges.senders) == 2


@pytest.mark.parametrize(
    "cell", [np.diag([4.0, 4.0, 0.0]), [[4, 0, 0], [8, 0, 0], [0, 0, 4]]], ids=["zero", "parallel"]
)
def test_a_periodic_axis_without_its_own_vector_is_an_error_not_a_crash(cell):
    with pytest.raises(UserError, match="no independent lattice vector"):
        neighbor_list([[0, 0, 0], [0, 0, 1.0]], np.asarray(cell, float), True, 5.0)


def test_positions_and_cells_that_are_not_finite_are_named():
    with pytest.raises(UserError, match="atom 1"):
        neighbor_list([[0, 0, 0], [0, np.nan, 1.0]], np.zeros((3, 3)), False, 5.0)
    with pytest.raises(UserError, match="not finite"):
        neighbor_list([[0, 0, 0]], np.full((3, 3), np.inf), True, 5.0)


FAR = [[0, 0, 0], [2, 0, 0], [1, 1, 1e20]]
NEAR = [[0, 0, 0], [2, 0, 0]]
PROPORTIONS = {
    "huge cell": (NEAR, np.eye(3) * 1e20, True, "vectors beyond"),
    "huge along one axis": (NEAR, np.diag([1e9, 4, 4]), True, "vectors beyond"),
    "huge chain": (NEAR, np.diag([1e200, 0, 0]), (True, False, False), "vectors beyond"),
    "huge and thin": (NEAR, np.diag([9e4, 9e4, 5]), True, "too much for a search"),
    "flat": (NEAR, np.diag([1e-3, 1e3, 5]), True, "is flat"),
    "skewed": (NEAR, [[5, 0, 0], [1e5, 5, 0], [0, 0, 5]], True, "is flat"),
    "far in a crystal": (FAR, np.eye(3) * 5, True, "atom 2 is at"),
    "far above a slab": (FAR, np.diag([5, 5, 20]), (True, True, False), "atom 2 is at"),
    "far without a cell": ([*FAR, [3, 0, 0]], np.zeros((3, 3)), False, "atom 2 is at"),
}


@pytest.mark.parametrize("name", PROPORTIONS)
def test_structures_out_of_all_proportion_are_an_error_not_a_crash(name):
    positions, cell, pbc, message = PROPORTIONS[name]
    with pytest.raises(UserError, match=message):
        neighbor_list(positions, np.asarray(cell, float), pbc, 6.5)


@pytest.mark.parametrize("pbc", [(True, True, False), (True, False, False), (False, False, False)])
def test_a_tall_structure_that_is_not_periodic_has_the_neighbors_of_its_parts(pbc):
    """One atom 50,000 Å away: the search neither crashes nor takes minutes, and finds what it finds without."""
    cell = np.array([[5.0, 0.5, 0], [0, 5.0, 0.3], [0.2, 0, 20.0]])
    positions = np.random.default_rng(0).uniform(-3, 9, (12, 3))
    normal = np.linalg.svd(cell[np.array(pbc)])[2][-1] if any(pbc) else np.array([0.6, 0.0, 0.8])
    alone = neighbor_list(positions, cell, pbc, 6.0)
    more = neighbor_list(np.vstack([positions, positions[0] + 5e4 * normal]), cell, pbc, 6.0)
    real = more.senders < 12
    for ours, theirs in zip(more, alone, strict=True):
        np.testing.assert_array_equal(ours[real], theirs)
    assert len(alone.senders) > 20
