"""The plan of a run before its first step: chance of each head, its expected passes over its data, the steps."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lamkit.data.batch import Shape
from lamkit.data.buckets import Buckets, Need
from lamkit.data.dataset import View
from lamkit.data.sampler import probabilities
from lamkit.errors import UserError

SAMPLE = 2000  # frames that are dealt into batches to count them


class Plan(NamedTuple):
    """How heads are drawn.

    Attributes:
        chances: probability of each head, each time a batch is drawn.
        batches: batches of one pass over the frames of each head.
        steps: optimizer steps of the run.
        draws: batches per step, over all ranks.
    """

    chances: dict[str, float]
    batches: dict[str, float]
    steps: int
    draws: int

    def epochs(self, head: str) -> float:
        """Expected passes over the frames of a head."""
        return self.chances[head] * self.steps * self.draws / self.batches[head]


def batches_per_pass(view: View, need: Need, shape: Shape, seed: int) -> float:
    """Batches that one pass over ``view`` fills, by dealing a sample of its frames in random order.

    Args:
        view: the frames.
        need: their neighbours per atom.
        shape: what a batch of theirs holds.
        seed: of the sample.
    """
    density = need.edges_per_step / max(need.shape.n_atoms - 1, 1)
    sizes = view.n_atoms
    chosen = np.random.default_rng(seed).permutation(len(sizes))[:SAMPLE]
    batches, atoms, graphs = 1, 0, 0
    for size in sizes[chosen].tolist():
        full = atoms + size >= shape.n_atoms or (atoms + size) * density > shape.n_edges
        if graphs and (full or graphs + 1 >= shape.n_graphs):
            batches, atoms, graphs = batches + 1, 0, 0
        atoms, graphs = atoms + size, graphs + 1
    return batches * len(sizes) / max(len(chosen), 1)


def by_epochs(epochs: Mapping[str, float], batches: Mapping[str, float]) -> tuple[dict[str, float], float]:
    """Chances and number of draws that give each head its target number of passes over its frames.

    p_t = e_t B_t / Σ e_j B_j and Σ e_j B_j draws, as DeePMD-kit's ``num_epoch_dict`` (its
    deepmd/dpmodel/utils/training_utils.py), B the batches of one pass.

    Raises:
        UserError: a head is missing, or no target is positive.
    """
    if missing := [name for name in batches if name not in epochs]:
        raise UserError(f"train.epochs: no number of epochs for {', '.join(missing)}")
    draws = {name: float(epochs[name]) * batches[name] for name in batches}
    total = sum(draws.values())
    if not total > 0 or min(draws.values()) < 0:
        raise UserError(f"train.epochs: {dict(epochs)}: must be ≥ 0 and one of them > 0")
    return {name: value / total for name, value in draws.items()}, total


def make_plan(
    views: Mapping[str, View],
    needs: Sequence[Need],
    *,
    exponent: float,
    weights: Mapping[str, float] | None,
    epochs: Mapping[str, float] | None,
    steps: int,
    draws: int,
    seed: int,
    own: Collection[str] = (),
) -> tuple[Plan, Buckets]:
    """The plan, and the padded shapes that follow from it.

    Args:
        views: training frames of each head, in the order of the network.
        needs: from :func:`lamkit.data.buckets.measure`, in the same order.
        exponent: p ∝ N ** exponent, N in frames.
        weights: p ∝ these instead.
        epochs: target passes per head instead; then ``steps`` follows from them.
        steps: optimizer steps otherwise.
        draws: batches per step, over all ranks.
        seed: of the sample of frames that is dealt into batches.
        own: heads with a budget of their own, which their batches keep to.

    Raises:
        UserError: what is given contradicts itself or leaves out heads.
    """
    if weights is not None and epochs is not None:
        raise UserError("train.weights and train.epochs: give one of them, the other follows")
    frames = {name: len(view) for name, view in views.items()}
    chances = probabilities(frames, exponent=1.0 if epochs else exponent, weights=weights)
    buckets = Buckets(needs, [chances[n] for n in views], [i for i, n in enumerate(views) if n in own])
    batches = {
        name: batches_per_pass(view, needs[i], buckets.of_head(i), seed)
        for i, (name, view) in enumerate(views.items())
    }
    if epochs is not None:
        chances, total = by_epochs(epochs, batches)
        steps = max(1, math.ceil(total / draws))
    return Plan(chances, batches, steps, draws), buckets
