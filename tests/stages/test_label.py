"""Labels from any ASE calculator, in chunks that survive a stop."""

from __future__ import annotations

import sys
import types
from typing import ClassVar

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from lamkit.data.dataset import open_dataset
from lamkit.data.frame import from_atoms
from lamkit.errors import Interrupted, UserError
from lamkit.stages import label
from lamkit.stages.engine import FrameList, engine_of

EMT_NAME = "ase.calculators.emt:EMT"


@pytest.fixture
def structures(tmp_path):
    images = []
    for k in range(7):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=k)
        images.append(atoms)
    path = tmp_path / "structures.xyz"
    ase.io.write(path, images)
    return path


@pytest.fixture
def module(monkeypatch):
    """A user's own module with a calculator."""
    made = types.ModuleType("users_own_calculators")
    monkeypatch.setitem(sys.modules, "users_own_calculators", made)
    return made


@pytest.fixture
def counting():
    """A calculator that notes its calls, and is stopped at one of them."""

    class Counting(EMT):
        calls: ClassVar[list[int]] = []
        stop_at = 0

        def calculate(self, *args, **kwargs):
            if len(self.calls) == self.stop_at:
                raise KeyboardInterrupt
            self.calls.append(1)
            super().calculate(*args, **kwargs)

    return Counting


def test_labels_are_those_of_the_calculator(structures, tmp_path):
    result = label.run(label.Options(data=str(structures), calculator=EMT_NAME, chunk=3), tmp_path / "out")
    data = open_dataset(result["data"])
    assert len(data) == result["n_frames"] == 7
    for i, atoms in enumerate(ase.io.read(structures, index=":")):
        atoms.calc = EMT()
        frame = data.frame(i)
        assert frame.energy == pytest.approx(atoms.get_potential_energy(force_consistent=True), abs=1e-9)
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-9)
        np.testing.assert_allclose(frame.stress, atoms.get_stress(), atol=1e-9)
    assert "EMT" in data.facts.level_of_theory.functional


def test_failing_frames_are_reported_and_left_out(structures, tmp_path, module):
    calls = []

    class Picky(EMT):
        def calculate(self, atoms=None, *args, **kwargs):
            calls.append(1)
            if abs(atoms.positions[0, 0] - bad) < 1e-6:
                raise RuntimeError("SCF did not converge")
            super().calculate(atoms, *args, **kwargs)

    bad = ase.io.read(structures, index=4).positions[0, 0]
    module.make = Picky
    options = label.Options(data=str(structures), calculator="users_own_calculators:make", chunk=3)
    result = label.run(options, tmp_path / "out")
    assert (result["n_frames"], result["n_failed"]) == (6, 1)
    assert result["failed"][0]["frame"] == 4
    assert result["reasons"] == {"RuntimeError: SCF did not converge": 1}
    assert len(calls) == 7  # none is computed again because another one in its chunk failed


def test_labels_that_are_not_finite_count_as_failures(structures, tmp_path, module):
    class Broken(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["forces"] = self.results["forces"] * np.nan

    module.make = Broken
    options = label.Options(data=str(structures), calculator="users_own_calculators:make")
    with pytest.raises(UserError, match=r"7 of 7 frames could not be labelled .* not finite"):
        label.run(options, tmp_path / "out")


def test_resume_does_not_redo_finished_chunks(structures, tmp_path, module, counting):
    counting.stop_at = 5
    module.make = counting
    options = label.Options(data=str(structures), calculator="users_own_calculators:make", chunk=2)
    with pytest.raises(Interrupted, match="--resume"):
        label.run(options, tmp_path / "out")
    assert len(counting.calls) == 5
    counting.stop_at = 10**6
    result = label.run(options.model_copy(update={"resume": True}), tmp_path / "out")
    assert result["n_frames"] == 7
    assert len(counting.calls) == 5 + 3  # frame 4 belonged to a chunk that was not finished


def test_a_calculator_that_is_killed_loses_few_frames(tmp_path, counting):
    """Of those that compute one structure after the other, where each may take minutes."""
    counting.stop_at = 20
    source = FrameList([from_atoms(bulk("Cu", a=a)) for a in np.linspace(3.5, 3.7, 30)])
    with pytest.raises(KeyboardInterrupt):
        label.label(source, engine_of(counting()), tmp_path / "out")
    counting.stop_at = 10**6
    label.label(source, engine_of(counting()), tmp_path / "out")
    assert len(counting.calls) <= 30 + 8


def test_modules_in_the_working_folder_are_found(structures, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])  # as the installed command has it
    (tmp_path / "a_teacher_of_mine.py").write_text("from ase.calculators.emt import EMT as make\n")
    monkeypatch.chdir(tmp_path)
    options = label.Options(data=str(structures), calculator="a_teacher_of_mine:make")
    assert label.run(options, tmp_path / "out")["n_frames"] == 7


def test_a_calculator_that_cannot_be_made_is_the_users_to_mend(structures, tmp_path, module, monkeypatch):
    def make():
        raise RuntimeError("no licence")

    module.make = make
    options = label.Options(data=str(structures), calculator="users_own_calculators:make")
    with pytest.raises(UserError, match=r"cannot be made \(RuntimeError: no licence\)"):
        label.run(options, tmp_path / "out")
    (tmp_path / "unfinished_module.py").write_text("def make(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    options = label.Options(data=str(structures), calculator="unfinished_module:make")
    with pytest.raises(UserError, match=r"'unfinished_module' cannot be imported \(SyntaxError"):
        label.run(options, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_data_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such"):
        label.run(label.Options(data="nowhere", calculator=EMT_NAME), tmp_path / "out")


def hessian_of(atoms):
    """All second derivatives by EMT, [3n, 3n] eV/Å²."""
    columns = []
    for i in range(atoms.positions.size):
        forces = []
        for step in (1e-4, -1e-4):
            moved = atoms.copy()
            moved.positions.ravel()[i] += step
            moved.calc = EMT()
            forces.append(moved.get_forces().ravel())
        columns.append((forces[1] - forces[0]) / 2e-4)
    return np.array(columns)


def test_energies_of_atoms_and_products_with_the_hessian_are_those_of_the_teacher(structures, tmp_path):
    given = label.Options(data=str(structures), calculator=EMT_NAME, chunk=3, atom_energies=True, hessian=2)
    data = open_dataset(label.run(given, tmp_path / "out")["data"])
    frame = data.frame(4)
    atoms = ase.io.read(structures, index=4)
    whole = hessian_of(atoms)
    atoms.calc = EMT()
    np.testing.assert_allclose(frame.atom_energies, atoms.get_potential_energies(), atol=1e-9)
    assert frame.hessian.shape == (2, 2, len(atoms), 3)
    for v, found in frame.hessian:
        expected = (whole @ v.ravel()).reshape(-1, 3)
        assert abs(expected).max() > 1
        np.testing.assert_allclose(found, expected, atol=5e-3 * abs(expected).max())


def test_a_teacher_without_energies_of_atoms_is_told_at_once(structures, tmp_path, module):
    class Plain(EMT):
        implemented_properties = ("energy", "forces")

    module.make = Plain
    given = label.Options(data=str(structures), calculator="users_own_calculators:make", atom_energies=True)
    with pytest.raises(UserError, match=r"no energies of single atoms .*energy, forces"):
        label.run(given, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_frames_whose_atoms_do_not_add_up_are_left_out(structures, tmp_path, module):
    class Shifted(EMT):
        def calculate(self, atoms=None, *args, **kwargs):
            super().calculate(atoms, *args, **kwargs)
            self.results["energies"] = self.results["energies"] + 0.1

    module.make = Shifted
    given = label.Options(data=str(structures), calculator="users_own_calculators:make", atom_energies=True)
    with pytest.raises(UserError, match=r"7 of 7 frames .* miss the energy by 0\.4 eV"):
        label.run(given, tmp_path / "out")


def test_dft_gives_no_extra_labels(structures, tmp_path):
    with pytest.raises(UserError, match="not by a DFT program"):
        label.run(label.Options(data=str(structures), cp2k={}, hessian=1), tmp_path / "out")
