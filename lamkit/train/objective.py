"""What training minimises: the loss of one head's predictions for one batch, as a function of its weights."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn

from lamkit.data.batch import Batch
from lamkit.model.base import INPUTS, Headed, inputs
from lamkit.train.config import LossConfig
from lamkit.train.loss import Loss, squared_errors

LABELS = ("energy", "energy_mask", "forces", "forces_mask", "stress", "stress_mask", "graph_mask")
NODE_GRAPH, N_ATOMS, VOLUME = (INPUTS.index(name) for name in ("node_graph", "n_atoms", "volume"))


def tensors(batch: Batch, dtype: ms.Type = ms.float32) -> tuple[Tensor, ...]:
    """What the training step of an Orb takes of a batch: the network's inputs, then each label and its mask."""
    return *inputs(batch, dtype), *labels(batch, dtype)


def labels(batch: Batch, dtype: ms.Type = ms.float32) -> tuple[Tensor, ...]:
    """Each label of a batch and its mask."""
    return tuple(Tensor(getattr(batch, name), dtype) for name in LABELS)


class Objective(nn.Cell):
    """Predictions and their loss.

    Args:
        potential: the network.
        config: the loss.
    """

    def __init__(self, potential: Headed, config: LossConfig) -> None:
        super().__init__(auto_prefix=False)
        self.potential = potential
        self.loss = Loss(config, potential.config, potential.output_names, potential.dtype)
        self.n_inputs = potential.n_inputs

    def tensors(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the training step takes of a batch: the network's inputs, then each label and its mask."""
        return *self.potential.inputs(batch), *labels(batch, self.potential.dtype)

    def construct(
        self, slices: tuple[Tensor, ...], head: Tensor, weights: Tensor, units: Tensor, *batch: Tensor
    ) -> tuple[Tensor, ...]:
        """The loss, mean squared errors of energy per atom, forces and stress, then the loss's terms.

        Args:
            slices: weights of the head that is drawn (``Potential.head_slices``).
            head: scalar int32.
            weights: one for each of ``loss.names``.
            units: [3] units of the errors.
            *batch: from :meth:`tensors`.
        """
        scales = self.potential.head_scales(head)
        predicted = self.potential.outputs(slices, scales, *batch[: self.n_inputs])
        energy, energy_mask, forces, forces_mask, stress, stress_mask, graph_mask = batch[self.n_inputs :]
        target, masks = (energy, forces, stress), (energy_mask, forces_mask, stress_mask)
        bins = self.potential.head_bins(head)
        places = batch[NODE_GRAPH], (batch[N_ATOMS], batch[VOLUME])
        loss, terms = self.loss(weights, predicted, target, masks, units, scales, bins, *places, graph_mask)
        return loss, *squared_errors(predicted[:3], target, masks), *terms
