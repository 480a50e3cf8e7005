"""The stage ``relax``: minima, cells under pressure, symmetry, restarts, and what did not converge."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.constraints import FixAtoms
from pairs import RADIUS, Pairs

from lamkit.cli import main
from lamkit.errors import Interrupted, UserError
from lamkit.stages import minimize, relax

PAIRS = "pairs:Pairs"


def strained(seed: int = 0) -> Atoms:
    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.rattle(0.05, seed=seed)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * np.eye(3)[::-1]), scale_atoms=True)
    return atoms


@pytest.fixture
def starts(tmp_path) -> Path:
    path = tmp_path / "starts.xyz"
    ase.io.write(path, [strained(1), Atoms("Cu2", [[0, 0, 0], [0, 0, RADIUS + 0.15]])])
    return path


def options(path: Path | str, **more) -> relax.Options:
    minimizer = {"optimizer": "BFGS", "fmax": 1e-3, **more.pop("minimizer", {})}
    return relax.Options(**{"structures": [str(path)], "calculator": PAIRS, "minimizer": minimizer, **more})


def relaxed(result) -> list[Atoms]:
    found = ase.io.read(result["relaxed"], ":")
    for atoms in found:
        atoms.calc = Pairs()
    return found


@pytest.mark.parametrize("optimizer", ["FIRE", "BFGS", "LBFGS"])
def test_every_optimizer_finds_the_minimum(starts, tmp_path, optimizer):
    result = relax.run(options(starts, minimizer={"optimizer": optimizer}), tmp_path / "out")
    assert result["n_converged"] == result["n_structures"] == 2
    for atoms, row in zip(relaxed(result), result["structures"], strict=True):
        assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 1e-3
        assert row["energy_eV"] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        assert row["energy_eV"] < row["energy_start_eV"]
        frames = ase.io.read(tmp_path / "out" / "trajectories" / f"{row['name']}.extxyz", ":")
        assert len(frames) == row["steps"] + 1
    with open(result["table"]) as stream:
        assert [r["converged"] for r in csv.DictReader(stream)] == ["True", "True"]


@pytest.mark.parametrize(("cell", "pressure"), [("full", 0.0), ("full", 5.0), ("volume", 5.0)])
def test_the_cell_comes_to_rest_under_the_pressure(tmp_path, cell, pressure):
    ase.io.write(tmp_path / "start.extxyz", strained())
    minimizer = {"cell": cell, "pressure": pressure, "smax": 0.01}
    result = relax.run(options(tmp_path / "start.extxyz", minimizer=minimizer), tmp_path / "out")
    assert result["n_converged"] == 1
    stress = relaxed(result)[0].get_stress() / units.GPa
    assert stress[:3].mean() == pytest.approx(-pressure, abs=0.01)
    if cell == "full":
        np.testing.assert_allclose(stress, [-pressure] * 3 + [0.0] * 3, atol=0.011)
        assert result["structures"][0]["spacegroup"] == "Fm-3m (225)"
    else:
        shape = relaxed(result)[0].cell.array / strained().cell.array[0, 0]
        before = strained().cell.array / strained().cell.array[0, 0]
        np.testing.assert_allclose(shape / shape[0, 0], before, atol=1e-6)


def test_symmetry_is_kept_on_request(tmp_path):
    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.set_cell(atoms.cell.array * [1, 1, 1.05], scale_atoms=True)  # tetragonal: falls back to cubic
    ase.io.write(tmp_path / "start.extxyz", atoms)
    minimizer = {"cell": "full", "symmetry": True, "smax": 0.01}
    result = relax.run(options(tmp_path / "start.extxyz", minimizer=minimizer), tmp_path / "out")
    assert result["structures"][0]["spacegroup_start"] == "I4/mmm (139)"
    assert result["structures"][0]["converged"]
    lengths = relaxed(result)[0].cell.cellpar()
    np.testing.assert_allclose(lengths[3:], 90, atol=1e-10)
    assert lengths[0] == pytest.approx(lengths[1], abs=1e-10)


def test_what_does_not_converge_is_reported_with_exit_code_1_and_written(starts, tmp_path, capsys):
    words = ["relax", str(starts), "--calculator", PAIRS, "--fmax", "1e-9", "--max-steps", "3", "--json"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["n_converged"] == 0
    assert "structure 1: not converged after 3 steps: largest force" in printed.err
    assert len(relaxed(result)) == 2
    again = ["relax", "--resume", "--max-steps", "200", "--set", "minimizer.fmax=1e-9"]
    assert main([*again, "--out", str(tmp_path / "out"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["n_converged"] == 2
    assert all(row["steps"] > 3 for row in result["structures"])
    frames = ase.io.read(tmp_path / "out" / "trajectories" / f"{result['structures'][0]['name']}.extxyz", ":")
    assert [f.info["step"] for f in frames] == list(range(len(frames)))


def test_a_stopped_run_goes_on_without_repeating_what_is_done(starts, tmp_path, monkeypatch):
    done = []
    original = minimize.Relaxation.run

    def stops_in_the_second(self, on_step, interrupted):
        done.append(self.structure.name)
        if len(done) == 2:
            return original(self, on_step, lambda: self.steps == 2)
        return original(self, on_step, interrupted)

    monkeypatch.setattr(minimize.Relaxation, "run", stops_in_the_second)
    with pytest.raises(Interrupted, match="--resume"):
        relax.run(options(starts), tmp_path / "out")
    result = relax.run(options(starts, resume=True), tmp_path / "out")
    assert len(done) == 3
    assert done[1] == done[2]
    assert result["n_converged"] == 2
    monkeypatch.setattr(minimize.Relaxation, "run", original)
    whole = relax.run(options(starts), tmp_path / "whole")
    for ours, theirs in zip(result["structures"], whole["structures"], strict=True):
        assert ours["energy_eV"] == pytest.approx(theirs["energy_eV"], abs=1e-6)
    assert relax.run(options(starts, resume=True), tmp_path / "out") == result


class Breaking(Pairs):
    """Not a number from the fourth call on."""

    calls = 0

    def calculate(self, *args, **kwargs) -> None:
        super().calculate(*args, **kwargs)
        Breaking.calls += 1
        if Breaking.calls > 3:
            self.results["forces"] = np.full_like(self.results["forces"], np.nan)


def test_a_structure_that_breaks_keeps_its_last_sane_geometry(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    ase.io.write(tmp_path / "start.extxyz", strained())
    result = relax.run(options(tmp_path / "start.extxyz", calculator="test_relax:Breaking"), tmp_path / "out")
    row = result["structures"][0]
    assert not row["converged"]
    assert "not finite" in row["why"]
    assert np.isfinite(relaxed(result)[0].positions).all()
    assert np.isfinite(row["energy_eV"])


def test_fixed_atoms_do_not_move(tmp_path):
    atoms = strained()
    atoms.set_constraint(FixAtoms([0]))
    ase.io.write(tmp_path / "start.traj", atoms)
    result = relax.run(options(tmp_path / "start.traj"), tmp_path / "out")
    assert result["n_converged"] == 1
    np.testing.assert_allclose(relaxed(result)[0].positions[0], atoms.positions[0], atol=1e-8)


def test_globs_and_names(tmp_path):
    for k in range(3):
        ase.io.write(tmp_path / f"cell{k}.extxyz", strained(k))
    result = relax.run(options(tmp_path / "cell*.extxyz", trajectory="none"), tmp_path / "out")
    assert [row["name"] for row in result["structures"]] == ["000-Cu4", "001-Cu4", "002-Cu4"]
    assert not (tmp_path / "out" / "trajectories").exists()


@pytest.mark.parametrize(
    ("minimizer", "message"),
    [
        ({"cell": "full"}, r"starts\.xyz, structure 1: cell: full need"),
        ({"symmetry": True}, r"starts\.xyz, structure 1: symmetry"),
        ({"pressure": 3.0}, "pressure has no meaning"),
    ],
)
def test_what_needs_a_cell_is_refused_without_one(starts, tmp_path, minimizer, message):
    with pytest.raises(UserError, match=message):
        relax.run(options(starts, minimizer=minimizer), tmp_path / "out")
    assert not (tmp_path / "out").exists()
