"""Losses of one batch, inside the compiled step: a weighted sum of small named terms.

``huber``, ``mae`` and ``mse`` measure errors in units of the head's data or as they are. ``orb-mae`` and
``orb-huber`` are the losses that the public models were trained with (orb-models 0.4 and 0.5): errors of normalised
quantities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from lamkit.model.config import Architecture, TrunkConfig
from lamkit.train.config import Label, LossConfig

Penalty = Callable[[Tensor, Tensor], Tensor]
Triple = tuple[Tensor, Tensor, Tensor]  # of energies, forces, stresses

LABELS: tuple[Label, ...] = ("energy", "forces", "stress")
ORB_DELTA = 0.01  # corner of Orb's Huber losses, in normalised units
# Orb's conditional Huber loss: the corner shrinks where the normalised target force is larger than this.
LARGE_FORCES = (100.0, 200.0, 300.0)
SHRINKING = (1.0, 0.7, 0.4, 0.1)
OFFDIAGONAL = 0.1  # weight of shear beside the diagonal, in Orb's version 3


def huber(x: Tensor, delta: Tensor) -> Tensor:
    """x²/2 for |x| ≤ δ, δ(|x| − δ/2) beyond."""
    size = ops.abs(x)
    inner = ops.minimum(size, delta)
    return inner * (size - 0.5 * inner)


def steep_huber(x: Tensor, delta: Tensor) -> Tensor:
    """The Huber loss divided by δ, so that its slope is 1 far out."""
    return huber(x, delta) / delta


def mae(x: Tensor, delta: Tensor) -> Tensor:
    """|x|."""
    return ops.abs(x)


def mse(x: Tensor, delta: Tensor) -> Tensor:
    """x²."""
    return ops.square(x)


PENALTIES: dict[str, Penalty] = {"huber": steep_huber, "mae": mae, "mse": mse}


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask`` is 1; 0 where nothing is known."""
    return (values * mask).sum() / ops.maximum(mask.sum(), ops.ones_like(mask.sum()))


def graph_mean(values: Tensor, mask: Tensor, node_graph: Tensor, n_graphs: int) -> Tensor:
    """Mean over graphs of the mean over their atoms, of values [N] where ``mask`` [N] is 1."""
    total = ops.unsorted_segment_sum(values * mask, node_graph, n_graphs)
    count = ops.unsorted_segment_sum(mask, node_graph, n_graphs)
    return masked_mean(total / ops.maximum(count, ops.ones_like(count)), ops.cast(count > 0, values.dtype))


class ScaledTerms(nn.Cell):
    """Energy, force and stress terms of ``huber``, ``mae`` and ``mse``: errors in units, through a penalty."""

    def __init__(self, config: LossConfig, trunk: Architecture, dtype: ms.Type) -> None:
        super().__init__()
        self.penalty = PENALTIES[config.kind]
        self.deltas = tuple(Tensor(config.deltas.get(name, config.delta), dtype) for name in LABELS)
        self.physical, self.intensive = config.units == "physical", config.intensive
        self.nine = Tensor([1.0, 1.0, 1.0, 2.0, 2.0, 2.0], dtype)  # how often each Voigt component occurs

    def construct(
        self,
        predicted: Triple,
        target: Triple,
        masks: Triple,
        units: Tensor,
        scales: Tensor,
        node_graph: Tensor,
        sizes: tuple[Tensor, Tensor],
    ) -> Triple:
        """Each term without its weight.

        Args:
            predicted: energy per atom [G] eV, forces [N, 3] eV/Å, stress [G, 6] eV/Å³.
            target: the same.
            masks: [G], [N], [G, 6].
            units: [3], energy eV/atom, forces eV/Å, stress eV/Å³.
            scales: [8], normalisers of the head (``Potential.head_scales``).
            node_graph: [N].
            sizes: number of atoms [G] and volume [G] Å³.
        """
        n_atoms, volume = sizes
        errors = [predicted[i] - target[i] for i in range(3)]
        known = masks[2]
        if self.physical:
            errors[2] = errors[2] * ops.expand_dims(volume / n_atoms, 1)
            known = known * self.nine
        else:
            errors = [errors[i] / units[i] for i in range(3)]
        energy = self.penalty(errors[0], self.deltas[0])
        of_atom = self.penalty(errors[1], self.deltas[1]).mean(axis=1)
        stress = self.penalty(errors[2], self.deltas[2])
        if not self.intensive:
            energy = energy * n_atoms
            if self.physical:
                stress = stress * ops.expand_dims(n_atoms, 1)
        return masked_mean(energy, masks[0]), masked_mean(of_atom, masks[1]), masked_mean(stress, known)


class OrbMae(nn.Cell):
    """Mean absolute errors of normalised quantities; forces are averaged graph by graph."""

    def __init__(self, config: LossConfig, trunk: Architecture, dtype: ms.Type) -> None:
        super().__init__()

    def construct(
        self,
        predicted: Triple,
        target: Triple,
        masks: Triple,
        units: Tensor,
        scales: Tensor,
        node_graph: Tensor,
        sizes: tuple[Tensor, Tensor],
    ) -> Triple:
        """As :meth:`ScaledTerms.construct`."""
        energy = masked_mean(ops.abs(predicted[0] - target[0]) / scales[1], masks[0])
        of_atom = ops.abs(predicted[1] - target[1]).mean(axis=1) / scales[3]
        forces = graph_mean(of_atom, masks[1], node_graph, masks[0].shape[0])
        return energy, forces, masked_mean(ops.abs(_normalized_stress(predicted, target, scales)), masks[2])


class OrbHuber(nn.Cell):
    """Huber losses of normalised quantities, for forces with a corner that depends on the target's size.

    Direct models of version 3 weigh off-diagonal stress by 0.1 of the diagonal.
    """

    def __init__(self, config: LossConfig, trunk: Architecture, dtype: ms.Type) -> None:
        super().__init__()
        self.delta = Tensor(ORB_DELTA, dtype)
        self.deltas = Tensor(ORB_DELTA * np.array(SHRINKING), dtype)
        self.offdiagonal = Tensor(OFFDIAGONAL, dtype)
        self.halved = isinstance(trunk, TrunkConfig) and trunk.version == "v3" and not trunk.conservative

    def construct(
        self,
        predicted: Triple,
        target: Triple,
        masks: Triple,
        units: Tensor,
        scales: Tensor,
        node_graph: Tensor,
        sizes: tuple[Tensor, Tensor],
    ) -> Triple:
        """As :meth:`ScaledTerms.construct`."""
        energy = masked_mean(huber((predicted[0] - target[0]) / scales[1], self.delta), masks[0])
        size = ops.sqrt(ops.square((target[1] - scales[2]) / scales[3]).sum(axis=1))
        place = ops.zeros_like(masks[1])
        for bound in LARGE_FORCES:
            place = place + ops.cast(size >= bound, size.dtype)
        delta = ops.expand_dims(ops.gather(self.deltas, ops.cast(place, ms.int32), 0), 1)
        of_atom = huber((predicted[1] - target[1]) / scales[3], delta).mean(axis=1)
        stress = huber(_normalized_stress(predicted, target, scales), self.delta)
        return energy, masked_mean(of_atom, masks[1]), self._stress(stress, masks[2])

    def _stress(self, values: Tensor, mask: Tensor) -> Tensor:
        if not self.halved:
            return masked_mean(values, mask)
        offdiagonal = masked_mean(values[:, 3:], mask[:, 3:])
        return masked_mean(values[:, :3], mask[:, :3]) + self.offdiagonal * offdiagonal


def _normalized_stress(predicted: Triple, target: Triple, scales: Tensor) -> Tensor:
    """Errors of stress in deviations of the diagonal and the off-diagonal labels, [G, 6]."""
    error = predicted[2] - target[2]
    return ops.concat((error[:, :3] / scales[5], error[:, 3:] / scales[7]), 1)


def confidence_term(logits: Tensor, predicted: Tensor, target: Tensor, mask: Tensor, bins: Tensor) -> Tensor:
    """Cross entropy of each atom's class of force errors; errors beyond the last class do not count.

    Args:
        logits: [N, n_bins].
        predicted: forces [N, 3] eV/Å.
        target: the same.
        mask: [N].
        bins: [n_bins + 1], edges of the classes, eV/Å of |ΔF| averaged over x, y, z.
    """
    error = ops.stop_gradient(ops.abs(predicted - target).mean(axis=1))
    above = ops.cast(ops.expand_dims(error, 1) > bins[:-1], logits.dtype)
    # Above the lower edge of its class and not above that of the next; the first class takes an error of 0.
    first = ops.ones_like(above[:, :1])
    chosen = ops.concat((first, above[:, 1:]), 1) - ops.concat((above[:, 1:], ops.zeros_like(first)), 1)
    shifted = logits - ops.stop_gradient(ops.amax(logits, 1, True))
    entropy = ops.log(ops.exp(shifted).sum(axis=1)) - (chosen * shifted).sum(axis=1)
    return masked_mean(entropy, mask * ops.cast(error <= bins[-1], logits.dtype))


def equigrad_term(rotational_grad: Tensor, graph_mask: Tensor) -> Tensor:
    """Mean over graphs of the norm of dE/dG [G, 3, 3], eV: how far the energy depends on orientation."""
    square = ops.square(rotational_grad).sum(axis=(1, 2))
    some = ops.cast(square > 0, square.dtype)  # the root has no slope at zero
    return masked_mean(ops.sqrt(square + (1.0 - some)) * some, graph_mask)


class ExtraTerm(nn.Cell):
    """Errors of the energies of atoms or of products with the Hessian, as ``huber``, ``mae`` or ``mse`` has it."""

    def __init__(self, config: LossConfig, dtype: ms.Type) -> None:
        super().__init__()
        self.penalty, self.physical = PENALTIES[config.kind], config.units == "physical"
        self.delta = Tensor(config.delta, dtype)

    def construct(self, error: Tensor, mask: Tensor, unit: Tensor) -> Tensor:
        """Mean over the atoms where ``mask`` [N] is 1.

        Args:
            error: [N, 1] eV or [N, 3] eV/Å².
            mask: [N].
            unit: of the forces, eV/Å; with 1 Å that of energies and of products.
        """
        scaled = error if self.physical else error / unit
        return masked_mean(self.penalty(scaled, self.delta).mean(axis=1), mask)


LOSSES = {
    "huber": ScaledTerms,
    "mae": ScaledTerms,
    "mse": ScaledTerms,
    "orb-mae": OrbMae,
    "orb-huber": OrbHuber,
}


class Loss(nn.Cell):
    """The sum of all terms times their weights.

    Args:
        config: kind of the loss; a term of weight 0 beyond energy, forces and stress is not computed.
        trunk: which terms there can be.
        outputs: ``Potential.output_names``.
        dtype: of the potential.

    Attributes:
        names: the terms, in the order of their weights.
        extra: those of them that are of the extra labels, the last ones.
    """

    def __init__(
        self, config: LossConfig, trunk: Architecture, outputs: tuple[str, ...], dtype: ms.Type = ms.float32
    ) -> None:
        super().__init__()
        self.labels: Any = LOSSES[config.kind](config, trunk, dtype)
        self.places = {name: outputs.index(name) for name in outputs}
        self.confident = trunk.confidence and config.confidence > 0
        self.turning = trunk.conservative and config.equigrad > 0
        more = (("confidence",) if self.confident else ()) + (("equigrad",) if self.turning else ())
        self.extra = tuple(name for name in ("atom_energy", "hessian") if getattr(config, name) > 0)
        if self.extra:
            self.extra_term = ExtraTerm(config, dtype)
        self.names = ("energy", "forces", "stress", *more, *self.extra)

    def construct(
        self,
        weights: Tensor,
        predicted: tuple[Tensor, ...],
        target: Triple,
        masks: Triple,
        units: Tensor,
        scales: Tensor,
        bins: Tensor,
        node_graph: Tensor,
        sizes: tuple[Tensor, Tensor],
        graph_mask: Tensor,
        errors: tuple[Tensor, ...] = (),
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss and its terms without their weights.

        Args:
            weights: one for each of :attr:`names`.
            predicted: from ``Potential.outputs``.
            target: as in :meth:`ScaledTerms.construct`.
            masks: likewise.
            units: likewise.
            scales: likewise.
            node_graph: likewise.
            sizes: likewise.
            bins: edges of the classes of confidence (``Potential.head_bins``).
            graph_mask: [G].
            errors: for each of :attr:`extra` the errors and their mask, as in :meth:`ExtraTerm.construct`.
        """
        terms = self.labels(predicted[:3], target, masks, units, scales, node_graph, sizes)
        if self.confident:
            logits = predicted[self.places["confidence"]]
            terms = (*terms, confidence_term(logits, predicted[1], target[1], masks[1], bins))
        if self.turning:
            terms = (*terms, equigrad_term(predicted[self.places["rotational_grad"]], graph_mask))
        for i in range(len(self.extra)):
            terms = (*terms, self.extra_term(errors[2 * i], errors[2 * i + 1], units[1]))
        total = weights[0] * terms[0]
        for i in range(1, len(self.names)):
            total = total + weights[i] * terms[i]
        return total, terms


def squared_errors(predicted: Triple, target: Triple, masks: Triple) -> Triple:
    """Mean squared errors of the batch in physical units: (eV/atom)², (eV/Å)², (eV/Å³)²."""
    energy = masked_mean(ops.square(predicted[0] - target[0]), masks[0])
    forces = masked_mean(ops.square(predicted[1] - target[1]).mean(axis=1), masks[1])
    stress = masked_mean(ops.square(predicted[2] - target[2]), masks[2])
    return energy, forces, stress
