"""Conservation and smoothness: what MD needs of the energy, in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from scipy.linalg import expm
from small import CUTOFF, Model, batch_of, rattled, structures

from lamkit.data.batch import random_rotations

# What is left of a derivative at a gap of g below the cutoff: C g^power.
GAPS = np.array([1e-3, 2e-3, 4e-3, 8e-3])
STEP = 2e-4  # Å


@pytest.fixture(scope="module")
def conservative():
    return Model()


@pytest.fixture(scope="module")
def radial():
    return Model(lmax=0)


def evaluate(model: Model, atoms: list[Atoms], neighbors: int | None):
    batch = batch_of(atoms, neighbors=neighbors)
    out = model.predictor.predict(batch, 0)
    counts = np.array([len(a) for a in atoms])
    return out["energy"][: len(atoms)] * counts, np.split(
        out["forces"][: counts.sum()], np.cumsum(counts)[:-1]
    )


@pytest.mark.parametrize("neighbors", [None, 20], ids=["all neighbours", "limit that is not reached"])
@pytest.mark.parametrize("partner", ["pair", "molecule"])
def test_value_slope_and_curvature_vanish_at_the_cutoff(conservative, partner, neighbors):
    """An atom that leaves: energy ~ gap^3, force ~ gap^2, curvature ~ gap; beyond the cutoff all are zero."""
    rest = Atoms("C", [[0, 0, 0]]) if partner == "pair" else Atoms("CO", [[0, 0, 0], [0, 0, 1.2]])
    ends = [CUTOFF - g + d for g in GAPS for d in (-STEP, STEP)]
    beyond = [CUTOFF + 1e-3, CUTOFF + 2.0]
    distances = [CUTOFF - g for g in GAPS]
    far_energy, far_forces = evaluate(
        conservative, [rest + Atoms("H", [[d, 0, 0]]) for d in beyond], neighbors
    )
    assert far_energy[0] == pytest.approx(far_energy[1], abs=1e-14)
    assert not far_forces[0][-1].any()

    energy, forces = evaluate(conservative, [rest + Atoms("H", [[d, 0, 0]]) for d in distances], neighbors)
    _, around = evaluate(conservative, [rest + Atoms("H", [[d, 0, 0]]) for d in ends], neighbors)
    change = np.abs(energy - far_energy[0])
    slope = np.abs([f[-1, 0] for f in forces])
    curvature = np.abs(
        [(b[-1, 0] - a[-1, 0]) / (2 * STEP) for a, b in zip(around[::2], around[1::2], strict=True)]
    )
    assert change[-1] > 1e-12  # there is something to see
    for values, power in ((change, 3), (slope, 2), (curvature, 1)):
        np.testing.assert_allclose(np.log2(values[1:] / values[:-1]), power, atol=0.15)


def test_every_force_component_is_the_negative_gradient(conservative):
    atoms = structures()[0]
    forces = conservative([atoms])[1][0]
    for atom in range(len(atoms)):
        for axis in range(3):
            moved = [atoms.copy() for _ in range(4)]
            for copy, k in zip(moved, (2, 1, -1, -2), strict=True):
                copy.positions[atom, axis] += 2 * k * STEP
            e = conservative(moved)[0]
            slope = (8 * (e[1] - e[2]) - (e[0] - e[3])) / (24 * STEP)
            assert forces[atom, axis] == pytest.approx(-slope, abs=1e-7)


def test_the_rotational_gradient_is_the_derivative_of_the_energy_with_rotation(conservative):
    atoms = structures()[0]
    batch = batch_of([atoms])
    gradient = conservative.predictor.predict(batch, 0, details=True)["rotational_grad"][0]
    assert np.abs(gradient).max() > 1e-6  # Orb is not invariant
    np.testing.assert_allclose(gradient, -gradient.T, atol=1e-14)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        generator = np.zeros((3, 3))
        generator[i, j], generator[j, i] = 1.0, -1.0
        turned = []
        for k in (2, 1, -1, -2):
            turned.append(atoms.copy())
            turned[-1].set_cell(atoms.cell.array @ expm(2 * k * STEP * generator), scale_atoms=True)
        e = conservative(turned)[0]
        slope = (8 * (e[1] - e[2]) - (e[0] - e[3])) / (24 * STEP)
        assert gradient[i, j] == pytest.approx(slope, abs=1e-7)


def test_without_angular_features_rotation_changes_nothing(radial):
    atoms = rattled(bulk("NaCl", "rocksalt", a=4.8), 1)
    rotation = random_rotations(np.random.default_rng(0), 1)[0]
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation.T, scale_atoms=True)
    energies, forces, _ = radial([atoms, turned])
    assert energies[0] == pytest.approx(energies[1], abs=1e-10)
    np.testing.assert_allclose(forces[0] @ rotation.T, forces[1], atol=1e-10)
    gradient = radial.predictor.predict(batch_of([atoms]), 0, details=True)["rotational_grad"][0]
    np.testing.assert_allclose(gradient, 0, atol=1e-12)
