"""DeepPot-SE: conserved, smooth, invariant, extensive, and the same numbers as in DeePMD-kit's definition."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell, molecule
from deepmd_reference import atomic_energies, read
from small import CUTOFF, SHAPE, Predictor, batch_of, ms, rattled

from lamkit.data.batch import random_rotations
from lamkit.model.build import build
from lamkit.model.config import DeepPotConfig, Surroundings
from lamkit.model.public.deepmd import model_file

ELEMENTS = ["H", "C", "O", "Na", "Cl"]
STEP = 2e-4  # Å
SMOOTH_FROM = 1.0
GAPS = np.array([1e-3, 2e-3, 4e-3, 8e-3])


def small_deeppot(**choices) -> DeepPotConfig:
    """A few hundred weights, other numbers of places in the file than in the model."""
    known = Surroundings(
        elements=ELEMENTS,
        sel=[24, 16, 20, 56, 56],
        slots=90,
        deviations=[(0.11 + 0.02 * k, 0.07 + 0.01 * k) for k in range(len(ELEMENTS))],
        min_distance=0.9,
    )
    sizes = {
        "cutoff": CUTOFF,
        "smooth_from": SMOOTH_FROM,
        "embedding": [4, 8, 8],
        "axis": 3,
        "fitting": [10, 10],
    }
    return DeepPotConfig(**{"version": "deeppot-se", **sizes, "surroundings": known, **choices})


class Model:
    """Total energies (eV), forces and stresses of structures, in double precision, one compiled shape."""

    def __init__(self) -> None:
        self.potential = build(small_deeppot(), ["one", "two"], 3, ms.float64)
        self.potential.set_scale("one", "energy", 0.3, 1.7)
        self.potential.calibrate(batch_of(structures()))
        self.predictor = Predictor(self.potential)

    def __call__(self, atoms: list[Atoms], head: int = 0):
        out = self.predictor.predict(batch_of(atoms), head)
        counts = np.array([len(a) for a in atoms])
        forces = np.split(out["forces"][: counts.sum()], np.cumsum(counts)[:-1])
        return out["energy"][: len(atoms)] * counts, forces, out["stress"][: len(atoms)]


def structures() -> list[Atoms]:
    """A crystal and a molecule, rattled."""
    return [rattled(bulk("NaCl", "rocksalt", a=4.8), 1), rattled(molecule("CH3OH"), 2, 0.05)]


@pytest.fixture(scope="module")
def model():
    return Model()


def test_every_force_component_is_the_negative_gradient(model):
    for atoms in structures():
        forces = model([atoms])[1][0]
        assert abs(forces).max() > 1e-4
        for atom in range(len(atoms)):
            for axis in range(3):
                moved = [atoms.copy() for _ in range(4)]
                for copy, k in zip(moved, (2, 1, -1, -2), strict=True):
                    copy.positions[atom, axis] += 2 * k * STEP
                e = model(moved)[0]
                slope = (8 * (e[1] - e[2]) - (e[0] - e[3])) / (24 * STEP)
                assert forces[atom, axis] == pytest.approx(-slope, abs=1e-9)


def test_stress_is_the_gradient_by_strain(model):
    atoms = structures()[0]
    stress = model([atoms])[2][0]
    for voigt, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        strained = [atoms.copy() for _ in range(4)]
        for copy, k in zip(strained, (2, 1, -1, -2), strict=True):
            strain = np.eye(3)
            strain[i, j] += k * STEP / 2
            strain[j, i] += k * STEP / 2
            copy.set_cell(copy.cell.array @ strain, scale_atoms=True)
        e = model(strained)[0]
        slope = (8 * (e[1] - e[2]) - (e[0] - e[3])) / (12 * STEP)
        assert stress[voigt] == pytest.approx(slope / atoms.get_volume(), abs=1e-10)


def test_value_slope_and_curvature_vanish_at_the_cutoff(model):
    """An atom that leaves: energy ~ gap^3, force ~ gap^2, curvature ~ gap; beyond the cutoff all are zero."""
    distances = [CUTOFF - g for g in GAPS]
    ends = [d + s for d in distances for s in (-STEP, STEP)]
    leaving = [Atoms("COH", [[0, 0, 0], [0, 0, 1.2], [d, 0, 0]]) for d in [*distances, CUTOFF + 1e-3]]
    around = [Atoms("COH", [[0, 0, 0], [0, 0, 1.2], [d, 0, 0]]) for d in ends]
    energy, forces = model(leaving[:4])[0], model(leaving[:4])[1]
    far, far_forces, _ = model(leaving[4:])
    near = model(around)[1]
    assert not far_forces[0][-1].any()
    curvature = np.abs(
        [(b[-1, 0] - a[-1, 0]) / (2 * STEP) for a, b in zip(near[::2], near[1::2], strict=True)]
    )
    change, slope = np.abs(energy - far[0]), np.abs([f[-1, 0] for f in forces])
    assert change[-1] > 1e-12  # there is something to see
    for values, power in ((change, 3), (slope, 2), (curvature, 1)):
        np.testing.assert_allclose(np.log2(values[1:] / values[:-1]), power, atol=0.15)


def test_curvature_is_continuous_where_fading_begins(model):
    """Differences of the curvature on both sides of ``smooth_from`` shrink with the distance from it."""

    def curvature(d: float) -> float:
        low, high = model([Atoms("CH", [[0, 0, 0], [x, 0, 0]]) for x in (d - STEP, d + STEP)])[1]
        return (high[1, 0] - low[1, 0]) / (2 * STEP)

    jumps = [abs(curvature(SMOOTH_FROM + g) - curvature(SMOOTH_FROM - g)) for g in (1.6e-2, 4e-3)]
    assert jumps[1] < 0.3 * jumps[0]


def test_turning_shifting_and_renumbering_change_nothing(model):
    atoms = structures()[1]
    energy, (forces,), _ = model([atoms])
    turn = random_rotations(np.random.default_rng(4), 1)[0]
    turned = atoms.copy()
    turned.positions = atoms.positions @ turn.T + np.array([3.0, -7.0, 11.0])
    order = np.random.default_rng(5).permutation(len(atoms))
    after, found, _ = model([turned, atoms[order]])
    np.testing.assert_allclose(after, energy[0], rtol=1e-13)
    np.testing.assert_allclose(found[0], forces @ turn.T, atol=1e-13)
    np.testing.assert_allclose(found[1], forces[order], atol=1e-13)


def test_energy_is_extensive(model):
    crystal, single = structures()
    double = make_supercell(crystal, np.diag([1, 1, 2]))
    far = single.copy()
    far.positions += 50.0
    energy = model([crystal, double, single, single + far])[0]
    assert energy[1] == pytest.approx(2 * energy[0], rel=1e-13)
    assert energy[3] == pytest.approx(2 * energy[2], rel=1e-13)


def test_a_batch_gives_what_its_frames_give_alone(model):
    one, two = structures()
    together, forces, stress = model([one, two])
    for k, atoms in enumerate((one, two)):
        energy, (alone,), own = model([atoms])
        assert together[k] == pytest.approx(energy[0], rel=1e-14)
        np.testing.assert_allclose(forces[k], alone, atol=1e-14)
        np.testing.assert_allclose(stress[k], own[0], atol=1e-14)


def test_heads_have_fitting_networks_of_their_own(model):
    atoms = structures()[:1]
    assert abs(model(atoms, head=0)[0] - model(atoms, head=1)[0]) > 1e-3


@pytest.mark.parametrize("head", ["one", "two"])
def test_exported_file_means_the_same_energies(model, tmp_path, head):
    reference = np.zeros(119)
    reference[[1, 6, 8, 11, 17]] = -13.6, -1030.0, -2043.0, -4400.0, -12500.0
    file = tmp_path / "model.dp"
    file.write_bytes(model_file(model.potential.config, model.potential.state(), reference, head))
    tree = read(file)
    assert tree["model"]["descriptor"]["sel"] == [24, 16, 20, 56, 56]
    for atoms in structures():
        cell = atoms.cell.array if atoms.pbc.any() else None
        expected = atomic_energies(tree, atoms.get_chemical_symbols(), atoms.positions, cell)
        own = model.predictor.predict(batch_of([atoms]), ["one", "two"].index(head))
        total = len(atoms) * own["energy"][0] + reference[atoms.numbers].sum()
        assert total == pytest.approx(expected.sum(), rel=1e-13)
        of_atoms = own["atom_energies"][: len(atoms)] + reference[atoms.numbers]
        np.testing.assert_allclose(of_atoms, expected, rtol=1e-12)


def test_state_is_named_by_element_and_loads_back(model):
    state = model.potential.state()
    assert {f"model.embedding.{e}.2.weight" for e in ELEMENTS} <= set(state)
    assert {"heads.two.fitting.Cl.2.bias", "model.descriptor.Na.spread"} <= set(state)
    other = build(small_deeppot(), ["one", "two"], 8, ms.float64)
    other.load_state(state)
    for name, array in other.state().items():
        np.testing.assert_array_equal(array, state[name])


def test_more_neighbours_than_before_get_their_places():
    potential = build(small_deeppot(), ["one"], 3, ms.float64)
    loose, dense = bulk("NaCl", "rocksalt", a=6.5), bulk("NaCl", "rocksalt", a=4.4)
    for atoms in (loose, dense, loose):
        batch = batch_of([atoms], SHAPE)
        found = potential.slots.find(batch)
        placed = np.concatenate([table.ravel() for table in found.neighbors])
        real = np.flatnonzero(batch.senders < len(atoms))
        np.testing.assert_array_equal(np.sort(placed[placed < SHAPE.n_edges]), real)
