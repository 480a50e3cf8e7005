"""What every potential has: heads with their normalisers, forces and stress from a gradient, a state by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from lamkit.data.batch import Batch
from lamkit.data.frame import VOIGT_COLUMNS, VOIGT_ROWS
from lamkit.errors import UserError, suggest
from lamkit.model.config import Architecture
from lamkit.model.heads import Stack
from lamkit.model.layers import Named
from lamkit.model.normalizers import Statistic

# Fields of a Batch that networks read, in their order.
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


def inputs(batch: Batch, dtype: ms.Type = ms.float32) -> tuple[Tensor, ...]:
    """Tensors of the fields of ``batch`` that the network reads, in the order of ``INPUTS``."""
    arrays = (getattr(batch, name) for name in INPUTS)
    return tuple(Tensor(a, ms.int32 if a.dtype.kind == "i" else dtype) for a in arrays)


class Headed(nn.Cell):
    """Base of potentials; a subclass sets :attr:`stack` and has ``outputs``, ``trunk_parameters`` and ``_named``.

    Args:
        config: architecture.
        heads: names of the data sets, unique.
        dtype: float32; float64 for checks.

    Attributes:
        output_names: what ``outputs`` gives.
        edition: how often :meth:`load_state` has replaced weights.
        n_inputs: how many tensors :meth:`inputs` makes.
    """

    stack: Stack
    output_names: tuple[str, ...]
    n_inputs = len(INPUTS)

    def __init__(self, config: Architecture, heads: Sequence[str], dtype: ms.Type) -> None:
        super().__init__()
        if not heads or len(set(heads)) != len(heads):
            raise UserError(f"a potential needs one or more heads of different names, got {list(heads)}")
        self.config, self.dtype, self.heads = config, dtype, list(heads)
        self.edition = 0

    def trunk_parameters(self) -> list[Parameter]:
        """Trainable parameters that all heads share, less those that no energy or force depends on."""
        raise NotImplementedError

    def decoder_parameters(self) -> list[Parameter]:
        """Parameters that no energy or force depends on."""
        raise NotImplementedError

    def outputs(self, slices: tuple[Tensor, ...], scales: Tensor, *batch: Tensor) -> tuple[Tensor, ...]:
        """Predictions of one head; see the subclasses."""
        raise NotImplementedError

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """What ``outputs`` takes of a batch; the first are those of ``INPUTS``."""
        return inputs(batch, self.dtype)

    def predict_only(self) -> None:
        """Predict with the weights as they are now; keep nothing that only training needs."""

    # -- parameters -------------------------------------------------------------------------------

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

    # -- state ------------------------------------------------------------------------------------

    def _named(self) -> Named:
        """Parameters and constants that are not of a head, under their public names."""
        raise NotImplementedError

    def state(self) -> dict[str, np.ndarray]:
        """Every weight and constant under its public name.

        ``model.…`` as it stands there; what is ``heads.…`` or ``grad_…`` there is ``heads.NAME.…`` here.
        References are not part of it.
        """
        values = {name: p.asnumpy().copy() for name, p in self._named()}
        values.update(self.stack.read())
        return values

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
        self.edition += 1


def _fits(given: np.ndarray, own: np.ndarray) -> bool:
    return np.shape(given) == own.shape or (np.size(given) == own.size == 1 and np.ndim(given) <= 1)
