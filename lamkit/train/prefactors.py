"""Weights of the loss's terms as they follow the learning rate, for each head; plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from lamkit.data.heads import LossWeights
from lamkit.errors import UserError
from lamkit.train.config import Label, LossConfig

LABELS: tuple[Label, ...] = get_args(Label)


class Prefactors:
    """Weights of one head: p = start α + limit (1 − α), with α = lr / lr_peak.

    DeePMD's formula (doc/model/train-energy.md, pt/loss/ener.py): a term whose start or limit is 0 is off.

    Args:
        config: the loss.
        head: name of the head.
        own: weights that the head asks for.
        names: terms of the loss, in order.
        stress: whether the model gives stress.

    Raises:
        UserError: nothing is left to train.
    """

    def __init__(
        self, config: LossConfig, head: str, own: LossWeights, names: Sequence[str], *, stress: bool = True
    ) -> None:
        given = config.heads.get(head)
        start: dict[str, float] = {name: getattr(config, name) for name in names if name not in LABELS}
        end = dict(start)
        for label in LABELS:
            factor = getattr(own, label)
            replaced = getattr(given, label) if given is not None else None
            start[label] = getattr(config, label) * factor if replaced is None else replaced
            if given is not None and given.limit is not None:
                end[label] = given.limit.get(label, start[label])
            elif label in config.limit and replaced is None:
                end[label] = config.limit[label] * factor
            else:
                end[label] = start[label]
        if not stress:
            start["stress"] = 0.0
        off = {label for label in LABELS if not (start[label] and end[label])}
        if off == set(LABELS):
            raise UserError(f"head {head}: all its loss weights are 0; there is nothing to train")
        self.start = np.array([0.0 if n in off else start[n] for n in names])
        self.limit = np.array([0.0 if n in off else end[n] for n in names])

    def at(self, alpha: float) -> NDArray[np.float32]:
        """The weights where the learning rate is ``alpha`` of its peak, one for each term."""
        return (self.start * alpha + self.limit * (1.0 - alpha)).astype(np.float32)
