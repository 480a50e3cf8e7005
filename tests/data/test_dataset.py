import dpdata
import numpy as np
import pytest
from frames import frames, random_frame

from lamkit.data import write
from lamkit.data.dataset import open_dataset, write_dataset
from lamkit.data.facts import DatasetFacts
from lamkit.data.frame import volume
from lamkit.data.growing import GrowingArray
from lamkit.errors import UserError


def same(a, b):
    assert np.array_equal(a.numbers, b.numbers)
    assert np.array_equal(a.positions, b.positions)
    assert np.array_equal(a.pbc, b.pbc)
    assert (a.energy, a.source, a.step, a.group) == (b.energy, b.source, b.step, b.group)
    assert (a.forces is None) == (b.forces is None)
    assert a.forces is None or np.array_equal(a.forces, b.forces)
    assert (a.stress is None) == (b.stress is None)
    assert a.stress is None or np.allclose(a.stress, b.stress, rtol=1e-13, atol=0, equal_nan=True)


def by_step(dataset):
    return sorted((dataset.frame(i) for i in range(len(dataset))), key=lambda f: f.step)


def test_frames_come_back_as_they_were_written(tmp_path):
    partly = np.array([0.1, 0.2, 0.3, np.nan, np.nan, np.nan])
    given = [
        random_frame(0),
        random_frame(1, n_atoms=7),
        random_frame(2, stress=None),
        random_frame(3, stress=partly),
        random_frame(4, pbc=False, stress=None),
        random_frame(5, pbc=[True, True, False], stress=None),
        random_frame(6, energy=None),
    ]
    dataset = write_dataset(given, tmp_path / "d")
    assert len(dataset) == 7
    for a, b in zip(given, by_step(dataset), strict=True):
        same(a, b)


def test_a_label_that_is_not_known_has_no_file(tmp_path):
    dataset = write_dataset([random_frame(0, stress=np.array([1.0, 1, 1, np.nan, 0, 0]))], tmp_path / "d")
    files = {p.name for p in tmp_path.rglob("*.npy")}
    assert "virial.npy" not in files
    assert "stress.npy" in files
    assert dataset.facts.labels == {"energy": 1, "forces": 1, "stress": 0, "stress_partly": 1}


def test_dpdata_reads_energies_forces_and_virials_unchanged(tmp_path):
    given = frames(6) + frames(3, n_atoms=9)
    write_dataset(given, tmp_path / "d")
    systems = dpdata.MultiSystems().load_systems_from_file(str(tmp_path / "d"), fmt="deepmd/npy/mixed")
    found = {}
    for system in systems:
        for k in range(len(system)):
            found[float(system["energies"][k])] = (system, k)
    assert len(found) == len(given)
    for frame in given:
        system, k = found[frame.energy]
        order = (
            np.argsort(frame.numbers, kind="stable"),
            np.argsort(
                [dpdata.periodic_table.ELEMENTS.index(system["atom_names"][t]) for t in system["atom_types"]],
                kind="stable",
            ),
        )
        assert np.array_equal(frame.forces[order[0]], system["forces"][k][order[1]])
        pressure = np.trace(system["virials"][k]) / 3
        assert pressure == pytest.approx(-volume(frame) * frame.stress[:3].mean(), rel=1e-12)


def test_sets_are_cut_at_their_full_length(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "SET_FRAMES", 4)
    monkeypatch.setattr(write, "BUFFER_ATOMS", 20)
    given = frames(11)
    dataset = write_dataset(iter(given), tmp_path / "d")
    assert sorted(p.name for p in (tmp_path / "d").rglob("set.*")) == ["set.000", "set.001", "set.002"]
    for i in (0, 3, 4, 10):
        same(given[i], dataset.frame(i))
    assert np.array_equal(dataset.energies, [f.energy for f in given])


def test_an_array_that_grew_is_a_plain_npy_file(tmp_path):
    array = GrowingArray(tmp_path / "a.npy", (2,), np.float64)
    array.append(np.ones((3, 2)))
    array.append(np.zeros((100_000, 2)))
    array.close()
    read = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert read.shape == (100_003, 2)
    assert read.sum() == 6


def test_nothing_half_written_is_left_when_the_source_fails(tmp_path):
    def broken():
        yield random_frame(0)
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError):
        write_dataset(broken(), tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_taken_is_refused(tmp_path):
    write_dataset(frames(1), tmp_path / "d")
    with pytest.raises(UserError, match="already exists"):
        write_dataset(frames(1), tmp_path / "d")


def test_no_frame_at_all_is_refused(tmp_path):
    with pytest.raises(UserError, match="no frame"):
        write_dataset([], tmp_path / "d")


def test_a_view_has_the_interface_of_a_data_set(tmp_path):
    given = frames(10)
    dataset = write_dataset(given, tmp_path / "d", DatasetFacts(head="h"))
    view = dataset.subset([7, 2, 5]).subset([2, 0])
    assert len(view) == 2
    same(view.frame(0), given[5])
    same(view.frame(1), given[7])
    counts, numbers = view.compositions()
    for row, frame in zip(counts, (given[5], given[7]), strict=True):
        assert dict(zip(numbers, row, strict=True)) == {z: (frame.numbers == z).sum() for z in numbers}
    assert view.n_atoms.tolist() == [4, 4]
    assert [view.group_names[g] for g in view.groups] == ["run 1", "run 1"]
    assert view.facts.head == "h"
    with pytest.raises(IndexError):
        view.frame(2)


def test_compositions_count_the_atoms_of_each_element(tmp_path):
    given = frames(4) + frames(2, n_atoms=6)
    dataset = write_dataset(given, tmp_path / "d")
    counts, numbers = dataset.compositions()
    assert numbers.tolist() == dataset.elements
    assert np.array_equal(counts.sum(axis=1), dataset.n_atoms)
    assert counts.sum() == sum(len(f) for f in given)


def test_folders_of_deepmd_open_without_our_side_cars(shared):
    water = open_dataset(shared / "data/deepmd_water")
    assert len(water) == 320
    assert water.group_names == ["data_0", "data_1", "data_2"]
    assert water.elements == [1, 8]
    assert water.frame(81).step == 1  # second frame of data_1
    assert water.frame(160).step == 80  # its steps run on through set.001
    molecule = open_dataset(shared / "data/nopbc_MN15").frame(0)
    assert not molecule.pbc.any()
    assert not molecule.cell.any()


def test_padding_atoms_of_a_mixed_system_are_not_real(tmp_path):
    system = dpdata.LabeledSystem()
    h2 = {"atom_names": ["H"], "atom_numbs": [2], "atom_types": np.zeros(2, int), "orig": np.zeros(3)}
    h3 = {**h2, "atom_numbs": [3], "atom_types": np.zeros(3, int)}
    for data, n in ((h2, 2), (h3, 3)):
        data |= {"cells": 9 * np.eye(3)[None], "coords": np.arange(3.0 * n).reshape(1, n, 3)}
        data |= {"energies": np.array([-1.0 * n]), "forces": np.ones((1, n, 3))}
    systems = dpdata.MultiSystems(*(dpdata.LabeledSystem(data=d) for d in (h2, h3)))
    systems.to_deepmd_npy_mixed(str(tmp_path / "m"), atom_numb_pad=4)
    del system
    dataset = open_dataset(tmp_path / "m")
    assert sorted(dataset.n_atoms.tolist()) == [2, 3]
    assert sorted(len(dataset.frame(i).forces) for i in range(2)) == [2, 3]
    counts, _ = dataset.compositions()
    assert sorted(counts.ravel().tolist()) == [2, 3]


def test_a_truncated_array_is_named(tmp_path):
    dataset = write_dataset(frames(3), tmp_path / "d")
    file = next((tmp_path / "d").rglob("force.npy"))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"force\.npy: truncated"):
        open_dataset(dataset.path).frame(0)


def test_the_parts_of_a_split_are_not_taken_as_one_data_set(tmp_path):
    for part in ("train", "valid"):
        write_dataset(frames(1), tmp_path / "s" / part)
    with pytest.raises(UserError, match="several data sets"):
        open_dataset(tmp_path / "s")


def test_the_data_set_of_a_stage_is_found_in_its_folder(tmp_path):
    write_dataset(frames(2), tmp_path / "stage" / "data")
    assert len(open_dataset(tmp_path / "stage")) == 2


def test_an_empty_folder_is_no_data_set(tmp_path):
    with pytest.raises(UserError, match="no data set"):
        open_dataset(tmp_path)
