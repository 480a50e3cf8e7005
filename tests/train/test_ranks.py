"""Several processes that train together, and one that does their work alone."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from toy_data import FAST, TINY

from lamkit.cli import main
from lamkit.stages import pretrain
from lamkit.train import checkpoint, launch

TRUNK = {**TINY, "output": "direct"}  # compiles in a fraction of the time; gradients are summed alike
CHOICES = {
    **FAST, "max_steps": 50, "save_every": 20, "valid_every": 25, "learning_rate": 0.003, "normalizers": "online",
    "loss": {"kind": "mse", "units": "physical", "intensive": False, "limit": {"energy": 1.0, "forces": 1.0}},
}  # fmt: skip


def command(emt_data, out, *more, **train):
    words = [sys.executable, "-m", "lamkit", "pretrain", "--multitask", "--out", str(out)]
    words += [f"--data={k}={emt_data[k]}" for k in ("cu", "alloy")]
    words += [f"--set=trunk.{k}={v}" for k, v in TRUNK.items()]
    words += [f"--set=train.{k}={json.dumps(v)}" for k, v in {**CHOICES, **train}.items()]
    return [*words, *more]


@pytest.fixture(scope="module")
def pair(emt_data, tmp_path_factory):
    """One run on two ranks, and one that accumulates the same two batches per step in one process."""
    root = tmp_path_factory.mktemp("ranks")
    alone, together = root / "alone", root / "together"
    done = subprocess.run(
        command(emt_data, together, "--ranks", "2", "--json"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    options = pretrain.Options(
        data={k: str(emt_data[k]) for k in ("cu", "alloy")}, trunk=TRUNK, train={**CHOICES, "accumulate": 2}
    )
    return alone, together, pretrain.run(options, alone), json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_two_ranks_are_one_rank_with_the_same_global_batch(pair):
    alone, together, _, _ = pair
    for name in ("model.safetensors", "optimizer.safetensors"):
        a, b = (load_file(run / "checkpoints" / "last" / name) for run in (alone, together))
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_allclose(
                a[key], b[key], rtol=0, atol=1e-6 * max(1, np.abs(a[key]).max()), err_msg=key
            )


@pytest.mark.slow
def test_there_is_one_log_and_one_curve_that_count_all_ranks(pair):
    alone, together, one, two = pair
    a, b = (np.genfromtxt(run / "lcurve.out") for run in (alone, together))
    np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6)
    assert two["ranks"] == 2
    assert two["steps"] == one["steps"] == 50
    assert two["heads"]["cu"]["forces_rmse"] == pytest.approx(one["heads"]["cu"]["forces_rmse"], rel=1e-3)
    states = [json.loads((run / "checkpoints/last/state.json").read_text()) for run in (alone, together)]
    assert states[0]["sampler"] == states[1]["sampler"]
    assert states[0]["draws"] == states[1]["draws"]
    assert sum(states[0]["draws"]) == 100
    assert (together / "train.log").read_text().count("validation ") == 3


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_run_with_a_message_and_a_resumed_one_ends_with_the_same_bits(
    pair, emt_data, tmp_path
):
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(emt_data, out, "--ranks", "2"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_for(out / "lcurve.out", process)
    victim = rank_of(out, 1)
    wait_for(out / "checkpoints/last/state.json", process)
    os.kill(victim, signal.SIGKILL)
    _, text = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.search(r"rank 1 died of SIGKILL .*--resume", text, re.S)
    assert checkpoint.read(out / "checkpoints/last").state["step"] in (20, 40)
    resumed = [sys.executable, "-m", "lamkit", "pretrain", "--out", str(out), "--resume"]
    subprocess.run(resumed, check=True, capture_output=True)
    for name in ("model.safetensors", "optimizer.safetensors"):
        a, b = (load_file(run / "checkpoints/last" / name) for run in (pair[1], out))
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    assert (pair[1] / "lcurve.out").read_bytes() == (out / "lcurve.out").read_bytes()


@pytest.mark.slow
def test_ctrl_c_lets_all_ranks_stop_after_the_same_step(emt_data, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(emt_data, out, "--ranks", "2", max_steps=100000, save_every=5),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(out / "checkpoints/last/state.json", process)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume" in text
    assert "Traceback" not in text
    assert checkpoint.read(out / "checkpoints/last").state["step"] > 0


@pytest.mark.slow
def test_two_machines_with_a_rank_each_do_what_one_machine_does_with_two(pair, emt_data, tmp_path):
    out, master = tmp_path / "run", f"127.0.0.1:{launch._free_port()}"
    machines = [
        subprocess.Popen(
            command(emt_data, out, "--ranks=2", "--nodes=2", f"--node={k}", f"--master={master}"),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for k in (1, 0)
    ]  # fmt: skip
    ends = [(process.communicate(timeout=300)[1], process.returncode) for process in machines]
    assert [code for _, code in ends] == [0, 0], ends
    a, b = (load_file(run / "checkpoints/last/model.safetensors") for run in (pair[1], out))
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    assert (out / "lcurve.out").read_bytes() == (pair[1] / "lcurve.out").read_bytes()
    assert (out / "train.log").read_text().count("validation ") == 3


def wait_for(path, process):
    end = time.monotonic() + 300
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    assert path.exists(), process.communicate()[1]


def rank_of(out, rank):
    """Process of a rank."""
    for folder in os.listdir("/proc"):
        if folder.isdigit():
            try:
                words = Path(f"/proc/{folder}/cmdline").read_bytes()
                variables = Path(f"/proc/{folder}/environ").read_bytes()
            except OSError:
                continue
            if str(out).encode() in words and f"MS_NODE_ID={rank}\0".encode() in variables:
                return int(folder)
    raise AssertionError("no such process")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--ranks 3 --nodes 2 --node 0 --master a:1", "must be a multiple of --nodes"),
        ("--nodes 2 --node 0 --master a:1", "1 ranks on 2 machines"),
        ("--ranks 2 --nodes 0", "2 ranks on 0 machines"),
        ("--ranks 4 --nodes 2 --node 2 --master a:1", "this one number 2"),
        ("--ranks 4 --nodes 2 --node 1", "need --master HOST:PORT"),
        ("--ranks 4 --nodes 2 --node 1 --master somewhere", "--master somewhere: expected HOST:PORT"),
        ("--ranks 4 --nodes 2 --node 1 --master a:99999", "--master a:99999: expected HOST:PORT"),
    ],
)
@pytest.mark.parametrize("verb", ["pretrain --multitask", "finetune --head pbesol_bnbzto"])
def test_ranks_that_do_not_fit_the_machines_are_refused_before_any_data_are_read(
    verb, flags, message, monkeypatch, tmp_path, capsys
):
    for name in ("NODES", "NODE", "MASTER"):  # main sets them; this puts back what was there
        monkeypatch.setenv(f"LAMKIT_{name}", "0")
        monkeypatch.delenv(f"LAMKIT_{name}")
    assert main([*verb.split(), *flags.split(), "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_each_rank_of_a_machine_has_an_accelerator_of_its_own(monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(launch.subprocess, "Popen", lambda command, env, **_: started.append(env))
    team = launch._Team(tmp_path, {})
    team.start(4, 0, [])
    team.start(5, 1, [])
    assert [(e["MS_NODE_ID"], e["DEVICE_ID"]) for e in started] == [("4", "0"), ("5", "1")]
