"""Whole training runs, small: learning, stopping, resuming, fine-tuning."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file
from toy_data import FAST, TINY, make_dataset

from lamkit import config
from lamkit.errors import Interrupted, LamkitError, UserError
from lamkit.stages import finetune, pretrain, rebias
from lamkit.train import checkpoint, normalizing
from lamkit.train import start as begin
from lamkit.train.judge import Judge
from lamkit.train.stepper import Stepper, Taken


@pytest.fixture(scope="module")
def trained(emt_data, tmp_path_factory):
    """A run of two heads long enough to have learned something."""
    out = tmp_path_factory.mktemp("runs") / "pretrain"
    options = pretrain.Options(
        data={k: str(emt_data[k]) for k in ("cu", "alloy")},
        trunk=TINY,
        train={**FAST, "max_steps": 150, "valid_every": 50, "save_every": 100},
    )
    return out, pretrain.run(options, out)


def test_training_lowers_the_force_error_of_every_head(trained):
    out, result = trained
    rows = [line.split(",") for line in (out / "metrics.csv").read_text().splitlines()[1:]]
    for head in ("cu", "alloy"):
        forces = [float(r[6]) for r in rows if r[1] == head]
        assert forces[-1] < 0.8 * forces[0]
        assert result["heads"][head]["forces_rmse"] * 1000 == pytest.approx(min(forces), rel=0.2)


def test_the_run_folder_has_what_it_promises(trained):
    out, _ = trained
    for name in ("config.yaml", "versions.json", "lcurve.out", "metrics.csv", "train.log", "result.json"):
        assert (out / name).stat().st_size > 0, name
    for name in ("best", "last"):
        assert checkpoint.read(out / "checkpoints" / name).heads == ("cu", "alloy")


def test_the_plan_is_printed_before_the_first_step(trained):
    text = (trained[0] / "train.log").read_text()
    plan, first = text.index("plan: 150 steps, one batch each"), text.index("validation ")
    assert plan < first
    columns = text[plan:first].splitlines()[1].split()
    assert {"chance", "batches", "epochs"} <= set(columns)


def test_reference_energies_belong_to_their_head(trained):
    found = checkpoint.read(trained[0])
    assert found.elements == {"cu": ["Cu"], "alloy": ["Cu", "Ag"]}
    assert found.references["alloy"][29] - found.references["cu"][29] == pytest.approx(-100, abs=1)


def test_a_run_can_be_repeated_from_its_folder_alone(trained):
    data, _ = config.read_yaml(trained[0] / "config.yaml")
    data.pop("verb")
    options = config.parse(pretrain.Options, data)
    assert options.train.max_steps == 150
    assert options.trunk.latent == TINY["latent"]


def command(emt_data, out, *more):
    train = [f"--set=train.{k}={v}" for k, v in {**FAST, "max_steps": 40, "save_every": 5}.items()]
    trunk = [f"--set=trunk.{k}={v}" for k, v in TINY.items()]
    data = [f"--data={k}={emt_data[k]}" for k in ("cu", "alloy")]
    base = [sys.executable, "-m", "lamkit", "pretrain", "--multitask", "--out", str(out)]
    return [*base, *data, *trunk, *train, *more]


def writing(run):
    """Whether a checkpoint is being written under a temporary name."""
    return any((run / "checkpoints").glob(".last.*.tmp"))


def test_a_run_killed_and_resumed_equals_one_that_was_not(emt_data, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    choices = ("--set=train.loss.kind=orb-huber", "--set=train.normalizers=online")
    subprocess.run(command(emt_data, whole, *choices), check=True, capture_output=True)
    process = subprocess.Popen(
        command(emt_data, broken, *choices), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    state = broken / "checkpoints" / "last" / "state.json"
    while not (state.exists() and writing(broken)) and process.poll() is None:
        time.sleep(0.0005)  # so the kill falls into the writing of a checkpoint
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads(state.read_text())["step"] < 40, "the run was over before it could be killed"
    subprocess.run(
        [sys.executable, "-m", "lamkit", "pretrain", "--out", str(broken), "--resume"],
        check=True, capture_output=True,
    )  # fmt: skip
    for name in ("model.safetensors", "optimizer.safetensors"):
        a, b = (load_file(run / "checkpoints" / "last" / name) for run in (whole, broken))
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    assert (whole / "lcurve.out").read_text() == (broken / "lcurve.out").read_text()
    state = json.loads((whole / "checkpoints/last/state.json").read_text())
    weights = load_file(whole / "checkpoints/last/model.safetensors")
    for head, steps in zip(("cu", "alloy"), state["head_steps"], strict=True):
        counted = weights[f"heads.{head}.grad_forces_normalizer.bn.num_batches_tracked"]
        assert counted == normalizing.START_COUNT + steps  # online: each batch was counted


def test_ctrl_c_saves_and_says_how_to_go_on(emt_data, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(emt_data, out, "--set=train.max_steps=100000", "--set=train.save_every=1"),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (out / "checkpoints" / "last").exists() and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in text
    assert "Traceback" not in text
    assert checkpoint.read(out / "checkpoints" / "last").state["step"] > 0


def test_ctrl_c_before_the_first_step_says_how_to_go_on(emt_data, tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lamkit.train.run.Trainer", stopped)
    options = pretrain.Options(data={"cu": str(emt_data["cu"])}, trunk=TINY, train=FAST)
    with pytest.raises(Interrupted, match=r"lamkit pretrain --multitask --out '.*/my run' --resume goes on"):
        pretrain.run(options, tmp_path / "my run")
    assert (tmp_path / "my run" / "config.yaml").is_file()  # which --resume needs


def test_ctrl_c_in_the_first_validation_stops_after_the_first_step(emt_data, tmp_path, monkeypatch):
    monkeypatch.setattr(Stepper, "__call__", lambda *_: Taken([(1.0,) * 5], 0.0, over=False, stop=False))
    monkeypatch.setattr(Judge, "validate", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    options = pretrain.Options(data={"cu": str(emt_data["cu"])}, trunk=TINY, train=FAST)
    with pytest.raises(Interrupted, match=r"saved at step 1; go on with .* --resume"):
        pretrain.run(options, tmp_path / "run")
    assert checkpoint.read(tmp_path / "run/checkpoints/last").state["step"] == 1


def test_wrong_options_leave_no_trace_in_the_folder(emt_data, tmp_path, monkeypatch):
    def wrong(*_):
        (tmp_path / "run" / "lcurve.out").write_text("#\n")
        raise UserError("wrong")

    def call(resume):
        options = pretrain.Options(data={"cu": str(emt_data["cu"])}, trunk=TINY, train=FAST, resume=resume)
        with pytest.raises(UserError, match="wrong"):
            pretrain.run(options, tmp_path / "run")

    monkeypatch.setattr("lamkit.train.run.Trainer", wrong)
    call(resume=False)
    assert list((tmp_path / "run").iterdir()) == []  # so the corrected command may use it
    (tmp_path / "run/checkpoints/last").mkdir(parents=True)
    (tmp_path / "run/config.yaml").write_text("as it was")
    call(resume=True)
    assert (tmp_path / "run/config.yaml").read_text() == "as it was"  # so the run can still go on


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_batch(emt_data, tmp_path, monkeypatch):
    nothing = (float("nan"), float("nan"), 1.0, 1.0, 1.0)
    monkeypatch.setattr(Stepper, "__call__", lambda *_: Taken([nothing], 0.0, over=False, stop=False))
    monkeypatch.setattr(Judge, "validate", lambda *_: False)  # nothing has to be compiled
    options = pretrain.Options(data={"cu": str(emt_data["cu"])}, trunk=TINY, train=FAST)
    with pytest.raises(LamkitError, match=r"(?s)loss became nan.* at step 0, head cu\..*Likely cause"):
        pretrain.run(options, tmp_path / "run")
    assert (tmp_path / "run" / "diverged-batch-0.npz").stat().st_size > 0
    assert "frame" in (tmp_path / "run" / "diverged-batch-0.txt").read_text()


def test_denoising_trains_the_trunk_and_leaves_no_head_behind(trained, emt_data, tmp_path):
    train = {**FAST, "max_steps": 1, "learning_rate": 1e-9, "valid_every": 1, "denoise": {}}
    options = pretrain.Options(
        data={"cu": str(emt_data["cu"])}, trunk=TINY, init=str(trained[0]), train=train
    )
    result = pretrain.run(options, tmp_path / "denoised")
    start, new = checkpoint.read(trained[0]), checkpoint.read(tmp_path / "denoised")
    assert new.heads == ("cu-denoise",)
    assert result["heads"]["cu-denoise"]["energy_rmse"] is None  # no label is read
    for name, value in start.weights.items():
        if not name.startswith("heads."):
            np.testing.assert_allclose(new.weights[name], value, atol=1e-6)
    labelled = SimpleNamespace(config=options.train, tasks=[SimpleNamespace(train=None)])
    with pytest.raises(UserError, match="only 'lamkit pretrain' trains on noise"):
        begin.refuse_unfit(labelled)


def test_fine_tuning_starts_where_the_head_was_and_keeps_the_others(trained, emt_data, tmp_path):
    start = checkpoint.read(trained[0])
    shifted = make_dataset(tmp_path / "cu", ["Cu"], 24, seed=1, shift=7.0)
    options = finetune.Options(head="cu", checkpoint=str(trained[0]), data=str(shifted), train=FAST)
    result = finetune.run(options, tmp_path / "tuned")
    new = checkpoint.read(tmp_path / "tuned")
    assert sorted(new.heads) == ["alloy", "cu"]
    for name, value in start.weights.items():
        if name.startswith("heads.alloy."):
            np.testing.assert_array_equal(new.weights[name], value)
    np.testing.assert_array_equal(new.references["alloy"], start.references["alloy"])
    # 7 eV per atom more: all of it goes into the reference (with the model's own mean error, some 0.1 eV here),
    # so step 0 is as good as the base model
    assert new.references["cu"][29] - start.references["cu"][29] == pytest.approx(7.0, abs=0.2)
    first = (tmp_path / "tuned" / "metrics.csv").read_text().splitlines()[1].split(",")
    assert float(first[3]) < 1.5 * 1000 * trained[1]["heads"]["cu"]["energy_mae"] + 5
    assert result["began_as"] == "cu"


def test_a_new_head_begins_as_the_one_that_fits_best(trained, emt_data, tmp_path):
    options = finetune.Options(head="ag", checkpoint=str(trained[0]), data=str(emt_data["ag"]), train=FAST)
    result = finetune.run(options, tmp_path / "tuned")
    assert result["began_as"] == result["ranking"][0]["head"] == "alloy"  # the only head that has seen silver
    assert checkpoint.read(tmp_path / "tuned").heads == ("ag", "cu", "alloy")


def test_rebias_moves_the_reference_only(trained, tmp_path):
    start = checkpoint.read(trained[0])
    shifted = make_dataset(tmp_path / "cu", ["Cu"], 24, seed=1, shift=-3.0)
    options = rebias.Options(checkpoint=str(trained[0]), head="cu", data=str(shifted))
    result = rebias.run(options, tmp_path / "new")
    new = checkpoint.read(tmp_path / "new")
    assert result["reference"]["Cu"] - start.references["cu"][29] == pytest.approx(-3.0, abs=0.2)
    for name, value in start.weights.items():
        np.testing.assert_array_equal(new.weights[name], value)


def test_nan_labels_are_refused_before_anything_is_written(emt_data, tmp_path):
    import shutil

    bad = tmp_path / "bad"
    shutil.copytree(emt_data["cu"], bad)
    [file] = bad.rglob("force.npy")
    forces = np.load(file)
    forces[3, 2] = np.nan
    np.save(file, forces)
    out = tmp_path / "run"
    with pytest.raises(UserError, match=r"force\.npy, row 3: NaN"):
        pretrain.run(pretrain.Options(data={"cu": str(bad)}, trunk=TINY, train=FAST), out)
    assert not (out / "checkpoints").exists()


def test_a_folder_that_cannot_be_written_is_one_message(emt_data):
    done = subprocess.run(command(emt_data, "/sys/lamkit"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "/sys/lamkit: cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_few_shot_runs_use_the_same_frames_with_and_without_pretraining(emt_data):
    from lamkit.data.heads import HeadConfig
    from lamkit.train.tasks import make_task

    head = HeadConfig(name="cu", level_of_theory={"method": "empirical", "functional": "EMT"})
    tasks = [make_task("cu", emt_data["cu"], head, valid_fraction=0.2, seed=4, n_frames=5) for _ in range(2)]
    assert len(tasks[0].train) == 5
    np.testing.assert_array_equal(tasks[0].train.indices, tasks[1].train.indices)
    assert not set(tasks[0].train.indices) & set(tasks[0].valid.indices)
