import numpy as np
import pytest

from lamkit.data.buckets import Buckets, measure
from lamkit.data.dataset import open_dataset
from lamkit.data.sampler import Position, Sampler, Source, probabilities
from lamkit.errors import UserError
from lamkit.train.tasks import everything


def make_sampler(emt_data, **changes):
    views = {name: everything(open_dataset(emt_data[name])) for name in ("cu", "alloy")}
    needs = [measure(v, 4.0, None, 16, seed=0) for v in views.values()]
    chances = {"cu": 0.3, "alloy": 0.7}
    options = {"cutoff": 4.0, "max_neighbors": None, "seed": 5} | changes
    sources = [Source(name, view, np.zeros(119)) for name, view in views.items()]
    return Sampler(sources, chances, Buckets(needs, [0.3, 0.7]), **options)


def test_an_epoch_holds_every_frame_once(emt_data):
    sampler = make_sampler(emt_data)
    sampler.draw = lambda step: 1
    seen = 0
    step = 0
    while sampler.positions[1].epoch == 0:
        seen += sampler.item(step).n_frames
        step += 1
    assert seen == 24


def test_a_sampler_put_back_to_a_position_makes_the_same_batches(emt_data):
    first, second = make_sampler(emt_data), make_sampler(emt_data)
    items = [first.item(step) for step in range(12)]
    second.positions = [Position(*p) for p in items[6].positions]
    for old in items[7:]:
        new = second.item(old.step)
        assert new.head == old.head
        for a, b in zip(old.batch, new.batch, strict=True):
            np.testing.assert_array_equal(a, b)


def test_rotation_keeps_lengths_and_turns_forces(emt_data):
    plain, turned = make_sampler(emt_data, turn=False).item(3).batch, make_sampler(emt_data).item(3).batch
    assert np.abs(plain.forces - turned.forces).max() > 1e-3
    np.testing.assert_allclose(
        np.linalg.norm(plain.forces, axis=1), np.linalg.norm(turned.forces, axis=1), atol=1e-5
    )
    np.testing.assert_allclose(plain.stress[:, :3].sum(1), turned.stress[:, :3].sum(1), atol=1e-6)


def test_a_frame_is_turned_anew_in_each_epoch(emt_data):
    sampler, seen = make_sampler(emt_data), {0: [], 1: []}
    sampler.draw = lambda step: 0
    step = 0
    while (epoch := sampler.positions[0].epoch) < 2:
        item = sampler.item(step)
        if 7 in item.frames:
            atoms = item.batch.node_graph == item.frames.index(7)
            seen[epoch].append(item.batch.forces[atoms])
        step += 1
    [first], [second] = seen.values()
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1), atol=1e-5)
    assert np.abs(first - second).max() > 1e-2


def test_chances_follow_the_exponent_or_the_weights():
    frames = {"a": 100, "b": 400}
    assert probabilities(frames, exponent=0.5)["b"] == pytest.approx(2 / 3)
    assert probabilities(frames, exponent=0)["b"] == pytest.approx(0.5)
    assert probabilities(frames, exponent=1, weights={"a": 3, "b": 1})["a"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("weights", "words"),
    [({"a": 1}, "no weight for b"), ({"a": 0, "b": 0}, "must be")],
)
def test_wrong_weights_are_refused(weights, words):
    with pytest.raises(UserError, match=words):
        probabilities({"a": 100, "b": 400}, exponent=0.5, weights=weights)


def test_two_buckets_where_one_would_waste_much(emt_data):
    view = everything(open_dataset(emt_data["cu"]))
    narrow, wide = measure(view, 3.0, None, 16, seed=0), measure(view, 6.0, None, 16, seed=0)
    assert len(Buckets([narrow, wide], [0.5, 0.5]).shapes) == 2
    assert len(Buckets([narrow, narrow], [0.5, 0.5]).shapes) == 1


def test_a_frame_larger_than_its_bucket_gets_a_shape_of_its_own(emt_data):
    from lamkit.data.batch import make_graph, shape_of

    view = everything(open_dataset(emt_data["cu"]))
    buckets = Buckets([measure(view, 3.0, None, 4, seed=0)], [1.0])
    graphs = [make_graph(view.frame(i), 3.0, None) for i in range(20)]
    shape = buckets.shape_for(graphs, 0)
    assert all(a >= b for a, b in zip(shape, shape_of(graphs), strict=True))
    assert shape in buckets.shapes
    # A resumed run pads what comes next as the run before would have done.
    again = Buckets([measure(view, 3.0, None, 4, seed=0)], [1.0])
    assert (buckets.added, again.added) == ([shape], [])
    again.restore([list(shape)])
    assert again.shape_for(graphs[:15], 0) == buckets.shape_for(graphs[:15], 0) == shape
