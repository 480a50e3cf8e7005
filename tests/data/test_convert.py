"""The command line of the data room: convert, info, check, split."""

import json
import shutil

import numpy as np
import pytest
from ase.io import write
from frames import frames

from lamkit.cli import main
from lamkit.data.dataset import open_dataset
from lamkit.data.frame import to_atoms


@pytest.fixture
def xyz(tmp_path):
    """Ten sound frames in extended XYZ."""
    path = tmp_path / "good.xyz"
    write(path, [to_atoms(f) for f in frames(10)], format="extxyz")
    return path


def run(capsys, *words):
    code = main([str(w) for w in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_every_frame_is_kept_or_counted(tmp_path, capsys, xyz):
    bad = [to_atoms(f) for f in frames(4)]
    bad[1].calc.results["forces"] = bad[1].calc.results["forces"] * np.nan
    bad[2].numbers[0] = 0
    write(tmp_path / "bad.xyz", bad, format="extxyz")
    code, out, err = run(
        capsys, "data", "convert", xyz, tmp_path / "bad.xyz", "--out", tmp_path / "d", "--json"
    )
    result = json.loads(out)
    assert code == 0
    assert result["kept"] == 10
    assert sum(result["dropped"].values()) == 4
    assert result["dropped"]["duplicate of an earlier frame"] == 2
    assert [f["kept"] for f in result["files"]] == [10, 0]
    assert json.loads((tmp_path / "d/report.json").read_text())["kept"] == 10
    assert "NaN or infinite forces" in err


@pytest.mark.parametrize(("action", "kept", "flagged"), [("flag", 20, 10), ("off", 20, 0)])
def test_duplicates_are_kept_where_the_head_says_so(tmp_path, capsys, xyz, action, kept, flagged):
    shutil.copy(xyz, tmp_path / "again.xyz")
    head = tmp_path / "heads" / "mine.yaml"
    head.parent.mkdir()
    head.write_text(
        "name: mine\ntitle: mine\nlevel_of_theory: {method: DFT, functional: PBE}\nlabels: [energy, forces]\n"
        f"checks: {{duplicate: {action}}}\n"
    )
    words = ["--head", head, "--out", tmp_path / "d", "--json"]
    code, out, _ = run(capsys, "data", "convert", xyz, tmp_path / "again.xyz", *words)
    result = json.loads(out)
    assert (code, result["kept"], result["dropped"]) == (0, kept, {})
    remarks = json.loads((tmp_path / "d/report.json").read_text())["files"]
    assert sum(f["remarks"].get("duplicate of an earlier frame", 0) for f in remarks) == flagged


def test_broken_files_are_listed_and_the_others_converted(tmp_path, capsys, xyz):
    (tmp_path / "OUTCAR").write_text(" vasp.5.4.4\n NELM = 60\n")
    (tmp_path / "notes.txt").write_text("hello")
    code, out, _ = run(capsys, "data", "convert", tmp_path, "--out", tmp_path / "out" / "d", "--json")
    result = json.loads(out)
    assert code == 0
    assert result["kept"] == 10
    errors = {f["path"]: f["error"] for f in result["files"]}
    assert "no finished ionic step" in errors[str(tmp_path / "OUTCAR")]
    assert result["ignored"] == [str(tmp_path / "notes.txt")]


def test_nothing_readable_is_the_users_error(tmp_path, capsys):
    (tmp_path / "OUTCAR").write_text(" vasp.5.4.4\n NELM = 60\n")
    code, _, err = run(capsys, "data", "convert", tmp_path / "OUTCAR", "--out", tmp_path / "d")
    assert code == 2
    assert "no finished ionic step" in err
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.xyz"], "no such file"),
        (["absent*.xyz"], "no file matches"),
        (["GOOD", "--format", "extxzy"], "Did you mean 'extxyz'"),
        (["GOOD", "--units", "kcal"], "kcal/mol"),
        (["GOOD", "--energy-key", "E"], "no 'E'; it has"),
    ],
)
def test_wrong_input_is_answered_with_the_cure(tmp_path, capsys, xyz, words, message):
    words = [str(xyz) if w == "GOOD" else w for w in words]
    code, _, err = run(capsys, "data", "convert", *words, "--out", tmp_path / "d")
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_a_taken_folder_is_not_overwritten(tmp_path, capsys, xyz):
    (tmp_path / "d").mkdir()
    assert run(capsys, "data", "convert", xyz, "--out", tmp_path / "d")[0] == 0
    code, _, err = run(capsys, "data", "convert", xyz, "--out", tmp_path / "d")
    assert code == 2
    assert "already exists" in err


def test_structures_without_labels_are_kept_when_asked_for(shared, tmp_path, capsys):
    words = ("data", "convert", shared / "data/pfd_c_Si", "--out", tmp_path / "d")
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "--unlabelled" in err
    assert run(capsys, *words, "--unlabelled")[0] == 0
    assert open_dataset(tmp_path / "d").frame(0).energy is None


def test_units_of_vasp_cannot_be_changed(shared, tmp_path, capsys):
    code, _, err = run(
        capsys,
        "data",
        "convert",
        shared / "data/sevennet_hfo2/OUTCAR_1",
        "--units",
        "Ry",
        "--out",
        tmp_path / "d",
    )
    assert code == 2
    assert "has its own keys and units" in err


def test_of_two_outputs_of_one_run_only_vasprun_is_read(shared, tmp_path, capsys):
    for source, name in (("Ti-O-Ti-v6__OUTCAR", "OUTCAR"), ("Ti-O-Ti-v6__vasprun.xml", "vasprun.xml")):
        shutil.copy(shared / "data/vasp" / source, tmp_path / name)
    result = json.loads(run(capsys, "data", "convert", tmp_path, "--out", tmp_path / "o/d", "--json")[1])
    assert result["kept"] == 1
    assert {f["format"]: f["kept"] for f in result["files"]} == {"vasp/xml": 1, None: 0}


def test_the_head_gives_its_facts_to_the_data_set(tmp_path, capsys, xyz, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads/mine.yaml").write_text(
        "name: mine\ntitle: My data\nlevel_of_theory: {method: DFT, functional: SCAN}\nsource: {licence: CC0}\n"
    )
    run(capsys, "data", "convert", xyz, "--out", "d", "--head", "mine")
    facts = open_dataset("d").facts
    assert (facts.head, facts.title, facts.licence) == ("mine", "My data", "CC0")
    assert facts.level_of_theory.functional == "SCAN"
    code, _, err = run(capsys, "data", "convert", xyz, "--out", "e", "--head", "miner")
    assert code == 0
    assert "Did you mean 'mine'" in err


def test_split_writes_data_sets_that_share_no_group(tmp_path, capsys):
    write(tmp_path / "a.xyz", [to_atoms(f) for f in frames(40)], format="extxyz")
    lines = (tmp_path / "a.xyz").read_text().split("pbc=")
    marked = lines[0] + "".join(f"trajectory=run{k // 5} pbc={rest}" for k, rest in enumerate(lines[1:]))
    (tmp_path / "a.xyz").write_text(marked)
    run(capsys, "data", "convert", tmp_path / "a.xyz", "--out", tmp_path / "d")
    code, out, _ = run(
        capsys,
        "data",
        "split",
        tmp_path / "d",
        "--out",
        tmp_path / "s",
        "--valid",
        0.25,
        "--test",
        0.25,
        "--json",
    )
    assert code == 0
    assert sum(json.loads(out)["parts"].values()) == 40
    parts = {p: open_dataset(tmp_path / "s" / p) for p in ("train", "valid", "test")}
    groups = [set(p.group_names) for p in parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 8
    assert parts["valid"].facts.split["part"] == "valid"
    assert run(capsys, "data", "split", tmp_path / "d", "--out", tmp_path / "s")[0] == 2


def test_the_stage_puts_its_data_set_into_its_folder(tmp_path, xyz):
    from lamkit import config
    from lamkit.stages import convert

    (tmp_path / "stage").mkdir()
    (tmp_path / "stage/stage.log").write_text("kept")
    result = convert.run(config.parse(convert.Options, {"sources": [str(xyz)]}), tmp_path / "stage")
    assert result["kept"] == 10
    assert len(open_dataset(tmp_path / "stage")) == 10
    assert (tmp_path / "stage/stage.log").exists()
