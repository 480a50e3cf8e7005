"""What training minimises: the loss of one head's predictions for one batch, as a function of its weights."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from lamkit.data.batch import Batch
from lamkit.data.curvature import STEP
from lamkit.model.base import INPUTS, Headed, inputs
from lamkit.train.config import LossConfig
from lamkit.train.loss import Loss, squared_errors

LABELS = ("energy", "energy_mask", "forces", "forces_mask", "stress", "stress_mask", "graph_mask")
# What the extra terms of a loss need beside.
EXTRA = {
    "atom_energy": ("atom_energies", "atom_energies_mask"),
    "hessian": ("directions", "products", "products_mask"),
}
NODE_GRAPH, N_ATOMS, VOLUME = (INPUTS.index(name) for name in ("node_graph", "n_atoms", "volume"))
VECTORS, SENDERS, RECEIVERS = (INPUTS.index(name) for name in ("vectors", "senders", "receivers"))


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
        self.of_atoms, self.curved = "atom_energy" in self.loss.extra, "hessian" in self.loss.extra
        self.atom_energies = potential.output_names.index("atom_energies") if self.of_atoms else -1
        self.step = Tensor(STEP, potential.dtype)

    def tensors(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the training step takes of a batch: the network's inputs, then each label and its mask."""
        dtype = self.potential.dtype
        extra = (Tensor(getattr(batch, n), dtype) for term in self.loss.extra for n in EXTRA[term])
        return *self.potential.inputs(batch), *labels(batch, dtype), *extra

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
        given = batch[self.n_inputs :]
        energy, energy_mask, forces, forces_mask, stress, stress_mask, graph_mask = given[:7]
        target, masks = (energy, forces, stress), (energy_mask, forces_mask, stress_mask)
        bins = self.potential.head_bins(head)
        places = batch[NODE_GRAPH], (batch[N_ATOMS], batch[VOLUME])
        errors = self._extra_errors(slices, scales, predicted, batch[: self.n_inputs], given[7:])
        loss, terms = self.loss(
            weights, predicted, target, masks, units, scales, bins, *places, graph_mask, errors
        )
        return loss, *squared_errors(predicted[:3], target, masks), *terms

    def _extra_errors(
        self,
        slices: tuple[Tensor, ...],
        scales: Tensor,
        predicted: tuple[Tensor, ...],
        batch: tuple[Tensor, ...],
        given: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        """Errors and mask of each extra term: [N, 1] eV, [N] and [N, 3] eV/Å², [N]."""
        errors: tuple[Tensor, ...] = ()
        if self.of_atoms:
            errors = (ops.expand_dims(predicted[self.atom_energies] - given[0], 1), given[1])
            given = given[2:]
        if self.curved:
            products = self.products(slices, scales, given[0], batch)
            errors = (*errors, products - given[1], given[2])
        return errors

    def products(
        self, slices: tuple[Tensor, ...], scales: Tensor, directions: Tensor, batch: tuple[Tensor, ...]
    ) -> Tensor:
        """The network's Hessian times ``directions`` [N, 3], in eV/Å²: see :mod:`lamkit.data.curvature`.

        The neighbours are those at the undisplaced positions; what crosses the cutoff on the way has no force
        there, to the order of the square of the step.
        """
        moved = self.step * (
            ops.gather(directions, batch[RECEIVERS], 0) - ops.gather(directions, batch[SENDERS], 0)
        )
        rest = batch[VECTORS + 1 :]
        first = batch[:VECTORS]
        ahead = self.potential.outputs(slices, scales, *first, batch[VECTORS] + moved, *rest)
        behind = self.potential.outputs(slices, scales, *first, batch[VECTORS] - moved, *rest)
        return (behind[1] - ahead[1]) / (2.0 * self.step)
