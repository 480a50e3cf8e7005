import numpy as np
import pytest

from lamkit.data.buckets import measure
from lamkit.data.dataset import open_dataset
from lamkit.data.plan import batches_per_pass, by_epochs, make_plan
from lamkit.data.sampler import Dealer, Sampler, Source
from lamkit.errors import UserError
from lamkit.train.tasks import everything


@pytest.fixture
def views(emt_data):
    return {name: everything(open_dataset(emt_data[name])) for name in ("cu", "alloy", "ag")}


def plan_of(views, **changes):
    needs = [measure(v, 4.0, None, 16, seed=0) for v in views.values()]
    options = {
        "exponent": 0.5,
        "weights": None,
        "epochs": None,
        "steps": 100,
        "draws": 1,
        "seed": 0,
    } | changes
    return make_plan(views, needs, **options)


def sampler_of(views, plan, buckets, **changes):
    sources = [Source(name, view, np.zeros(119)) for name, view in views.items()]
    return Sampler(sources, plan.chances, buckets, cutoff=4.0, max_neighbors=None, seed=5, **changes)


def test_chances_and_steps_follow_from_target_epochs():
    """p_t = e_t B_t / Σ e B, and Σ e B draws: DeePMD's num_epoch_dict."""
    chances, draws = by_epochs({"a": 2.0, "b": 10.0}, {"a": 100.0, "b": 5.0})
    assert draws == pytest.approx(250)
    assert chances == pytest.approx({"a": 0.8, "b": 0.2})


def test_target_epochs_are_what_is_expected_of_the_plan(views):
    plan, _ = plan_of(views, epochs={"cu": 3.0, "alloy": 6.0, "ag": 0.5})
    assert plan.epochs("cu") == pytest.approx(3.0, rel=0.05)
    assert plan.epochs("alloy") == pytest.approx(6.0, rel=0.05)
    half, _ = plan_of(views, epochs={"cu": 3.0, "alloy": 6.0, "ag": 0.5}, draws=2)
    assert half.steps == -(-plan.steps // 2)


def test_batches_of_a_pass_are_counted_as_the_sampler_fills_them(views):
    plan, buckets = plan_of(views)
    sampler = sampler_of(views, plan, buckets)
    sampler.draw = lambda step: 0
    step = 0
    while sampler.positions[0].epoch == 0:
        sampler.item(step)
        step += 1
    assert plan.batches["cu"] == pytest.approx(step, abs=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"weights": {"cu": 1, "alloy": 1, "ag": 1}, "epochs": {"cu": 1, "alloy": 1, "ag": 1}},
            "one of them",
        ),
        ({"epochs": {"cu": 1}}, "no number of epochs for alloy, ag"),
        ({"epochs": {"cu": 0, "alloy": 0, "ag": 0}}, "one of them > 0"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(views, options, words):
    with pytest.raises(UserError, match=words):
        plan_of(views, **options)


def test_batches_keep_to_an_edge_budget(views):
    view = views["cu"]
    wide = measure(view, 4.0, None, 64, seed=0)
    narrow = measure(view, 4.0, None, 64, seed=0, batch_edges=wide.shape.n_edges // 3)
    assert narrow.shape.n_edges < wide.shape.n_edges / 2
    assert narrow.shape.n_edges >= wide.shape.n_edges / 3
    # and a budget that no frame fits is raised to the largest frame
    tight = measure(view, 4.0, None, 64, seed=0, batch_edges=1)
    assert tight.shape.n_edges >= max(len(view.frame(i)) * 12 for i in range(5))
    assert batches_per_pass(view, narrow, narrow.shape, 0) > batches_per_pass(view, wide, wide.shape, 0)


def test_a_head_with_a_budget_of_its_own_keeps_to_it_in_the_shape_that_it_shares(views):
    needs = [measure(v, 4.0, None, 4 if name == "cu" else 32, seed=0) for name, v in views.items()]
    common, _ = make_plan(views, needs, exponent=0.5, weights=None, epochs=None, steps=100, draws=1, seed=0)
    plan, buckets = make_plan(
        views, needs, exponent=0.5, weights=None, epochs=None, steps=100, draws=1, seed=0, own=["cu"]
    )
    assert plan.batches["cu"] == len(views["cu"]) == 24  # frames of four atoms, one by one
    assert plan.batches["alloy"] == common.batches["alloy"]
    sampler = sampler_of(views, plan, buckets)
    sampler.draw = lambda step: 0
    items = [sampler.item(step) for step in range(5)]
    assert {item.n_frames for item in items} == {1}
    assert {item.batch.shape for item in items} <= set(buckets.shapes)


@pytest.mark.parametrize("shards", [2, 5, 30])
def test_ranks_share_the_frames_of_an_epoch_without_overlap_or_loss(views, shards):
    plan, buckets = plan_of(views)
    seen = []
    for shard in range(min(shards, len(views["cu"]))):  # 24 frames: the rest of 30 ranks see frames twice
        sampler = sampler_of(views, plan, buckets, shard=shard, shards=shards)
        sampler.draw = lambda step: 0
        step = 0
        while sampler.positions[0].epoch == 0:
            seen += sampler.item(step).frames
            step += 1
    assert sorted(seen) == list(range(24))


def test_ranks_know_each_others_heads_and_go_on_where_they_were(views):
    plan, buckets = plan_of(views)
    samplers = [sampler_of(views, plan, buckets, shard=k, shards=3) for k in range(3)]
    draws = [Dealer([s]).draw(4) for s in samplers]
    assert {d.heads for d in draws} == {tuple(d.items[0].head for d in draws)}
    positions = [s.positions for s in samplers]
    again = Dealer([sampler_of(views, plan, buckets, shard=2, shards=3)])
    assert again.go_to(positions)
    for a, b in zip(again.draw(5).items[0].batch, samplers[2].item(5).batch, strict=True):
        np.testing.assert_array_equal(a, b)
    other = Dealer([sampler_of(views, plan, buckets, shard=0, shards=2)])
    assert not other.go_to(positions)
    furthest = [max(part[head].epoch for part in positions) for head in range(len(positions[0]))]
    assert [p.epoch for p in other.samplers[0].positions] == [epoch + 1 for epoch in furthest]
