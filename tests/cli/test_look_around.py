"""The verbs that look around: ls, cp, schema, show, doctor; and the command line as a whole."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest
import tiny

from lamkit import config, presets
from lamkit.cli import VERBS, cp, doctor, main, schema
from lamkit.data.heads import HeadConfig


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main([*arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_disk_that_is_full_is_one_message(capsys, monkeypatch, tmp_path):
    def full(args):
        Path("/dev/full").write_text("x")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lamkit.cli.cp.run", full)
    code, _, err = run(capsys, "cp", "heads/mptrj", "x.yaml")
    assert code == 1
    assert "No space left on device; free space" in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []  # no error log: there is nothing to mend in LAMKit


def test_what_mindspore_writes_of_a_failed_compilation_stays_out_of_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MS_OM_PATH", raising=False)
    importlib.reload(importlib.import_module("lamkit.model"))
    assert Path(os.environ["MS_OM_PATH"]).is_absolute()
    assert tmp_path not in Path(os.environ["MS_OM_PATH"]).parents


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert f"lamkit {verb}" in out
    module = importlib.import_module(VERBS[verb][0])
    assert module.__doc__.startswith(f"``lamkit {verb}")


def test_a_mistyped_flag_is_answered_with_the_right_one_of_its_verb(capsys):
    code, _, err = run(capsys, "distill", "--studnt", "orb-small")
    assert code == 2
    assert err.startswith("lamkit: distill: unrecognized arguments: --studnt")
    assert "Did you mean '--student'? See 'lamkit distill --help'." in err
    assert len(err.splitlines()) == 1


def test_a_mistyped_verb_is_answered_with_the_right_one(capsys):
    code, _, err = run(capsys, "evalute")
    assert code == 2
    assert "Did you mean 'evaluate'?" in err


# -- ls ------------------------------------------------------------------------------------------------


def test_ls_names_every_kind_with_its_files(capsys):
    code, out, _ = run(capsys, "ls", "--json")
    found = json.loads(out)
    assert code == 0
    assert {"heads", "workflows", "configs/trunk"} <= set(found)
    assert all(Path(path).is_file() for names in found.values() for path in names.values())


def test_ls_shows_that_a_file_is_overridden(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads" / "mptrj.yaml").write_text("title: mine\n")
    (tmp_path / "heads" / "broken.yaml").write_text("a: [1\n")
    code, out, _ = run(capsys, "ls", "heads")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0
    assert str(tmp_path / "heads" / "mptrj.yaml") in lines["mptrj"]
    assert "not valid YAML" in lines["broken"]
    assert str(presets.builtin()) in lines["omat24"]
    assert "workflows" not in lines


# -- cp ------------------------------------------------------------------------------------------------


def test_cp_copies_a_file_that_then_is_used(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "cp", "heads/mptrj", "heads/")[0] == 0
    copy = tmp_path / "heads" / "mptrj.yaml"
    assert copy.read_bytes() == (presets.builtin() / "heads" / "mptrj.yaml").read_bytes()
    assert presets.find("heads", "mptrj") == copy


def test_cp_never_overwrites_silently(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("precious")
    code, _, err = run(capsys, "cp", "heads/mptrj", "mine")
    assert code == 2
    assert "mine.yaml: exists already" in err
    assert (tmp_path / "mine.yaml").read_text() == "precious"
    assert run(capsys, "cp", "heads/mptrj", "mine", "--force")[0] == 0
    assert (tmp_path / "mine.yaml").read_text() != "precious"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("heads/mptrjj", "Did you mean 'mptrj'?"),
        ("head/mptrj", "Did you mean 'heads'?"),
        ("mptrjj", "Did you mean 'mptrj'?"),
        ("configs/trunk/orb-v9", "no trunk preset named 'orb-v9'"),
    ],
)
def test_cp_of_a_wrong_name_is_answered_with_the_right_one(name, words, capsys, tmp_path):
    code, _, err = run(capsys, "cp", name, str(tmp_path / "x.yaml"))
    assert code == 2
    assert words in err
    assert list(tmp_path.iterdir()) == []


def test_a_bare_name_is_enough_where_it_is_the_only_one():
    assert cp.find("mptrj") == presets.find("heads", "mptrj")
    assert cp.find("configs/trunk/orb-v2") == presets.find("configs/trunk", "orb-v2")


# -- schema --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", schema.kinds())
def test_schema_of_every_kind(kind, capsys):
    code, out, _ = run(capsys, "schema", kind, "--json")
    described = json.loads(out)
    assert code == 0
    assert set(described["properties"]) == {
        field.alias or name for name, field in schema.model(kind).model_fields.items()
    }
    code, out, _ = run(capsys, "schema", kind)
    assert code == 0
    for name in described["properties"]:
        assert f"  {name}: " in out


@pytest.mark.parametrize("kind", schema.kinds())
def test_every_key_is_described(kind):
    described = schema.described(schema.model(kind).model_json_schema())
    for name, field in described["properties"].items():
        if name != "with":  # a word of Python's own, so its field is made without a docstring
            assert field.get("description"), f"{schema.kinds()[kind]}: {name}"


def test_schema_refuses_what_loading_refuses(capsys):
    _, out, _ = run(capsys, "schema", "head", "--json")
    assert json.loads(out)["additionalProperties"] is False
    assert main(["schema", "haed"]) == 2
    assert "Did you mean 'head'?" in capsys.readouterr().err


# -- show ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("show") / "model")


def test_show_of_a_checkpoint(model, capsys):
    code, out, _ = run(capsys, "show", str(model), "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["kind"], found["step"], found["best_step"]) == ("checkpoint", 7, 5)
    assert found["heads"]["water"]["references"] == {"H": -13.6, "O": -2000.0}
    assert found["heads"]["metals"]["elements"] == ["Cu", "Al"]
    assert found["parameters"]["trunk"] > 0
    assert set(found["parameters"]["heads"]) == {"metals", "water"}
    code, out, _ = run(capsys, "show", str(model))
    assert code == 0
    assert "2 heads" in out
    [line] = [text for text in out.splitlines() if text.startswith("metals")]
    assert line.split()[-1] == "100.0"  # force RMSE of 0.1 eV/Å in meV/Å


def test_show_of_a_data_set(tmp_path, capsys):
    from lamkit.data.dataset import write_dataset
    from lamkit.data.facts import DatasetFacts
    from lamkit.data.frame import from_atoms

    frames = [from_atoms(a, energy=-1.0, group=str(i)) for i, a in enumerate(tiny.waters(3))]
    write_dataset(frames, tmp_path / "run" / "data", DatasetFacts(head="water", level_of_theory=tiny.PBE))
    code, out, _ = run(capsys, "show", str(tmp_path / "run"), "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["kind"], found["n_frames"], found["n_atoms"], found["n_groups"]) == ("dataset", 3, 9, 3)
    assert found["elements"] == ["H", "O"]
    assert found["labels"]["energy"] == 3
    assert "PBE" in run(capsys, "show", str(tmp_path / "run" / "data"))[1]


def test_show_of_nothing(tmp_path, capsys):
    assert run(capsys, "show", str(tmp_path / "absent"))[0] == 2
    code, _, err = run(capsys, "show", str(tmp_path))
    assert code == 2
    assert "no data set" in err


# -- doctor --------------------------------------------------------------------------------------------


def test_doctor_finds_this_installation_well(capsys):
    code, out, _ = run(capsys, "doctor", "--json")
    found = json.loads(out)
    checks = {check["name"]: check for check in found["checks"]}
    assert (code == 0) == found["ok"]
    assert checks["mindspore graph"]["ok"], checks["mindspore graph"]
    assert checks["numpy"]["ok"], checks["numpy"]
    assert {"python", "cores", "memory", "disk", "write access", "devices", "built-in files"} <= set(checks)


def test_doctor_says_how_to_mend_a_wrong_version(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "requirements", lambda: [("numpy", ">=9"), ("no-such-package", ">=1")])
    code, out, _ = run(capsys, "doctor", "--fast")
    assert code == 1
    assert "pip install 'numpy>=9'" in out
    assert "pip install 'no-such-package>=1'" in out


@pytest.mark.parametrize(
    ("version", "bounds", "ok"),
    [
        ("1.26.4", ">=1.26.4,<2", True),
        ("2.0.0rc1", "<2,>=1.26.4", False),
        ("1.26.3", ">=1.26.4,<2", False),
        ("2.10", "<2.11,>=2.10", True),
        ("2.10.0", "==2.10", True),
        ("3.10", ">=3.9", True),
        ("1.0", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version, bounds, ok):
    assert doctor.satisfies(version, bounds) is ok


def test_requirements_are_read_from_a_bare_checkout(monkeypatch):
    installed = doctor.requirements()

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.importlib.metadata, "requires", absent)
    assert {name for name, _ in doctor.requirements()} == {name for name, _ in installed}
    assert dict(doctor.requirements())["numpy"] == ">=1.26.4,<2"


def test_a_head_written_from_the_schema_loads(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nlevel_of_theory: {method: DFT, functional: PBE}\n")
    assert config.load(HeadConfig, path).name == "mine"
