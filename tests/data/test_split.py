import shutil

import numpy as np
import pytest
from frames import frames, random_frame

from lamkit.data import split_file
from lamkit.data.dataset import open_dataset, write_dataset
from lamkit.data.split import plan_split, split_indices
from lamkit.data.twins import TOLERANCE, descriptor, like_classes
from lamkit.errors import UserError
from lamkit.stages import split

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


# -- the same structure in several groups ---------------------------------------------------------------------


def crystal(seed: int, **fields):
    """A rattled rocksalt cell; the same seed is the same structure."""
    from ase.build import bulk

    from lamkit.data.frame import from_atoms

    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    atoms.rattle(0.1, seed=seed)
    labels = {"energy": float(seed), "forces": np.zeros((8, 3)), "source": "made", "step": seed}
    return atoms, from_atoms(atoms, **{**labels, **fields})


def disguised(atoms, seed: int, **fields):
    """The same structure with its atoms in another order, turned, shifted, repeated and slightly off."""
    from lamkit.data.frame import from_atoms

    rng = np.random.default_rng(seed)
    copy = atoms.repeat((2, 1, 1))
    copy = copy[rng.permutation(len(copy))]
    copy.rotate(rng.uniform(0, 180), rng.normal(size=3), rotate_cell=True)
    copy.positions += rng.normal(size=3) + rng.normal(0, 3e-4, (len(copy), 3))
    return from_atoms(copy, energy=-1.0, source="copy", step=seed, **fields)


def no_structure_stands_in_two_parts(dataset, parts):
    part_of = np.full(len(dataset), -1)
    for k, indices in enumerate(parts.values()):
        assert (part_of[indices] == -1).all()
        part_of[indices] = k
    dealt = np.flatnonzero(part_of >= 0)
    for i in dealt:
        for j in dealt[part_of[dealt] > part_of[i]]:
            one, other = descriptor(dataset.frame(int(i))), descriptor(dataset.frame(int(j)))
            assert np.abs(one - other).max() > TOLERANCE, (i, j)


@pytest.mark.parametrize("by", ["group", "random", "temperature"])
def test_a_structure_that_comes_again_in_other_groups_stays_on_one_side(tmp_path, by):
    given = []
    for run in range(8):  # each begins with the same structure and shows one of another run, in disguise
        info = {"temperature": 300.0 + 100 * run}
        for k in range(4):
            given.append(crystal(0 if k == 0 else 100 * run + k, group=f"run {run}", info=info)[1])
        atoms, _ = crystal(100 * ((run + 3) % 8) + 2)
        given.append(disguised(atoms, run, group=f"run {run}", info=info))
    dataset = write_dataset(given, tmp_path / "d")
    plan = plan_split(dataset, {"train": 0.6, "valid": 0.2, "test": 0.2}, by=by, seed=1)
    assert min(len(indices) for indices in plan.parts.values()) > 0
    no_structure_stands_in_two_parts(dataset, plan.parts)
    assert sum(len(i) for i in plan.parts.values()) + plan.left_out == 40
    if by != "random":
        assert plan.alike > 0
        assert "same structure" in " ".join(plan.notes)


def test_a_trajectory_under_another_name_goes_with_the_first(tmp_path):
    given = []
    for run in range(12):
        for k in range(4):
            atoms, frame = crystal(100 * run + k, group=f"run {run}")
            given.append(frame)
            if run < 6:
                given.append(disguised(atoms, k, group=f"copy of run {run}"))
    dataset = write_dataset(given, tmp_path / "d")
    plan = plan_split(dataset, {"train": 0.5, "valid": 0.5}, seed=2)
    assert plan.alike == plan.left_out == 0  # nothing had to be left out
    no_structure_stands_in_two_parts(dataset, plan.parts)
    for indices in plan.parts.values():
        names = {dataset.group_names[g] for g in dataset.groups[indices]}
        assert {n.removeprefix("copy of ") for n in names if n.startswith("copy")} <= names


def test_thermal_frames_of_one_trajectory_are_not_alike(tmp_path):
    given = [crystal(k, group=f"run {k // 10}")[1] for k in range(40)]
    dataset = write_dataset(given, tmp_path / "d")
    classes = like_classes(dataset, np.arange(40))
    assert len(set(classes)) == 40


def test_data_that_hold_each_structure_twice_cannot_be_split_by_temperature(tmp_path):
    given = []
    for k in range(10):
        for temperature in (300.0, 900.0):
            given.append(crystal(k, group=f"run {temperature}", info={"temperature": temperature})[1])
    dataset = write_dataset(given, tmp_path / "d")
    with pytest.raises(UserError, match="stands in another part too"):
        plan_split(dataset, {"train": 0.5, "test": 0.5}, by="temperature")


# -- other rules -----------------------------------------------------------------------------------------------


def test_the_highest_temperatures_are_held_out(tmp_path):
    given = [
        random_frame(
            i, group=f"run {i % 5}", info={"temperature": (300.0, 600.0, 900.0, 1200.0, 1500.0)[i % 5]}
        )
        for i in range(50)
    ]
    dataset = write_dataset(given, tmp_path / "d")
    parts = plan_split(dataset, {"train": 0.6, "valid": 0.2, "test": 0.2}, by="temperature").parts
    assert {p: set(dataset.temperatures[i]) for p, i in parts.items()} == {
        "train": {300.0, 600.0, 900.0}, "valid": {1200.0}, "test": {1500.0},
    }  # fmt: skip
    with pytest.raises(UserError, match="2 different temperatures"):
        plan_split(dataset.subset([0, 1, 5, 6]), {"train": 2, "valid": 1, "test": 1}, by="temperature")


def test_all_trajectories_of_a_material_stay_together(tmp_path):
    given = [random_frame(i, group=f"run {i // 2}", info={"material": f"mp-{i // 8}"}) for i in range(80)]
    dataset = write_dataset(given, tmp_path / "d")
    parts = plan_split(dataset, NINE_TO_ONE, by="mp-id").parts
    train, valid = (set(dataset.materials[i]) for i in parts.values())
    assert len(valid) == 1
    assert not train & valid
    with pytest.raises(UserError, match="no frame names its material"):
        plan_split(write_dataset(frames(10), tmp_path / "e"), NINE_TO_ONE, by="mp-id")


def test_strata_are_shared_out_in_proportion(tmp_path):
    kinds = [(11, 17), (19, 35), (3, 9)]
    given = [
        random_frame(i, numbers=np.array(2 * kinds[min(i // 60, 2)]), group=f"g{i // 2}") for i in range(160)
    ]  # 30, 30 and 20 groups
    dataset = write_dataset(given, tmp_path / "d")
    parts = plan_split(dataset, {"train": 0.8, "valid": 0.2}, stratify=["elements"]).parts
    counts, _ = dataset.compositions()
    kind = counts.argmax(axis=1)
    for k in set(kind):
        share = np.isin(np.flatnonzero(kind == k), parts["valid"]).mean()
        assert abs(share - 0.2) < 0.06
    by_energy = plan_split(dataset, {"train": 0.8, "valid": 0.2}, stratify=["energy", "size"]).parts
    assert 25 <= len(by_energy["valid"]) <= 40


def test_the_only_group_with_an_element_is_trained_on(tmp_path):
    given = [random_frame(i, numbers=np.array([1, 8, 8, 8]), group=f"g{i}") for i in range(30)]
    given += [random_frame(50 + i, numbers=np.array([1, 8, 8, 79]), group="gold") for i in range(2)]
    dataset = write_dataset(given, tmp_path / "d")
    for seed in range(10):
        parts = plan_split(dataset, {"train": 0.7, "valid": 0.3}, seed=seed).parts
        assert set(dataset.subset(parts["valid"]).elements) == {1, 8}


# -- recorded in the data set ----------------------------------------------------------------------------------


def test_a_split_is_recorded_in_the_data_set_and_found_again(tmp_path, dataset):
    result = split.run(split.Options(data=str(dataset.path), valid=0.2, test=0.2), None)
    facts, parts = split_file.load(open_dataset(dataset.path))
    assert {part: len(view) for part, view in parts.items()} == result["parts"] == facts.frames
    assert set(parts) == {"train", "valid", "test"}
    expected = plan_split(dataset, {"train": 0.6, "valid": 0.2, "test": 0.2}).parts
    assert all(np.array_equal(parts[part].indices, expected[part]) for part in expected)
    assert (facts.by, facts.seed, facts.method) == ("group", 0, "group")


def test_a_recorded_split_of_other_data_is_refused(tmp_path, dataset):
    split.run(split.Options(data=str(dataset.path), name="mine"), None)
    other = write_dataset(frames(99), tmp_path / "other")
    shutil.copytree(dataset.path / "splits", other.path / "splits")
    with pytest.raises(UserError, match="belongs to other data"):
        split_file.load(other, "mine")
    with pytest.raises(UserError, match="Did you mean 'mine'"):
        split_file.load(dataset, "min")
    assert split_file.load(write_dataset(frames(5), tmp_path / "none")) is None


def test_folders_of_deepmd_keep_a_split_too(shared, tmp_path):
    folder = tmp_path / "water"
    shutil.copytree(shared / "data/deepmd_water", folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    split.run(split.Options(data=str(folder)), None)
    facts, parts = split_file.load(open_dataset(folder))
    assert facts.method == "blocks"
    assert sum(map(len, parts.values())) + facts.left_out == 320
