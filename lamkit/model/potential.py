"""The potential: trunk and heads put together, energies, forces and stresses in physical units.

Conservative potentials take **one** gradient g of the energy with respect to the edge vectors d, inside the
same graph: F_i = sum of g over sent edges - sum over received ones, stress = sum of sym(d x g) / volume.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops

from lamkit.model.base import INPUTS, Headed, inputs
from lamkit.model.config import TrunkConfig
from lamkit.model.heads import HeadStack
from lamkit.model.layers import Named
from lamkit.model.repulsion import Repulsion
from lamkit.model.trunk import Trunk

__all__ = ["INPUTS", "Potential", "inputs"]


class Potential(Headed):
    """Trunk and stacked heads.

    The total energy of a frame is ``n_atoms * e + sum of reference[Z_i]``, with e from :meth:`outputs`; the
    references and that sum stay outside, in float64.

    Args:
        trunk: architecture.
        heads: names of the data sets, unique.
        seed: fixes the starting weights.
        dtype: float32; float64 for checks.
    """

    def __init__(
        self, trunk: TrunkConfig, heads: Sequence[str], seed: int = 0, dtype: ms.Type = ms.float32
    ) -> None:
        super().__init__(trunk, heads, dtype)
        self.trunk = Trunk(trunk, np.random.default_rng(seed), dtype)
        self.stack = HeadStack(trunk, self.heads, seed, dtype)
        self.conservative, self.confident, self.stressed = trunk.conservative, trunk.confidence, trunk.stress
        names = ["energy", "forces", "stress"]
        names += ["rotational_grad"] if trunk.conservative else []
        names += ["confidence"] if trunk.confidence else []
        self.output_names = (*names, "latents")
        self.repulsive = trunk.repulsion
        # The public conservative models add the mean over atoms, see configs: repulsion_rule.
        self.mean_repulsion = trunk.conservative and trunk.repulsion_rule == "orb"
        if trunk.repulsion:
            self.repulsion = Repulsion(trunk, dtype)
        self.gradient = ms.grad(self.weighted_energy, grad_position=(0, 1), has_aux=True)
        self.repulsion_gradient = ms.grad(self.summed_repulsion, grad_position=0)
        self.readout_gradient = ms.grad(self.summed_readout, grad_position=(0, 1))

    # -- parameters -------------------------------------------------------------------------------

    def trunk_parameters(self) -> list[Parameter]:
        """Trainable parameters of the trunk, less the decoder, which no energy or force depends on."""
        return [p for _, p in self.trunk.named() if p.requires_grad]

    def decoder_parameters(self) -> list[Parameter]:
        """Parameters of the denoising network; none where there is no such network."""
        return [p for _, p in self.trunk.named_decoder()]

    # -- the physics ------------------------------------------------------------------------------

    def outputs(self, slices: tuple[Tensor, ...], scales: Tensor, *batch: Tensor) -> tuple[Tensor, ...]:
        """Predictions of one head, differentiable with respect to ``slices`` and the trunk's parameters.

        Args:
            slices: from :meth:`head_slices`.
            scales: from :meth:`head_scales`.
            *batch: the tensors of :func:`inputs`, in the order of ``INPUTS``.

        Returns:
            As :attr:`output_names` says. Energy per atom without the references [G] eV/atom, forces [N, 3]
            eV/Å, Voigt stress [G, 6] eV/Å³ (per Å³ of a volume of 1 where nothing is periodic: no meaning;
            zeros where the model gives none); in conservative models the rotational gradient [G, 3, 3] eV,
            dE/dG for a rotation exp(G - G^T); where heads have one, logits of the confidence [N, 50]; final
            node features [N, D]. Rows of the dummy graph are finite and meaningless.
        """
        numbers, vectors, senders, receivers, node_graph, edge_graph, n_atoms, volume = batch[:8]
        arms, torque_inverse, charge, spin = batch[8:]
        if self.conservative:
            topology = (numbers, senders, receivers, node_graph, edge_graph, n_atoms, charge, spin)
            if self.trunk.native:
                energy, pull, nodes = self._energy_and_pull(vectors, slices, scales, *topology)
                forces, stress = self._from_pull(
                    pull, vectors, numbers, senders, receivers, edge_graph, volume
                )
                rotation = self._rotational(pull, vectors, edge_graph, volume)
                return energy, forces, stress, rotation, *self._confidence(slices, nodes), nodes
            # The energies are the gradient with respect to their weights: exact, and the forward pass is
            # done once (outputs passed on as has_aux lose their gradient; the node features are wanted
            # without). The weights are n_atoms once more; constants would get no gradient.
            (pull, energy), (nodes,) = self.gradient(vectors, n_atoms, slices, scales, *topology)
            forces, stress = self._from_pull(pull, vectors, numbers, senders, receivers, edge_graph, volume)
            rotation = self._rotational(pull, vectors, edge_graph, volume)
            return energy, forces, stress, rotation, *self._confidence(slices, nodes), nodes
        nodes = self.trunk(numbers, vectors, senders, receivers, node_graph, charge, spin)
        mean = self._mean(nodes, node_graph, n_atoms)
        energy = self.stack.energy(slices, mean) * scales[1] + scales[0]
        forces = self._balanced(self.stack.forces(slices, nodes), node_graph, n_atoms, arms, torque_inverse)
        forces = forces * scales[3] + scales[2]
        stress = self._direct_stress(slices, scales, mean)
        if self.repulsive:
            pairs = self._pair_repulsion(vectors, numbers, senders, receivers, edge_graph, n_atoms)
            pull = self.repulsion_gradient(vectors, numbers, senders, receivers)
            extra = self._from_pull(pull, vectors, numbers, senders, receivers, edge_graph, volume)
            energy, forces = energy + pairs / n_atoms, forces + extra[0]
            if self.stressed:
                stress = stress + extra[1]
        return energy, forces, stress, *self._confidence(slices, nodes), nodes

    def _direct_stress(self, slices: tuple[Tensor, ...], scales: Tensor, mean: Tensor) -> Tensor:
        """Stress by its own network from the mean node features; zeros where there is no such network."""
        if not self.stressed:
            return ops.zeros_like(ops.tile(mean[:, :1], (1, 6)))
        raw = self.stack.stress(slices, mean)
        return ops.concat((raw[:, :3] * scales[5] + scales[4], raw[:, 3:] * scales[7] + scales[6]), 1)

    def _confidence(self, slices: tuple[Tensor, ...], nodes: Tensor) -> tuple[Tensor, ...]:
        return (self.stack.confidence(slices, nodes),) if self.confident else ()

    def weighted_energy(
        self,
        vectors: Tensor,
        weights: Tensor,
        slices: tuple[Tensor, ...],
        scales: Tensor,
        numbers: Tensor,
        senders: Tensor,
        receivers: Tensor,
        node_graph: Tensor,
        edge_graph: Tensor,
        n_atoms: Tensor,
        charge: Tensor,
        spin: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Sum over graphs of weight times energy per atom, references left out; weights are [G].

        The node features [N, D] come with it.
        """
        nodes = self.trunk(numbers, vectors, senders, receivers, node_graph, charge, spin)
        mean = self._mean(nodes, node_graph, n_atoms)
        energy = self.stack.energy(slices, mean) * scales[1] + scales[0]
        if self.repulsive:
            pairs = self._pair_repulsion(vectors, numbers, senders, receivers, edge_graph, n_atoms)
            energy = energy + pairs / (n_atoms * n_atoms if self.mean_repulsion else n_atoms)
        return ops.sum(energy * weights), nodes

    def _energy_and_pull(
        self,
        vectors: Tensor,
        slices: tuple[Tensor, ...],
        scales: Tensor,
        numbers: Tensor,
        senders: Tensor,
        receivers: Tensor,
        node_graph: Tensor,
        edge_graph: Tensor,
        n_atoms: Tensor,
        charge: Tensor,
        spin: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energy per atom [G], gradient of the total energies by edge vectors [E, 3], node features [N, D].

        The reverse sweep through the trunk is written out (:meth:`Trunk.pull`), so that only one gradient is
        left to MindSpore.
        """
        nodes, kept = self.trunk.kept(numbers, vectors, senders, receivers, node_graph, charge, spin)
        # As in outputs(): energies as the gradient by their weights. Written beside the gradient instead, the
        # energies would share the hand-written SiLU with it, and MindSpore's gradient of both be wrong.
        d_nodes, energy = self.readout_gradient(nodes, n_atoms, slices, scales, node_graph, n_atoms)
        pull = self.trunk.pull(d_nodes, kept, vectors)
        if self.repulsive:
            pairs = self._pair_repulsion(vectors, numbers, senders, receivers, edge_graph, n_atoms)
            push = self.repulsion_gradient(vectors, numbers, senders, receivers)
            if self.mean_repulsion:
                pairs = pairs / n_atoms
                push = push / ops.expand_dims(ops.gather(n_atoms, edge_graph, 0), 1)
            energy, pull = energy + pairs / n_atoms, pull + push
        return energy, pull, nodes

    def summed_readout(
        self,
        nodes: Tensor,
        weights: Tensor,
        slices: tuple[Tensor, ...],
        scales: Tensor,
        node_graph: Tensor,
        n_atoms: Tensor,
    ) -> Tensor:
        """Sum over graphs of weight [G] times energy per atom, less repulsion and references, eV."""
        energy = self.stack.energy(slices, self._mean(nodes, node_graph, n_atoms))
        return ops.sum((energy * scales[1] + scales[0]) * weights)

    def summed_repulsion(
        self, vectors: Tensor, numbers: Tensor, senders: Tensor, receivers: Tensor
    ) -> Tensor:
        """Pair repulsion of the whole batch, eV."""
        return ops.sum(self._repulsion_of_edges(vectors, numbers, senders, receivers))

    def _repulsion_of_edges(
        self, vectors: Tensor, numbers: Tensor, senders: Tensor, receivers: Tensor
    ) -> Tensor:
        return self.repulsion(ops.sqrt(ops.sum(vectors * vectors, 1)), numbers, senders, receivers)

    def _pair_repulsion(
        self,
        vectors: Tensor,
        numbers: Tensor,
        senders: Tensor,
        receivers: Tensor,
        edge_graph: Tensor,
        n_atoms: Tensor,
    ) -> Tensor:
        """Pair repulsion of each graph, [G] eV."""
        pairs = self._repulsion_of_edges(vectors, numbers, senders, receivers)
        return ops.unsorted_segment_sum(pairs, edge_graph, n_atoms.shape[0])

    def _balanced(
        self, forces: Tensor, node_graph: Tensor, n_atoms: Tensor, arms: Tensor, torque_inverse: Tensor
    ) -> Tensor:
        """Raw direct forces without net force and, in frames without cell, without net torque."""
        forces = forces - ops.gather(self._mean(forces, node_graph, n_atoms), node_graph, 0)
        torque = ops.unsorted_segment_sum(_cross(arms, forces), node_graph, n_atoms.shape[0])
        # M m = -torque with M = sum r r^T - (sum r^2) I; then F += r x m has no net torque.
        lever = -ops.sum(torque_inverse * ops.expand_dims(torque, 1), 2)
        return forces + _cross(arms, ops.gather(lever, node_graph, 0))

    def predict_only(self) -> None:
        """Predict with the weights as they are now; keep nothing that only training needs."""
        self.trunk.predict_only()

    def _named(self) -> Named:
        yield from self.trunk.named()
        yield from self.trunk.named_decoder()


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross product of rows [n, 3]."""
    x = a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1]
    y = a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2]
    z = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return ops.stack((x, y, z), 1)
