"""Graphs and padded batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule
from frames import random_frame

from lamkit.data.batch import Shape, collate, make_graph, random_rotations, rotate, shape_of
from lamkit.data.frame import from_atoms, from_voigt
from lamkit.errors import UserError

CUTOFF = 4.0


def graphs(dtype=np.float64):
    water = from_atoms(molecule("H2O"), energy=-1.0)
    frames = [random_frame(1), water, random_frame(2, n_atoms=6)]
    return [make_graph(frame, CUTOFF, None, dtype) for frame in frames]


def padded(extra=3):
    parts = graphs()
    tight = shape_of(parts)
    shape = Shape(tight.n_atoms + extra, tight.n_edges + extra, tight.n_graphs + extra)
    return parts, collate(parts, shape, dtype=np.float64)


def test_each_graph_can_be_read_back_from_the_batch():
    parts, batch = padded()
    for g, graph in enumerate(parts):
        nodes, edges = batch.node_graph == g, batch.edge_graph == g
        np.testing.assert_array_equal(batch.numbers[nodes], graph.numbers)
        np.testing.assert_array_equal(batch.vectors[edges], graph.vectors)
        first = np.flatnonzero(nodes)[0]
        np.testing.assert_array_equal(batch.senders[edges] - first, graph.senders)
        np.testing.assert_array_equal(batch.receivers[edges] - first, graph.receivers)
        assert batch.n_atoms[g] == graph.n_atoms
        assert batch.volume[g] == graph.volume


def test_padding_belongs_to_the_dummies_and_lies_beyond_the_cutoff():
    parts, batch = padded(extra=5)
    n_atoms, n_edges = sum(g.n_atoms for g in parts), sum(g.n_edges for g in parts)
    assert (batch.numbers[n_atoms:] == 0).all()
    assert (batch.node_graph[n_atoms:] == len(batch.n_atoms) - 1).all()
    assert (batch.senders[n_edges:] == len(batch.numbers) - 1).all()
    assert (batch.receivers[n_edges:] == len(batch.numbers) - 1).all()
    assert (batch.edge_graph[n_edges:] == len(batch.n_atoms) - 1).all()
    assert (np.linalg.norm(batch.vectors[n_edges:], axis=1) == 2 * CUTOFF).all()
    assert batch.node_mask.sum() == n_atoms
    assert batch.graph_mask.sum() == len(parts)
    assert (batch.n_atoms[len(parts) :] == 1).all()
    assert (batch.volume > 0).all()


def test_missing_labels_are_masked():
    _, batch = padded()
    np.testing.assert_array_equal(batch.energy_mask, [1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(batch.stress_mask.sum(1), [6, 0, 6, 0, 0, 0, 0])
    assert batch.forces_mask.sum() == 4 + 6  # water has none
    assert (batch.forces[batch.forces_mask == 0] == 0).all()


def test_unknown_stress_components_are_masked_one_by_one():
    stress = np.array([1.0, 2.0, 3.0, np.nan, np.nan, np.nan])
    graph = make_graph(random_frame(1, stress=stress), CUTOFF, None)
    batch = collate([graph], shape_of([graph]))
    np.testing.assert_array_equal(batch.stress_mask[0], [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(batch.stress[0], [1, 2, 3, 0, 0, 0])


def test_energies_lose_their_references_in_double_precision():
    frame = replace(random_frame(3), energy=-4.0e6 + 0.125)
    reference = np.zeros(119)
    reference[np.unique(frame.numbers)] = -1.0e6
    graph = make_graph(frame, CUTOFF, None)
    batch = collate([graph], shape_of([graph]), reference)
    assert batch.energy.dtype == np.float32
    assert batch.energy[0] == 0.125 / 4


def test_a_batch_that_does_not_fit_says_so_with_numbers():
    parts = graphs()
    tight = shape_of(parts)
    assert collate(parts, tight).shape == tight
    for axis in range(3):
        small = tuple(n - (i == axis) for i, n in enumerate(tight))
        with pytest.raises(UserError, match=f"3 graphs with {tight.n_atoms - 1} atoms"):
            collate(parts, Shape(*small))


def test_atoms_on_one_place_are_an_error_that_names_frame_and_atoms():
    frame = random_frame(1)
    frame.positions[3] = frame.positions[1]
    with pytest.raises(UserError, match=r"memory, frame 1: atoms 1 and 3"):
        make_graph(frame, CUTOFF, None)


def test_a_graph_without_edges_can_be_batched():
    graph = make_graph(from_atoms(molecule("H")), CUTOFF, None)
    batch = collate([graph], shape_of([graph]))
    assert graph.n_edges == 0
    assert (batch.edge_graph == 1).all()


def test_torque_matrix_is_inverted_for_molecules_only():
    water, crystal = make_graph(from_atoms(molecule("H2O")), CUTOFF, None, np.float64), graphs()[0]
    arms = water.arms
    matrix = arms.T @ arms - (arms**2).sum() * np.eye(3)
    np.testing.assert_allclose(matrix @ water.torque_inverse, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(arms.mean(0), 0, atol=1e-12)
    assert not crystal.torque_inverse.any()
    assert not crystal.arms.any()


def test_a_linear_molecule_gets_a_finite_pseudo_inverse():
    atoms = molecule("CO2")
    atoms.rotate(37, (1, 2, 3))
    inverse = make_graph(from_atoms(atoms), CUTOFF, None, np.float64).torque_inverse
    assert np.abs(inverse).max() < 10
    assert np.linalg.matrix_rank(inverse, tol=1e-8) == 2


def test_random_rotations_are_proper_rotations():
    turns = random_rotations(np.random.default_rng(0), 50)
    np.testing.assert_allclose(
        turns @ turns.swapaxes(1, 2), np.broadcast_to(np.eye(3), (50, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(turns), 1.0)
    assert np.abs(turns.mean(0)).max() < 0.3


def test_rotating_the_batch_is_making_it_from_rotated_frames():
    turn = random_rotations(np.random.default_rng(1), 1)[0]
    atoms = molecule("H2O")
    atoms.rattle(0.1, seed=4)  # equal distances would leave the order of edges open
    frame, water = random_frame(1), from_atoms(atoms, forces=np.eye(3))

    def turned(frame):
        stress = None if frame.stress is None else _voigt(turn @ from_voigt(frame.stress) @ turn.T)
        return replace(
            frame,
            positions=frame.positions @ turn.T,
            cell=frame.cell @ turn.T,
            forces=frame.forces @ turn.T,
            stress=stress,
        )

    before = [make_graph(f, CUTOFF, None, np.float64) for f in (frame, water)]
    after = [make_graph(turned(f), CUTOFF, None, np.float64) for f in (frame, water)]
    shape = shape_of(before)
    rotated = rotate(collate(before, shape, dtype=np.float64), turn)
    expected = collate(after, shape, dtype=np.float64)
    for name in rotated._fields:
        np.testing.assert_allclose(getattr(rotated, name), getattr(expected, name), atol=1e-10, err_msg=name)


def test_frames_with_partly_known_stress_are_not_rotated():
    part = make_graph(random_frame(1, stress=np.array([1, 2, 3, np.nan, np.nan, np.nan])), CUTOFF, None)
    full = make_graph(random_frame(2), CUTOFF, None)
    batch = collate([part, full], shape_of([part, full]))
    turned = rotate(batch, random_rotations(np.random.default_rng(2), 3))
    first = batch.edge_graph == 0
    np.testing.assert_array_equal(turned.vectors[first], batch.vectors[first])
    np.testing.assert_array_equal(turned.stress[0], batch.stress[0])
    assert not np.allclose(turned.vectors[batch.edge_graph == 1], batch.vectors[batch.edge_graph == 1])
    assert turned.vectors.dtype == turned.stress.dtype == np.float32


def _voigt(tensor):
    return tensor[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
