"""CP2K: inputs, and real labels of a cell of two atoms."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from lamkit.data.frame import from_atoms
from lamkit.dft import task
from lamkit.dft.cp2k import Cp2k, Kind, mesh_of, structure_text
from lamkit.dft.pool import run_local
from lamkit.errors import UserError

QUICK = Cp2k(functional="PBE", cutoff=500, rel_cutoff=60, basis="SZV-MOLOPT-SR-GTH", eps_scf=1e-6)
STEP = 0.05  # Å


@pytest.fixture(scope="session")
def cp2k() -> str:
    """The executable; ``tests/run.sh`` installs it where it can."""
    found = shutil.which("cp2k.psmp")
    if found is None:
        pytest.skip("CP2K is not installed (Debian, Ubuntu: apt-get install cp2k cp2k-data)")
    return found


@pytest.fixture
def pair():
    """A periodic cell of two atoms; hydrogen needs the coarsest grid of all elements."""
    atoms = Atoms("H2", positions=[[0.1, 0.2, 0.0], [0.9, 0.3, 0.1]], cell=[4.0, 4.2, 4.4], pbc=True)
    return from_atoms(atoms, source="pair", group="pair")


def label(frame, program, folder):
    task.prepare(frame, program, folder)
    for _ in run_local([folder], jobs=1, timeout=120):
        pass
    return task.collect(folder, program, attempts=1)


def test_forces_of_cp2k_are_the_work_that_its_energy_takes(cp2k, pair, tmp_path):
    """Simpson's rule over three real single points: E(-h) - E(h) = h/3 [F(-h) + 4 F(0) + F(h)]."""
    frames = []
    for k in (-1, 0, 1):
        positions = pair.positions.copy()
        positions[0, 0] += k * STEP
        outcome = label(replace(pair, positions=positions), QUICK, tmp_path / str(k))
        assert outcome.reason == ""
        frames.append(outcome.frame)
    work = STEP / 3 * (np.array([f.forces[0, 0] for f in frames]) @ [1, 4, 1])
    assert frames[0].energy - frames[2].energy == pytest.approx(work, rel=0.05)  # the grid is coarse
    assert np.abs(frames[1].forces.sum(axis=0)).max() < 1e-3
    assert frames[1].stress.shape == (6,)
    assert frames[1].info["code"].startswith("CP2K ")


def test_a_cycle_that_does_not_converge_gives_no_label(cp2k, pair, tmp_path):
    outcome = label(pair, QUICK.model_copy(update={"max_scf": 1}), tmp_path / "task")
    assert outcome.frame is None
    assert outcome.final
    assert "did not converge" in outcome.reason


def test_a_mistake_in_the_settings_is_told_in_cp2ks_own_words(cp2k, pair, tmp_path):
    wrong = QUICK.model_copy(update={"basis": "NO-SUCH-BASIS"})
    outcome = label(pair, wrong, tmp_path / "task")
    assert outcome.frame is None
    assert "CP2K" in outcome.reason
    assert "exit code" in outcome.reason


def test_the_input_says_what_the_settings_say(pair):
    program = Cp2k(
        functional="PBEsol",
        kpoints=[2, 2, 2],
        smearing=300,
        multiplicity=3,
        kinds={"H": Kind(potential="GTH-PBE-q1")},
    )
    text = program.inputs(pair)["frame.inp"].decode()
    for expected in (
        "PARAMETRIZATION PBESOL",
        "MONKHORST-PACK 2 2 2",
        "ELECTRONIC_TEMPERATURE 300",
        "MULTIPLICITY 3",
        "POTENTIAL GTH-PBE-q1",
        "@INCLUDE structure.inc",
    ):
        assert expected in text
    assert "KPOINTS" not in QUICK.inputs(pair)["frame.inp"].decode()


def test_positions_are_written_with_all_their_digits(pair):
    rows = [line.split() for line in structure_text(pair).splitlines() if line.split()[0] == "H"]
    np.testing.assert_allclose(np.array([r[1:] for r in rows], dtype=float), pair.positions, atol=1e-11)


def test_a_molecule_gets_a_box(pair):
    water = from_atoms(molecule("H2O"))
    assert "PERIODIC NONE" in structure_text(water)
    assert "POISSON_SOLVER MT" in QUICK.inputs(water)["frame.inp"].decode()
    slab = replace(pair, pbc=np.array([True, True, False]))
    with pytest.raises(UserError, match="template of your own"):
        structure_text(slab)


def test_a_template_of_ones_own_holds_the_structure(tmp_path, pair):
    template = tmp_path / "my.inp"
    template.write_text("&FORCE_EVAL\n&SUBSYS\n@INCLUDE structure.inc\n&END\n&END\n")
    program = Cp2k(template=str(template))
    program.check()
    assert program.inputs(pair)["frame.inp"] == template.read_bytes()
    template.write_text("nothing")
    with pytest.raises(UserError, match="no line '@INCLUDE"):
        program.check()


def test_an_unknown_functional_is_refused():
    with pytest.raises(UserError, match="Did you mean 'PBEsol'"):
        Cp2k(functional="PBESol").check()


def test_meshes_are_as_dense_as_asked_for(pair):
    """A cubic cell of edge a has reciprocal vectors of length 2π/a."""
    cube = from_atoms(bulk("Si", cubic=True))
    edge = cube.cell[0, 0]
    assert mesh_of(cube, 2 * np.pi / edge / 3) == [3, 3, 3]
    assert mesh_of(cube, 2 * np.pi / edge / 2.5) == [3, 3, 3]
    assert mesh_of(from_atoms(molecule("H2O")), 0.2) == [1, 1, 1]
