"""What a task trains on and validates on."""

import logging

import numpy as np
import pytest
from toy_data import make_dataset

from lamkit.data.dataset import open_dataset
from lamkit.errors import UserError
from lamkit.stages import evaluate, split
from lamkit.train.tasks import training_parts


@pytest.fixture
def data(tmp_path):
    return make_dataset(tmp_path / "cu", ["Cu"], 30, seed=1)


def parts(data, name="default"):
    train, valid = training_parts(data, "cu", name, 0.1, 0)
    return train.indices.tolist(), [] if valid is None else valid.indices.tolist()


def test_the_parts_of_the_recorded_split_are_used_and_named(data, caplog):
    caplog.set_level(logging.INFO, logger="lamkit")
    split.run(split.Options(data=str(data), valid=0.2, test=0.3, seed=4), None)
    train, valid = parts(data)
    assert len(train) == pytest.approx(15, abs=2)
    assert len(valid) == pytest.approx(6, abs=2)
    assert "part 'train' of the split 'default'" in caplog.text
    test = evaluate.evaluation_frames(data, evaluate.Options(model=str(data), data=str(data)))
    assert "evaluating the part 'test' of its split 'default'" in caplog.text
    assert not set(test.indices) & {*train, *valid}
    assert len(test) + len(train) + len(valid) == 30


def test_a_split_without_validation_part_is_split_further(data):
    split.run(split.Options(data=str(data), valid=0.0, test=0.3), None)
    train, valid = parts(data)
    test = evaluate.evaluation_frames(data, evaluate.Options(model=str(data), data=str(data)))
    assert valid
    assert not set(test.indices) & {*train, *valid}


def test_another_split_is_used_where_it_is_named(data):
    for name, seed in (("default", 0), ("other", 1)):
        split.run(split.Options(data=str(data), valid=0.3, seed=seed, name=name), None)
    assert parts(data) != parts(data, "other")
    with pytest.raises(UserError, match="Did you mean 'other'"):
        parts(data, "othr")


def test_data_without_a_split_are_split_by_group(data):
    train, valid = parts(data)
    assert len(train) == 27
    assert not set(train) & set(valid)
    everything = evaluate.evaluation_frames(data, evaluate.Options(model=str(data), data=str(data)))
    assert len(everything) == 30
    with pytest.raises(UserError, match="no split is recorded"):
        evaluate.evaluation_frames(data, evaluate.Options(model=str(data), data=str(data), part="test"))


def test_all_frames_and_any_part_can_be_asked_for(data):
    split.run(split.Options(data=str(data), valid=0.2), None)
    n = {
        part: len(
            evaluate.evaluation_frames(data, evaluate.Options(model=str(data), data=str(data), part=part))
        )
        for part in ("train", "valid", "all")
    }
    assert n["train"] + n["valid"] == n["all"] == 30
    assert np.isfinite(open_dataset(data).energies).all()


def test_a_handful_of_frames_in_few_groups_still_leaves_some_to_validate_on(tmp_path, caplog, monkeypatch):
    """Six frames of two trajectories are what fine-tuning begins with; a large set has to be split on purpose."""
    from dataclasses import replace

    from toy_data import emt_frames

    from lamkit.data.dataset import write_dataset
    from lamkit.train import tasks

    frames = [replace(f, group=f"g{i % 2}") for i, f in enumerate(emt_frames(["Cu"], 6, 1))]
    write_dataset(frames, tmp_path / "few")
    train, valid = tasks.training_parts(tmp_path / "few", "x", "default", 0.1, 0)
    assert (len(train), len(valid)) == (5, 1)
    everything, nothing = tasks.training_parts(tmp_path / "few", "x", "default", 0.0, 0)
    assert (len(everything), nothing) == (6, None)  # as lamkit rebias asks for them
    assert not set(train.indices) & set(valid.indices)
    assert "drawn at random" in caplog.text
    monkeypatch.setattr(tasks, "FEW", 5)
    with pytest.raises(UserError, match="leave nothing for valid"):
        tasks.training_parts(tmp_path / "few", "x", "default", 0.1, 0)
