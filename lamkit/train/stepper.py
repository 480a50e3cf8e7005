"""From the batches of a step to the optimizer step: fused into one graph for one batch, through a buffer for more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor

from lamkit.data.batch import require_conditions
from lamkit.data.sampler import Draw
from lamkit.model.base import Headed
from lamkit.train import normalizing, schedule
from lamkit.train.config import TrainConfig
from lamkit.train.parallel import ParallelStep, Share
from lamkit.train.prefactors import Prefactors
from lamkit.train.step import TrainStep
from lamkit.train.tasks import Task
from lamkit.train.world import World


class Taken(NamedTuple):
    """What is known after a step, alike in every rank.

    Attributes:
        values: for each batch of the step: loss, gradient norm, mean squared errors of energy per atom, forces,
            stress.
        minutes: wall time of the leader.
        over: whether the leader wants to end the run.
        stop: whether any rank was asked to stop.
    """

    values: list[tuple[float, ...]]
    minutes: float
    over: bool
    stop: bool


class Stepper:
    """Takes steps.

    Args:
        tasks: the heads.
        config: training options.
        step: network, averages and moments.
        networks: the network and its average, whose normalisers may move.
        prefactors: weights of the loss, by head.
        world: the ranks.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        config: TrainConfig,
        step: TrainStep,
        networks: tuple[Headed, Headed],
        prefactors: Sequence[Prefactors],
        world: World,
    ) -> None:
        self.tasks, self.c, self.step, self.networks = list(tasks), config, step, networks
        self.prefactors = list(prefactors)
        self.online = config.normalizers == "online"
        shards = world.size * config.accumulate
        told = 3 * len(networks[0].quantities) if self.online else 0
        self.parallel = (
            ParallelStep(step, world, shards, len(self.tasks), told=told, leader=2) if shards > 1 else None
        )

    def __call__(
        self, draw: Draw, rate: float, head_steps: Sequence[int], minutes: float, over: bool, stop: bool
    ) -> Taken:
        """One step.

        Args:
            draw: its batches.
            rate: learning rate.
            head_steps: steps that each head has had.
            minutes: wall time, which the leader tells the others.
            over: whether the run is over, likewise.
            stop: whether this process was asked to stop.
        """
        if getattr(self.networks[0].config, "conditioning", False):
            for item in draw.items:
                require_conditions(item.batch)
        if self.parallel is None:
            return Taken([self._fused(draw, rate, head_steps)], minutes, over, stop)
        told = np.zeros((len(draw.items), self.parallel.layout.told))
        if self.online:
            told = np.array([normalizing.moments(i.batch, self.networks[0].quantities) for i in draw.items])
        shares = [
            Share(item.shard, item.head, *self._of_head(item.head, draw.step, rate),
                  self.step.objective.tensors(item.batch))
            for item in draw.items
        ]  # fmt: skip
        numbers = {h: self._numbers(draw.step, h, rate, head_steps) for h in set(draw.heads)}
        leader = np.array([minutes, over], np.float32)
        found = self.parallel(shares, draw.heads, numbers, told, leader, stop)
        if self.online:
            for head, row in zip(draw.heads, found.moments, strict=True):
                normalizing.observe_moments(self.networks, self.tasks[head].name, row)
        return Taken(found.values, float(found.leader[0]), bool(found.leader[1]), found.stop)

    def _fused(self, draw: Draw, rate: float, head_steps: Sequence[int]) -> tuple[float, ...]:
        [item] = draw.items
        if self.online:
            normalizing.observe(self.networks, self.tasks[item.head].name, item.batch)
        outputs = self.step(
            Tensor(item.head, ms.int32),
            self._numbers(draw.step, item.head, rate, head_steps),
            *self._of_head(item.head, draw.step, rate),
            *self.step.objective.tensors(item.batch),
        )
        return tuple(float(v.asnumpy()) for v in outputs)

    def _numbers(self, step: int, head: int, rate: float, head_steps: Sequence[int]) -> Tensor:
        """What ``TrainStep.construct`` calls numbers."""
        c = self.c
        powers = [b ** (n + 1) for n in (step, head_steps[head]) for b in (c.beta1, c.beta2)]
        decays = schedule.ema_decay(step, c), schedule.head_ema_decay(step, head_steps[head], c)
        return Tensor(np.array([rate, *powers, *decays]), ms.float32)

    def _of_head(self, head: int, step: int, rate: float) -> tuple[Tensor, Tensor]:
        """Weights of the loss and units of the errors."""
        scales = self.tasks[head].scales
        weights = self.prefactors[head].at(schedule.rate_fraction(step, rate, self.c))
        return Tensor(weights), Tensor(np.array([scales.energy, scales.forces, scales.stress]), ms.float32)
