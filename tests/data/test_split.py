import numpy as np
import pytest
from frames import frames, random_frame

from lamkit.data.dataset import open_dataset, write_dataset
from lamkit.data.split import plan_split, split_indices
from lamkit.errors import UserError

NINE_TO_ONE = {"train": 0.9, "valid": 0.1}


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(frames(100), tmp_path / "d")  # 20 groups of five


def test_no_group_stands_in_two_parts(dataset):
    parts = split_indices(dataset, {"train": 0.7, "valid": 0.2, "test": 0.1})
    groups = {part: set(dataset.groups[ids]) for part, ids in parts.items()}
    assert not groups["train"] & groups["valid"]
    assert not groups["train"] & groups["test"]
    assert not groups["valid"] & groups["test"]
    assert sum(len(ids) for ids in parts.values()) == 100
    assert 60 <= len(parts["train"]) <= 80


def test_the_same_seed_gives_the_same_split_in_any_order_of_frames(dataset):
    first = plan_split(dataset, NINE_TO_ONE, seed=3).parts["valid"]
    order = np.random.default_rng(0).permutation(100)
    again = order[plan_split(dataset.subset(order), NINE_TO_ONE, seed=3).parts["valid"]]
    assert set(first) == set(again)
    assert set(first) != set(plan_split(dataset, NINE_TO_ONE, seed=4).parts["valid"])


def test_one_long_trajectory_is_cut_into_blocks_with_a_gap_and_says_so(tmp_path):
    given = [random_frame(i, group="md") for i in range(100)]
    dataset = write_dataset(given[::-1], tmp_path / "d")  # stored backwards: the steps give the order
    plan = plan_split(dataset, NINE_TO_ONE)
    train, valid = (dataset.steps[plan.parts[p]] for p in ("train", "valid"))
    assert plan.method == "blocks"
    assert valid.min() - train.max() > 1
    assert len(train) == 90
    assert plan.left_out == valid.min() - train.max() - 1
    assert "contiguous blocks" in plan.notes[0]


def test_three_runs_of_water_are_cut_rather_than_drawn_at_random(shared):
    dataset = open_dataset(shared / "data/deepmd_water")
    plan = plan_split(dataset, NINE_TO_ONE)
    assert plan.method == "blocks"
    for group in range(3):
        steps = {p: dataset.steps[i][dataset.groups[i] == group] for p, i in plan.parts.items()}
        assert steps["train"].max() < steps["valid"].min()


def test_random_splits_warn_of_leaks(dataset):
    plan = plan_split(dataset, NINE_TO_ONE, by="random")
    assert len(plan.parts["valid"]) == 10
    assert "look better than they are" in plan.notes[0]


def test_compositions_can_be_kept_apart(tmp_path):
    metals = [3, 11, 19, 12, 20, 13, 31, 26, 27, 28]
    given = [random_frame(i, n_atoms=3, numbers=np.array([metals[i % 10], 8, 8])) for i in range(60)]
    dataset = write_dataset(given, tmp_path / "d")
    parts = split_indices(dataset, {"train": 0.8, "valid": 0.2}, by="composition")
    counts, _ = dataset.compositions()
    train, valid = ({tuple(row) for row in counts[ids]} for ids in parts.values())
    assert not train & valid


def test_a_single_composition_cannot_be_split_by_composition(tmp_path):
    given = [random_frame(i, numbers=np.array([1, 1, 8, 8])) for i in range(10)]
    with pytest.raises(UserError, match="--by group"):
        split_indices(write_dataset(given, tmp_path / "d"), NINE_TO_ONE, by="composition")


def test_too_few_frames_are_refused(tmp_path):
    dataset = write_dataset(frames(2), tmp_path / "d")
    with pytest.raises(UserError, match="leave nothing for valid"):
        split_indices(dataset, NINE_TO_ONE)
    with pytest.raises(UserError, match="must be positive"):
        split_indices(dataset, {"train": -1, "valid": 2})
