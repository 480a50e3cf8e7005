"""Checkpoints of a run: the one before is kept, damage is noticed, a full disk leaves what was there."""

import json
import logging
import os
import resource
import shutil

import numpy as np
import pytest
from test_checkpoint import sample

from lamkit.errors import LamkitError, UserError
from lamkit.files import recover, require_writable
from lamkit.train import checkpoint
from lamkit.train.records import LearningCurve
from lamkit.train.saving import Saver

OPTIMIZER = {"m": np.arange(4, dtype=np.float32)}


def saved(path, step):
    found = sample(path)
    found.state["step"] = step
    return found


@pytest.fixture
def run(tmp_path):
    """A run folder with checkpoints of steps 10 and 20."""
    saver = Saver(tmp_path, keep=1)
    for step in (10, 20):
        saver.last(saved(tmp_path, step), OPTIMIZER)
    return tmp_path


def step_of(run):
    found = Saver(run, 0).newest()
    return None if found is None else found[0].state["step"]


def test_the_checkpoint_before_the_last_stays(run):
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["last", "previous"]
    assert checkpoint.read(run / "checkpoints/previous").state["step"] == 10
    assert step_of(run) == 20


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "config.yaml"])
@pytest.mark.parametrize("harm", ["cut", "flip", "gone"])
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before_and_says_so(run, name, harm, caplog):
    caplog.set_level(logging.WARNING, logger="lamkit")
    file = run / "checkpoints/last" / name
    text = bytearray(file.read_bytes())
    if harm == "gone":
        file.unlink()
    elif harm == "cut":
        file.write_bytes(text[: len(text) // 2])
    elif name == "config.yaml":
        pytest.skip("config.yaml is meant to be read by people and has no checksum")
    else:
        text[-3] ^= 1  # the last weights: still a readable file
        file.write_bytes(text)
    assert step_of(run) == 10
    assert "last" in caplog.text
    assert "going on from" in caplog.text
    assert "step 10" in caplog.text
    Saver(run, 0).last(saved(run, 30), OPTIMIZER)  # takes the place of the damaged one, not of the whole one
    steps = {
        p.name: checkpoint.read(p).state["step"]
        for p in (run / "checkpoints").iterdir()
        if "damaged" not in p.name
    }
    assert steps == {"last": 30, "previous": 10}


def test_with_every_checkpoint_damaged_the_run_does_not_silently_begin_anew(run):
    for name in ("last", "previous"):
        (run / "checkpoints" / name / "model.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="no checkpoint to go on from is whole"):
        step_of(run)


def test_nothing_saved_means_the_beginning(tmp_path):
    assert step_of(tmp_path) is None


@pytest.mark.parametrize("moment", ["old moved aside", "previous half deleted", "new not renamed"])
def test_a_process_killed_while_it_replaces_a_checkpoint_loses_nothing(run, moment):
    folder = run / "checkpoints"
    shutil.copytree(folder / "last", folder / ".last.0badcafe.tmp")
    if moment == "old moved aside":
        shutil.rmtree(folder / "previous")
        os.replace(folder / "last", folder / "previous")
    elif moment == "previous half deleted":
        (folder / "previous/model.safetensors").unlink()
    assert step_of(run) == 20
    assert not list(folder.glob(".*"))
    Saver(run, 0).last(saved(run, 30), OPTIMIZER)
    assert step_of(run) == 30
    assert sorted(p.name for p in folder.iterdir()) == ["last", "previous"]


def test_a_best_checkpoint_that_was_moved_aside_gets_its_name_back(run):
    folder = run / "checkpoints"
    Saver(run, 0).best(saved(run, 20))
    os.replace(folder / "best", folder / ".best.0badcafe.old")
    recover(folder)
    assert checkpoint.read(folder / "best").state["step"] == 20


def test_only_so_many_numbered_checkpoints_stay(tmp_path):
    saver = Saver(tmp_path, keep=2)
    for step in (5, 10, 100):
        saver.step(saved(tmp_path, step), OPTIMIZER, step)
    assert sorted(p.name for p in saver.folder.iterdir()) == ["step-10", "step-100"]
    assert step_of(tmp_path) == 100


def test_a_disk_that_is_full_leaves_the_checkpoint_before_whole_and_no_rubbish(run):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (600, old[1])
    )  # writing beyond 600 bytes fails as on a full disk
    try:
        with pytest.raises(LamkitError, match=r"could not be written.*MB are free.*--resume"):
            Saver(run, 0).last(saved(run, 30), OPTIMIZER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert step_of(run) == 20
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["last", "previous"]


def test_a_record_on_a_full_disk_fails_with_the_systems_reason(tmp_path):
    curve = LearningCurve(tmp_path / "lcurve.out", [("a", False)])
    curve.path = type(curve.path)("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        curve.write(1, {}, {}, 1e-3)


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        require_writable("/sys/lamkit")  # nobody can write there, not even root
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        require_writable(tmp_path / "file" / "run")


def test_checksums_cover_what_the_checkpoint_is_made_of(run):
    sums = json.loads((run / "checkpoints/last/checksums.json").read_text())
    assert sorted(sums) == ["model.safetensors", "optimizer.safetensors", "state.json"]
