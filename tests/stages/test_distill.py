"""Distillation with a tiny teacher: rounds, stopping, resuming; not quality, which takes minutes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
import tiny
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from lamkit.calculator import LamCalculator
from lamkit.cli import main
from lamkit.data.dataset import open_dataset
from lamkit.data.frame import from_atoms, to_atoms
from lamkit.errors import Interrupted, UserError
from lamkit.stages import distill, explore, label, student
from lamkit.stages.distill_tests import converged
from lamkit.stages.engine import FrameList, engine_of, frames_at, write_data
from lamkit.train import checkpoint

# Direct forces: compiles in half the time of a conservative student.
STUDENT = {
    "output": "direct",
    "repulsion": False,
    "latent": 6,
    "hidden": 8,
    "layers": 1,
    "head_hidden": 4,
    "cutoff": 3.0,
    "bessel": 3,
    "lmax": 1,
}
SILICON = "silicon.xyz"  # of which neither teacher knows anything
TRAIN = {"max_steps": 6, "batch_atoms": 16, "warmup_steps": 1, "valid_every": 3, "save_every": 3}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("distill") / "teacher")


@pytest.fixture(scope="module")
def starts(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("starts") / "starts.xyz"
    ase.io.write(path, tiny.metals(6))
    return path


def options(model: Path, structures: Path, **more) -> distill.Options:
    given = {
        "teacher": str(model),
        "head": "metals",
        "student": STUDENT,
        "starts": [str(structures)],
        "n_starts": 2,
        "temperatures": [200.0],
        "heldout": {"n_starts": 2, "temperatures": [300.0]},
        "dynamics": {"steps": 12, "save_every": 3},
        "perturb": {"n": 1},
        "min_atoms": 4,
        "n_frames": 6,
        "rounds": 2,
        "criterion": {"fraction": 1e-6},
        "guards": {"steps": 14, "save_every": 1},
        "train": TRAIN,
        "speed_atoms": 4,
    }
    return distill.Options(**{**given, **more})


@pytest.fixture(scope="module")
def interrupted_and_resumed(teacher, starts, tmp_path_factory):
    """A run of two rounds, stopped in the training of the second, then resumed: folder, result, what ran."""
    out = tmp_path_factory.mktemp("runs") / "run"
    fit, trajectory, frames = student.fit, explore.new_trajectory, label.label_frames
    ran: dict[str, list] = {"before": [], "after": []}

    def watch(stage: str, stop_at: int, patch: pytest.MonkeyPatch) -> None:
        def stopping_fit(*args, **kwargs):
            if len([x for x in ran[stage] if x == "train"]) == stop_at:
                raise KeyboardInterrupt
            ran[stage].append("train")
            return fit(*args, **kwargs)

        patch.setattr(student, "fit", stopping_fit)
        patch.setattr(
            explore,
            "new_trajectory",
            lambda *a, **k: ran[stage].append(k["labels"]["group"]) or trajectory(*a, **k),
        )
        patch.setattr(label, "label_frames", lambda *a: ran[stage].append("label") or frames(*a))

    with pytest.MonkeyPatch.context() as patch:
        watch("before", 1, patch)
        with pytest.raises(Interrupted, match="--resume"):
            distill.run(options(teacher, starts), out)
    with pytest.MonkeyPatch.context() as patch:
        watch("after", 99, patch)
        result = distill.run(options(teacher, starts, resume=True), out)
    return out, result, ran


def test_resume_redoes_no_trajectory_label_or_round(interrupted_and_resumed):
    _, _, ran = interrupted_and_resumed
    trajectories = [x for x in ran["before"] if x not in ("train", "label") and not x.startswith("guard")]
    assert len(trajectories) == len(set(trajectories)) == 2 + 2 * 2
    assert (
        len([x for x in ran["before"] if x.startswith("guard")]) == 2 + 2
    )  # teacher's and the first student's
    assert ran["before"].count("label") == 3  # held out, round 1, round 2
    assert ran["after"][0] == "train"
    assert all(x.startswith("guard") for x in ran["after"][1:])
    assert len(ran["after"]) == 1 + 2


def test_from_the_second_round_on_the_student_explores_and_its_errors_choose(interrupted_and_resumed):
    _, result, _ = interrupted_and_resumed
    first, second = result["rounds"]
    assert (first["explorer"], second["explorer"]) == ("teacher", "student")
    assert first["deviation_max"] is None
    assert second["deviation_max"] >= second["deviation_mean"] > 0
    assert second["labelled"] > second["chosen"] == 6


def test_guards_run_the_students_md_and_are_reported(interrupted_and_resumed):
    _, result, _ = interrupted_and_resumed
    found = result["guards"]
    assert found["steps"] == 14
    assert found["passed"] == (found["stable"] and found["agree"] is True)
    if found["stable"]:
        assert set(found["rdf"]) == {"Al-Al", "Al-Cu", "Cu-Cu"}
        assert set(found["msd"]) == {"Al", "Cu"}


def test_criterion_not_met_is_said_plainly(interrupted_and_resumed):
    _, result, _ = interrupted_and_resumed
    assert result["converged"] is False
    assert [row["round"] for row in result["rounds"]] == [1, 2]
    assert "NOT CONVERGED" in distill.tables.summary(result)


def test_later_rounds_add_frames(interrupted_and_resumed):
    out, result, _ = interrupted_and_resumed
    counts = [row["frames"] for row in result["rounds"]]
    assert (
        counts[0]
        < counts[1]
        == len(open_dataset(out / "data" / "train")) + len(open_dataset(out / "data" / "valid"))
    )


def test_held_out_trajectories_are_never_trained_on(interrupted_and_resumed):
    out, _, _ = interrupted_and_resumed
    heldout, train = open_dataset(out / "heldout"), open_dataset(out / "data" / "train")
    groups = [{d.group_names[g] for g in d.groups} for d in (heldout, train)]
    assert groups[0]
    assert not groups[0] & groups[1]
    places = [{d.frame(i).positions.tobytes() for i in range(len(d))} for d in (heldout, train)]
    assert not places[0] & places[1]


def test_labels_are_the_teachers(interrupted_and_resumed, teacher):
    out, _, _ = interrupted_and_resumed
    data = open_dataset(out / "data" / "train")
    assert data.facts.level_of_theory.method.startswith("teacher")
    frame = data.frame(0)
    predicted = LamCalculator(teacher, head="metals").predict([to_atoms(frame)])[0]
    np.testing.assert_allclose(frame.forces, predicted["forces"], atol=1e-5)
    assert frame.energy == pytest.approx(predicted["energy"], abs=1e-3)


def test_student_is_an_ordinary_checkpoint_with_one_head(interrupted_and_resumed):
    out, result, _ = interrupted_and_resumed
    read = checkpoint.read(out)
    assert read.heads == ("metals",)
    assert "teacher" in read.head_configs["metals"].level_of_theory.method
    assert read.trunk.latent == STUDENT["latent"]
    calculator = LamCalculator(out)
    predicted = calculator.predict(tiny.metals(1))[0]
    assert np.isfinite(predicted["forces"]).all()
    assert result["parameters"]["student"] == calculator.n_parameters


def test_the_checkpoint_holds_a_structure_to_begin_md_with(interrupted_and_resumed):
    out, _, _ = interrupted_and_resumed
    atoms = ase.io.read(out / "checkpoints" / "best" / student.EXAMPLE)
    frame = open_dataset(out / "data" / "train").frame(0)
    assert (atoms.numbers == frame.numbers).all()
    assert atoms.pbc.all()
    np.testing.assert_allclose(atoms.positions, frame.positions, atol=1e-7)
    np.testing.assert_allclose(atoms.cell.array, frame.cell, atol=1e-7)


def test_result_holds_errors_and_speed_of_both(interrupted_and_resumed):
    out, result, _ = interrupted_and_resumed
    assert json.loads((out / "result.json").read_text()) == result
    assert result["forces_rmse"] == min(row["heldout_forces_rmse"] for row in result["rounds"])
    low, high = result["rounds"][0]["heldout_forces_rmse_interval"]
    assert low <= result["rounds"][0]["heldout_forces_rmse"] <= high
    for name in ("teacher", "student"):
        assert result["speed"]["models"][name]["us_per_step_atom"] > 0


def test_finished_run_is_not_repeated(interrupted_and_resumed, teacher, starts):
    out, result, _ = interrupted_and_resumed
    assert distill.run(options(teacher, starts, resume=True), out) == result


def test_killed_after_the_last_round_only_the_end_is_done_again(
    interrupted_and_resumed, teacher, starts, tmp_path, monkeypatch
):
    out, result, _ = interrupted_and_resumed
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    (copy / "result.json").unlink()
    shutil.rmtree(copy / "checkpoints")
    monkeypatch.setattr(student, "fit", lambda *a, **k: pytest.fail("trained again"))
    again = distill.run(options(teacher, starts, resume=True), copy)
    assert again["rounds"] == result["rounds"]
    assert (copy / "checkpoints" / "best" / "model.safetensors").is_file()


def test_rounds_end_when_the_criterion_is_met(
    interrupted_and_resumed, teacher, starts, tmp_path, monkeypatch
):
    trained = interrupted_and_resumed[0] / "parts" / "round-0" / "student"

    def as_before(data, head, trunk, config, out, **rest):
        shutil.copytree(trained, out, dirs_exist_ok=True)
        return {"steps": 6}

    monkeypatch.setattr(student, "fit", as_before)
    labelled = label.run(
        label.Options(data=str(starts), model=str(teacher), head="metals"), tmp_path / "labelled"
    )
    loose = {"forces_rmse": 1e6}
    given = options(teacher, starts, criterion=loose, rounds=5, data=labelled["data"], guards={"steps": 0})
    result = distill.run(given, tmp_path / "out")
    assert result["converged"] is True
    assert len(result["rounds"]) == 2  # in a row
    assert result["true_labels"]["teacher"]["forces_rmse"] < 1e-5
    assert result["true_labels"]["student"]["forces_rmse"] > 1e-5


def test_a_run_that_did_not_converge_goes_on_with_a_larger_budget(
    interrupted_and_resumed, teacher, starts, tmp_path, monkeypatch
):
    out, before, _ = interrupted_and_resumed
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    assert "--resume --rounds" in distill.tables.summary(before)
    original = distill.Rounds.run

    def stopped_in_the_third(self, r):
        if r == 2:
            raise KeyboardInterrupt
        return original(self, r)

    def a_third(self, r):
        if r < 2:
            return original(self, r)
        shutil.copytree(self.folder(1), self.folder(2))
        return {**before["rounds"][1], "round": 3}

    larger = options(teacher, starts, resume=True, rounds=3)
    monkeypatch.setattr(distill.Rounds, "run", stopped_in_the_third)
    with pytest.raises(Interrupted):
        distill.run(larger, copy)
    monkeypatch.setattr(distill.Rounds, "run", a_third)
    result = distill.run(larger, copy)
    assert [row["round"] for row in result["rounds"]] == [1, 2, 3]
    assert result["rounds"][:2] == before["rounds"]
    with pytest.raises(UserError, match=r"other options \(n_frames\)"):
        distill.run(options(teacher, starts, resume=True, n_frames=7), copy)


def test_any_ase_calculator_teaches(interrupted_and_resumed, starts, tmp_path, monkeypatch):
    trained = interrupted_and_resumed[0] / "parts" / "round-0" / "student"
    heads = []

    def as_before(data, head, trunk, config, out, **rest):
        heads.append(head)
        shutil.copytree(trained, out, dirs_exist_ok=True)
        return {"steps": 6}

    monkeypatch.setattr(student, "fit", as_before)
    emt = "ase.calculators.emt:EMT"
    labelled = label.run(label.Options(data=str(starts), calculator=emt), tmp_path / "labelled")["data"]
    changes = {"teacher": None, "head": None, "rounds": 1, "guards": {"steps": 0}, "data": labelled}
    result = distill.run(options("", starts, **changes, calculator=emt), tmp_path / "out")
    assert result["true_labels"]["teacher"]["forces_rmse"] < 1e-9
    assert result["true_labels"]["student"]["forces_rmse"] > 1e-3
    assert result["head"] == heads[0].name == "student"
    assert set(heads[0].elements) == {"Al", "Cu"}
    data = open_dataset(tmp_path / "out" / "data" / "train")
    assert data.facts.level_of_theory.functional == "ase.calculators.emt:EMT"
    atoms = to_atoms(data.frame(0))
    atoms.calc = EMT()
    np.testing.assert_allclose(data.frame(0).forces, atoms.get_forces(), atol=1e-5)
    assert result["rounds"][0]["redundancy"] is not None  # chosen by entropy: EMT has no features


@pytest.mark.slow
def test_a_deeppot_student_ends_with_an_input_for_lammps(teacher, starts, tmp_path):
    small = {"version": "deeppot-se", "cutoff": 4.0, "embedding": [4, 8], "axis": 4, "fitting": [8, 8]}
    given = options(teacher, starts, student=small, rounds=1, guards={"steps": 0})
    result = distill.run(given, tmp_path / "out")
    text = Path(result["lammps"]).read_text()
    assert "pair_style      deepmd student.pb" in text
    assert (tmp_path / "out" / "lammps" / "student.dp").is_file()
    assert "in.lammps" in distill.tables.summary(result)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "nowhere"}, "no such checkpoint"),
        ({"head": None}, "several heads"),
        ({"head": "metal"}, "Did you mean 'metals'"),
        ({"head": "water"}, "head 'water' .* knows H, O"),
        ({"starts": ["nowhere.xyz"]}, "nowhere.xyz: no such file"),
        (
            {"starts": [SILICON], "teacher": None, "head": None, "calculator": "ase.calculators.emt:EMT"},
            r"silicon.xyz, frame 0 \(Si\): the teacher ase.calculators.emt:EMT cannot do it \(NotImpl",
        ),
        (
            {"starts": [], "teacher": None, "head": None, "calculator": "ase.calculators.emt:EMT"},
            "an ASE calculator does not bring any; --starts",
        ),
        ({"data": SILICON}, "holds Si, which no starting structure does"),
        ({"train": {**TRAIN, "loss": {"atom_energy": 1.0}}}, "no energies of single atoms"),
    ],
)
def test_wrong_input_is_explained(teacher, starts, tmp_path, changes, message):
    ase.io.write(tmp_path / SILICON, bulk("Si"))
    path = str(tmp_path / SILICON)
    changes = {k: {SILICON: path}.get(str(v), [path] if v == [SILICON] else v) for k, v in changes.items()}
    with pytest.raises(UserError, match=message):
        distill.run(options(teacher, starts, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()  # the corrected command can use the same folder


def test_command_line_reports_wrong_options_with_the_cure(teacher, starts, tmp_path, capsys):
    flags = ["distill", "--teacher", str(teacher), "--starts", str(starts), "--out", str(tmp_path / "out")]
    assert main([*flags, "--head", "metals", "--student", "orb-narow"]) == 2
    assert "Did you mean 'orb-narrow'" in capsys.readouterr().err
    assert main([*flags, "--temperatures", "hot"]) == 2
    assert "300,600" in capsys.readouterr().err
    assert main([*flags, "--set", "train.max_step=5"]) == 2
    assert "Did you mean 'max_steps'" in capsys.readouterr().err
    assert main(["distill", "--out", str(tmp_path / "out"), "--resume"]) == 2
    assert "no run to resume" in capsys.readouterr().err


def test_later_rounds_have_frames_to_choose_among_where_none_is_new(starts, tmp_path, monkeypatch):
    old = from_atoms(bulk("Cu", cubic=True), energy=0.0, forces=np.zeros((4, 3)))
    write_data([old], tmp_path / "parts" / "round-0" / "label" / "data", engine_of(EMT()), "taken")
    insane = from_atoms(Atoms("Cu2", [[0, 0, 0], [0, 0, 0.5]]))
    monkeypatch.setattr(distill.Rounds, "_candidates", lambda self, r: FrameList([old, insane, *[old] * 8]))
    emt = {"teacher": None, "head": None, "calculator": "ase.calculators.emt:EMT", "n_frames": 3}
    given = options("", starts, **emt, checked=2.0)
    rounds = distill.Rounds(given, tmp_path, SimpleNamespace(features=None), [], np.arange(1), None)
    found = rounds._select(1)["indices"]
    assert len(set(found)) == 2 * 3
    assert 1 not in found
    assert rounds._select(1)["indices"] == found


def test_temperatures_of_the_tests_are_not_trained_at():
    assert distill.Options(temperatures=[300.0, 600.0, 900.0]).test_temperatures() == [750.0]
    assert distill.Options(temperatures=[400.0]).test_temperatures() == [500.0]
    assert distill.Options(heldout={"temperatures": [1000.0]}).test_temperatures() == [1000.0]
    assert distill.Options(temperatures=[[300.0, 900.0, 300.0]]).test_temperatures() == [1125.0]
    assert distill.Options(temperatures=[[300.0, 500.0], 900.0]).test_temperatures() == [700.0]
    with pytest.raises(ValueError, match="600 K is trained at as well"):
        distill.Options(temperatures=[[300.0, 900.0]], heldout={"temperatures": [600.0]})
    with pytest.raises(ValueError, match="300 K is trained at as well"):
        distill.Options(temperatures=[300.0], heldout={"temperatures": [300.0]})


def test_structures_that_test_are_not_trained_on_where_there_are_enough():
    for total, n in ((10, 3), (5, 3), (4, 3)):
        held, pool = distill._dealt(np.arange(total), n)
        assert len(held) == n
        assert not set(held) & set(pool)
        assert set(held) | set(pool) == set(range(total))
        assert len(pool) >= total / 2
    for total in (1, 2, 3):
        held, pool = distill._dealt(np.arange(total), 3)
        assert len(held) == 3
        assert set(held) == set(pool) == set(range(total))


@pytest.mark.parametrize(
    ("met", "guards", "wanted", "done"),
    [
        ([True], True, 2, False),
        ([True, True], True, 2, True),
        ([True, False, True], True, 2, False),
        ([False, True], True, 1, True),
        ([True, True], False, 2, False),
        ([True, True], None, 2, True),
    ],
)
def test_convergence_is_two_good_rounds_in_a_row_and_sound_md(met, guards, wanted, done):
    rows = [{"met": m, "guards": None if guards is None else {"passed": guards}} for m in met]
    assert converged(rows, wanted) is done


def test_train_defaults_stay_where_only_one_key_is_given():
    given = distill.Options(train={"max_steps": 7})
    assert given.train.max_steps == 7
    assert given.train.batch_atoms == distill.DEFAULT_TRAIN["batch_atoms"]


def test_the_default_student_stays_where_only_one_key_is_given():
    changed, default = distill.Options(student={"cutoff": 7.0}).student, distill.Options().student
    assert changed.cutoff == 7.0
    assert changed.model_copy(update={"cutoff": default.cutoff}) == default


def test_frames_are_counted_over_all_sources():
    images = [from_atoms(a, step=i) for i, a in enumerate(tiny.metals(5))]
    sources = [FrameList(images[:2]), FrameList(images[2:])]
    assert [f.step for f in frames_at(sources, [4, 0, 2])] == [4, 0, 2]


def test_a_student_is_made_for_the_commonest_system_when_no_starts_are_named(tmp_path):
    from lamkit.data.dataset import write_dataset
    from lamkit.data.frame import formula, from_atoms
    from lamkit.stages.teacher import one_system

    images = [from_atoms(a, group=str(i)) for i, a in enumerate([*tiny.waters(3), *tiny.metals(2)])]
    write_dataset(images, tmp_path / "mixed")
    view = one_system(str(tmp_path / "mixed"))
    assert {formula(view.frame(i)) for i in range(len(view))} == {"H2O"}
    assert len(view) == 3
