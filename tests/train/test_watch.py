"""What is said of a batch that cannot be gone on from."""

import numpy as np
import pytest

from lamkit.data.batch import collate, make_graph, shape_of
from lamkit.data.heads import HeadConfig
from lamkit.data.sampler import Draw, Item
from lamkit.errors import LamkitError
from lamkit.train.tasks import make_task
from lamkit.train.watch import DRAWS, Watch


@pytest.fixture
def task(emt_data):
    head = HeadConfig(name="cu", level_of_theory={"method": "empirical", "functional": "EMT"})
    return make_task("cu", emt_data["cu"], head, valid_fraction=0.2, seed=0)


def draw_of(task, step=7, change=None, frames=(3, 5)):
    graphs = [make_graph(task.train.frame(i), 4.0, None) for i in frames]
    batch = collate(graphs, shape_of(graphs)._replace(n_atoms=20, n_graphs=4), task.reference.reference)
    if change is not None:
        batch = change(batch)
    return Draw(step, (0,), (Item(step, 0, batch, len(graphs), (), frames, 0),))


def stop(task, tmp_path, draw, values, good=None, norms=()):
    watch = Watch([task], tmp_path, lambda: good)
    for norm in norms:
        watch.check(draw, [(1.0, norm, 1.0, 1.0, 1.0)])
    with pytest.raises(LamkitError) as caught:
        watch.check(draw, [values])
    return str(caught.value)


def test_a_loss_that_is_no_number_keeps_the_batch_and_names_its_frames(task, tmp_path):
    text = stop(task, tmp_path, draw_of(task), (float("nan"), 1.0, 1, 1, 1), norms=(1.0, 2.5))
    assert "step 7, head cu" in text
    assert "frame 5 (Cu4)" in text or f"frame {task.train.frame(5).step} (Cu" in text
    assert "1, 2.5" in text
    kept = np.load(tmp_path / "diverged-batch-7.npz")
    np.testing.assert_array_equal(kept["forces"], draw_of(task).items[0].batch.forces)
    assert len((tmp_path / "diverged-batch-7.txt").read_text().splitlines()) == 2


def test_the_largest_force_error_is_named_with_its_atom(task, tmp_path):
    def wrong(batch, head):
        forces = batch.forces.copy()
        forces[5, 1] += 42.0  # atom 1 of the second frame
        return {"forces": forces}

    text = stop(task, tmp_path, draw_of(task), (np.inf, np.inf, 1, 1, 1), good=(wrong, 3))
    assert "weights of step 3" in text
    assert "is 42 eV/Å, on atom 1 of" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b._replace(forces=b.forces * np.float32(500)), "times the usual size"),
        (lambda b: b._replace(energy=b.energy + np.float32(1e4)), "eV/atom from the mean"),
        (lambda b: b._replace(vectors=b.vectors * np.float32(0.05)), "Å apart"),
    ],
)
def test_the_likely_cause_is_looked_for_in_the_labels(task, tmp_path, change, words):
    assert words in stop(task, tmp_path, draw_of(task, change=change), (np.nan, 1, 1, 1, 1))


def test_growing_gradients_point_at_the_learning_rate(task, tmp_path):
    norms = [1.0] * 6 + [3.0, 40.0, 900.0]
    assert "the norms were growing" in stop(
        task, tmp_path, draw_of(task), (np.nan, np.nan, 1, 1, 1), norms=norms
    )


def test_a_training_that_runs_away_is_stopped_and_single_outliers_are_not(task, tmp_path):
    watch, draw = Watch([task], tmp_path, lambda: None), draw_of(task)
    for k in range(60):
        watch.check(draw, [(1.0, 1.0, 0.1, 1e9 if k % 5 == 0 else 0.01, 0.1)])
    for _ in range(DRAWS // 2 - 4):
        watch.check(draw, [(1.0, 1.0, 0.1, 100.0, 0.1)])
    with pytest.raises(LamkitError, match="training diverges"):
        for_ever(watch, draw)


def for_ever(watch, draw):
    for _ in range(DRAWS):
        watch.check(draw, [(1.0, 1.0, 0.1, 100.0, 0.1)])
