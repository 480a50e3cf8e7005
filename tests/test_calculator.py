"""The ASE calculator: a tiny untrained potential in a real checkpoint folder, held against physics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.md.verlet import VelocityVerlet

from lamkit.calculator import LamCalculator
from lamkit.data.heads import HeadConfig, LevelOfTheory
from lamkit.data.neighbors import neighbor_list
from lamkit.errors import UserError
from lamkit.model.config import TrunkConfig
from lamkit.train import checkpoint

REFERENCE_CU, REFERENCE_AL = -1000.25, -500.125  # eV; large, as in all-electron codes
SINGLE = 2e-5  # float32 forces of a tiny network, eV/Å


def tiny_checkpoint(folder: Path, heads=("metals", "oxides"), output="conservative", **trunk) -> Path:
    from lamkit.model.potential import Potential
    from lamkit.model.runtime import setup

    setup("CPU")
    trunk.setdefault("repulsion_rule", "physical")  # that of the public models is not extensive
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


@pytest.mark.parametrize("max_neighbors", [120, 9])
def test_skin_changes_no_bit_and_saves_searches(tmp_path, alloy, max_neighbors):
    path = tiny_checkpoint(tmp_path / "model", heads=("one",), max_neighbors=max_neighbors)
    skin, fresh = LamCalculator(path, skin=0.6), LamCalculator(path, skin=0.0)
    rng = np.random.default_rng(0)
    atoms = alloy.copy()
    for step in range(12):
        atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
        if step > 6:
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + 1e-3 * rng.normal(size=(3, 3))), scale_atoms=True)
        results = []
        for calc in (skin, fresh):
            atoms.calc = calc
            results.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()))
        for ours, theirs in zip(*results, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert skin._skin.n_builds < 6 < fresh._skin.n_builds == 12


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


def test_md_does_not_compile_when_the_number_of_edges_fluctuates(model, alloy):
    calculator = LamCalculator(model, "metals")
    alloy.calc = calculator
    alloy.get_forces()
    before, counts = list(calculator._network.shapes.shapes), set()
    rng = np.random.default_rng(0)
    for _ in range(20):
        alloy.positions += rng.normal(scale=0.03, size=alloy.positions.shape)
        alloy.get_forces()
        counts.add(len(neighbor_list(alloy.positions, alloy.cell.array, True, 4.0).senders))
    assert len(counts) > 5
    assert calculator._network.shapes.shapes == before


def test_every_head_and_calculator_of_a_checkpoint_shares_one_compiled_network(model, alloy):
    metals, oxides = LamCalculator(model, "metals"), LamCalculator(model, "oxides")
    assert metals._network is oxides._network
    energies = []
    for calculator in (metals, oxides):
        alloy.calc = calculator
        energies.append(alloy.get_potential_energy())
    n_shapes = len(metals._network.shapes.shapes)
    assert energies[0] != energies[1]
    alloy.calc = metals
    alloy.get_potential_energy()
    metals.head = "oxides"
    assert alloy.get_potential_energy() == energies[1]
    assert len(metals._network.shapes.shapes) == n_shapes
    with pytest.raises(UserError, match="Did you mean 'oxides'"):
        metals.head = "oxide"


def test_a_checkpoint_written_anew_is_another_network(tmp_path, alloy):
    path = tiny_checkpoint(tmp_path / "model", heads=("one",))
    before = LamCalculator(path)
    tiny_checkpoint(path, heads=("one",), layers=1)
    assert LamCalculator(path)._network is not before._network


def test_small_molecules_share_one_compiled_shape(calculator):
    before = len(calculator._network.shapes.shapes)
    for name in ("H2O", "H2", "H2O2", "OH"):
        atoms = molecule(name)
        atoms.calc = calculator
        atoms.get_potential_energy()
    assert len(calculator._network.shapes.shapes) <= before + 1


def test_head_must_be_named_where_there_are_several(model, tmp_path):
    with pytest.raises(UserError, match="metals, oxides"):
        LamCalculator(model)
    with pytest.raises(UserError, match="Did you mean 'metals'"):
        LamCalculator(model, head="metal")
    assert LamCalculator(tiny_checkpoint(tmp_path / "single", heads=("one",))).head == "one"


def test_missing_checkpoint_is_the_users_to_mend(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        LamCalculator(tmp_path / "nothing")


def broken_structures(alloy: Atoms) -> dict[str, tuple[Atoms, str]]:
    """Name of what is wrong: structure and what the message must say."""

    def changed(change) -> Atoms:
        atoms = alloy.copy()
        change(atoms)
        return atoms

    def put(atoms: Atoms, i: int, value) -> None:
        atoms.positions[i] = value

    return {
        "unknown element": (bulk("Fe"), r"Fe: head 'metals' .* knows Cu, Al, O, H"),
        "empty": (Atoms(), "no atoms"),
        "dummy atom": (Atoms("XCu", [[0, 0, 0], [0, 0, 2]]), "atom 0 has atomic number 0"),
        "nan": (changed(lambda a: put(a, 2, np.nan)), r"atom 2 \(Cu\)"),
        "overlap": (
            changed(lambda a: put(a, 1, a.positions[2] + [0.05, 0, 0])),
            r"atom 1 \(Cu\) and atom 2 \(Cu\) are 0.050 Å",
        ),
        "coincident": (changed(lambda a: put(a, 1, a.positions[2])), "0.000 Å apart"),
        "no third vector": (changed(lambda a: a.cell.__setitem__(2, 0.0)), "no independent lattice vector"),
        "zero cell": (Atoms("Cu", pbc=True), "cell is zero"),
        "infinite cell": (changed(lambda a: a.cell.__setitem__(2, np.inf)), "not finite"),
        "partial pbc": (
            Atoms("Cu", cell=np.diag([4.0, 0, 0]), pbc=(True, True, False)),
            "no independent lattice vector",
        ),
        "cell in nm": (Atoms("Cu", cell=0.036 * np.eye(3), pbc=True), "periodic images"),
        "absurd cell": (changed(lambda a: a.cell.__setitem__(2, [0, 0, 1e20])), "vectors beyond"),
        "absurd position": (changed(lambda a: put(a, 1, 1e20)), "atom 1 is at .* fly apart"),
        "absurd area": (Atoms("Cu", cell=np.diag([9e4, 9e4, 3.0]), pbc=True), "too much for a search"),
    }


def test_bad_structures_are_refused_with_their_place(calculator, alloy):
    for name, (atoms, message) in broken_structures(alloy).items():
        atoms.calc = calculator
        with pytest.raises(UserError, match=message):
            atoms.get_potential_energy()
        with pytest.raises(UserError, match=f"structure 1: .*{message}"):
            calculator.predict([alloy, atoms])
        with pytest.raises(UserError, match=f"^{name}: .*{message}"):
            calculator.check(atoms, name)
    calculator.check(alloy)


def test_a_left_handed_cell_gives_what_the_right_handed_one_gives(calculator, alloy):
    mirror = alloy.copy()
    mirror.set_cell(alloy.cell.array[[1, 0, 2]])
    assert np.linalg.det(mirror.cell.array) < 0
    results = calculator.predict([alloy, mirror])
    assert results[0]["energy"] == pytest.approx(results[1]["energy"], abs=1e-4)
    for name in ("forces", "stress"):
        np.testing.assert_allclose(results[0][name], results[1][name], atol=SINGLE)


def test_axes_that_are_not_periodic_need_no_vector(calculator, alloy):
    slab = alloy.copy()
    slab.pbc = (True, True, False)
    flat = slab.copy()
    flat.cell[2] = 0.0
    results = calculator.predict([slab, flat])
    assert results[0]["energy"] == pytest.approx(results[1]["energy"], abs=1e-4)
    assert "stress" not in results[0]


def test_constraints_are_ases_business(calculator, alloy):
    free = calculator.predict([alloy])[0]["forces"]
    alloy.set_constraint(FixAtoms([0]))
    alloy.calc = calculator
    assert (alloy.get_forces()[0] == 0).all()
    np.testing.assert_allclose(alloy.get_forces(apply_constraint=False), free, atol=SINGLE)
    np.testing.assert_array_equal(calculator.predict([alloy])[0]["forces"], free)


def test_charge_and_spin_are_part_of_the_structure_where_the_model_knows_them(tmp_path):
    path = tiny_checkpoint(tmp_path / "model", heads=("one",), conditioning=True)
    water = molecule("H2O")
    water.calc = LamCalculator(path)
    with pytest.raises(UserError, match="has no charge and no spin"):
        water.get_potential_energy()
    water.info |= {"charge": 0, "spin": 1}
    neutral = water.get_potential_energy()
    water.info["charge"] = 1
    assert water.get_potential_energy() != neutral
    with pytest.raises(UserError, match="structure 1: has no charge"):
        water.calc.predict([water, molecule("H2O")])


def test_a_supercell_has_the_energy_per_atom_of_its_cell_to_single_precision(calculator, alloy):
    small, large = calculator.predict([alloy, alloy * (2, 2, 2)])
    baseline = REFERENCE_AL + (len(alloy) - 1) * REFERENCE_CU
    per_atom = (small["energy"] - baseline) / len(alloy)
    assert (large["energy"] - 8 * baseline) / (8 * len(alloy)) == pytest.approx(per_atom, abs=2e-6)
    np.testing.assert_allclose(large["stress"], small["stress"], atol=SINGLE)
    np.testing.assert_allclose(large["forces"], np.tile(small["forces"], (8, 1)), atol=SINGLE)
