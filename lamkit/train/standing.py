"""Where a run stands: what ``state.json`` holds and a resumed run continues from, exactly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Triple = tuple[float, float, float]
FEW = 4  # heads that a progress line names
ENDLESS = ("best", "lowest")  # infinite before there is one


@dataclass
class Standing:
    """Position of a run.

    Attributes:
        step: optimizer steps done.
        minutes: wall time so far.
        validated: step of the last validation; −1 before the first.
        best: validation score of the best checkpoint so far; infinite before the first.
        best_step: step of it.
        lowest: smallest validation score so far, also of what fine-tuning did not take for surely better.
        lowest_step: step of it.
        head_steps: optimizer steps of each head.
        draws: batches of each head.
        sampler: (epoch, frames used) of each head, for each part of the data ([shards][heads]).
        shapes: padded shapes beyond the planned ones ([ranks][shapes]): larger frames than expected came.
        recent: squared training errors since the last validation (:meth:`Recent.dump`).
        errors: last validation errors per head, eV units.
        best_errors: those of ``best_step``.
        first_errors: those before the first step.
        first_squares: squared errors of each frame then (:attr:`Validator.squares`), for heads that must not get worse.
    """

    step: int = 0
    minutes: float = 0.0
    validated: int = -1
    best: float = math.inf
    best_step: int = 0
    lowest: float = math.inf
    lowest_step: int = 0
    head_steps: list[int] = field(default_factory=list)
    draws: list[int] = field(default_factory=list)
    sampler: list[Any] = field(default_factory=list)
    shapes: list[Any] = field(default_factory=list)
    recent: list[Any] = field(default_factory=list)
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    best_errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    first_errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    first_squares: dict[str, list[list[float]]] = field(default_factory=dict)

    @classmethod
    def at_start(cls, n_heads: int) -> Standing:
        """Nothing done yet."""
        return cls(head_steps=[0] * n_heads, draws=[0] * n_heads)

    @classmethod
    def of_json(cls, state: Mapping[str, Any]) -> Standing:
        """Inverse of :meth:`to_json`."""
        known = {k: v for k, v in state.items() if k in cls.__dataclass_fields__}
        known.setdefault("draws", list(known.get("head_steps", [])))
        if known.get("sampler") and isinstance(known["sampler"][0][0], int):  # saved before there were ranks
            known["sampler"] = [known["sampler"]]
        return cls(**{**known, **{k: math.inf for k in ENDLESS if known.get(k) is None}})

    def to_json(self) -> dict[str, Any]:
        """Plain values; JSON has no infinity."""
        state = dataclasses.asdict(self)
        return {**state, **{k: None for k in ENDLESS if math.isinf(state[k])}}


class Recent:
    """Squared errors of the training batches since the last validation, per head."""

    def __init__(self, n_heads: int) -> None:
        self.sums, self.counts = np.zeros((n_heads, 3)), np.zeros(n_heads)

    def reset(self) -> None:
        """Forget everything."""
        self.sums[:], self.counts[:] = 0.0, 0.0

    def add(self, head: int, values: Sequence[float]) -> None:
        """Count one batch: loss, gradient norm, squared errors of energy, forces, stress."""
        self.sums[head] += values[2:5]
        self.counts[head] += 1

    def dump(self) -> list[Any]:
        """Plain numbers for ``state.json``."""
        return [self.sums.tolist(), self.counts.tolist()]

    def load(self, state: Sequence[Any]) -> None:
        """Inverse of :meth:`dump`."""
        if state:
            self.sums, self.counts = np.array(state[0]), np.array(state[1])

    def rmse(self, names: Sequence[str]) -> dict[str, Triple]:
        """Per head that was drawn: (forces as the total, energy per atom, forces), eV units."""
        found = {}
        for k, name in enumerate(names):
            if self.counts[k]:
                energy, forces, _ = np.sqrt(self.sums[k] / self.counts[k])
                found[name] = (float(forces), float(energy), float(forces))
        return found

    def text(self, names: Sequence[str]) -> str:
        """Force errors of the heads for a log line."""
        return ", ".join(f"{name} F {1000 * v[2]:.0f} meV/Å" for name, v in self.rmse(names).items())

    def short(self, names: Sequence[str]) -> str:
        """Force errors of the heads, or the smallest and the largest of many, for a progress line."""
        found = sorted((v[2], name) for name, v in self.rmse(names).items())
        if len(found) <= FEW:
            return self.text(names)
        (low, best), (high, worst) = found[0], found[-1]
        return f"F {1000 * low:.0f} ({best}) to {1000 * high:.0f} ({worst}) meV/Å"
