"""Bad input through the real command line: exit code 2, one clear message, nothing half written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import tiny
import yaml
from ase.calculators.singlepoint import SinglePointCalculator
from safetensors.numpy import load_file, save_file

from lamkit.cli import main
from lamkit.data.dataset import write_dataset
from lamkit.data.facts import DatasetFacts
from lamkit.data.frame import from_atoms

TRUNK = "{latent: 8, hidden: 12, layers: 1, head_hidden: 8, cutoff: 3.6, bessel: 4, lmax: 1}"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("errors") / "model")


@pytest.fixture(scope="module")
def water(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("errors") / "water"
    rng = np.random.default_rng(0)
    frames = [
        from_atoms(a, energy=-2040.0 - 0.01 * i, forces=rng.normal(size=(3, 3)), group=str(i))
        for i, a in enumerate(tiny.waters(6))
    ]
    write_dataset(frames, folder, DatasetFacts(head="water", level_of_theory=tiny.PBE))
    return folder


def labelled(atoms, energy=-10.0, forces=None):
    atoms.calc = SinglePointCalculator(
        atoms, energy=energy, forces=np.zeros((len(atoms), 3)) if forces is None else forces
    )
    return atoms


def refused(capsys, *arguments: str) -> str:
    """The message of a command that must refuse: exit code 2, no traceback, nothing written below here."""
    before = {p: p.stat().st_mtime_ns for p in Path.cwd().rglob("*")}
    code = main([*arguments, "-q"])
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err
    message = [line for line in captured.err.splitlines() if not line.startswith("warning")]
    assert message[0].startswith("lamkit: ")
    after = {p: p.stat().st_mtime_ns for p in Path.cwd().rglob("*") if p.is_file()}
    assert after.keys() <= before.keys(), "something was written"
    return captured.err


# -- a mistyped key in each kind of YAML ---------------------------------------------------------------

WRONG = {
    "pretrain": (["pretrain", "x.yaml", "--out", "o"], "heads: [a]\ntrain:\n  max_stepz: 5\n", 3, "max_steps"),
    "finetune": (["finetune", "x.yaml", "--out", "o"], "head: a\nn_frame: 5\n", 2, "n_frames"),
    "distill": (["distill", "x.yaml", "--out", "o"], "criterion:\n  force_rmse: 0.1\n", 2, "forces_rmse"),
    "workflow": (["run", "x.yaml", "--out", "o"], "name: x\nstagess: {}\n", 2, "stages"),
    "stage in a workflow": (
        ["run", "x.yaml", "--out", "o"],
        "name: x\nstages:\n  a:\n    stage: convert\n    with: {source: [b]}\n",
        5,
        "sources",
    ),
    "explore": (["explore", "x.yaml", "--out", "o"], "starts: [a]\ndynamics: {timestepp: 1}\n", 2, "timestep"),
    "label": (["label", "x.yaml", "--out", "o"], "data: a\nchunks: 3\n", 2, "chunk"),
    "select": (["select", "x.yaml", "--out", "o"], "data: a\nn_framess: 3\n", 2, "n_frames"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_mistyped_key_is_named_with_file_line_and_cure(kind, here, capsys):
    arguments, text, line, cure = WRONG[kind]
    (here / "x.yaml").write_text(text)
    err = refused(capsys, *arguments)
    assert f"x.yaml:{line}: " in err
    assert f"Did you mean '{cure}'?" in err


def test_a_mistyped_key_of_a_head(here, capsys):
    (here / "mine.yaml").write_text("name: mine\nlevel_of_theory:\n  method: DFT\n  functionl: PBE\n")
    ase.io.write(here / "a.xyz", labelled(tiny.waters(1)[0]), format="extxyz")
    err = refused(capsys, "data", "convert", "a.xyz", "--head", "mine.yaml", "--out", "o")
    assert "mine.yaml:4: level_of_theory.functionl: unknown key. Did you mean 'functional'?" in err
    assert "level_of_theory.functional: this key is missing" in err  # everything wrong is told at once


def test_a_mistyped_key_of_a_preset(here, capsys):
    (here / "small.yaml").write_text("latent: 8\nhidden: 12\nlayer: 1\nlayers: 1\nhead_hidden: 8\n")
    err = refused(capsys, "pretrain", "--multitask", "--trunk", "small.yaml", "--out", "o")
    assert "layer: unknown key. Did you mean 'layers'?" in err


def test_a_key_given_twice_is_refused(here, capsys):
    (here / "x.yaml").write_text("head: a\ninit: auto\nhead: b\n")
    assert "x.yaml:3: key 'head' is given twice" in refused(capsys, "finetune", "x.yaml", "--out", "o")


def test_set_of_a_mistyped_key_is_refused(here, capsys):
    err = refused(capsys, "pretrain", "--multitask", "--set", "train.max_stepz=5", "--out", "o")
    assert "Did you mean 'max_steps'?" in err


# -- names that are not known --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrain", "--multitask", "--heads", "gfn2_molecule"], "Did you mean 'gfn2_molecules'?"),
        (["pretrain", "--multitask", "--trunk", "orb-v3-smal"], "Did you mean 'orb-v3-small'?"),
        (["distill", "--student", "orb-narow"], "Did you mean 'orb-narrow'?"),
        (["run", "quickstar"], "Did you mean 'quickstart'?"),
        (["data", "convert", "x.xyz", "--format", "extxyzz"], "Did you mean 'extxyz'?"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_an_unknown_name_is_answered_with_the_right_one(arguments, words, here, capsys):
    ase.io.write(here / "x.xyz", labelled(tiny.waters(1)[0]), format="extxyz")
    assert words in refused(capsys, *arguments, "--out", "o")


def test_an_unknown_head_of_a_checkpoint(model, water, here, capsys):
    err = refused(capsys, "evaluate", str(model), "--data", str(water), "--head", "waters")
    assert "Did you mean 'water'?" in err
    assert "metals" in err


# -- files that are missing or broken ------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "convert", "absent.xyz", "--out", "o"],
        ["data", "info", "absent"],
        ["data", "split", "absent", "--out", "o"],
        ["pretrain", "--multitask", "absent.yaml", "--out", "o"],
        ["pretrain", "--multitask", "--data", "a=absent", "--data", "b=absent", "--out", "o"],
        ["finetune", "--head", "mptrj", "--from", "absent", "--out", "o"],
        ["distill", "--teacher", "absent", "--out", "o"],
        ["evaluate", "absent", "--data", "absent"],
        ["explore", "--model", "absent", "--starts", "absent", "--out", "o"],
        ["show", "absent"],
        ["report", "absent"],
        ["run", "absent.yaml", "--out", "o"],
    ],
    ids=lambda a: " ".join(a[:2]),
)
def test_a_missing_file_is_named(arguments, here, capsys):
    assert "absent" in refused(capsys, *arguments)


def test_a_truncated_checkpoint_is_named(model, water, here, capsys):
    copy = here / "model"
    shutil.copytree(model, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    for arguments in (["show", "model"], ["evaluate", "model", "--data", str(water)]):
        err = refused(capsys, *arguments)
        assert "model.safetensors" in err
        assert "truncated" in err


@pytest.mark.parametrize("name", ["state.json", "config.yaml", "heads/water.yaml"])
def test_a_checkpoint_with_a_file_missing_is_no_checkpoint(name, model, here, capsys):
    shutil.copytree(model, here / "model")
    (here / "model" / name).unlink()
    assert name in refused(capsys, "show", "model")


def test_a_truncated_data_set_is_named(model, water, here, capsys):
    shutil.copytree(water, here / "water")
    file = next((here / "water").rglob("force.npy"))
    file.write_bytes(file.read_bytes()[:-50])
    err = refused(capsys, "evaluate", str(model), "--data", "water")
    assert "force.npy" in err
    assert "truncated" in err


def test_a_truncated_source_file_is_reported_and_the_rest_is_kept(here, capsys):
    ase.io.write(here / "good.xyz", [labelled(a) for a in tiny.waters(3)], format="extxyz")
    text = (here / "good.xyz").read_text()
    (here / "cut.xyz").write_text(text[: len(text) - 40])
    assert main(["data", "convert", "good.xyz", "cut.xyz", "--out", "o", "--json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)
    [cut] = [f for f in result["files"] if f["path"].endswith("cut.xyz")]
    assert cut["error"] or cut["dropped"]
    assert result["kept"] >= 3


# -- data that cannot be used --------------------------------------------------------------------------


def test_an_empty_data_set_is_refused(here, capsys):
    (here / "empty.xyz").write_text("")
    (here / "nothing").mkdir()
    assert "empty.xyz" in refused(capsys, "data", "convert", "empty.xyz", "--out", "o")
    assert "nothing" in refused(
        capsys, "pretrain", "--multitask", "--heads", "a", "--data", "a=nothing", "--out", "o"
    )
    assert "nothing" in refused(capsys, "show", "nothing")


def test_labels_that_are_not_numbers_never_reach_a_data_set(here, capsys):
    frames = [labelled(a, energy=np.nan if i == 1 else -10.0 - i) for i, a in enumerate(tiny.waters(3))]
    bad = np.zeros((3, 3))
    bad[1, 1] = np.inf
    frames.append(labelled(tiny.waters(1, seed=9)[0], forces=bad))
    ase.io.write(here / "a.xyz", frames, format="extxyz")
    assert main(["data", "convert", "a.xyz", "--out", "o", "--json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["kept"], sum(result["dropped"].values())) == (2, 2)
    for file in (here / "o").rglob("*.npy"):
        array = np.load(file)
        assert array.dtype.kind != "f" or np.isfinite(array).all(), file


def test_a_data_set_of_nothing_but_bad_labels_is_refused(here, capsys):
    ase.io.write(here / "a.xyz", [labelled(a, energy=np.nan) for a in tiny.waters(2)], format="extxyz")
    err = refused(capsys, "data", "convert", "a.xyz", "--out", "o")
    assert "energy" in err


def test_elements_that_a_head_never_saw_are_refused(model, water, here, capsys):
    err = refused(capsys, "evaluate", str(model), "--data", str(water), "--head", "metals", "--out", "o")
    assert "holds H, O" in err
    assert "Cu, Al" in err


def test_a_folder_that_is_taken_is_not_overwritten(water, here, capsys):
    ase.io.write(here / "a.xyz", labelled(tiny.waters(1)[0]), format="extxyz")
    assert main(["data", "convert", "a.xyz", "--out", "o", "-q"]) == 0
    capsys.readouterr()
    assert "o" in refused(capsys, "data", "convert", "a.xyz", "--out", "o")
    (here / "run").mkdir()
    (here / "run" / "notes.txt").write_text("mine")
    arguments = ["--multitask", "--heads", "water", "--data", f"water={water}", "--out", "run"]
    assert "--out" in refused(capsys, "pretrain", *arguments)


# -- checkpoints that do not fit -----------------------------------------------------------------------


def test_starting_from_a_checkpoint_of_another_architecture(model, water, here, capsys):
    arguments = [
        "--heads",
        "water",
        "--data",
        f"water={water}",
        "--from",
        str(model),
        "--trunk",
        "orb-v3-tiny",
    ]
    err = refused(capsys, "pretrain", *arguments, "--out", "o")
    assert "trunk" in err


def test_weights_that_do_not_fit_their_architecture(model, water, here, capsys):
    shutil.copytree(model, here / "model")
    path = here / "model" / "config.yaml"
    resolved = yaml.safe_load(path.read_text())
    resolved["trunk"]["latent"] = 12
    path.write_text(yaml.safe_dump(resolved))
    err = refused(capsys, "evaluate", "model", "--data", str(water))
    assert "do not fit" in err
    assert re.search(r"has shape \(.*8.*\), this model needs \(.*12.*\)", err)


def test_weights_that_are_missing_are_named(model, water, here, capsys):
    shutil.copytree(model, here / "model")
    path = here / "model" / "model.safetensors"
    arrays = load_file(path)
    gone = next(name for name in sorted(arrays) if name.startswith("heads.water."))
    del arrays[gone]
    save_file(arrays, path)
    assert "checksum" in refused(capsys, "evaluate", "model", "--data", str(water))
    (here / "model" / "checksums.json").unlink()  # as if somebody had meant it
    assert gone in refused(capsys, "evaluate", "model", "--data", str(water))


def test_a_checkpoint_of_another_format(model, here, capsys):
    shutil.copytree(model, here / "model")
    path = here / "model" / "config.yaml"
    path.write_text(re.sub(r"format: \d+", "format: 99", path.read_text()))
    assert "format 99" in refused(capsys, "show", "model")


# -- the process as users see it -----------------------------------------------------------------------


def test_the_process_ends_with_two_and_one_message(here):
    (here / "x.yaml").write_text("head: a\nn_frame: 5\n")
    done = subprocess.run(
        [sys.executable, "-m", "lamkit", "finetune", "x.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert [p.name for p in here.iterdir()] == ["x.yaml"]
