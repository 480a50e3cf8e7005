"""Physics of the potential: gradients, symmetries, extensivity, padding, smoothness."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from mindspore import nn
from small import CUTOFF, SHAPE, Model, batch_of, ms, rattled, small_potential, structures

from lamkit.data.batch import Shape, random_rotations
from lamkit.errors import UserError
from lamkit.model.inference import Predictor, predict_batch

TIGHT = 1e-10
FINITE_DIFFERENCE = 1e-7
STEP = 4e-4  # Å, or strain


@pytest.fixture(scope="module")
def conservative():
    return Model()


@pytest.fixture(scope="module")
def direct():
    return Model(output="direct")


def slope(energies: np.ndarray) -> float:
    """Fourth-order central difference of values at 2, 1, -1, -2 steps."""
    return (8 * (energies[1] - energies[2]) - (energies[0] - energies[3])) / (12 * STEP)


def test_forces_are_the_negative_gradient_of_the_energy(conservative):
    for atoms in structures():
        _, forces, _ = conservative([atoms])
        atom, axis = len(atoms) - 1, 2
        moved = [atoms.copy() for _ in range(4)]
        for copy, k in zip(moved, (2, 1, -1, -2), strict=True):
            copy.positions[atom, axis] += k * STEP
        expected = -slope(conservative(moved)[0])
        assert forces[0][atom, axis] == pytest.approx(expected, abs=FINITE_DIFFERENCE)


def test_stress_is_the_strain_derivative_of_the_energy_per_volume(conservative):
    atoms = structures()[0]
    _, _, stress = conservative([atoms])
    for k, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        strained = [atoms.copy() for _ in range(4)]
        for copy, n in zip(strained, (2, 1, -1, -2), strict=True):
            strain = np.zeros((3, 3))
            strain[i, j] += n * STEP / 2
            strain[j, i] += n * STEP / 2
            copy.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        expected = slope(conservative(strained)[0]) / atoms.get_volume()
        assert stress[0, k] == pytest.approx(expected, abs=FINITE_DIFFERENCE)


def test_relabelling_atoms_changes_nothing(conservative, direct):
    atoms = structures()[1]
    order = np.random.default_rng(0).permutation(len(atoms))
    for model in (conservative, direct):
        energies, forces, stress = model([atoms, atoms[order]])
        assert energies[0] == pytest.approx(energies[1], abs=TIGHT)
        np.testing.assert_allclose(forces[0][order], forces[1], atol=TIGHT)
        np.testing.assert_allclose(stress[0], stress[1], atol=TIGHT)


def test_moving_everything_and_wrapping_changes_nothing(conservative, direct):
    for atoms in (structures()[0], structures()[3]):
        moved = atoms.copy()
        moved.positions += [1.3, -2.7, 0.4]
        moved.wrap()
        for model in (conservative, direct):
            energies, forces, stress = model([atoms, moved])
            assert energies[0] == pytest.approx(energies[1], abs=TIGHT)
            np.testing.assert_allclose(forces[0], forces[1], atol=TIGHT)
            np.testing.assert_allclose(stress[0], stress[1], atol=TIGHT)


def test_energy_is_extensive(conservative, direct):
    atoms = structures()[2]
    for model in (conservative, direct):
        energies, forces, stress = model([atoms, atoms * (2, 2, 1)])
        assert energies[1] == pytest.approx(4 * energies[0], abs=TIGHT)
        np.testing.assert_allclose(stress[0], stress[1], atol=TIGHT)
        np.testing.assert_allclose(forces[1], np.tile(forces[0], (4, 1)), atol=TIGHT)


def test_padding_and_company_change_nothing(conservative, direct):
    everything = structures()
    for model in (conservative, direct):
        energies, forces, stress = model(everything)
        for i, atoms in enumerate(everything):
            alone = model([atoms])
            assert alone[0][0] == pytest.approx(energies[i], abs=TIGHT)
            np.testing.assert_allclose(alone[1][0], forces[i], atol=TIGHT)
            np.testing.assert_allclose(alone[2][0], stress[i], atol=TIGHT)


def test_no_net_force_acts_on_any_structure_and_no_torque_on_a_molecule(conservative, direct):
    for model in (conservative, direct):
        _, forces, _ = model(structures())
        for f in forces:
            np.testing.assert_allclose(f.sum(0), 0, atol=TIGHT)
    atoms = structures()[1]
    arms = atoms.positions - atoms.positions.mean(0)
    forces = direct([atoms])[1][0]
    np.testing.assert_allclose(np.cross(arms, forces).sum(0), 0, atol=TIGHT)


def test_an_atom_coming_in_through_the_cutoff_gives_no_jump(conservative):
    """With one atom at a distance d inside the cutoff, energy ~ d^3, force ~ d^2, curvature ~ d."""
    dimer = Atoms("CO", [[0, 0, 0], [0, 0, 1.2]])
    gaps = np.array([-0.01, 1e-3, 2e-3, 4e-3, 8e-3])
    energies, forces, _ = conservative(
        [dimer + Atoms("H", [[CUTOFF - gap, 0, 0]]) for gap in gaps] + [dimer + Atoms("H", [[9.0, 0, 0]])]
    )
    far = energies[-1]
    assert energies[0] == pytest.approx(far, abs=1e-14)
    change = np.abs(energies[1:-1] - far)
    pull = np.array([np.abs(f[2]).max() for f in forces[1:-1]])
    assert not forces[0][2].any()
    assert change[-1] > 1e-12  # there is something to see
    np.testing.assert_allclose(np.log2(change[1:] / change[:-1]), 3, atol=0.1)
    np.testing.assert_allclose(np.log2(pull[1:] / pull[:-1]), 2, atol=0.1)


def test_head_choice_and_head_independence(conservative):
    atoms = structures()[:2]
    first, second = conservative(atoms, head=0)[0], conservative(atoms, head=1)[0]
    assert not np.allclose(first, second)
    other = small_potential(heads=("three", "two"))
    batch = batch_of(atoms)
    alone = Predictor(other).predict(batch, 1)
    assert other.statistic("two", "energy").mean == -0.7  # the second head of both has the same normaliser
    np.testing.assert_allclose(alone["energy"][:2] * [2, 6], second, atol=TIGHT)


def test_single_precision_is_close_to_double():
    atoms = structures()
    shape = Shape(30, 500, 6)
    single, double = small_potential(ms.float32), small_potential(ms.float64)
    a = predict_batch(single, batch_of(atoms, shape, np.float32), 0)
    b = predict_batch(double, batch_of(atoms, shape), 0)
    assert a["energy"].dtype == np.float32
    np.testing.assert_allclose(a["energy"][:4], b["energy"][:4], atol=1e-5)
    np.testing.assert_allclose(a["forces"][:13], b["forces"][:13], atol=1e-4)


def test_rotations_are_seen_by_orb_but_lengths_are_kept(conservative):
    """Orb is not equivariant: turned structures give other numbers, from one smooth function."""
    atoms = structures()[1]
    turned = atoms.copy()
    turned.positions = atoms.positions @ random_rotations(np.random.default_rng(0), 1)[0].T
    energies = conservative([atoms, turned])[0]
    assert energies[0] != energies[1]
    assert np.isfinite(energies).all()


def test_state_round_trip_and_its_errors():
    source, target = small_potential(seed=1), small_potential(seed=2)
    state = source.state()
    target.load_state(state)
    for name, value in target.state().items():
        np.testing.assert_array_equal(value, state[name], err_msg=name)
    broken = dict(state)
    broken.pop("model.gnn_stacks.1._send_attn.bias")
    broken["model.extra"] = np.zeros(3)
    broken["heads.two.energy.mlp.NN-0.bias"] = np.zeros(99)
    with pytest.raises(UserError) as error:
        target.load_state(broken)
    for text in ("_send_attn.bias is missing", "model.extra is not part", "has shape (99,)"):
        assert text in str(error.value)
    target.load_state({"model.extra": np.zeros(3)}, strict=False)


def test_normalisers_are_checked():
    potential = small_potential()
    with pytest.raises(UserError, match="Did you mean 'one'"):
        potential.set_scale("on", "energy", 0, 1)
    with pytest.raises(UserError, match="deviation must be at least"):
        potential.set_scale("one", "forces", 0.0, 0.0)
    with pytest.raises(UserError, match="different names"):
        small_potential(heads=("one", "one"))


def test_a_molecule_and_its_image_far_away_are_independent(conservative):
    water = rattled(molecule("H2O"), 5, 0.02)
    far = water.copy()
    far.positions += 50.0
    energies, forces, _ = conservative([water, far, water + far])
    assert energies[0] + energies[1] != pytest.approx(0)
    # The energy head reads the mean of the atoms, so two copies have twice the energy of one.
    assert energies[2] == pytest.approx(2 * energies[0], abs=TIGHT)
    np.testing.assert_allclose(forces[2][:3], forces[0], atol=TIGHT)


def charged(atoms: Atoms, charge: float, spin: float) -> Atoms:
    atoms = atoms.copy()
    atoms.info.update(charge=charge, spin=spin)
    return atoms


def test_charge_and_spin_change_the_energy_of_their_own_structure_only():
    model = Model(conditioning=True, confidence=True)
    water = rattled(molecule("H2O"), 5, 0.02)
    states = [(0, 1), (1, 2), (-1, 2), (0, 0), (0, 1)]
    energies, forces, _ = model([charged(water, *state) for state in states])
    assert energies[0] == pytest.approx(energies[-1], abs=TIGHT)
    assert len({round(e, 9) for e in energies[:4]}) == 4
    alone = model([charged(water, 1, 2)])
    assert alone[0][0] == pytest.approx(energies[1], abs=TIGHT)
    np.testing.assert_allclose(alone[1][0], forces[1], atol=TIGHT)
    lonely = charged(water, 0, 1)
    del lonely.info["spin"]
    with pytest.raises(UserError, match=r"structure 1 of a batch has no spin: set atoms\.info\['charge'\]"):
        model([charged(water, 0, 1), lonely])
    with pytest.raises(UserError, match="must be a number"):
        model([charged(water, "plus", 1)])


def test_confidence_is_a_distribution_for_each_atom_of_errors_up_to_its_last_edge():
    potential = small_potential(confidence=True, output="direct", stress=False)
    batch = batch_of(structures()[:2])
    out = predict_batch(potential, batch, 0, details=True)
    np.testing.assert_allclose(out["confidence"].sum(1), 1, atol=TIGHT)
    assert out["confidence"].min() > 0
    assert not out["stress"].any()  # there is no network for it
    assert set(out) == {"energy", "forces", "stress", "confidence", "latents"}
    edges = potential.state()["heads.one.confidence.bin_edges"]
    np.testing.assert_allclose(edges, np.linspace(0, 0.3, 51), atol=1e-7)


def test_the_rotational_gradient_is_the_slope_of_the_energy_under_rotation(conservative):
    """With R = exp(G - G^T) acting on row vectors, x -> x R."""
    atoms = structures()[1]
    found = predict_batch(conservative.potential, batch_of([atoms]), 0, details=True)["rotational_grad"][0]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        turned = [atoms.copy() for _ in range(4)]
        for copy, k in zip(turned, (2, 1, -1, -2), strict=True):
            c, s = np.cos(k * STEP), np.sin(k * STEP)
            rotation = np.eye(3)
            rotation[[i, j], [i, j]] = c
            rotation[i, j], rotation[j, i] = s, -s
            copy.positions = atoms.positions @ rotation
        assert found[i, j] == pytest.approx(slope(conservative(turned)[0]), abs=FINITE_DIFFERENCE)
        assert found[j, i] == -found[i, j]


def test_the_decoder_is_a_network_on_the_final_features_that_forces_ignore():
    with_decoder, without = small_potential(decoder=True), small_potential()
    state = with_decoder.state()
    extra = set(state) - set(without.state())
    assert {name.split(".")[1] for name in extra} == {"_decoder"}
    assert len(with_decoder.trunk_parameters()) == len(without.trunk_parameters())
    assert len(with_decoder.decoder_parameters()) == 6

    class Decode(nn.Cell):
        def __init__(self):
            super().__init__(auto_prefix=False)
            self.trunk = with_decoder.trunk

        def construct(self, nodes):
            return self.trunk.denoised(nodes)

    x = np.random.default_rng(0).normal(size=(5, 8))
    found = Decode()(ms.Tensor(x, ms.float64)).asnumpy()
    for layer in range(3):
        weight, bias = (state[f"model._decoder.node_fn.mlp.NN-{layer}.{part}"] for part in ("weight", "bias"))
        x = x @ weight.T + bias
        if layer < 2:
            x = x / (1 + np.exp(-x))
    np.testing.assert_allclose(found, x, atol=1e-12)


def test_shape_has_room_for_these_tests():
    assert SHAPE.n_atoms > sum(len(a) for a in structures())
    assert len(bulk("Cu")) == 1
