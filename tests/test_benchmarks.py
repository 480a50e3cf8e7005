"""The benchmarks of training in miniature: options that the stages still accept, tables that say what was measured.

Training itself is replaced by a law, so that the expected table is known and no network is compiled.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from lamkit import config, presets
from lamkit.calculator import LamCalculator
from lamkit.train import checkpoint

SCRIPTS = (
    "data_saved",
    "distilled",
    "electrolyte",
    "forgetting",
    "grow",
    "learns",
    "make_classical",
    "make_gfn2",
    "make_perovskites",
    "make_public",
    "multitask",
    "peers",
    "public_base",
    "recipes",
    "student_speed",
    "tune_public",
)


@pytest.fixture
def benchmarks(repo, monkeypatch):
    """Imports a script of ``benchmarks/``."""
    monkeypatch.syspath_prepend(str(repo / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def law(benchmarks, monkeypatch):
    """Replaces training by ``law(spec)`` → force RMSE of each test, in eV/Å; checks the options on the way."""

    def install(forces) -> list[dict]:
        runs, sets = benchmarks("runs"), benchmarks("sets")
        from lamkit.stages import finetune, pretrain

        seen: list[dict] = []

        def run(folder, verb, options, tests, *, share=True):
            stage = {"pretrain": pretrain, "finetune": finetune}[verb]
            config.parse(stage.Options, options, origin=str(folder))
            spec = {"folder": folder.name, "verb": verb, "options": options}
            seen.append(spec)
            errors = {
                label: {"forces_rmse": forces(spec, label), "energy_mae": 0.001, "forces_rms_target": 1.0}
                for label in tests
            }
            return {"result": {"score": 0.5, "best_step": 7}, "errors": errors}

        monkeypatch.setattr(runs, "run", run)
        monkeypatch.setattr(
            sets, "prepare", lambda names, shared, out: {n: Path(out) / "parts" / n for n in names}
        )
        return seen

    return install


def table(module, tmp_path, monkeypatch, *flags: str) -> str:
    """The table that a script writes."""
    monkeypatch.setattr(sys, "argv", [module.__name__, "--out", str(tmp_path), *flags])
    module.main()
    [written] = tmp_path.glob("*.md")
    return written.read_text()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_it_does(repo, name):
    command = [sys.executable, str(repo / "benchmarks" / f"{name}.py"), "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--out" in said
    assert f"benchmarks/{name}.py" in said


def test_learning_curves_say_how_many_frames_scratch_needs(benchmarks, law, tmp_path, monkeypatch):
    """Fine-tuned errors are half of those from scratch, which fall with the root: four times the frames."""
    law(
        lambda spec, label: (
            (0.5 if spec["verb"] == "finetune" else 1.0) / spec["options"].get("n_frames", 1) ** 0.5
        )
    )
    text = table(benchmarks("data_saved"), tmp_path, monkeypatch, "--downstream", "bpa", "--seeds", "2")
    rows = {cells[0]: cells for line in text.splitlines() if len(cells := line.strip("| ").split(" | ")) == 7}
    assert rows["10"][6] == "40"
    assert rows["30"][5] == "1.58 ± 0.00"  # 0.5 √10
    assert rows["300"][6] == "> 300"


def test_multi_task_is_compared_head_by_head(benchmarks, law, tmp_path, monkeypatch):
    seen = law(lambda spec, label: 0.8 if len(spec["options"]["data"]) > 1 else 1.0)
    text = table(
        benchmarks("multitask"), tmp_path, monkeypatch, "--groups", "related", "--seeds", "2", "--steps", "9"
    )
    assert "| geometric mean | | | | | 0.800 ± 0.000 |" in text
    steps = {spec["options"]["train"]["max_steps"] for spec in seen}
    assert steps == {9, 54}  # equal steps per task


def test_forgetting_is_measured_against_the_start(benchmarks, law, tmp_path, monkeypatch):
    grown = {"naive": 3.0, "real": 1.1, "replay": 1.05, "lora": 2.0, "start": 1.0}

    def forces(spec, label):
        return next((x for way, x in grown.items() if f"-{way}-" in spec["folder"]), 1.0) * (
            0.1 if "@" in label else 0.2
        )

    law(forces)
    text = table(benchmarks("forgetting"), tmp_path, monkeypatch, "--seeds", "1")
    assert "| old heads, geometric mean of the ratios | | 3.000 | 1.100 | 1.050 | 2.000 |" in text
    assert "| gfn2@ethanol, ratio | 100 |" in text


def test_a_run_that_ended_worse_is_counted(benchmarks, law, tmp_path, monkeypatch):
    def forces(spec, label):
        return 1.2 if spec["folder"] == "recipe-end-Li-10-1" else 1.0

    law(forces)
    text = table(benchmarks("recipes"), tmp_path, monkeypatch, "--seeds", "2", "--heads", "Li,Mo")
    assert "Runs that ended worse than they began: 1" in text


def test_equal_time_is_extrapolated_from_two_short_runs(benchmarks):
    peers, asked = benchmarks("peers"), []

    def train(n, name):
        asked.append((n, name))
        return 20.0 + 0.5 * n  # 20 s to start, half a second per step

    steps, seconds = peers.fitted(train, 10, 300.0)
    assert asked == [(10, "few"), (20, "more"), (560, "full")]
    assert (steps, seconds) == (560, 300.0)


def test_a_start_that_took_longer_the_second_time_does_not_shorten_the_training(benchmarks):
    def train(n, name):
        return 30.0 if name == "more" else 10.0 + 0.1 * n

    steps, seconds = benchmarks("peers").fitted(train, 20, 60.0)
    assert seconds == pytest.approx(60.0, abs=5.0)
    assert steps > 400


def test_a_step_of_the_speed_table_is_one_evaluation(benchmarks, monkeypatch):
    """The clock counts evaluations, so that the seconds of a step are how many it took; MD begins anew on the way."""
    speed = benchmarks("student_speed")

    class Counted(EMT):
        evaluations = 0

        def calculate(self, *args, **kwargs):
            Counted.evaluations += 1
            super().calculate(*args, **kwargs)

    monkeypatch.setattr(speed.time, "perf_counter", lambda: Counted.evaluations)
    monkeypatch.setattr(speed, "SECONDS", 2.5 * speed.TOGETHER)
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=0)
    atoms.calc = Counted()
    assert speed.pace(atoms) == 1.0


def test_a_public_potential_labels_what_is_near_a_physical_structure(benchmarks, monkeypatch, tmp_path):
    public = benchmarks("make_public")
    monkeypatch.setattr(public, "potential", lambda model, modal: EMT())
    near, far = bulk("Cu", cubic=True), bulk("Cu", cubic=True)
    near.rattle(0.05, seed=0)
    near.info = {"group": "a", "energy_of_another": 1.0}
    far.positions[0] = far.positions[1] - 0.4
    write(tmp_path / "two.extxyz", [near, far])
    [[kept], none] = [public.labelled(job) for job in public.structures(tmp_path / "two.extxyz", "m", None)]
    assert none == []
    assert kept.info == {"group": "a"}
    near.calc = EMT()
    assert kept.get_potential_energy() == pytest.approx(near.get_potential_energy(), abs=1e-6)


def test_energies_are_shifted_to_the_level_of_the_potential_that_is_tuned(benchmarks):
    """By the mean difference per atom, so that frames of any size keep their differences."""
    tune = benchmarks("tune_public")
    frames = [bulk("Cu", cubic=True).repeat((n, 1, 1)) for n in (1, 2, 1)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        energy = atoms.get_potential_energy() + 1.5 * len(atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
    assert tune.shift(frames, EMT()) == pytest.approx(1.5, abs=1e-9)


def test_a_trunk_that_was_grown_predicts_what_it_did_before(benchmarks, tmp_path):
    grow = benchmarks("grow")
    start = checkpoint.read(presets.examples() / "base")
    head = start.heads[0]
    larger = grow.grown(start, hidden=96, layers=4, lmax=2)
    checkpoint.write(tmp_path / "larger", larger)
    atoms = molecule("CH3CH2OH", vacuum=3.0)
    atoms.rattle(0.05, seed=0)
    found = []
    for path in (start.path, tmp_path / "larger"):
        atoms.calc = LamCalculator(path, head=head)
        found.append((atoms.get_potential_energy(), atoms.get_forces()))
    (energy, forces), (grown_energy, grown_forces) = found
    assert np.abs(forces).max() > 0.5
    assert grown_energy == pytest.approx(energy, abs=1e-4)
    np.testing.assert_allclose(grown_forces, forces, atol=1e-4)
    new = [v for k, v in larger.weights.items() if k not in start.weights and k.endswith("NN-2.weight")]
    assert len(new) == 2  # of the new layer's two networks
    assert all(np.abs(v).max() > 0 for v in new), "weights of zero would never learn"


def test_stretched_cells_have_the_volumes_asked_for_and_keep_what_is_in_them(benchmarks):
    frames = [bulk("Cu", cubic=True).repeat((1, 1, n)) for n in (1, 2, 3)]
    found = benchmarks("distilled").stretched(frames, (9.0, 14.0), 0)
    volumes = [atoms.get_volume() / len(atoms) for atoms in found]
    assert [len(atoms) for atoms in found] == [4, 12]
    assert all(9.0 < v < 14.0 for v in volumes)
    assert volumes[0] != pytest.approx(volumes[1], rel=0.01)
    np.testing.assert_allclose(found[1].get_scaled_positions(), frames[2].get_scaled_positions(), atol=1e-12)
    np.testing.assert_allclose(frames[2].cell.lengths(), (3.61, 3.61, 10.83), atol=1e-9)


def test_of_several_students_the_mean_error_counts(benchmarks):
    def error(forces):
        return {"forces_rmse": forces, "energy_mae": 0.003, "forces_rms_target": 1.0, "n_frames": 7}

    found = {"teacher": [error(0.09)], "student": [error(0.09), error(0.11)], "direct": [error(0.25)]}
    row = [cell.strip() for cell in benchmarks("distilled").row("Si", found).split("|")]
    assert row[1:9] == ["Si", "7", "1000", "90", "100 ± 14", "250", "90%", "2.50"]
