"""A folder inside one of LAMKit's own data sets, opened for itself."""

from frames import frames

from lamkit.data.dataset import DatasetFacts, open_dataset, write_dataset


def test_one_system_of_a_data_set_is_read_without_the_names_beside_it(tmp_path):
    whole = write_dataset(frames(6), tmp_path / "d", DatasetFacts())
    system = whole.folders[0]
    alone = open_dataset(system)
    assert len(alone) == 6
    assert alone.frame(5).energy == whole.frame(5).energy
    assert set(alone.group_names) == {system.name}
