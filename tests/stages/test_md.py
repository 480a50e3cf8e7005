"""The stage ``md``: files, restarts to the last bit, explosions and wrong input, by the real command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from pairs import Pairs
from tiny import write_model

from lamkit.cli import main
from lamkit.errors import Interrupted, UserError
from lamkit.stages import md
from lamkit.stages.recorder import read_table

PAIRS = "pairs:Pairs"
HERE = Path(__file__).resolve().parent.parent


@pytest.fixture
def starts(tmp_path) -> Path:
    path = tmp_path / "starts.xyz"
    ase.io.write(path, [bulk("Cu", a=3.55, cubic=True), bulk("Al", a=3.6, cubic=True)])
    return path


def options(path: Path | str, **more) -> md.Options:
    dynamics = {"steps": 30, "save_every": 5, **more.pop("dynamics", {})}
    return md.Options(**{"structures": [str(path)], "calculator": PAIRS, "dynamics": dynamics, **more})


def files(out: Path) -> dict[str, bytes]:
    """What a run leaves for the user."""
    return {p.name: p.read_bytes() for p in sorted(out.glob("*")) if p.suffix in (".csv", ".extxyz", ".traj")}


class StopsAfter(Pairs):
    """Asks the run to stop, as Ctrl-C does, in the middle of a step."""

    calls, limit = 0, 10**9

    def calculate(self, *args, **kwargs) -> None:
        StopsAfter.calls += 1
        if StopsAfter.calls == StopsAfter.limit:
            os.kill(os.getpid(), signal.SIGINT)
        super().calculate(*args, **kwargs)


def test_every_structure_leaves_a_trajectory_and_a_table(starts, tmp_path):
    result = md.run(options(starts), tmp_path / "out")
    assert result["n_structures"] == 2
    assert result["n_stopped"] == 0
    for row, symbol in zip(result["structures"], ("Cu", "Al"), strict=True):
        frames = ase.io.read(row["trajectory"], ":")
        assert [f.info["step"] for f in frames] == [0, 5, 10, 15, 20, 25, 30]
        assert row["frames"] == len(frames)
        assert set(frames[0].symbols) == {symbol}
        for frame in frames:
            assert np.isfinite(frame.get_forces()).all()
            assert frame.has("momenta")
            atoms = Atoms(frame.symbols, frame.positions, cell=frame.cell, pbc=True, calculator=Pairs())
            np.testing.assert_allclose(frame.get_forces(), atoms.get_forces(), atol=1e-5)
        table = read_table(Path(row["table"]))
        assert table["step"].tolist() == [0, 10, 20, 30]
        np.testing.assert_allclose(table["total_eV"], table["potential_eV"] + table["kinetic_eV"], atol=1e-6)
        assert np.ptp(table["conserved_eV"]) < 0.1 * np.ptp(table["total_eV"])
        assert np.isfinite(table["pressure_GPa"]).all()
        assert row["temperature_K"] > 0


@pytest.mark.parametrize("ensemble", ["nvt", "npt"])
@pytest.mark.parametrize("form", ["extxyz", "traj"])
def test_ctrl_c_and_resume_give_the_files_of_an_undisturbed_run(
    starts, tmp_path, monkeypatch, ensemble, form
):
    more = {"calculator": "test_md:StopsAfter", "trajectory": form, "dynamics": {"ensemble": ensemble}}
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    module = __import__("test_md")
    whole = md.run(options(starts, **more), tmp_path / "whole")
    for stop_at in (7, 50):  # in the first structure and in the second
        module.StopsAfter.calls, module.StopsAfter.limit = 0, stop_at
        out = tmp_path / f"stopped-{stop_at}"
        with pytest.raises(Interrupted, match="--resume"):
            md.run(options(starts, **more), out)
        module.StopsAfter.limit = 10**9
        result = md.run(options(starts, resume=True, **more), out)
        if form == "extxyz":
            assert files(out) == files(tmp_path / "whole")
        for ours, theirs in zip(result["structures"], whole["structures"], strict=True):
            for key in ("steps", "frames", "temperature_K", "drift_eV_atom_ps"):
                assert ours[key] == theirs[key]
            last = [ase.io.read(row["trajectory"], ":") for row in (ours, theirs)]
            assert len(last[0]) == len(last[1])
            assert (last[0][-1].positions == last[1][-1].positions).all()


def command(*words: str, **kwargs) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    return subprocess.Popen(
        [sys.executable, "-m", "lamkit", *words], env=env, stderr=subprocess.PIPE, text=True, **kwargs
    )


def test_killed_md_of_a_network_goes_on_to_the_last_bit(tmp_path):
    model = write_model(tmp_path / "model")
    atoms = bulk("Cu", "fcc", a=3.8, cubic=True)
    atoms.symbols[0] = "Al"
    ase.io.write(tmp_path / "start.xyz", atoms)
    words = [
        "md",
        "start.xyz",
        "--model",
        str(model),
        "--head",
        "metals",
        "--steps",
        "300",
        "--save-every",
        "7",
    ]
    words += ["--set", "checkpoint_seconds=0.05", "--set", "dynamics.limits.max_force=1e6"]
    whole = command(*words, "--out", "whole", cwd=tmp_path)
    assert whole.wait(timeout=300) == 0, whole.stderr.read()
    killed = command(*words, "--out", "killed", cwd=tmp_path)
    state = tmp_path / "killed" / "parts"
    while not list(state.glob("*.state.npz")) and killed.poll() is None:
        time.sleep(0.02)
    killed.kill()
    killed.wait(timeout=60)
    assert md.load_state(next(state.glob("*.state.npz")))["step"] < 300
    resumed = command("md", "--out", "killed", "--resume", cwd=tmp_path)
    assert resumed.wait(timeout=300) == 0, resumed.stderr.read()
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_more_steps_go_on_with_the_same_trajectory(starts, tmp_path):
    md.run(options(starts), tmp_path / "long")
    md.run(options(starts, dynamics={"steps": 15}), tmp_path / "out")
    result = md.run(options(starts, resume=True), tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "long")
    assert md.run(options(starts, resume=True), tmp_path / "out") == result


def test_killed_with_more_steps_the_earlier_result_is_not_taken_for_the_end(starts, tmp_path, monkeypatch):
    md.run(options(starts, dynamics={"steps": 15}), tmp_path / "out")

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(md.Simulation, "run", killed)
        with pytest.raises(Interrupted):
            md.run(options(starts, resume=True), tmp_path / "out")
    result = md.run(options(starts, resume=True), tmp_path / "out")
    assert [row["steps"] for row in result["structures"]] == [30, 30]


def test_another_run_is_not_overwritten_or_continued(starts, tmp_path):
    md.run(options(starts), tmp_path / "out")
    with pytest.raises(UserError, match="--resume"):
        md.run(options(starts), tmp_path / "out")
    with pytest.raises(UserError, match=r"other options \(temperature\)"):
        md.run(options(starts, temperature=5.0, resume=True), tmp_path / "out")
    with pytest.raises(UserError, match=r"other options \(dynamics\)"):
        md.run(options(starts, dynamics={"timestep": 0.1}, resume=True), tmp_path / "out")


def test_an_explosion_ends_one_trajectory_with_a_message_and_what_was_sane(starts, tmp_path, capsys):
    words = ["md", str(starts), "--calculator", PAIRS, "--timestep", "60", "--steps", "200", "--json"]
    code = main([*words, "--save-every", "1", "--temperature", "2000", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr()
    assert code == 1
    result = json.loads(printed.out)
    assert result["n_stopped"] == 2
    for row in result["structures"]:
        assert row["stopped"]
        assert row["steps"] < 200
        assert f"structure {row['index']}: stopped at step" in printed.err
        frames = ase.io.read(row["trajectory"], ":")
        assert len(frames) == row["frames"] >= 1
        assert all(np.isfinite(f.positions).all() for f in frames)
        assert max(np.linalg.norm(f.get_forces(), axis=1).max() for f in frames) < 50


def test_velocities_of_the_file_are_kept_on_request(starts, tmp_path):
    atoms = bulk("Cu", a=3.55, cubic=True)
    momenta = np.random.default_rng(0).normal(size=(4, 3))
    atoms.set_momenta(momenta)
    ase.io.write(tmp_path / "moving.extxyz", atoms)
    result = md.run(options(tmp_path / "moving.extxyz", velocities="keep"), tmp_path / "out")
    first = ase.io.read(result["structures"][0]["trajectory"], 0)
    np.testing.assert_allclose(first.get_momenta(), momenta, atol=1e-6)
    with pytest.raises(UserError, match=r"starts\.xyz, structure 0: has no velocities"):
        md.run(options(starts, velocities="keep"), tmp_path / "other")


def test_constraints_of_the_file_hold(tmp_path):
    atoms = bulk("Cu", a=3.55, cubic=True)
    atoms.set_constraint(FixAtoms([2]))
    ase.io.write(tmp_path / "fixed.traj", atoms)
    result = md.run(options(tmp_path / "fixed.traj"), tmp_path / "out")
    frames = ase.io.read(result["structures"][0]["trajectory"], ":")
    assert all((f.positions[2] == frames[0].positions[2]).all() for f in frames)
    with pytest.raises(UserError, match=r"fixed\.traj, structure 0: constraints \(FixAtoms\)"):
        md.run(options(tmp_path / "fixed.traj", dynamics={"ensemble": "npt"}), tmp_path / "npt")


def broken(change) -> Atoms:
    atoms = bulk("Cu", a=3.55, cubic=True)
    change(atoms)
    return atoms


BROKEN = {
    "nan": (broken(lambda a: a.positions.__setitem__((1, 0), np.nan)), r"atom 1 \(Cu\)"),
    "overlap": (broken(lambda a: a.positions.__setitem__(1, a.positions[0] + 0.01)), "Å apart"),
    "flat cell": (broken(lambda a: a.cell.__setitem__(2, 0.0)), "no independent lattice vector"),
    "empty": (Atoms(), "no atoms"),
}


@pytest.mark.parametrize("verb", ["md", "relax"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_structure_is_named_and_nothing_is_written(tmp_path, capsys, verb, name):
    atoms, message = BROKEN[name]
    path = tmp_path / "starts.traj"
    ase.io.write(path, [bulk("Cu", cubic=True), atoms])
    out = tmp_path / "out"
    assert main([verb, str(path), "--calculator", PAIRS, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert f"{path}, structure 1: " in error
    assert "Traceback" not in error
    assert not out.exists()
    import re

    assert re.search(message, error)


def test_bad_structures_are_left_out_on_request(tmp_path, caplog):
    path = tmp_path / "starts.traj"
    ase.io.write(path, [bulk("Cu", cubic=True), BROKEN["nan"][0]])
    with caplog.at_level("WARNING", logger="lamkit"):
        result = md.run(options(path, skip_bad=True), tmp_path / "out")
    assert result["n_structures"] == 1
    assert "structure 1: atom 1" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.xyz", "--calculator", PAIRS], "nowhere.xyz: no such file"),
        (["no*.xyz", "--calculator", PAIRS], "no file matches"),
        (["starts.xyz"], "give either a checkpoint"),
        (["starts.xyz", "--calculator", PAIRS, "--timestep", "-1"], "timestep"),
        (["starts.xyz", "--calculator", PAIRS, "--ensemble", "nvp"], "invalid choice"),
        (["starts.xyz", "--calculator", PAIRS, "--set", "dynamics.frction=1"], "friction"),
        (["notes.txt", "--calculator", PAIRS], "notes.txt: ASE cannot read"),
    ],
)
def test_wrong_requests_are_explained(starts, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing here")
    assert main(["md", *words, "--out", "out"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_structure_and_model_the_samples_are_used_and_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["md", "--steps", "5", "--json"]) == 0
    printed = capsys.readouterr()
    assert "no structure given: using" in printed.err
    assert "no model given: using the sample model" in printed.err
    assert json.loads(printed.out)["structures"][0]["steps"] == 5
    assert main(["relax", "--max-steps", "2", "--json"]) in (0, 1)
    assert (tmp_path / "lamkit-relax" / "relaxed.extxyz").is_file()
