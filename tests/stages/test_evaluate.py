"""Evaluation: known errors are found again, labels that are missing stay out, files are whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from lamkit import config
from lamkit.cli import main
from lamkit.data.dataset import open_dataset, write_dataset
from lamkit.data.frame import from_atoms
from lamkit.errors import UserError
from lamkit.report import parity
from lamkit.stages import evaluate

SAME = 2e-4  # float32 predictions in batches of another shape; energies near 1000 eV/atom


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("evaluate") / "model")


@pytest.fixture(scope="module")
def data(model, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("labelled")
    return {
        "metals": tiny.write_labelled(
            root / "metals", model, "metals", tiny.metals(8), tiny.shifted(0.01, 0.2, -0.003)
        ),
        "water": tiny.write_labelled(
            root / "water", model, "water", tiny.waters(5), tiny.shifted(0.0, 0.01, 0)
        ),
    }


@pytest.fixture(autouse=True)
def one_compilation(request, monkeypatch):
    """Share compiled calculators between tests, except where the command is run as it is."""
    if "as_it_is" not in request.fixturenames:
        monkeypatch.setattr(evaluate, "_calculator", lambda o, head: tiny.calculator(Path(o.model), head))


@pytest.fixture
def as_it_is():
    """Marks a test that shares nothing."""


def test_errors_put_into_the_labels_are_found_again(model, data, tmp_path):
    options = evaluate.Options(model=str(model), data={k: str(v) for k, v in data.items()})
    result = evaluate.run(options, tmp_path / "out")
    metals, water = result["metals"], result["water"]
    assert metals["energy_mae"] == pytest.approx(0.01, abs=SAME)
    assert metals["forces_mae"] == pytest.approx(0.2, abs=SAME)
    assert metals["forces_rmse"] == pytest.approx(0.2, abs=SAME)
    assert metals["stress_mae"] == pytest.approx(0.003, abs=SAME)
    assert metals["fwt_0.03"] == metals["orb"]["grad-forces_wt_0.03"] == 0.0
    assert metals["orb"]["grad-forces_mae_raw"] == pytest.approx(metals["forces_mae"])  # cells of one size
    assert (metals["n_frames"], metals["n_atoms"]) == (8, 32)
    assert (metals["intervals"]["by"], metals["intervals"]["n"]) == ("group", 8)
    low, high = metals["intervals"]["forces_rmse"]
    assert low - SAME < metals["forces_rmse"] < high + SAME
    assert {s: r["n_atoms"] for s, r in metals["by_element"].items()} == {"Al": 8, "Cu": 24}
    assert sum(r["n_atoms"] for r in metals["by_force"]) == 32
    assert metals["dp"]["mae_ea"] == pytest.approx(0.01, abs=SAME)
    assert metals["dp"]["mae_v"] == pytest.approx(0.003 * 3.8**3, rel=0.1)
    assert water["fwt_0.03"] == 1.0
    assert water["stress_mae"] is None  # molecules have no stress; it is not zero
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    assert (tmp_path / "out" / "parity.png").read_bytes().startswith(b"\x89PNG")


def test_parity_file_holds_data_and_prediction(model, data, tmp_path):
    evaluate.run(evaluate.Options(model=str(model), data=str(data["metals"])), tmp_path)
    pairs = parity.load(tmp_path / "parity.npz")["metals"]
    assert {name: pair.shape for name, pair in pairs.items()} == {
        "energy": (2, 8), "forces": (2, 96), "stress": (2, 48),
    }  # fmt: skip
    np.testing.assert_allclose(pairs["forces"][0] - pairs["forces"][1], 0.2, atol=SAME)
    np.testing.assert_allclose(pairs["energy"][0] - pairs["energy"][1], 0.01, atol=SAME)
    assert np.abs(pairs["energy"]).max() < 100  # the references of 500 and 1000 eV are taken off


def test_parity_samples_are_thinned_and_whole_atoms():
    sample = parity.ParitySample(np.full(5000, 4), np.zeros(119))
    atoms = tiny.metals(1)[0]
    for i in range(5000):
        forces = np.full((4, 3), float(i))
        frame = from_atoms(atoms, energy=0.0, forces=forces, stress=np.zeros(6))
        sample.add(i, frame, {"energy": 0.0, "forces": forces, "stress": np.zeros(6)})
    pairs = sample.pairs()
    assert pairs["forces"].shape[1] <= parity.MAX_POINTS
    assert pairs["forces"].shape[1] > parity.MAX_POINTS - 3
    assert len(np.unique(pairs["forces"][0])) > 2000  # spread over the data set


def test_frames_without_labels_are_left_out_of_that_error_only(model, tmp_path):
    count = iter(range(100))

    def every_second_without_forces(frame):
        changed = tiny.shifted(0.02, 0.1, 0)(frame)
        return replace(changed, forces=None) if next(count) % 2 else changed

    data = tiny.write_labelled(tmp_path / "d", model, "metals", tiny.metals(6), every_second_without_forces)
    result = evaluate.run(evaluate.Options(model=str(model), data=str(data)), None)["metals"]
    assert result["n_frames"] == 6
    assert result["energy_mae"] == pytest.approx(0.02, abs=SAME)
    assert result["forces_mae"] == pytest.approx(0.1, abs=SAME)


def test_partly_known_stress_counts_its_known_components(model, tmp_path):
    def only_the_trace(frame):
        stress = frame.stress + 0.01
        stress[3:] = np.nan
        return replace(frame, stress=stress)

    data = tiny.write_labelled(tmp_path / "d", model, "metals", tiny.metals(3), only_the_trace)
    options = evaluate.Options(model=str(model), data=str(data), detail=str(tmp_path / "dt"))
    result = evaluate.run(options, None)["metals"]
    assert result["stress_mae"] == pytest.approx(0.01, abs=SAME)
    assert not (tmp_path / "dt.v.out").exists()  # a virial with unknown components is no virial


def test_detail_files_are_those_of_dp_test(model, data, tmp_path):
    options = evaluate.Options(model=str(model), data=str(data["metals"]), detail=str(tmp_path / "d" / "cu"))
    evaluate.run(options, None)
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == [
        "cu.e.out", "cu.e_peratom.out", "cu.f.out", "cu.s.out", "cu.v.out", "cu.v_peratom.out",
    ]  # fmt: skip
    head = (tmp_path / "d" / "cu.f.out").read_text().splitlines()[0]
    assert head == f"# {data['metals']}: data_fx data_fy data_fz pred_fx pred_fy pred_fz"
    energies = np.loadtxt(tmp_path / "d" / "cu.e_peratom.out")
    forces = np.loadtxt(tmp_path / "d" / "cu.f.out")
    virials = np.loadtxt(tmp_path / "d" / "cu.v.out")
    assert (energies.shape, forces.shape, virials.shape) == ((8, 2), (32, 6), (8, 18))
    np.testing.assert_allclose(energies[:, 0] - energies[:, 1], 0.01, atol=SAME)
    np.testing.assert_allclose(forces[:, :3] - forces[:, 3:], 0.2, atol=SAME)
    # virial = −V · stress, and the file is DeePMD's own label in the data set
    volume = 3.8**3
    np.testing.assert_allclose(virials[:, :9] - virials[:, 9:], 0.003 * volume, atol=volume * SAME)
    stored = np.load(next(data["metals"].rglob("virial.npy"))).reshape(-1, 9)
    np.testing.assert_allclose(virials[:, :9], stored, atol=1e-9)
    stress = (tmp_path / "d" / "cu.s.out").read_text().splitlines()[0]
    assert stress.startswith(f"# {data['metals']} (eV/Å³): data_sxx data_sxy data_sxz data_syx")
    np.testing.assert_allclose(np.loadtxt(tmp_path / "d" / "cu.s.out") * -volume, virials, atol=1e-9)


def test_detail_files_that_cannot_be_written_are_refused_before_anything_is_predicted(
    model, data, monkeypatch
):
    monkeypatch.setattr(evaluate, "_predicted", None)
    options = evaluate.Options(model=str(model), data={"metals": str(data["metals"])}, detail="/sys/lamkit/x")
    with pytest.raises(UserError, match="/sys/lamkit: cannot be written"):
        evaluate.run(options, None)


def test_a_failure_leaves_no_detail_file(model, data, tmp_path, monkeypatch):
    from lamkit.calculator import LamCalculator

    def break_down(self, atoms, latent=False):
        raise UserError("broken")

    def one_then_break(self, atoms, latent=False):
        monkeypatch.setattr(LamCalculator, "predict", break_down)
        return [{"energy": 0.0, "forces": np.zeros((len(a), 3))} for a in atoms]

    monkeypatch.setattr(LamCalculator, "predict", one_then_break)
    options = evaluate.Options(
        model=str(model), data=str(data["metals"]), detail=str(tmp_path / "d"), batch_atoms=8
    )
    with pytest.raises(UserError, match="broken"):
        evaluate.run(options, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sets", ["some/set", {"a": "some/set"}])
def test_a_workflow_sees_every_path_that_is_read(sets):
    options = config.parse(evaluate.Options, {"model": "run", "data": sets})
    assert config.input_paths(options) == ["run", "some/set"]


def test_the_batch_size_changes_nothing(model, data):
    results = [
        evaluate.run(evaluate.Options(model=str(model), data=str(data["metals"]), batch_atoms=n), None)
        for n in (4, 500)
    ]
    for name in ("energy_mae", "forces_rmse", "stress_mae"):
        assert results[0]["metals"][name] == pytest.approx(results[1]["metals"][name], abs=SAME)


def test_batches_keep_the_order_and_the_limit():
    n_atoms = np.array([3, 3, 10, 1, 1, 1, 1])
    found = list(evaluate.batches(n_atoms, 6))
    assert np.concatenate(found).tolist() == list(range(7))
    assert [int(n_atoms[b].sum()) for b in found] == [6, 10, 4]


def test_a_split_folder_stands_for_its_test_part(model, data, tmp_path):
    whole = open_dataset(data["metals"])
    for part, indices in {"train": range(5), "valid": range(5, 7), "test": range(7, 8)}.items():
        write_dataset((whole.frame(i) for i in indices), tmp_path / "parts" / part, whole.facts)
    options = evaluate.Options(model=str(model), data=str(tmp_path / "parts"))
    result = evaluate.run(options, None)["metals"]
    assert result["n_frames"] == 1
    assert result["data"].endswith("/test")


def test_a_training_part_is_not_taken_for_a_test(model, data, tmp_path):
    whole = open_dataset(data["metals"])
    write_dataset((whole.frame(i) for i in range(3)), tmp_path / "parts" / "train", whole.facts)
    with pytest.raises(UserError, match="training only"):
        evaluate.run(evaluate.Options(model=str(model), data=str(tmp_path / "parts")), None)


def test_the_folder_of_a_model_is_not_overwritten(model, data):
    before = (model / "config.yaml").read_bytes()
    with pytest.raises(UserError, match="another folder"):
        evaluate.run(evaluate.Options(model=str(model), data=str(data["metals"])), model)
    assert (model / "config.yaml").read_bytes() == before


def test_the_head_is_told_by_the_data_or_by_the_user(model, data, tmp_path):
    named = evaluate.run(evaluate.Options(model=str(model), data=str(data["water"]), max_frames=2), None)
    assert list(named) == ["water"]
    assert named["water"]["n_frames"] == 2
    with pytest.raises(UserError, match=r"no head named 'watr'\. Did you mean 'water'"):
        evaluate.run(evaluate.Options(model=str(model), data=str(data["water"]), head="watr"), None)


def test_elements_that_the_head_never_saw_are_refused(model, data):
    with pytest.raises(UserError, match="holds H, O, which head 'metals'"):
        evaluate.run(evaluate.Options(model=str(model), data=str(data["water"]), head="metals"), None)


def test_command_line_evaluates(model, data, capsys, as_it_is):
    assert main(["evaluate", str(model), "--data", f"water={data['water']}", "--json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["water"]["forces_mae"] == pytest.approx(0.01, abs=SAME)


def test_command_line_prints_a_table_or_json(model, data, capsys):
    sets = ["--data", f"metals={data['metals']}", "--data", f"water={data['water']}"]
    assert main(["evaluate", str(model), *sets, "--json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"metals", "water"}
    assert result["metals"]["energy_mae"] == pytest.approx(0.01, abs=SAME)
    assert main(["evaluate", str(model), *sets, "-q"]) == 0
    table = capsys.readouterr().out
    assert "meV/atom" in table
    assert "zero forces" in table
    assert table.splitlines()[2].split()[:3] == ["metals", "8", "10.0"]
    assert (
        main(["evaluate", str(model), *sets, "-q", "--show", "dp", "orb", "elements", "forces", "intervals"])
        == 0
    )
    words = capsys.readouterr().out
    assert "Energy MAE/Natoms  : " in words
    assert any("grad-forces_mae_raw" in line and line.endswith("eV/Å") for line in words.splitlines())
    assert "metals  Cu" in words
    assert "bootstrap over whole groups" in words
