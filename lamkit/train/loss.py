"""Losses of one batch, inside the compiled step: masked means of errors in units of the head's data."""

from __future__ import annotations

from collections.abc import Callable

from mindspore import Tensor, ops

Penalty = Callable[[Tensor, float], Tensor]


def huber(x: Tensor, delta: float) -> Tensor:
    """x²/2δ for |x| ≤ δ, |x| − δ/2 beyond: the usual Huber loss divided by δ, so that its slope is 1 far out."""
    size = ops.abs(x)
    inner = ops.minimum(size, ops.full_like(size, delta))
    return inner * (size - 0.5 * inner) / delta


def mae(x: Tensor, delta: float) -> Tensor:
    """|x|."""
    return ops.abs(x)


def mse(x: Tensor, delta: float) -> Tensor:
    """x²."""
    return ops.square(x)


PENALTIES: dict[str, Penalty] = {"huber": huber, "mae": mae, "mse": mse}


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask`` is 1; 0 where nothing is known."""
    return (values * mask).sum() / ops.maximum(mask.sum(), ops.ones_like(mask.sum()))


def terms(
    kind: str,
    delta: float,
    predicted: tuple[Tensor, Tensor, Tensor],
    target: tuple[Tensor, Tensor, Tensor],
    masks: tuple[Tensor, Tensor, Tensor],
    units: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Energy, force and stress terms, each without its weight.

    Args:
        kind: name in :data:`PENALTIES`.
        delta: corner of the Huber loss, in units.
        predicted: energy per atom [G] eV, forces [N, 3] eV/Å, stress [G, 6] eV/Å³.
        target: the same.
        masks: [G], [N], [G, 6].
        units: [3], energy eV/atom, forces eV/Å, stress eV/Å³.
    """
    penalty = PENALTIES[kind]
    energy = masked_mean(penalty((predicted[0] - target[0]) / units[0], delta), masks[0])
    of_atom = penalty((predicted[1] - target[1]) / units[1], delta).mean(axis=1)
    forces = masked_mean(of_atom, masks[1])
    stress = masked_mean(penalty((predicted[2] - target[2]) / units[2], delta), masks[2])
    return energy, forces, stress


def squared_errors(
    predicted: tuple[Tensor, Tensor, Tensor],
    target: tuple[Tensor, Tensor, Tensor],
    masks: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean squared errors of the batch in physical units: (eV/atom)², (eV/Å)², (eV/Å³)²."""
    energy = masked_mean(ops.square(predicted[0] - target[0]), masks[0])
    forces = masked_mean(ops.square(predicted[1] - target[1]).mean(axis=1), masks[1])
    stress = masked_mean(ops.square(predicted[2] - target[2]), masks[2])
    return energy, forces, stress
