"""``lamkit data info`` and ``check``, and the report of a conversion, through the command line."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from ase.io import write

from lamkit.cli import main
from lamkit.data import statistics_file
from lamkit.data.dataset import open_dataset, write_dataset
from lamkit.data.facts import DatasetFacts
from lamkit.data.frame import make_frame, to_atoms
from lamkit.data.heads import LevelOfTheory


def water(n, *, seed=0, offset=0.0):
    """Molecules of water far apart, in a cell, with random labels."""
    rng = np.random.default_rng(seed)
    for step in range(n):
        yield make_frame(
            [8, 1, 1],
            np.array([[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]]) + 0.02 * rng.normal(size=(3, 3)),
            6 * np.eye(3),
            energy=-14.0 + offset + 0.01 * rng.normal(),
            forces=rng.normal(size=(3, 3)),
            stress=0.01 * rng.normal(size=6),
            source="run.xyz",
            step=step,
        )


def run(capsys, *words):
    code = main([str(w) for w in words])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def converted(tmp_path, capsys):
    """A conversion in which one frame is dropped and one file cannot be read."""
    atoms = [to_atoms(f) for f in water(12)]
    atoms[4].calc.results["forces"] = np.full((3, 3), np.nan)
    write(tmp_path / "run.xyz", atoms, format="extxyz")
    (tmp_path / "OUTCAR").write_text(" vasp.5.4.4\n NELM = 60\n")
    code, _, err = run(
        capsys, "data", "convert", tmp_path / "run.xyz", tmp_path / "OUTCAR", "--out", tmp_path / "d"
    )
    assert code == 0
    return tmp_path / "d", err


def test_every_dropped_frame_has_its_line_in_table_json_csv_and_page(converted):
    folder, said = converted
    report = json.loads((folder / "report.json").read_text())
    entry = next(f for f in report["files"] if f["path"].endswith("run.xyz"))
    assert entry["steps"]["dropped"] == {"NaN or infinite forces": "4"}
    rows = list(csv.DictReader((folder / "report.csv").open()))
    assert [(r["outcome"], r["first_step"]) for r in rows if r["reason"] == "NaN or infinite forces"] == [
        ("dropped", "4")
    ]
    assert any(r["outcome"] == "not read" and r["file"].endswith("OUTCAR") for r in rows)
    page = (folder / "report.html").read_text()
    for text in ("NaN or infinite forces", "no finished ionic step", "only H2O", "1 of 2"):
        assert text in page
        assert text in said or text == "1 of 2"
    assert "run.xyz, step 4" in said


def test_the_page_needs_no_network(converted):
    page = (converted[0] / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "<script" not in page
    assert page.count("data:image/png;base64,") >= 1


def test_statistics_are_stored_and_are_those_of_the_frames(converted):
    dataset = open_dataset(converted[0])
    stored = statistics_file.load(dataset)
    assert stored.labels.n_frames == len(dataset) == 11
    forces = np.concatenate([dataset.frame(i).forces.ravel() for i in range(11)])
    assert stored.labels.forces.rms() == pytest.approx(np.sqrt((forces**2).mean()))


def test_info_is_readable_and_names_what_cannot_be_told(converted, capsys):
    code, out, _ = run(capsys, "data", "info", converted[0])
    assert code == 0
    assert "only H2O: H and O cannot be told apart" in out
    assert "neighbours within" in out
    assert "rank 1 of 2 elements" in out


@pytest.fixture
def three(tmp_path):
    """Two sets of water whose zero of energy differs, and one of hydrogen; two levels of theory."""
    levels = {name: LevelOfTheory(method="DFT", functional=name, code=code) for name, code in
              (("PBE", "VASP 5.4"), ("SCAN", "VASP 6.3"))}  # fmt: skip
    write_dataset(water(8), tmp_path / "a", DatasetFacts(head="a", level_of_theory=levels["PBE"]))
    write_dataset(
        water(8, seed=1, offset=-3.0), tmp_path / "b", DatasetFacts(head="b", level_of_theory=levels["SCAN"])
    )
    hydrogen = [
        make_frame([1, 1], [[0, 0, 0], [0, 0, 0.74 + 0.01 * i]], energy=-6.7, step=i) for i in range(3)
    ]
    write_dataset(hydrogen, tmp_path / "c", DatasetFacts(head="c", level_of_theory=levels["PBE"]))
    return tmp_path


def test_several_sets_are_compared_by_elements_level_and_shift_of_energy(three, capsys):
    code, out, _ = run(capsys, "data", "info", three / "a", three / "b", three / "c", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["common_elements"] == ["H"]
    pairs = {(p["of"][-1], p["by"][-1]): p for p in result["pairs"]}
    assert pairs["b", "a"]["shift"] == pytest.approx(-1.0, abs=0.01)  # -3 eV on three atoms
    assert pairs["b", "a"]["level_differs_in"] == ["functional"]
    assert pairs["a", "c"]["shift"] is None  # hydrogen has no reference for oxygen
    assert pairs["a", "c"]["same_level"]
    _, out, _ = run(capsys, "data", "info", three / "a", three / "b")
    assert "other functional" in out
    assert re.search(r"b +a +2 .*-(99|100)\d ± ", out)


def test_check_passes_a_sound_set_and_stores_its_statistics(three, capsys):
    code, out, _ = run(capsys, "data", "check", three / "a")
    assert code == 0
    assert "no fault found" in out
    assert statistics_file.load(open_dataset(three / "a")) is not None


def test_check_says_what_is_wrong_and_where_with_exit_code_1(three, capsys):
    file = next((three / "a").rglob("force.npy"))
    forces = np.load(file)
    forces[3, 0] = np.nan
    np.save(file, forces)
    code, out, _ = run(capsys, "data", "check", three / "a", "--out", three / "audit", "--json")
    assert code == 1
    result = json.loads(out)
    assert result["problems"] == {"file differs from its checksum": 1, "NaN or infinite forces": 1}
    assert "frame 3 (step 3 of run.xyz)" in result["examples"]["NaN or infinite forces"]
    page = (three / "audit/report.html").read_text()
    assert "file differs from its checksum" in page
    assert "frames at fault" in page
    code, out, _ = run(capsys, "data", "check", three / "a")
    assert code == 1
    assert "frame 3" in out


@pytest.mark.parametrize("kind", ["deepmd/npy", "deepmd/npy/mixed"])
def test_check_audits_what_dpdata_wrote(shared, tmp_path, capsys, kind):
    import dpdata

    file = shared / "data/vasp/OUTCAR.h2o.md.10"
    dpdata.MultiSystems(dpdata.LabeledSystem(str(file), fmt="vasp/outcar")).to(kind, str(tmp_path / "d"))
    before = sorted(p for p in (tmp_path / "d").rglob("*"))
    assert run(capsys, "data", "check", tmp_path / "d")[0] == 0
    assert sorted(p for p in (tmp_path / "d").rglob("*")) == before  # nothing of ours is put into it
    for name in ("coord", "energy", "force"):
        array_file = next((tmp_path / "d").rglob(f"{name}.npy"))
        array = np.load(array_file)
        array[5] = array[4]
        np.save(array_file, array)
    code, out, _ = run(capsys, "data", "check", tmp_path / "d", "--out", tmp_path / "audit")
    assert code == 1
    assert "duplicate of an earlier frame" in out
    assert (tmp_path / "audit/report.html").is_file()


def test_a_set_full_of_faults_still_gets_its_report(three, capsys):
    file = next((three / "c").rglob("coord.npy"))
    np.save(file, np.load(file) * 0)
    code, _, _ = run(capsys, "data", "check", three / "c", "--out", three / "audit")
    assert code == 1
    assert "closer" in (three / "audit/report.html").read_text()


def test_a_truncated_array_is_a_fault_and_no_crash(three, capsys):
    file = next((three / "a").rglob("force.npy"))
    file.write_bytes(file.read_bytes()[:300])
    code, out, err = run(capsys, "data", "check", three / "a")
    assert code in (1, 2)
    assert "force.npy" in out + err
    assert "Traceback" not in err


def test_wrong_words_are_answered_with_the_cure(three, capsys):
    code, _, err = run(capsys, "data", "info", three / "nothing")
    assert code == 2
    assert "lamkit data convert" in err
    code, _, err = run(capsys, "data", "check", three / "a", "--out", three / "b")
    assert code == 2
    assert "folder of its own" in err


def test_the_report_of_real_runs_names_the_functional_found(shared, tmp_path, capsys):
    for name in ("OUTCAR.ch4.unconverged", "scan_relaxation__OUTCAR"):
        shutil.copy(shared / "data/vasp" / name, tmp_path / name)
    code, out, err = run(capsys, "data", "convert", tmp_path, "--out", tmp_path / "o/d", "--json")
    assert code == 0
    found = {f["functional"] for f in json.loads(out)["level_of_theory"]["found"]}
    assert found == {"PBE", "r2SCAN"}
    assert "r2SCAN" in err
    assert "PBE, r2SCAN" in (tmp_path / "o/d/report.html").read_text()
