"""DeePMD's input.json: what means the same is carried over, what has no counterpart is listed, nothing is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from toy_data import TINY, emt_frames

from lamkit import config
from lamkit.cli import main
from lamkit.data.dataset import open_dataset
from lamkit.errors import UserError
from lamkit.stages import deepmd_input, deepmd_keys, finetune, pretrain
from lamkit.stages.deepmd_systems import Systems, convert
from lamkit.train import checkpoint


def write_system(folder: Path, n: int, seed: int, *, type_map: bool = True) -> str:
    """A system in DeePMD's plain layout: four copper atoms, one of them silver in name only."""
    frames = list(emt_frames(["Cu"], n, seed))
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text("1\n1\n1\n1\n")
    if type_map:
        (folder / "type_map.raw").write_text("Ag\nCu\n")
    save = {
        "coord": [f.positions.ravel() for f in frames],
        "box": [f.cell.ravel() for f in frames],
        "energy": [f.energy for f in frames],
        "force": [f.forces.ravel() for f in frames],
    }
    for name, values in save.items():
        np.save(folder / "set.000" / f"{name}.npy", np.array(values))
    return str(folder)


@pytest.fixture(scope="module")
def systems(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("systems")
    return {
        "a": write_system(root / "a", 6, 1),
        "b": write_system(root / "b", 4, 2),
        "bare": write_system(root / "bare", 3, 3, type_map=False),
    }


def water_like(systems, **training):
    """The grammar of a file for a single task."""
    return {
        "model": {
            "type_map": ["Ag", "Cu"],
            "descriptor": {"type": "se_e2_a", "rcut": 6.0, "rcut_smth": 0.5, "sel": [20, 20], "neuron": [25, 50]},
            "fitting_net": {"neuron": [240, 240], "resnet_dt": True, "seed": 1},
        },
        "learning_rate": {"type": "exp", "decay_steps": 50, "start_lr": 1e-3, "stop_lr": 1e-5},
        "loss": {
            "type": "ener", "start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 1000, "limit_pref_f": 1,
            "start_pref_v": 0.0, "limit_pref_v": 0.0,
        },
        "training": {
            "training_data": {"systems": [systems["a"]], "batch_size": "auto:8"},
            "validation_data": {"systems": [systems["b"]], "batch_size": 1, "numb_btch": 3},
            "numb_steps": 4, "seed": 10, "disp_file": "lcurve.out", "disp_freq": 2, "save_freq": 2, **training,
        },
    }  # fmt: skip


def two_tasks(systems):
    """The grammar of a multi-task file: shared descriptor and type map, losses and data apart."""
    data = water_like(systems)
    loss = data.pop("loss")
    model = data["model"]
    parts = {
        name: {"type_map": "all_types", "descriptor": "one_for_all:0", "fitting_net": {"neuron": [240, 240]}}
        for name in ("high", "low")
    }
    training = data["training"]
    sets = {
        "training_data": training.pop("training_data"),
        "validation_data": training.pop("validation_data"),
    }
    bare = {"training_data": {"systems": systems["bare"], "batch_size": 2}}
    return {
        **data,
        "model": {
            "shared_dict": {"all_types": model["type_map"], "one_for_all": model["descriptor"]},
            "model_dict": {**parts, "low": {**parts["low"], "finetune_head": "RANDOM"}},
        },
        "loss_dict": {"high": loss, "low": {**loss, "start_pref_v": 0.02, "limit_pref_v": 1}},
        "training": {
            **training,
            "data_dict": {"high": sets, "low": bare},
            "model_prob": {"high": 3, "low": 1},
        },
    }


def translated(data, *, finetune=False, head=None):
    return deepmd_input.translate(data, "input.json", finetune=finetune, head=head)


def test_a_single_task_becomes_a_run_of_one_head_with_the_same_loss_and_rate(systems):
    found = translated(water_like(systems))
    options = config.parse(pretrain.Options, found.options)
    train = options.train
    assert options.data == {
        "deepmd": Systems(train=[systems["a"]], valid=[systems["b"]], type_map=["Ag", "Cu"])
    }
    assert (train.max_steps, train.seed, train.valid_every, train.save_every) == (4, 10, 2, 2)
    assert (train.decay, train.learning_rate, train.warmup_steps) == ("exponential", 1e-3, 0)
    assert train.final_learning_rate == pytest.approx(1e-2)
    assert train.batch_atoms == 8
    assert (train.loss.kind, train.loss.units, train.loss.intensive) == ("mse", "physical", False)
    weights = train.loss.heads["deepmd"]
    assert (weights.energy, weights.forces, weights.stress) == (0.02, 1000, 0)
    assert weights.limit == {"energy": 1, "forces": 1, "stress": 0}
    assert train.weight_decay == 0  # Adam
    assert translated(water_like(systems), head="copper").options["data"].keys() == {"copper"}


def test_every_key_is_taken_or_listed(systems):
    found = translated(water_like(systems, tensorboard=True, profiling=False))
    left = dict(found.left)
    assert "trunk" in left["model.descriptor"]
    for key in (
        "model.fitting_net",
        "learning_rate.decay_steps",
        "training.tensorboard",
        "training.profiling",
    ):
        assert key in left
    taken = {key for key, *_ in found.taken}
    assert {"training.numb_steps", "loss.start_pref_f", "training.training_data.systems"} <= taken
    assert not taken & set(left)


def test_several_tasks_become_heads_with_their_probabilities_and_losses(systems):
    found = translated(two_tasks(systems))
    assert found.multitask
    options = config.parse(pretrain.Options, found.options)
    assert list(options.data) == ["high", "low"]
    assert options.data["low"].type_map == ["Ag", "Cu"]  # through shared_dict
    assert options.train.weights == {"high": 3, "low": 1}
    assert options.train.loss.heads["low"].stress == 0.02
    assert options.train.loss.heads["high"].stress == 0
    assert options.train.batch_atoms == 8
    left = dict(found.left)
    assert "model.shared_dict" in left
    assert "model.model_dict.*.descriptor" in left
    tuned = translated(two_tasks(systems), finetune=True)
    options = config.parse(finetune.Options, tuned.options)
    assert options.head == ["high", "low"]
    assert options.init == {"low": "random"}


def test_tasks_keep_the_batch_sizes_that_they_have(systems):
    data = two_tasks(systems)
    data["training"]["data_dict"]["high"]["training_data"]["batch_size"] = "auto:16"
    data["training"]["data_dict"]["low"]["training_data"]["batch_size"] = 1
    train = config.parse(pretrain.Options, translated(data).options).train
    assert train.batch_atoms == 16
    assert train.head_batch_atoms == {"high": 16, "low": 4}
    del data["training"]["numb_steps"], data["training"]["model_prob"]
    data["training"]["num_epoch_dict"] = {"high": 1, "low": 1}
    # 24 atoms in batches of 16 are 2 steps, 12 atoms in batches of 4 are 3
    assert translated(data).options["train"]["weights"] == {"high": 2, "low": 3}


def test_epochs_become_steps_and_weights(systems):
    data = two_tasks(systems)
    del data["training"]["numb_steps"], data["training"]["model_prob"]
    data["training"]["num_epoch_dict"] = {"high": 10, "low": 4}
    train = translated(data).options["train"]
    # 24 atoms in batches of 8 are 3 steps, 12 atoms 2
    assert train["weights"] == {"high": 30, "low": 8}
    assert train["max_steps"] == 38


@pytest.mark.parametrize(
    ("size", "atoms"),
    [
        ("auto", 32),
        ("auto:128", 128),
        ("auto:17", 20),
        (3, 12),
        ([1, 2, 3], 8),
        ("max:66", 66),
        ("mixed:4", 16),
        ("auto:1", 4),
    ],
)
def test_batch_sizes_become_atoms(systems, size, atoms):
    data = water_like(systems)
    data["training"]["training_data"]["batch_size"] = size
    found = translated(data)
    assert found.options["train"]["batch_atoms"] == atoms
    listed = any("batch_size of each system" in key for key, _ in found.left)
    assert listed == isinstance(size, list)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("loss.type", "dos", "loss.type: 'dos'"),
        ("learning_rate.stop_lr", 1, "must fall"),
        ("learning_rate.start_lr", "fast", "learning_rate.start_lr: expected a number, found 'fast'"),
        ("training.training_data.batch_size", "many", "batch_size: expected a number"),
        ("training.training_data.systems", [], "names no data"),
        ("training.training_data.systems", ["gone"], "gone: no such folder"),
        ("training.numb_steps", None, "numb_steps: is missing"),
    ],
)
def test_what_cannot_be_is_said_with_its_key(systems, place, value, message):
    data = water_like(systems)
    *parents, last = place.split(".")
    holder = data
    for key in parents:
        holder = holder[key]
    holder[last] = value
    with pytest.raises(UserError, match=message):
        translated(data)


def test_comments_may_be_repeated_and_keys_may_not(tmp_path):
    file = tmp_path / "input.json"
    file.write_text('{"_comment": 1, "_comment": 2,\n\t"model": {}, "training": {}}')
    assert deepmd_keys.read(file) == {"model": {}, "training": {}}
    file.write_text('{"model": {}, "model": {}}')
    with pytest.raises(UserError, match="key 'model' is given twice"):
        deepmd_keys.read(file)
    file.write_text('{"model": {},\n "training": {]}')
    with pytest.raises(UserError, match=r"input\.json:2: not valid JSON"):
        deepmd_keys.read(file)


def test_systems_without_a_type_map_take_that_of_the_file(systems, tmp_path):
    listed = Systems(train=[systems["bare"]], type_map=["Ag", "Cu"])
    out = convert(listed, "low", tmp_path)
    data = open_dataset(out)  # one data set, of which a part will be held out
    assert (len(data), data.elements) == (3, [29])
    assert not (Path(systems["bare"]) / "type_map.raw").exists()


def test_systems_that_have_changed_since_are_converted_again(systems, tmp_path):
    mine = shutil.copytree(systems["bare"], tmp_path / "mine")
    listed = Systems(train=[str(mine)], type_map=["Ag", "Cu"])
    made = (convert(listed, "x", tmp_path) / "dataset.yaml").stat().st_mtime_ns
    for file in mine.rglob("*.npy"):
        np.save(file, np.load(file)[:2])
    out = convert(listed, "x", tmp_path)
    assert len(open_dataset(out)) == 2
    assert (changed := (out / "dataset.yaml").stat().st_mtime_ns) > made
    convert(listed, "x", tmp_path)  # used as it is
    shutil.rmtree(mine)  # and where a run goes on without its sources
    assert (convert(listed, "x", tmp_path) / "dataset.yaml").stat().st_mtime_ns == changed


def test_a_data_set_of_our_own_keeps_its_groups_and_a_broken_system_is_an_error(systems, tmp_path):
    own = convert(Systems(train=[systems["a"]], type_map=["Ag", "Cu"]), "first", tmp_path)
    again = convert(Systems(train=[str(own)]), "second", tmp_path)
    assert open_dataset(again).group_names == open_dataset(own).group_names
    broken = shutil.copytree(systems["a"], tmp_path / "broken")
    (broken / "set.000" / "coord.npy").write_bytes(b"broken")
    with pytest.raises(UserError, match="1 systems cannot be read"):
        convert(Systems(train=[str(broken), systems["b"]], type_map=["Ag", "Cu"]), "third", tmp_path)
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(two_tasks({**systems, "a": str(broken)})))
    assert main(["pretrain", str(file), "--out", str(tmp_path / "run")]) == 2


@pytest.mark.slow
def test_the_command_line_trains_from_an_input_file(systems, tmp_path, capsys):
    file, out = tmp_path / "input.json", tmp_path / "run"
    file.write_text(json.dumps({"_comment": "two levels", **two_tasks(systems)}))
    trunk = [f"--set=trunk.{k}={v}" for k, v in TINY.items()]
    assert main(["pretrain", str(file), "--out", str(out), *trunk]) == 0
    assert checkpoint.read(out).heads == ("high", "low")
    said = capsys.readouterr().err
    assert "without a counterpart" in said
    assert "model.model_dict.*.descriptor" in said
    saved, _ = config.read_yaml(out / "config.yaml")
    assert saved["train"]["loss"]["heads"]["high"]["limit"] == {"energy": 1.0, "forces": 1.0, "stress": 0.0}
    assert (out / "data" / "high" / "valid" / "dataset.yaml").is_file()


def test_deepmds_own_water_is_read(shared, tmp_path):
    root = shared / "data" / "deepmd_water"
    data = water_like({"a": str(root / "data_0"), "b": str(root / "data_2")})
    data["model"]["type_map"] = ["O", "H"]
    data["training"]["training_data"] = {"systems": str(root), "batch_size": "auto"}  # all systems below
    found = translated(data, head="water")
    options = config.parse(pretrain.Options, found.options)
    out = convert(options.data["water"], "water", tmp_path)
    train, valid = open_dataset(out / "train"), open_dataset(out / "valid")
    assert train.elements == valid.elements == [1, 8]
    assert set(train.n_atoms.tolist()) == {192}
    assert len(train) > len(valid) > 0
