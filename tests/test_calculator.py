"""The ASE calculator: a tiny untrained potential in a real checkpoint folder, held against physics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.md.verlet import VelocityVerlet

from lamkit.calculator import LamCalculator, Shapes
from lamkit.data.batch import Shape
from lamkit.data.heads import HeadConfig, LevelOfTheory
from lamkit.data.neighbors import neighbor_list
from lamkit.data.skin import SkinList
from lamkit.errors import UserError
from lamkit.model.config import TrunkConfig
from lamkit.train import checkpoint

REFERENCE_CU, REFERENCE_AL = -1000.25, -500.125  # eV; large, as in all-electron codes
SINGLE = 2e-5  # float32 forces of a tiny network, eV/Å


def tiny_checkpoint(folder: Path, heads=("metals", "oxides"), output="conservative", **trunk) -> Path:
    from lamkit.model.potential import Potential
    from lamkit.model.runtime import setup

    setup("CPU")
    config = TrunkConfig(
        **{"latent": 8, "hidden": 16, "layers": 2, "head_hidden": 8, "cutoff": 4.0, **trunk}, output=output
    )
    potential = Potential(config, list(heads), seed=3)
    for head in heads:
        potential.set_scale(head, "energy", 0.5, 2.0)
    reference = np.zeros(119)
    reference[[29, 13, 8, 1]] = REFERENCE_CU, REFERENCE_AL, -2000.0, -13.6
    level = LevelOfTheory(method="DFT", functional="PBE")
    checkpoint.write(
        folder,
        checkpoint.Checkpoint(
            path=folder,
            trunk=config,
            heads=tuple(heads),
            weights=potential.state(),
            references=dict.fromkeys(heads, reference),
            head_configs={h: HeadConfig(name=h, level_of_theory=level) for h in heads},
            elements={h: ["Cu", "Al", "O", "H"] for h in heads},
        ),
    )
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("calculator") / "model")


@pytest.fixture(scope="module")
def calculator(model) -> LamCalculator:
    return LamCalculator(model, head="metals")


@pytest.fixture
def alloy() -> Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.symbols[0] = "Al"
    atoms.rattle(0.1, seed=1)
    return atoms


def test_forces_are_the_negative_gradient(calculator, alloy):
    alloy.calc = calculator
    forces = alloy.get_forces()
    h = 5e-3  # the energy is float32 per atom: a larger step would be truncation, a smaller one rounding
    for atom, axis in ((0, 0), (3, 2)):
        ends = []
        for sign in (1, -1):
            moved = alloy.copy()
            moved.positions[atom, axis] += sign * h
            moved.calc = calculator
            ends.append(moved.get_potential_energy())
        numerical = -(ends[0] - ends[1]) / (2 * h)
        assert numerical == pytest.approx(forces[atom, axis], abs=5e-3, rel=5e-3)


def test_stress_is_the_derivative_with_strain(calculator, alloy):
    alloy.calc = calculator
    stress, h, ends = alloy.get_stress(), 2e-3, []
    for sign in (1, -1):
        strained = alloy.copy()
        strained.set_cell(alloy.cell.array @ np.diag([1 + sign * h, 1, 1]), scale_atoms=True)
        strained.calc = calculator
        ends.append(strained.get_potential_energy())
    numerical = (ends[0] - ends[1]) / (2 * h) / alloy.get_volume()
    assert numerical == pytest.approx(stress[0], abs=2e-3, rel=2e-2)


def test_energy_is_conserved_in_nve(calculator, alloy):
    atoms = alloy.copy()
    atoms.calc = calculator
    thermal = np.sqrt(atoms.get_masses() * units.kB * 300)[:, None]
    atoms.set_momenta(np.random.default_rng(0).standard_normal((len(atoms), 3)) * thermal)
    total = []
    dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    dynamics.attach(lambda: total.append(atoms.get_total_energy() / len(atoms)), interval=10)
    dynamics.run(200)
    kinetic = atoms.get_kinetic_energy() / len(atoms)
    assert np.ptp(total) < 0.02 * max(kinetic, 0.02)


def test_references_are_added_in_double_precision(calculator, alloy):
    alloy.calc = calculator
    energy = alloy.get_potential_energy()
    baseline = REFERENCE_AL + (len(alloy) - 1) * REFERENCE_CU
    assert abs(energy - baseline) < 100
    assert calculator.results["free_energy"] == energy


def test_a_batch_gives_what_single_structures_give(model, alloy):
    calculator = LamCalculator(model, head="oxides")
    structures = [alloy, bulk("Al"), molecule("H2O"), bulk("Cu", cubic=True) * 2, Atoms("Cu")]
    batched = calculator.predict(structures, latent=True)
    for atoms, result in zip(structures, batched, strict=True):
        alone = atoms.copy()
        alone.calc = LamCalculator(model, head="oxides", skin=0.0) if atoms is alloy else calculator
        assert alone.get_potential_energy() == pytest.approx(result["energy"], abs=1e-4)
        np.testing.assert_allclose(alone.get_forces(), result["forces"], atol=SINGLE)
        assert result["latent"].shape == (len(atoms), 8)
        assert ("stress" in result) == bool(atoms.pbc.all())


def test_skin_changes_nothing_and_saves_searches(model, alloy):
    skin, fresh = LamCalculator(model, "metals", skin=0.6), LamCalculator(model, "metals", skin=0.0)
    rng = np.random.default_rng(0)
    atoms = alloy.copy()
    for _ in range(12):
        atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
        results = []
        for calc in (skin, fresh):
            atoms.calc = calc
            results.append((atoms.get_potential_energy(), atoms.get_forces()))
        assert results[0][0] == pytest.approx(results[1][0], abs=1e-4)
        np.testing.assert_allclose(results[0][1], results[1][1], atol=SINGLE)
    assert skin._skin.n_builds < fresh._skin.n_builds == 12


@pytest.mark.parametrize("max_neighbors", [None, 7])
def test_skin_list_is_the_exact_list_at_every_step(alloy, max_neighbors):
    skin = SkinList(4.0, max_neighbors, 0.8)
    rng = np.random.default_rng(1)
    for _ in range(15):
        alloy.positions += rng.normal(scale=0.05, size=alloy.positions.shape)
        ours = skin.edges(alloy.positions, alloy.cell.array, alloy.pbc)
        exact = neighbor_list(alloy.positions, alloy.cell.array, alloy.pbc, 4.0, max_neighbors)
        edges = [
            sorted(zip(e.senders.tolist(), e.receivers.tolist(), map(tuple, e.shifts.tolist()), strict=True))
            for e in (ours, exact)
        ]
        assert edges[0] == edges[1]
    assert skin.n_builds < 15


def test_a_changed_cell_is_searched_anew(alloy):
    skin = SkinList(4.0, None, 0.8)
    skin.edges(alloy.positions, alloy.cell.array, alloy.pbc)
    alloy.set_cell(alloy.cell.array * 0.9, scale_atoms=True)
    edges = skin.edges(alloy.positions, alloy.cell.array, alloy.pbc)
    assert len(edges.senders) == len(neighbor_list(alloy.positions, alloy.cell.array, alloy.pbc, 4.0).senders)


def test_direct_model_of_a_molecule_has_no_net_force_and_no_torque(tmp_path):
    path = tiny_checkpoint(tmp_path / "direct", heads=("one",), output="direct", repulsion=False)
    water = molecule("H2O")
    water.calc = LamCalculator(path)
    forces = water.get_forces()
    assert np.abs(forces.sum(axis=0)).max() < SINGLE
    torque = np.cross(water.positions - water.positions.mean(axis=0), forces).sum(axis=0)
    assert np.abs(torque).max() < SINGLE
    with pytest.raises(NotImplementedError):
        water.get_stress()


def test_md_does_not_compile_at_every_step(model, alloy):
    calculator = LamCalculator(model, "metals")
    rng = np.random.default_rng(0)
    for _ in range(20):
        alloy.positions += rng.normal(scale=0.03, size=alloy.positions.shape)
        alloy.calc = calculator
        alloy.get_forces()
    assert len(calculator._shapes.shapes) == 1


def test_shapes_are_few_and_hold_what_is_asked():
    shapes, rng = Shapes(), np.random.default_rng(0)
    for _ in range(500):
        n = int(rng.integers(1, 400))
        needed = Shape(n + 1, n * int(rng.integers(5, 60)), 2)
        given = shapes.fit(needed)
        assert all(a >= b for a, b in zip(given, needed, strict=True))
    assert len(shapes.shapes) <= 12


def test_small_molecules_share_one_compiled_shape(calculator):
    before = len(calculator._shapes.shapes)
    for name in ("H2O", "H2", "H2O2", "OH"):
        atoms = molecule(name)
        atoms.calc = calculator
        atoms.get_potential_energy()
    assert len(calculator._shapes.shapes) <= before + 1


def test_head_must_be_named_where_there_are_several(model, tmp_path):
    with pytest.raises(UserError, match="metals, oxides"):
        LamCalculator(model)
    with pytest.raises(UserError, match="Did you mean 'metals'"):
        LamCalculator(model, head="metal")
    assert LamCalculator(tiny_checkpoint(tmp_path / "single", heads=("one",))).head == "one"


def test_missing_checkpoint_is_the_users_to_mend(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        LamCalculator(tmp_path / "nothing")


def test_bad_structures_are_named(calculator, alloy):
    def refused(atoms: Atoms, message: str) -> None:
        atoms.calc = calculator
        with pytest.raises(UserError, match=message):
            atoms.get_potential_energy()

    refused(bulk("Fe"), r"Fe: head 'metals' .* knows Cu, Al, O, H")
    refused(Atoms(), "no atoms")
    broken = alloy.copy()
    broken.positions[2, 1] = np.nan
    refused(broken, r"atom 2 \(Cu\)")
    touching = alloy.copy()
    touching.positions[1] = touching.positions[2] + [0.05, 0, 0]
    refused(touching, r"atoms 1 \(Cu\) and 2 \(Cu\) are 0.05")
    flat = alloy.copy()
    flat.cell[2] = 0
    refused(flat, "lattice vector")
    with pytest.raises(UserError, match="structure 1: "):
        calculator.predict([alloy, bulk("Fe")])
