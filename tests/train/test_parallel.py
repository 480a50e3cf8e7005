"""Ranks without processes: the sums that they make, seen from within one process."""

import threading

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from test_step import TRUNK, batch_of, numbers

from lamkit.errors import UserError
from lamkit.model.potential import Potential
from lamkit.train.config import TrainConfig
from lamkit.train.objective import tensors
from lamkit.train.parallel import ParallelStep, Share
from lamkit.train.step import TrainStep
from lamkit.train.world import World

DIRECT = TRUNK.model_copy(update={"output": "direct"})
HEADS = (2, 0)  # of the batches of a step, of three heads


class Meeting:
    """Processes whose sums meet, as threads."""

    def __init__(self, size):
        self.parts, self.barrier = [None] * size, threading.Barrier(size)

    def world(self, rank):
        found = World()
        found.rank, found.size = rank, len(self.parts)

        def total(flat):
            self.parts[rank] = flat.asnumpy()
            self.barrier.wait(20)
            sum_ = np.sum(self.parts, axis=0)
            self.barrier.wait(20)
            return Tensor(sum_)

        found.sum = total
        return found

    def hold(self, what):
        """``what(world)`` in every process: its result, or the error that it raised."""
        results = [None] * len(self.parts)

        def one(rank):
            try:
                results[rank] = what(self.world(rank))
            except UserError as error:
                results[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(len(results))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def test_integers_are_gathered_exactly():
    rng = np.random.default_rng(0)
    mine = [rng.integers(0, 1 << 48, (2, 3)) for _ in range(3)]
    for found in Meeting(3).hold(lambda world: world.gather(mine[world.rank])):
        np.testing.assert_array_equal(found, mine)


def test_ranks_that_differ_in_weights_or_references_refuse_to_train():
    facts = [{"weights": 7, "references": 5}, {"weights": 7, "references": 5}]
    assert Meeting(2).hold(lambda world: world.agree(facts[world.rank])) == [None, None]
    facts[1]["references"] = 6
    for error in Meeting(2).hold(lambda world: world.agree(facts[world.rank])):
        assert "differ in their references: all ranks must read the same data sets" in str(error)


class Stopped(Exception):
    """Instead of the sum over all ranks: what a rank sends is all that is wanted."""


@pytest.fixture(scope="module")
def parts():
    """A step of two batches of three heads, and its batches."""
    config = TrainConfig(weight_decay=0.0)
    potential, average = Potential(DIRECT, ["a", "b", "c"]), Potential(DIRECT, ["a", "b", "c"])
    step = TrainStep(potential, average, config)
    ones = Tensor(np.ones(len(step.objective.loss.names)), ms.float32)
    shares = [Share(k, head, ones, ones[:3], tensors(batch_of(seed=k))) for k, head in enumerate(HEADS)]
    of_heads = {head: numbers(0.01, 1, 1, config) for head in HEADS}
    return ParallelStep(step, World(), 2, 3, told=1, leader=2), shares, of_heads


def test_two_ranks_send_what_one_process_adds_up(parts, monkeypatch):
    parallel, shares, of_heads = parts
    sent = []

    def stop_there(flat):
        sent.append(flat.asnumpy())
        raise Stopped

    monkeypatch.setattr(parallel.world, "sum", stop_there)
    for chosen in (shares, shares[:1], shares[1:]):
        monkeypatch.setattr(parallel.world, "rank", chosen[0].shard)
        told = np.array([[10.0 + share.shard] for share in chosen])
        with pytest.raises(Stopped):
            parallel(chosen, HEADS, of_heads, told, np.array([3.5, 1.0]), stop=chosen is not shares)
    whole, first, second = sent
    np.testing.assert_array_equal((first + second)[:-1], whole[:-1])
    assert np.abs(whole[: parallel.layout.gradients]).max() > 0
    assert whole[-5:].tolist() == [
        10.0,
        11.0,
        3.5,
        1.0,
        0.0,
    ]  # what each tells, what the leader tells, who stops
    assert (first + second)[-1] > 0  # one that wants to stop, or both


@pytest.mark.slow
def test_a_step_of_two_batches_moves_the_trunk_and_their_heads_by_adam_and_no_other(parts):
    parallel, shares, of_heads = parts
    step = parallel.gradient.inner
    before = [[p.asnumpy().copy() for p in group] for group in (step.trunk, step.heads)]
    outcome = parallel(shares, HEADS, of_heads, np.array([[10.0], [11.0]]), np.array([3.5, 1.0]), stop=False)
    trunk, heads = (
        [p.asnumpy() - old for p, old in zip(group, of_group, strict=True)]
        for group, of_group in zip((step.trunk, step.heads), before, strict=True)
    )
    assert max(np.abs(change).max() for change in trunk) == pytest.approx(
        0.01, rel=1e-3
    )  # Adam's first step: the rate
    assert not any(change[1].any() for change in heads)
    assert all(max(np.abs(change[k]).max() for change in heads) > 0.009 for k in HEADS)
    assert outcome.leader.tolist() == [3.5, 1.0]
    assert outcome.moments.tolist() == [[10.0], [11.0]]
    assert not outcome.stop
