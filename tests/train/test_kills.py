"""kill -9 at any moment: the run that is resumed ends with the same bits as one that was left alone."""

import json
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_run import command
from toy_data import FAST

KILLS, STEPS = 20, 300


def resume(out):
    return [sys.executable, "-m", "lamkit", "pretrain", "--out", str(out), "--resume"]


def step_of(out):
    """Step of the newest checkpoint that is in its place."""
    try:
        return json.loads((out / "checkpoints/last/state.json").read_text())["step"]
    except FileNotFoundError:  # none yet, or in the instant in which one is replaced
        return 0


@pytest.mark.slow
def test_fine_tuning_with_replay_killed_while_it_explores_and_while_it_trains_ends_the_same(
    emt_data, tmp_path
):
    base, whole, broken = tmp_path / "base", tmp_path / "whole", tmp_path / "broken"
    subprocess.run(command(emt_data, base), check=True, capture_output=True)

    def tune(out):
        words = [
            sys.executable,
            "-m",
            "lamkit",
            "finetune",
            "--head=ag",
            f"--from={base}",
            f"--data={emt_data['ag']}",
        ]
        words += [f"--out={out}", "--tune=lora=2", "--replay", "--set=replay.n_frames=8"]
        words += ["--set=replay.temperatures=[300]"]
        return [
            *words,
            *(f"--set=train.{k}={v}" for k, v in {**FAST, "max_steps": 200, "save_every": 2}.items()),
        ]

    subprocess.run(tune(whole), check=True, capture_output=True)
    for moment in (
        broken / "replay/cu/explored",
        broken / "replay/cu/labelled",
        broken / "checkpoints/last/state.json",
        broken / "checkpoints/previous/state.json",
    ):
        words = tune(broken) if not (broken / "config.yaml").exists() else [*tune(broken), "--resume"]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 600
        while not moment.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        assert process.poll() is None, process.communicate()[1]
        process.kill()
        process.communicate()
    assert json.loads((broken / "checkpoints/last/state.json").read_text())["step"] < 200
    subprocess.run(
        [sys.executable, "-m", "lamkit", "finetune", f"--out={broken}", "--resume"],
        check=True,
        capture_output=True,
    )
    for name in ("model.safetensors", "optimizer.safetensors"):
        a, b = (load_file(run / "checkpoints/last" / name) for run in (whole, broken))
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    assert (whole / "lcurve.out").read_bytes() == (broken / "lcurve.out").read_bytes()
    results = [json.loads((run / "result.json").read_text()) for run in (whole, broken)]
    assert results[0]["retention"] == results[1]["retention"]


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(emt_data, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = (f"--set=train.max_steps={STEPS}", "--set=train.save_every=2", "--set=train.keep=2")
    began = time.monotonic()
    subprocess.run(command(emt_data, whole, *options), check=True, capture_output=True)
    taken = time.monotonic() - began
    rng, steps = random.Random(7), []
    for kill in range(KILLS):
        words = (
            command(emt_data, broken, *options) if not (broken / "config.yaml").exists() else resume(broken)
        )
        target = step_of(broken) + rng.randint(1, 2 * STEPS // KILLS)
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + (
            rng.uniform(0.1, taken) if kill % 4 == 0 else 5 * taken
        )  # some as they start
        while step_of(broken) < target and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        if kill % 4 == 3:  # and a quarter of them while a checkpoint is being written
            while not any((broken / "checkpoints").glob(".*.tmp")) and process.poll() is None:
                time.sleep(0.0002)
        else:
            time.sleep(rng.uniform(0, 0.05))
        if process.poll() not in (None, 0):
            pytest.fail(process.communicate()[1])
        process.kill()
        process.communicate()
        steps.append(step_of(broken))
    print("steps at which it was killed:", steps, file=sys.stderr)
    assert steps[KILLS // 2] < STEPS, "the run was over before it could be killed often"
    damaged = broken / "checkpoints/last/optimizer.safetensors"
    if damaged.exists():  # not in the instant in which it is replaced
        damaged.write_bytes(damaged.read_bytes()[:-100])  # and a disk lost the end of a file: it falls back
    subprocess.run(resume(broken), check=True, capture_output=True)
    for name in ("model.safetensors", "optimizer.safetensors"):
        for which in ("last", f"step-{STEPS - 2}") if name == "model.safetensors" else ("last",):
            a, b = (load_file(run / "checkpoints" / which / name) for run in (whole, broken))
            assert a.keys() == b.keys()
            for key in a:
                np.testing.assert_array_equal(a[key], b[key], err_msg=f"{which}: {key}")
    assert (whole / "lcurve.out").read_bytes() == (broken / "lcurve.out").read_bytes()
    assert not list((broken / "checkpoints").glob(".*"))
    # And once more, when all is done: nothing is added.
    subprocess.run(resume(broken), check=True, capture_output=True)
    assert (whole / "lcurve.out").read_bytes() == (broken / "lcurve.out").read_bytes()
