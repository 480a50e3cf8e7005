"""The potential: trunk and heads put together, energies, forces and stresses in physical units.

Conservative potentials take **one** gradient g of the energy with respect to the edge vectors d, inside the
same graph: F_i = sum of g over sent edges - sum over received ones, stress = sum of sym(d x g) / volume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from lamkit.data.batch import Batch
from lamkit.data.frame import VOIGT_COLUMNS, VOIGT_ROWS
from lamkit.errors import UserError, suggest
from lamkit.model.config import TrunkConfig
from lamkit.model.heads import HeadStack
from lamkit.model.layers import Named
from lamkit.model.normalizers import Statistic
from lamkit.model.repulsion import Repulsion
from lamkit.model.trunk import Trunk

# Fields of a Batch that the network reads, in the order of Potential.outputs.
INPUTS = (
    "numbers",
    "vectors",
    "senders",
    "receivers",
    "node_graph",
    "edge_graph",
    "n_atoms",
    "volume",
    "arms",
    "torque_inverse",
    "charge",
    "spin",
)


class Potential(nn.Cell):
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
        super().__init__()
        if not heads or len(set(heads)) != len(heads):
            raise UserError(f"a potential needs one or more heads of different names, got {list(heads)}")
        self.config = trunk
        self.dtype = dtype
        self.heads = list(heads)
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

    def head_parameters(self) -> list[Parameter]:
        """Trainable parameters of the heads, [n_heads, ...] each, in the order of :meth:`head_slices`."""
        return list(self.stack.weights)

    def head_slices(self, head: Tensor) -> tuple[Tensor, ...]:
        """Weights of one head (scalar int32)."""
        return self.stack.pick(head)

    def head_scales(self, head: Tensor) -> Tensor:
        """Normalisers of one head, [8].

        Mean and deviation of energy per atom (eV/atom), of force components (eV/Å), of diagonal and of
        off-diagonal stress (eV/Å³). Conservative potentials use the last six in the loss only.
        """
        return self.stack.pick_scales(head)

    def head_bins(self, head: Tensor) -> Tensor:
        """Edges of the error classes that one head's confidence tells apart, [51] eV/Å."""
        return self.stack.pick_bins(head)

    @property
    def quantities(self) -> tuple[str, ...]:
        """What each head has a normaliser for: energy, forces and, as one or in two halves, stress."""
        return tuple(n.quantity for n in self.stack.normalizers)

    def statistic(self, head: str, quantity: str) -> Statistic:
        """Mean, variance and number of batches of a normaliser; ``quantity`` is one of :attr:`quantities`.

        Raises:
            UserError: unknown head or quantity.
        """
        for name, known in ((head, self.heads), (quantity, self.quantities)):
            if name not in known:
                raise UserError(f"'{name}' is none of {', '.join(known)}.{suggest(name, known)}")
        return self.stack.statistics[self.heads.index(head)][quantity]

    def set_statistic(self, head: str, quantity: str, statistic: Statistic) -> None:
        """Replace a normaliser of a head.

        Raises:
            UserError: unknown head or quantity, or a deviation that is too small.
        """
        self.statistic(head, quantity)  # refuses unknown names
        self.stack.set_statistic(self.heads.index(head), quantity, statistic)

    def set_scale(self, head: str, quantity: str, mean: float, std: float) -> None:
        """Set a normaliser of a head by mean and deviation, its count of batches to zero.

        Raises:
            UserError: unknown head or quantity, or a deviation that is too small.
        """
        self.set_statistic(head, quantity, Statistic(float(mean), float(std) ** 2))

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

    def _mean(self, nodes: Tensor, node_graph: Tensor, n_atoms: Tensor) -> Tensor:
        """Mean of node rows per graph, [G, ...]."""
        total = ops.unsorted_segment_sum(nodes, node_graph, n_atoms.shape[0])
        return total / ops.expand_dims(n_atoms, 1)

    def _from_pull(
        self,
        pull: Tensor,
        vectors: Tensor,
        numbers: Tensor,
        senders: Tensor,
        receivers: Tensor,
        edge_graph: Tensor,
        volume: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Forces [N, 3] and Voigt stress [G, 6] from pull = dE/d(edge vectors) [E, 3]."""
        n = numbers.shape[0]
        forces = ops.unsorted_segment_sum(pull, senders, n) - ops.unsorted_segment_sum(pull, receivers, n)
        columns = ()
        for row, column in zip(VOIGT_ROWS.tolist(), VOIGT_COLUMNS.tolist()):  # noqa: B905 (graph mode)
            pair = vectors[:, row] * pull[:, column] + vectors[:, column] * pull[:, row]
            columns = (*columns, pair)  # type: ignore[assignment]  # graph mode
        strain = ops.unsorted_segment_sum(ops.stack(columns, 1), edge_graph, volume.shape[0])
        return forces, strain / ops.expand_dims(2.0 * volume, 1)

    def _rotational(self, pull: Tensor, vectors: Tensor, edge_graph: Tensor, volume: Tensor) -> Tensor:
        """A - A^T with A = sum over edges of d (x) pull, [G, 3, 3] eV: zero if energies ignore rotations."""
        products = ops.expand_dims(vectors, 2) * ops.expand_dims(pull, 1)
        rows = ops.reshape(products, (vectors.shape[0], 9))
        total = ops.reshape(ops.unsorted_segment_sum(rows, edge_graph, volume.shape[0]), (-1, 3, 3))
        return total - ops.swapaxes(total, 1, 2)

    def _balanced(
        self, forces: Tensor, node_graph: Tensor, n_atoms: Tensor, arms: Tensor, torque_inverse: Tensor
    ) -> Tensor:
        """Raw direct forces without net force and, in frames without cell, without net torque."""
        forces = forces - ops.gather(self._mean(forces, node_graph, n_atoms), node_graph, 0)
        torque = ops.unsorted_segment_sum(_cross(arms, forces), node_graph, n_atoms.shape[0])
        # M m = -torque with M = sum r r^T - (sum r^2) I; then F += r x m has no net torque.
        lever = -ops.sum(torque_inverse * ops.expand_dims(torque, 1), 2)
        return forces + _cross(arms, ops.gather(lever, node_graph, 0))

    # -- state ------------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """Every weight and constant under its public name.

        ``model.…`` as it stands there; what is ``heads.…`` or ``grad_…`` there is ``heads.NAME.…`` here.
        References are not part of it.
        """
        values = {name: p.asnumpy().copy() for name, p in self._named()}
        values.update(self.stack.read())
        return values

    def _named(self) -> Named:
        yield from self.trunk.named()
        yield from self.trunk.named_decoder()

    def load_state(self, values: Mapping[str, np.ndarray], strict: bool = True) -> None:
        """Set weights and constants by name, before the first step of anything compiled.

        Args:
            values: names as in :meth:`state`; a single number may have the shape () or (1,).
            strict: refuse names that are missing or unknown; else take what fits by name.

        Raises:
            UserError: missing, unknown, or of the wrong shape; all listed.
        """
        own = self.state()
        problems = [
            f"{name} has shape {tuple(np.shape(values[name]))}, this model needs {own[name].shape}"
            for name in own
            if name in values and not _fits(values[name], own[name])
        ]
        if strict:
            problems += [f"{name} is missing" for name in own if name not in values]
            problems += [f"{name} is not part of this model" for name in values if name not in own]
        if problems:
            shown = "\n  ".join(problems[:10])
            more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise UserError(f"the weights do not fit the model:\n  {shown}{more}")
        for name, parameter in self._named():
            if name in values:
                array = np.reshape(values[name], own[name].shape)
                parameter.set_data(Tensor(np.array(array), self.dtype))
        self.stack.write({name: values[name] for name in values if name in own})


def _fits(given: np.ndarray, own: np.ndarray) -> bool:
    return np.shape(given) == own.shape or (np.size(given) == own.size == 1 and np.ndim(given) <= 1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross product of rows [n, 3]."""
    x = a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1]
    y = a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2]
    z = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return ops.stack((x, y, z), 1)


def inputs(batch: Batch, dtype: ms.Type = ms.float32) -> tuple[Tensor, ...]:
    """Tensors of the fields of ``batch`` that the network reads, in the order of ``INPUTS``."""
    arrays = (getattr(batch, name) for name in INPUTS)
    return tuple(Tensor(a, ms.int32 if a.dtype.kind == "i" else dtype) for a in arrays)
