"""Stages sent away through dpdispatcher: to a shell of this machine, and to a real Slurm of one node."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import slurm
from shop import HERE, REPO, Shop

from lamkit.errors import UserError
from lamkit.workflow import cluster, journal

FLOW = """\
name: away
stages:
  wheel:
    stage: label
    with: {diary: "${here}/diary", n: 6, reads: "${here}/input.txt"}
"""
SHELL = """\
machine: {batch_type: Shell, context_type: LocalContext, remote_root: %s, retry_count: 1}
resources: {group_size: 3}
poll_seconds: 0.3
"""


@pytest.fixture
def away(tmp_path: Path) -> Shop:
    """A workflow whose stage has six parts, and a cluster file for two jobs of three parts each."""
    shop = Shop(tmp_path)
    shop.write(FLOW)
    (tmp_path / "input.txt").write_text("!")
    (tmp_path / "far").mkdir()
    (tmp_path / "cluster.yaml").write_text(SHELL % (tmp_path / "far"))
    return shop


def times(shop: Shop) -> Counter[str]:
    """How often each part was done."""
    return Counter(line.split()[0] for line in shop.diary())


def test_a_failure_of_the_program_is_told_and_not_tried_again_and_the_rest_is_kept(away: Shop) -> None:
    away.edit("n: 6,", "n: 6, wrong: 4,")
    said = away.run("--on", "cluster.yaml", code=2)
    assert "wheel: failed: part-4 has no spokes" in said
    assert times(away) == dict.fromkeys(["part-0", "part-1", "part-2", "part-3", "part-4"], 1)
    assert {p.name for p in (away.out / "wheel" / "parts").glob("*.npz")} >= {
        f"part-{k}.npz" for k in range(3)
    }
    events = journal.read(away.out / journal.NAME)
    (submitted,) = [e for e in events if e["event"] == "submitted"]
    assert (submitted["jobs"], submitted["machine"]) == (2, "Shell")
    assert len(submitted["submission"]) == 40
    assert list((away.home / "far").iterdir()) == []
    assert not (away.home / "dpdispatcher.log").exists()


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "machine: {batch_type: Slrum}",
            r"batch_type of label: 'Slrum' is no scheduler.*Did you mean 'Slurm'",
        ),
        ("machine: {batch_type: Slurm, contxt_type: SSHContext}", "machine of label: .*context_type"),
        (
            "machine: {batch_type: Shell, context_type: LocalContext, remote_root: x}\nresources: {cpus: 3}",
            "cpus",
        ),
        ("machine: m.json\nstages: {lable:}", r"no kind of stage 'lable'. Did you mean 'label'"),
        ("machne: m.json", "machne: unknown key. Did you mean 'machine'"),
        ("machine: none.json", "none.json: no such file"),
        ("machine: m.json\nforward: [gone.py]", "forward: gone.py: no such file"),
    ],
)
def test_mistakes_in_a_cluster_file_are_told_before_anything_runs(
    tmp_path: Path, text: str, message: str
) -> None:
    machine = {"batch_type": "Shell", "context_type": "LocalContext", "remote_root": "x", "local_root": "./"}
    (tmp_path / "m.json").write_text(json.dumps({"machine": machine}))
    (tmp_path / "cluster.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        cluster.read_cluster(tmp_path / "cluster.yaml")


def test_keys_of_a_kind_replace_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(
        SHELL % "x" + "stages:\n  train: {resources: {gpu_per_node: 1}}\n  label:\n"
    )
    read = cluster.read_cluster(tmp_path / "cluster.yaml")
    assert read.kind_of("finetune") == "train"
    assert read.kind_of("explore") is None
    assert read.places["train"].resources == {"group_size": 3, "gpu_per_node": 1}
    assert read.places["label"].resources == {"group_size": 3}


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory):
    """Slurm with one node, for the tests of this file."""
    if reason := slurm.why_not():
        pytest.skip(f"no Slurm: {reason}")
    try:
        running = slurm.Slurm(tmp_path_factory.mktemp("slurm") / "root").__enter__()
    except RuntimeError as error:
        pytest.skip(f"no Slurm: {error}")
    yield running
    running.__exit__()


CALCULATOR = """\
import os, time
from ase.calculators.emt import EMT

class Slow(EMT):
    def calculate(self, atoms=None, *rest):
        with open(os.environ["DIARY"], "a") as stream:
            stream.write(f"{atoms.cell[0, 0]:.3f}\\n")
        time.sleep(float(os.environ.get("PAUSE", "0")))
        super().calculate(atoms, *rest)

def slow():
    return Slow()
"""
TRAINING = """\
name: chain
stages:
  label:
    stage: label
    with: {data: "${here}/copper.extxyz", calculator: "slow_emt:slow", chunk: 1}
  parts:
    stage: split
    with: {data: "${label}/data", by: random, valid: 0.25}
  train:
    stage: pretrain
    with:
      trunk: {version: v3, latent: 8, hidden: 8, layers: 1, head_hidden: 8, cutoff: 3.5, lmax: 0, repulsion: false}
      data: {copper: "${parts}"}
      train: {max_steps: 4, batch_atoms: 16, valid_every: 2, valid_frames: 2, save_every: 2, warmup_steps: 1,
              preset: sample-pretrain}
"""
SLURM = """\
machine: {batch_type: Slurm, context_type: LocalContext, remote_root: %s, remote_profile: {symlink: false}}
resources: {queue_name: main, cpu_per_node: 1, group_size: 4}
forward: [slow_emt.py]
poll_seconds: 0.5
"""


def copper(home: Path, n: int) -> None:
    """Cells of copper, each of another size."""
    import ase.io
    from ase.build import bulk

    frames = [bulk("Cu", cubic=True, a=3.5 + 0.01 * k) for k in range(n)]
    for k, frame in enumerate(frames):
        frame.rattle(0.02, seed=k)
    ase.io.write(home / "copper.extxyz", frames)


def test_labels_and_training_through_slurm_survive_a_cancelled_job_and_a_killed_submitter(
    scheduler: slurm.Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lamkit.data.dataset import open_dataset

    shop, n = Shop(tmp_path), 8
    shop.write(TRAINING)
    copper(tmp_path, n)
    (tmp_path / "slow_emt.py").write_text(CALCULATOR)
    (tmp_path / "far").mkdir()
    (tmp_path / "cluster.yaml").write_text(SLURM % (tmp_path / "far"))
    monkeypatch.setenv("DIARY", str(tmp_path / "diary"))
    monkeypatch.setenv("PAUSE", "1")

    first = shop.start("run", "flow.yaml", "--out", "out", "--on", "cluster.yaml", here=True)
    wait_for(lambda: len(shop.diary()) >= 3)
    cancelled = scheduler.jobs("R")[0]
    scheduler.cancel(cancelled)
    wait_for(lambda: any(int(job) > int(cancelled) + 1 for job in scheduler.jobs()))  # sent again
    first.kill()
    first.communicate()
    assert scheduler.jobs(), "the jobs go on without the machine that sent them"

    monkeypatch.setenv("PAUSE", "0")
    second = shop.start("run", "flow.yaml", "--out", "out", "--on", "cluster.yaml", here=True)
    _, said = second.communicate(timeout=240)
    assert second.returncode == 0, said + (shop.out / "label" / "stage.log").read_text()
    assert len(open_dataset(shop.out / "label" / "data")) == n
    done = Counter(shop.diary())
    assert len(done) == n
    assert sum(done.values()) <= n + 1, "only the frame that the cancelled job had in hand is done twice"
    assert (shop.out / "train" / "checkpoints" / "last" / "model.safetensors").is_file()
    events = [e for e in journal.read(shop.out / journal.NAME) if e["event"] == "submitted"]
    assert len({e["submission"] for e in events if e["stage"] == "label"}) == 1
    assert [e["stage"] for e in events][-1] == "train"
    assert str(tmp_path / "far") not in (shop.out / "train" / "result.json").read_text()
    assert "nothing to do" in shop.start("run", "flow.yaml", "--out", "out", here=True).communicate()[1]


@pytest.mark.slow
def test_a_training_whose_job_is_cancelled_goes_on_from_its_checkpoint(
    scheduler: slurm.Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, far = Shop(tmp_path), tmp_path / "far"
    text = TRAINING.replace("max_steps: 4", "max_steps: 3000").replace("save_every: 2", "save_every: 20")
    shop.write(
        text.replace("valid_every: 2", "valid_every: 500").replace("slow_emt:slow", "ase.calculators.emt:EMT")
    )
    copper(tmp_path, 8)
    far.mkdir()
    text = (SLURM % far).replace("forward: [slow_emt.py]\n", "stages: {train: }\n")
    (tmp_path / "cluster.yaml").write_text(text)
    run = shop.start("run", "flow.yaml", "--out", "out", "--on", "cluster.yaml", here=True)
    wait_for(lambda: list(far.glob("*/*/out/checkpoints/last/state.json")), 200)
    (job,) = scheduler.jobs("R")
    scheduler.cancel(job)
    wait_for(lambda: scheduler.jobs() and job not in scheduler.jobs(), 60)
    _, said = run.communicate(timeout=400)
    assert run.returncode == 0, said
    log = (shop.out / "train" / "train.log").read_text()
    assert "resum" in log.lower() or "go on" in log.lower() or "goes on" in log.lower(), log
    assert "was lost by the scheduler; sent again" in (shop.out / "train" / "stage.log").read_text()
    state = json.loads((shop.out / "train" / "checkpoints" / "last" / "state.json").read_text())
    assert state["step"] == 3000


# Schedulers that cannot be installed here, played by scripts with the words of the real ones.
STAND_INS = {
    "PBS": {
        "qsub": 'setsid bash "$1" >/dev/null 2>&1 & echo $!; echo $! >> "$PIDS"',
        "qstat": 'echo "Job id Name User Time S Queue"; echo "--- --- --- --- - ---"\n'
        'if kill -0 $2 2>/dev/null; then s=R; else s=F; fi; echo "$2 job me 0 $s main"',
    },
    "LSF": {
        "bsub": 'cat > job.$$; setsid bash job.$$ >/dev/null 2>&1 & echo "Job <$!> is submitted to queue <main>."; '
        'echo $! >> "$PIDS"',
        "bjobs": 'echo "JOBID USER STAT QUEUE"\n'
        'if kill -0 $1 2>/dev/null; then s=RUN; else s=EXIT; fi; echo "$1 me $s main"',
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", sorted(STAND_INS))
def test_other_schedulers_by_stand_ins_and_a_lost_job_is_sent_again(
    away: Shop, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    (away.home / "bin").mkdir()
    for name, text in STAND_INS[scheduler].items():
        (away.home / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (away.home / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{away.home / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PIDS", str(away.home / "pids"))
    text = (away.home / "cluster.yaml").read_text().replace("batch_type: Shell", f"batch_type: {scheduler}")
    (away.home / "cluster.yaml").write_text(text)
    away.edit("n: 6,", "n: 6, pause: 0.5,")
    process = away.start_run("--on", "cluster.yaml")
    wait_for(lambda: away.diary())
    os.killpg(int((away.home / "pids").read_text().split()[0]), signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert len((away.home / "pids").read_text().split()) == 3
    assert set(times(away)) == {f"part-{k}" for k in range(6)}
    assert sum(times(away).values()) <= 7


@pytest.fixture
def ssh(tmp_path: Path):
    """An SSH server of this machine with keys of its own; gives dpdispatcher's words for it."""
    server = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if server is None or shutil.which("ssh-keygen") is None or os.geteuid() != 0:
        pytest.skip("no SSH server can be started (Debian: openssh-server, as root)")
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    port = slurm.free_port()
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": keys / "host", "PidFile": keys / "pid",
        "AuthorizedKeysFile": keys / "user.pub", "StrictModes": "no", "UsePAM": "no", "PermitRootLogin": "yes",
        "Subsystem": "sftp internal-sftp",
    }  # fmt: skip
    (keys / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    daemon = subprocess.Popen([server, "-D", "-f", keys / "config"], stderr=subprocess.DEVNULL)
    wait_for(lambda: _answers(port))
    yield {
        "hostname": "127.0.0.1",
        "username": "root",
        "port": port,
        "key_filename": str(keys / "user"),
        "timeout": 20,
    }
    daemon.terminate()
    daemon.wait(10)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_files_travel_by_ssh_and_come_back(away: Shop, ssh: dict[str, object]) -> None:
    machine = {
        "batch_type": "Shell", "context_type": "SSHContext", "remote_root": str(away.home / "far"),
        "remote_profile": ssh,
    }  # fmt: skip
    paths = os.pathsep.join(map(str, (HERE, REPO)))
    resources = {"group_size": 3, "envs": {"PYTHONPATH": paths}}
    cluster_file = {"machine": machine, "resources": resources, "poll_seconds": 0.5}
    (away.home / "cluster.yaml").write_text(json.dumps(cluster_file))
    said = away.run("--on", "cluster.yaml")
    assert "wheel: done" in said
    assert times(away) == {f"part-{k}": 1 for k in range(6)}
    assert (away.out / "wheel" / "product.txt").read_text() == ",".join(f"part-{k}!" for k in range(6))


@pytest.mark.slow
def test_a_job_that_is_lost_again_and_again_is_given_up_and_sent_anew_by_the_next_run(away: Shop) -> None:
    away.edit("n: 6,", "n: 6, pause: 0.3,")
    # each time the shell that runs part 4's job is killed, which looks like a node that fails
    poison = 'prepend_script: ["grep -q part-4 */names.txt && test ! -e %s && kill -9 $$"]' % (
        away.home / "mended"
    )
    text = (away.home / "cluster.yaml").read_text().replace("resources: {", "resources: {" + poison + ", ")
    (away.home / "cluster.yaml").write_text(text.replace("group_size: 3", "group_size: 6"))
    said = away.run("--on", "cluster.yaml", code=1)
    assert "failed 2 times" in said
    assert away.diary() == []
    (away.home / "mended").touch()
    away.run("--on", "cluster.yaml")
    assert times(away) == {f"part-{k}": 1 for k in range(6)}
