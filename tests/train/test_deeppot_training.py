"""A DeepPot is trained by the same loop as an Orb: it learns, stops, goes on, and starts another one."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from toy_data import FAST

from lamkit.calculator import LamCalculator
from lamkit.data.dataset import open_dataset, write_dataset
from lamkit.data.frame import to_atoms
from lamkit.data.heads import HeadConfig, LevelOfTheory
from lamkit.model.config import DeepPotConfig
from lamkit.stages import evaluate, label, student
from lamkit.train import checkpoint
from lamkit.train.config import TrainConfig
from lamkit.train.tasks import make_task

TRUNK = DeepPotConfig(version="deeppot-se", cutoff=4.0, embedding=[4, 8], axis=3, fitting=[12, 12])
HEAD = HeadConfig(name="alloy", level_of_theory=LevelOfTheory(method="empirical", functional="EMT"))


def trained(data: Path, out: Path, **choices) -> dict:
    config = TrainConfig(
        **{**FAST, "learning_rate": 0.01, "valid_fraction": 0.3, "valid_frames": 16, "ema": 0.9, **choices}
    )
    return student.fit(data, HEAD, TRUNK, config, out)


@pytest.fixture(scope="module")
def run(emt_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("deeppot") / "run"
    return out, trained(emt_data["alloy"], out, max_steps=40, valid_every=40, save_every=40)


def test_it_learns(run):
    _, result = run
    errors = result["heads"]["alloy"]
    first = result["first"]["alloy"]
    assert errors["forces_rmse"] < 0.95 * first["forces_rmse"]


def test_checkpoint_holds_what_the_data_told(run):
    found = checkpoint.read(run[0])
    known = found.trunk.surroundings
    assert known.elements == ["Cu", "Ag"]
    assert set(found.elements["alloy"]) == {"Cu", "Ag"}
    assert found.weights["model.descriptor.Ag.spread"].shape == (24,)
    assert (found.weights["model.descriptor.Ag.spread"] != 1).all()


def test_calculator_finds_the_errors_of_the_validation(run, emt_data):
    out, result = run
    task = make_task("alloy", emt_data["alloy"], HEAD, valid_fraction=0.3, seed=0)
    frames = [task.valid.frame(i) for i in range(len(task.valid))]
    predicted = LamCalculator(out).predict([to_atoms(f) for f in frames])
    squares = [np.square(p["forces"] - f.forces) for p, f in zip(predicted, frames, strict=True)]
    assert np.sqrt(np.mean(squares)) == pytest.approx(result["heads"]["alloy"]["forces_rmse"], rel=1e-4)


def test_energies_of_atoms_are_a_property_for_ase(run, emt_data):
    calculator = LamCalculator(run[0])
    atoms = to_atoms(open_dataset(emt_data["alloy"]).frame(0))
    atoms.calc = calculator
    energies = atoms.get_potential_energies()
    assert energies.shape == (len(atoms),)
    assert energies.sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-4)


def test_a_model_has_no_errors_on_labels_that_it_gave_itself(run, emt_data, tmp_path):
    given = {"data": str(emt_data["alloy"]), "model": str(run[0]), "atom_energies": True, "hessian": 2}
    own = label.run(label.Options(**given), tmp_path / "own")["data"]
    found = evaluate.run(evaluate.Options(model=str(run[0]), data=own, max_frames=4), None)["alloy"]
    assert found["atom_energies_rmse"] < 1e-5
    assert found["hessian_rmse"] < 2e-3 < np.abs(open_dataset(own).frame(0).hessian[:, 1]).max()


@pytest.mark.slow
def test_validation_of_rare_labels_is_written_and_is_that_of_evaluate(emt_data, tmp_path):
    """Compiles the slope of the slope."""
    given = {"data": str(emt_data["alloy"]), "atom_energies": True, "hessian": 1}
    emt = label.Options(**given, calculator="ase.calculators.emt:EMT")
    data = label.run(emt, tmp_path / "labelled")["data"]
    loss = {"kind": "mse", "units": "physical", "atom_energy": 1.0, "hessian": 0.1}
    result = trained(data, tmp_path / "run", max_steps=3, valid_every=3, save_every=3, loss=loss)
    with open(tmp_path / "run" / "metrics.csv") as stream:
        last = list(csv.DictReader(stream))[-1]
    task = make_task("alloy", data, HEAD, valid_fraction=0.3, seed=0)
    write_dataset([task.valid.frame(i) for i in range(len(task.valid))], tmp_path / "valid", task.valid.facts)
    found = evaluate.run(evaluate.Options(model=str(tmp_path / "run"), data=str(tmp_path / "valid")), None)[
        "alloy"
    ]
    for name, column in (
        ("atom_energies_rmse", "atom_energies_rmse_meV"),
        ("hessian_rmse", "hessian_rmse_meV_A2"),
    ):
        assert float(last[column]) == pytest.approx(1000 * found[name], rel=1e-3)
        assert result["heads"]["alloy"][name] == pytest.approx(found[name], rel=1e-3)


@pytest.mark.slow
def test_an_interrupted_training_ends_with_the_same_weights(emt_data, tmp_path):
    first = tmp_path / "parts"
    trained(emt_data["alloy"], first, max_steps=8, decay="constant")
    trained(emt_data["alloy"], tmp_path / "constant", decay="constant")
    trained(emt_data["alloy"], first, decay="constant")  # goes on where it was
    one = checkpoint.read(tmp_path / "constant" / "checkpoints" / "last")
    two = checkpoint.read(first / "checkpoints" / "last")
    for name, array in one.weights.items():
        np.testing.assert_array_equal(array, two.weights[name])
