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


@pytest.fixture(scope="module")
def buffers():
    """The buffers of one process with two batches and of two with one each, and what the step then changes."""
    config = TrainConfig(weight_decay=0.0)
    potential, average = Potential(DIRECT, ["a", "b", "c"]), Potential(DIRECT, ["a", "b", "c"])
    step, world = TrainStep(potential, average, config), World()
    parallel = ParallelStep(step, world, 2, 3, told=1, leader=2)
    ones = Tensor(np.ones(len(step.objective.loss.names)), ms.float32)
    shares = [
        Share(k, head, ones, ones[:3], tensors(batch_of(seed=k))) for k, head in enumerate(HEADS)
    ]
    sent = []

    class Stopped(Exception):
        pass

    def stop_there(flat):
        sent.append(flat.asnumpy())
        raise Stopped

    world.sum, whole = stop_there, world.sum
    leader = np.array([3.5, 1.0], np.float32)
    of = {head: numbers(0.01, 1, 1, config) for head in HEADS}
    for chosen in (shares, shares[:1], shares[1:]):
        told = np.array([[10.0 + s.shard] for s in chosen])
        world.rank = chosen[0].shard
        with pytest.raises(Stopped):
            parallel(chosen, HEADS, of, told, leader, stop=chosen is not shares)
    world.sum, world.rank = whole, 0
    groups = {"trunk": step.trunk, "heads": step.heads}
    before = {k: [p.asnumpy().copy() for p in group] for k, group in groups.items()}
    outcome = parallel(shares, HEADS, of, np.array([[10.0], [11.0]]), leader, stop=False)
    moved = {
        k: [p.asnumpy() - old for p, old in zip(group, before[k], strict=True)] for k, group in groups.items()
    }
    return sent, parallel.layout, outcome, moved


def test_two_ranks_send_what_one_process_adds_up(buffers):
    (whole, first, second), layout, outcome, _ = buffers
    np.testing.assert_array_equal((first + second)[:-1], whole[:-1])
    assert whole[-1] == 0
    assert (first + second)[-1] > 0  # one that wants to stop, or both
    assert np.abs(whole[: layout.gradients]).max() > 0
    assert outcome.leader.tolist() == [3.5, 1.0]
    assert outcome.moments.tolist() == [[10.0], [11.0]]
    assert not outcome.stop
    assert len({values[0] for values in outcome.values}) == 2


def test_a_step_of_two_batches_moves_the_trunk_and_their_heads_by_adam_and_no_other(buffers):
    _, _, _, moved = buffers
    largest = [np.abs(change).max() for change in moved["trunk"]]
    assert max(largest) == pytest.approx(0.01, rel=1e-3)  # the first step of Adam is the rate
    for change in moved["heads"]:
        assert not change[1].any()
    assert all(max(np.abs(change[k]).max() for change in moved["heads"]) > 0.009 for k in HEADS)
