"""Labels from any ASE calculator, in chunks that survive a stop."""

from __future__ import annotations

import sys
import types

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from lamkit.data.dataset import open_dataset
from lamkit.errors import Interrupted, UserError
from lamkit.stages import label

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
    class Picky(EMT):
        def calculate(self, atoms=None, *args, **kwargs):
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


def test_labels_that_are_not_finite_count_as_failures(structures, tmp_path, module):
    class Broken(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["forces"] = self.results["forces"] * np.nan

    module.make = Broken
    options = label.Options(data=str(structures), calculator="users_own_calculators:make")
    with pytest.raises(UserError, match=r"7 of 7 frames could not be labelled .* not finite"):
        label.run(options, tmp_path / "out")


def test_resume_does_not_redo_finished_chunks(structures, tmp_path, module):
    calls = []

    class Counting(EMT):
        stop_at = 5

        def calculate(self, *args, **kwargs):
            if len(calls) == self.stop_at:
                raise KeyboardInterrupt
            calls.append(1)
            super().calculate(*args, **kwargs)

    module.make = Counting
    options = label.Options(data=str(structures), calculator="users_own_calculators:make", chunk=2)
    with pytest.raises(Interrupted, match="--resume"):
        label.run(options, tmp_path / "out")
    assert len(calls) == 5
    Counting.stop_at = 10**6
    result = label.run(options.model_copy(update={"resume": True}), tmp_path / "out")
    assert result["n_frames"] == 7
    assert len(calls) == 5 + 3  # frame 4 belonged to a chunk that was not finished


def test_missing_data_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such"):
        label.run(label.Options(data="nowhere", calculator=EMT_NAME), tmp_path / "out")
