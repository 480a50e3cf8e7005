"""Learning rate and averaging decay as functions of the step; plain numbers, computed outside the network."""

from __future__ import annotations

import math

from lamkit.train.config import TrainConfig


def progress(step: int, minutes: float, config: TrainConfig) -> float:
    """How much of the run is over, 0 to 1: by steps or by time, whichever is further."""
    by_time = minutes / config.max_minutes if config.max_minutes else 0.0
    return min(1.0, max(step / config.max_steps, by_time))


def learning_rate(step: int, done: float, config: TrainConfig) -> float:
    """Rate of the optimizer at ``step`` (from 0) when ``done`` of the run is over.

    Linear warm-up, then ``cosine``: lr = lr_peak (f + (1 − f)(1 + cos πt)/2), ``exponential``:
    lr = lr_peak f^t, or ``constant``; f is ``final_learning_rate`` and t is ``done``.
    """
    peak, final = config.learning_rate, config.final_learning_rate
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    if config.decay == "cosine":
        return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))
    if config.decay == "exponential":
        return peak * final**done
    return peak


def rate_fraction(step: int, rate: float, config: TrainConfig) -> float:
    """Learning rate as a fraction of its peak, which the loss's weights follow; 1 while it is warming up."""
    return 1.0 if step < config.warmup_steps else min(1.0, rate / config.learning_rate)


def ema_decay(step: int, config: TrainConfig) -> float:
    """Decay of the weight average; small at first so that the start is forgotten."""
    return min(config.ema, (1 + step) / (10 + step)) if config.ema > 0 else 0.0


def head_ema_decay(step: int, head_steps: int, config: TrainConfig) -> float:
    """Decay of a head's average at its own step: as much as the trunk's average forgets from one of them to the next.

    A head that is drawn at each n-th step would otherwise be averaged over n times as many steps of the run as the
    trunk, and its average would belong to a trunk of long ago.

    Args:
        step: of the run, from 0.
        head_steps: steps that the head has had before.
        config: training options.
    """
    return ema_decay(step, config) ** ((step + 1) / (head_steps + 1))
