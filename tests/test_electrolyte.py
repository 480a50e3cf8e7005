"""The benchmark of a solid electrolyte: its teacher's potential, and how diffusion is measured."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress


@pytest.fixture
def benchmarks(repo, monkeypatch):
    """Imports a script of ``benchmarks/``."""
    monkeypatch.syspath_prepend(str(repo / "benchmarks"))
    return importlib.import_module


def test_forces_and_stress_of_silver_iodide_are_the_slopes_of_its_energy(benchmarks):
    silver_iodide, random = benchmarks("silver_iodide"), np.random.default_rng(0)
    atoms = silver_iodide.crystal(2, random)
    atoms.rattle(0.1, rng=random)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * random.normal(size=(3, 3))), scale_atoms=True)
    atoms.calc = silver_iodide.teacher()
    forces = atoms.get_forces()
    assert np.abs(forces.sum(axis=0)).max() < 1e-12
    np.testing.assert_allclose(
        forces[[0, 20]], calculate_numerical_forces(atoms, 1e-4, iatoms=[0, 20]), atol=1e-7
    )
    np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, 1e-5), atol=1e-7)


def test_charges_alone_have_the_energy_of_madelung(benchmarks, monkeypatch):
    silver_iodide = benchmarks("silver_iodide")
    monkeypatch.setattr(silver_iodide, "SHORT", dict.fromkeys(silver_iodide.SHORT, (1, 0.0, 0.0, 0.0)))
    atoms = bulk("AgI", "rocksalt", a=6.0)
    atoms.calc = silver_iodide.teacher()
    exact = -1.747564594633 * silver_iodide.SQUARE * 0.6**2 / 3.0
    assert atoms.get_potential_energy() == pytest.approx(exact, rel=1e-5)


def test_silver_is_spread_over_sites_of_the_iodide_lattice(benchmarks):
    atoms = benchmarks("silver_iodide").crystal(3, np.random.default_rng(1))
    distances = atoms.get_all_distances(mic=True) + 9 * np.eye(len(atoms))
    silver = atoms.numbers == 47
    assert silver.sum() == (~silver).sum() == 54
    assert distances[silver][:, silver].min() > 2.5
    assert distances[silver][:, ~silver].min() == pytest.approx(5.08 * 5**0.5 / 4)


def test_other_elements_and_charged_cells_are_refused(benchmarks):
    teacher = benchmarks("silver_iodide").teacher()
    for symbols in ("Ag2I", "AgBr"):
        atoms = Atoms(symbols, positions=3.0 * np.eye(3)[: 2 + (symbols == "Ag2I")], cell=[9] * 3, pbc=True)
        with pytest.raises(ValueError, match="Ag"):
            teacher.get_potential_energy(atoms)


def test_the_table_for_lammps_holds_the_potential_and_its_force(benchmarks, tmp_path):
    silver_iodide = benchmarks("silver_iodide")
    silver_iodide.write_table(tmp_path / "t")
    section = (tmp_path / "t").read_text().split("AgI\n")[1].split("\n\n")[1]
    _, r, energy, force = np.array([row.split() for row in section.splitlines()], dtype=float).T
    np.testing.assert_allclose(energy, silver_iodide.short(r, ("Ag", "I"))[0])
    middle = r > 2.5
    np.testing.assert_allclose(-np.gradient(energy, r)[middle], force[middle], atol=1e-4)
    assert energy[-1] == force[-1] == 0.0


def test_a_random_walk_has_its_diffusion_coefficient(benchmarks):
    """Steps of variance 2 D Δt along each axis; the other kind of ion stays."""
    electrolyte, silver_iodide = benchmarks("electrolyte"), benchmarks("silver_iodide")
    random, atoms = np.random.default_rng(0), silver_iodide.crystal(3, np.random.default_rng(0))
    time = electrolyte.STRIDE * electrolyte.STEP
    steps = np.where((atoms.numbers == 47)[:, None], np.sqrt(2 * 0.3 * time), 0.0)
    paths = atoms.positions + np.cumsum(steps * random.normal(size=(300, len(atoms), 3)), axis=0)
    found = electrolyte.measured(atoms, paths)
    assert found["D Ag"] == pytest.approx(3.0, rel=0.2)  # 0.3 Å²/ps
    assert abs(found["D I"]) < 0.1
    assert found["moved Ag"] == pytest.approx(6 * 0.3 * electrolyte.FIT[1], rel=0.2)


def test_positions_of_a_dump_are_read_frame_by_frame(benchmarks, tmp_path):
    frame = "ITEM: TIMESTEP\n{t}\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n"
    frame += "ITEM: ATOMS id type xu yu zu\n1 1 {t} 2 3\n2 2 4 5 -6.5\n"
    (tmp_path / "d").write_text(frame.format(t=0) + frame.format(t=20))
    found = benchmarks("electrolyte").vectors(tmp_path / "d")
    assert found.shape == (2, 2, 3)
    assert found[1].tolist() == [[20, 2, 3], [4, 5, -6.5]]
