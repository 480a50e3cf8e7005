"""DeepPot-SE with radial and angular information (se_e2_a) and one-sided embedding, as DeePMD-kit defines it.

For neighbour j of atom i at d = x_j - x_i, r = |d|, with the switch w (1 below ``smooth_from``, 0 beyond the
cutoff, between them 1 + u³(-6u² + 15u - 10)): row R_j = w (1/r, d/r²) / deviation of i's element;
G_j = embedding of j's element (R_j0); A = sum_j R_j ⊗ G_j / slots; descriptor D = Aᵀ A[:, :axis]; the energy of
i is the fitting network of its element at D (Zhang et al., NeurIPS 2018). Each network runs on its own rows only.

One thing is added that changes nothing in what can be expressed, and by which it learns in a tenth of the steps:
descriptors differ from atom to atom by a hundredth of their size, so the fitting networks get (D - centre) / spread
with constants taken from the data when training begins. An export puts them into the first layer's weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from lamkit.data.batch import Batch
from lamkit.errors import LamkitError
from lamkit.model.base import INPUTS, Headed, inputs
from lamkit.model.config import SEL_MARGIN, DeepPotConfig
from lamkit.model.gradients import Gather
from lamkit.model.heads import LAST_LAYER, Stack, code
from lamkit.model.layers import Named
from lamkit.model.slots import Slots

PER_LAYER = 2  # tensors: weight and bias
SMALLEST_SPREAD = 0.1  # of a descriptor's component, relative to the mean of all: the rest is rounding


def layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """tanh(x Wᵀ + b), plus x where the width stays, plus [x, x] where it doubles: [n, n_in] -> [n, n_out]."""
    y = ops.tanh(ops.dense(x, weight, bias))
    n_out, n_in = weight.shape
    if n_out == n_in:
        return y + x
    if n_out == 2 * n_in:
        return y + ops.concat((x, x), 1)
    return y


class Embedding(nn.Cell):
    """Network of one element as neighbour: its scaled radial input [n, 1] -> [n, M]."""

    def __init__(self, widths: Sequence[int], rng: np.random.Generator, dtype: ms.Type) -> None:
        super().__init__()
        sizes = list(zip([1, *widths[:-1]], widths, strict=True))
        draws = [_draw(rng, n_in, n_out) for n_in, n_out in sizes]
        self.weights = ms.ParameterTuple(
            [Parameter(Tensor(w, dtype), name=f"weight{i}") for i, (w, _) in enumerate(draws)]
        )
        self.biases = ms.ParameterTuple(
            [Parameter(Tensor(b, dtype), name=f"bias{i}") for i, (_, b) in enumerate(draws)]
        )
        self.depth = len(sizes)

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two parts whose sum is the output: [n, 1] -> [n, M] and, to be repeated up to M columns, [n, m].

        The second is what the last layer passes on unchanged; it is left apart because the sum over neighbours
        makes both small, and adding them after it saves passes over the largest arrays there are.
        """
        for i in range(self.depth - 1):
            x = layer(x, self.weights[i], self.biases[i])
        return ops.tanh(ops.dense(x, self.weights[self.depth - 1], self.biases[self.depth - 1])), x

    def named(self, prefix: str) -> Named:
        """Parameters under their names."""
        for i in range(self.depth):
            yield f"{prefix}.{i}.weight", self.weights[i]
            yield f"{prefix}.{i}.bias", self.biases[i]


class FittingStack(Stack):
    """Fitting networks of every head: one per element, from an atom's descriptor to its energy."""

    def __init__(
        self, config: DeepPotConfig, elements: Sequence[str], names: list[str], seed: int, dtype: ms.Type
    ) -> None:
        widths = [config.descriptor_width, *config.fitting, 1]
        sizes = list(pairwise(widths))
        weight_names = [
            f"fitting.{element}.{i}.{part}"
            for element in elements
            for i in range(len(sizes))
            for part in ("weight", "bias")
        ]
        draws = []
        for name in names:
            rng = np.random.default_rng([seed, code(name)])
            draws.append([array for _ in elements for array in _fitting_draw(rng, sizes)])
        super().__init__(config, names, weight_names, draws, dtype)
        self.depth = len(sizes)

    def energies(self, slices: tuple[Tensor, ...], kind: int, x: Tensor) -> Tensor:
        """Normalised energies [n, 1] of atoms of one element with descriptors [n, width]."""
        start = kind * PER_LAYER * self.depth
        for i in range(self.depth - 1):
            x = layer(x, slices[start + PER_LAYER * i], slices[start + PER_LAYER * i + 1])
        last = start + PER_LAYER * (self.depth - 1)
        return ops.dense(x, slices[last], slices[last + 1])


class DeepPot(Headed):
    """The potential.

    The total energy of a frame is ``n_atoms * e + sum of reference[Z_i]`` with e from :meth:`outputs`.

    Args:
        config: with its ``surroundings``.
        heads: names of the data sets, unique.
        seed: fixes the starting weights.
        dtype: float32; float64 for checks.
    """

    conservative = True

    def __init__(
        self, config: DeepPotConfig, heads: Sequence[str], seed: int = 0, dtype: ms.Type = ms.float32
    ) -> None:
        super().__init__(config, heads, dtype)
        known = config.surroundings
        if known is None:
            raise LamkitError("a DeepPot is made after its surroundings are known")
        self.elements, self.n_kinds = list(known.elements), len(known.elements)
        self.embeddings = nn.CellList(
            [
                Embedding(config.embedding, np.random.default_rng([seed, code(e)]), dtype)
                for e in self.elements
            ]
        )
        width = config.descriptor_width
        self.centres = _constants("centre", np.zeros((self.n_kinds, width)), dtype)
        self.spreads = _constants("spread", np.ones((self.n_kinds, width)), dtype)
        self.stack = FittingStack(config, self.elements, self.heads, seed, dtype)
        self.slots = Slots(self.elements, [math.ceil(s / SEL_MARGIN) for s in known.sel])
        self.n_inputs = len(INPUTS) + 2 + 2 * self.n_kinds
        self.output_names = ("energy", "forces", "stress", "rotational_grad", "latents", "atom_energies")
        radial, angular = np.array([*known.deviations, (1.0, 1.0)]).T
        inverse = 1.0 / np.stack([radial, angular, angular, angular], 1)
        self.inverse_deviations = Tensor(inverse, dtype)
        self.inverse_slots = Tensor(1.0 / known.slots, dtype)
        self.smooth_from = Tensor(config.smooth_from, dtype)
        self.inverse_span = Tensor(1.0 / (config.cutoff - config.smooth_from), dtype)
        self.axis, self.width = config.axis, width
        # How often a layer's input stands in the output of the last layer of an embedding.
        before, after = [1, *config.embedding][-2:]
        self.copies = {before: 1, 2 * before: 2}.get(after, 0)
        self.gather = Gather()
        self.outer = ops.BatchMatMul(transpose_a=True)
        self.gradient = ms.grad(self.weighted_energy, grad_position=(0, 1), has_aux=True)

    def trunk_parameters(self) -> list[Parameter]:
        """Weights of the embedding networks."""
        return [p for network in self.embeddings for _, p in network.named("")]

    def decoder_parameters(self) -> list[Parameter]:
        """None."""
        return []

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Tensors of ``INPUTS``, then kinds, places, and for each element neighbours and members."""
        found = self.slots.find(batch)
        index = (found.kinds, found.place, *found.neighbors, *found.members)
        return *inputs(batch, self.dtype), *(Tensor(a, ms.int32) for a in index)

    def calibrate(self, batch: Batch, known: Sequence[str] = ()) -> None:
        """Set the constants that scale descriptors, from the atoms of one batch, before anything is compiled.

        Args:
            batch: of training frames.
            known: elements whose constants stay as they are.
        """
        tensors, kinds = self.inputs(batch), self.slots.find(batch).kinds
        descriptors = _Descriptors(self)(tensors[1], *tensors[len(INPUTS) :]).asnumpy()
        for k, element in enumerate(self.elements):
            own = descriptors[kinds == k].astype(np.float64)
            if element in known or len(own) < 2:
                continue
            spread = own.std(axis=0)
            self.centres[k].set_data(Tensor(own.mean(axis=0), self.dtype))
            least = SMALLEST_SPREAD * max(
                float(spread.mean()), SMALLEST_SPREAD**2 * float(np.abs(own).mean())
            )
            # All components together have a variance of 1: they vary as one, and AdamW moves all their weights
            # by the same amount.
            spread = np.maximum(spread, least) * self.width**0.5
            self.spreads[k].set_data(Tensor(spread, self.dtype))

    # -- the physics ------------------------------------------------------------------------------

    def outputs(self, slices: tuple[Tensor, ...], scales: Tensor, *batch: Tensor) -> tuple[Tensor, ...]:
        """Predictions of one head; arguments and results as for ``Potential.outputs``, latents are D.

        Beside those the energies of the atoms without their references, [N] eV.
        """
        numbers, vectors, senders, receivers, node_graph, edge_graph, n_atoms, volume = batch[:8]
        places = batch[len(INPUTS) :]
        # As in Potential.outputs: the energies are the gradient with respect to their weights.
        counts = ops.gather(n_atoms, node_graph, 0)
        (pull, shares), (nodes,) = self.gradient(vectors, counts, slices, scales, counts, *places)
        energy = ops.unsorted_segment_sum(shares, node_graph, n_atoms.shape[0])
        forces, stress = self._from_pull(pull, vectors, numbers, senders, receivers, edge_graph, volume)
        rotation = self._rotational(pull, vectors, edge_graph, volume)
        return energy, forces, stress, rotation, nodes, shares * counts

    def weighted_energy(
        self,
        vectors: Tensor,
        weights: Tensor,
        slices: tuple[Tensor, ...],
        scales: Tensor,
        counts: Tensor,
        kinds: Tensor,
        place: Tensor,
        *index: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Sum over atoms of weight times energy over the number of atoms of its graph (all [N]), and D [N, width]."""
        descriptors = self.descriptors(vectors, kinds, index[: self.n_kinds])
        none = ops.zeros_like(vectors[:1, :1])
        parts = (none,)
        for k in range(self.n_kinds):
            own = (self.gather(descriptors, index[self.n_kinds + k]) - self.centres[k]) / self.spreads[k]
            parts = (*parts, self.stack.energies(slices, k, own))  # type: ignore[assignment]  # graph mode
        of_atoms = self.gather(ops.concat(parts, 0), place)[:, 0] * scales[1] + scales[0]
        return ops.sum(of_atoms / counts * weights), descriptors

    def descriptors(self, vectors: Tensor, kinds: Tensor, neighbors: tuple[Tensor, ...]) -> Tensor:
        """D of every atom, [N, width]."""
        rows = self.rows(vectors)
        padded = ops.concat((rows, ops.zeros_like(rows[:1])), 0)
        inverse = ops.expand_dims(ops.gather(self.inverse_deviations, kinds, 0), 1)
        n = kinds.shape[0]
        total = self._contracted(0, padded, inverse, neighbors[0], n)
        for k in range(1, self.n_kinds):
            total = total + self._contracted(k, padded, inverse, neighbors[k], n)
        total = total * self.inverse_slots
        return ops.reshape(self.outer(total, total[:, :, : self.axis]), (n, self.width))

    def _contracted(self, k: int, padded: Tensor, inverse: Tensor, index: Tensor, n: int) -> Tensor:
        """Sum over neighbours of element k of R ⊗ G, [N, 4, M]."""
        size = index.shape[1]
        rows = ops.reshape(self.gather(padded, ops.reshape(index, (-1,))), (n, size, 4)) * inverse
        last, passed = self.embeddings[k](ops.reshape(rows[:, :, :1], (n * size, 1)))
        total = self.outer(rows, ops.reshape(last, (n, size, -1)))
        if self.copies == 0:
            return total
        kept = self.outer(rows, ops.reshape(passed, (n, size, -1)))
        return total + (kept if self.copies == 1 else ops.concat((kept, kept), 2))

    def rows(self, vectors: Tensor) -> Tensor:
        """Rows w (1/r, d/r²) of edge vectors [E, 3] Å, [E, 4] Å⁻¹.

        The switch in the form (1-u)³ (1 + 3u + 6u²): the same polynomial without cancellation at the cutoff,
        where value, slope and curvature vanish.
        """
        square = ops.sum(vectors * vectors, 1, True)
        r = ops.sqrt(square)
        u = ops.relu((r - self.smooth_from) * self.inverse_span)
        v = ops.relu(1.0 - u)
        switch = v * v * v * (1.0 + u * (3.0 + u * 6.0))
        return ops.concat((switch / r, vectors * (switch / square)), 1)

    def _named(self) -> Named:
        for k, element in enumerate(self.elements):
            yield from self.embeddings[k].named(f"model.embedding.{element}")
            yield f"model.descriptor.{element}.centre", self.centres[k]
            yield f"model.descriptor.{element}.spread", self.spreads[k]


class _Descriptors(nn.Cell):
    """The descriptors of a potential alone, as one compiled graph."""

    def __init__(self, potential: DeepPot) -> None:
        super().__init__(auto_prefix=False)
        self.potential = potential

    def construct(self, vectors: Tensor, kinds: Tensor, place: Tensor, *index: Tensor) -> Tensor:
        return self.potential.descriptors(vectors, kinds, index[: self.potential.n_kinds])


def _constants(name: str, rows: np.ndarray, dtype: ms.Type) -> ms.ParameterTuple:
    """State that is saved with the weights and never trained, one for each element."""
    return ms.ParameterTuple(
        [Parameter(Tensor(row, dtype), name=f"{name}{k}", requires_grad=False) for k, row in enumerate(rows)]
    )


def _draw(rng: np.random.Generator, n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Starting weight [n_out, n_in] and bias: normal, of deviation 1/sqrt(n_in + n_out) and 1, as DeePMD-kit's."""
    return rng.normal(0.0, (n_in + n_out) ** -0.5, (n_out, n_in)), rng.normal(0.0, 1.0, n_out)


def _fitting_draw(rng: np.random.Generator, sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Starting weights of one fitting network; the last layer is small: a new model predicts its references."""
    arrays = [array for n_in, n_out in sizes for array in _draw(rng, n_in, n_out)]
    arrays[0] = rng.normal(0.0, 1.0, arrays[0].shape)  # its inputs have a variance of 1 altogether
    arrays[-2], arrays[-1] = arrays[-2] * LAST_LAYER, arrays[-1] * 0.0
    return arrays
