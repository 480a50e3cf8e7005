"""Heads: the output networks of every data set, stacked so that one compiled graph serves them all.

Each parameter has a leading axis over heads. The training step picks the slices of one head outside of the
network and differentiates with respect to them, so that a head which is not drawn is not touched.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from lamkit.model.config import Architecture, TrunkConfig
from lamkit.model.layers import activation
from lamkit.model.normalizers import SCALES, Statistic, checked, normalizers

# Classes of force errors that the confidence network tells apart, and where the last one ends at the start.
N_BINS, LARGEST_ERROR = 50, 0.3  # eV/Å, mean over x, y, z of |F_predicted - F_true|
# Size of a head's last layer at the start, relative to the others.
LAST_LAYER = 0.05
# Tensors that make one output network: weight and bias of its two layers.
PER_NETWORK = 4


def outputs_of(config: TrunkConfig) -> dict[str, int]:
    """Output networks of a head and their widths, in the order of the slices."""
    outputs = {"energy": 1}
    if not config.conservative:
        outputs["forces"] = 3
        if config.stress:
            outputs["stress"] = 6
    if config.confidence:
        outputs["confidence"] = N_BINS
    return outputs


class Stack(nn.Cell):
    """Weights, normalisers and error classes of all heads, whatever networks the weights belong to.

    Args:
        config: decides on the normalisers.
        names: heads, unique.
        weight_names: of each parameter, after the head's name.
        draws: of each head, starting values of its parameters.
        dtype: float32; float64 for checks.
    """

    def __init__(
        self,
        config: Architecture,
        names: list[str],
        weight_names: list[str],
        draws: list[list[np.ndarray]],
        dtype: ms.Type,
    ) -> None:
        super().__init__()
        self.names, self.weight_names = list(names), weight_names
        self.confident = config.confidence
        self.weights = ParameterTuple(
            [
                Parameter(Tensor(np.stack(values), dtype), name=name)
                for name, *values in zip(weight_names, *draws, strict=True)
            ]
        )
        self.normalizers = normalizers(config)
        self.statistics = [{n.quantity: Statistic() for n in self.normalizers} for _ in names]
        # What the compiled graph sees of the statistics: mean and variance of each scale. Not the deviation:
        # MindSpore passes some float64 parameters through float32, which the numbers of public files survive.
        start = np.tile([0.0, 1.0], (len(names), len(SCALES), 1))
        self.moments = Parameter(Tensor(start, dtype), name="moments", requires_grad=False)
        edges = np.linspace(0.0, LARGEST_ERROR, N_BINS + 1, dtype=np.float32)
        self.bin_edges = Parameter(
            Tensor(np.tile(edges, (len(names), 1)), dtype), name="bin_edges", requires_grad=False
        )

    def pick(self, head: Tensor) -> tuple[Tensor, ...]:
        """Slices of every parameter for one head (scalar int32)."""
        slices = ()
        for weight in self.weights:
            slices = (*slices, ops.gather(weight, head, 0))  # type: ignore[assignment]  # graph mode
        return slices

    def pick_scales(self, head: Tensor) -> Tensor:
        """Means and deviations of one head, [8]: mean, deviation for each of ``normalizers.SCALES``."""
        moments = ops.gather(self.moments, head, 0)
        return ops.reshape(ops.stack((moments[:, 0], ops.sqrt(moments[:, 1])), 1), (2 * len(SCALES),))

    def pick_bins(self, head: Tensor) -> Tensor:
        """Edges of the error classes of one head, [N_BINS + 1] eV/Å."""
        return ops.gather(self.bin_edges, head, 0)

    def set_statistic(self, head: int, quantity: str, statistic: Statistic) -> None:
        """Replace one normaliser; ``quantity`` is one that :attr:`normalizers` has.

        Raises:
            UserError: the deviation is too small to be divided by.
        """
        self.statistics[head][quantity] = checked(statistic, f"head {self.names[head]}: {quantity}")
        moments = self.moments.asnumpy().copy()
        for normalizer in self.normalizers:
            mean, variance, _ = self.statistics[head][normalizer.quantity]
            moments[head, list(normalizer.columns)] = mean, variance
        self.moments.set_data(Tensor(moments, self.moments.dtype))

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        """Every value of every head under its own name."""
        arrays = [p.asnumpy() for p in self.weights]
        for h, head in enumerate(self.names):
            for name, array in zip(self.weight_names, arrays, strict=True):
                yield f"heads.{head}.{name}", array[h].copy()
            if self.confident:
                yield f"heads.{head}.confidence.bin_edges", self.bin_edges.asnumpy()[h].copy()
            for normalizer in self.normalizers:
                mean, variance, count = self.statistics[h][normalizer.quantity]
                place = f"heads.{head}.{normalizer.place}.bn"
                yield f"{place}.running_mean", np.array([mean])
                yield f"{place}.running_var", np.array([variance])
                # One value or an array of one: as the public files happen to have it.
                shape = (1,) if normalizer.quantity == "energy" else ()
                yield f"{place}.num_batches_tracked", np.full(shape, count, np.int64)

    def write(self, values: Mapping[str, np.ndarray]) -> None:
        """Set every value named in ``values`` (names and shapes as :meth:`read` gives them)."""
        for name, parameter in zip(self.weight_names, self.weights, strict=True):
            array = parameter.asnumpy().copy()
            for h, head in enumerate(self.names):
                array[h] = values.get(f"heads.{head}.{name}", array[h])
            parameter.set_data(Tensor(array, parameter.dtype))
        edges = self.bin_edges.asnumpy().copy()
        for h, head in enumerate(self.names):
            edges[h] = values.get(f"heads.{head}.confidence.bin_edges", edges[h])
            for normalizer in self.normalizers:
                place = f"heads.{head}.{normalizer.place}.bn"
                mean, variance, count = self.statistics[h][normalizer.quantity]
                new = Statistic(
                    float(np.ravel(values.get(f"{place}.running_mean", mean))[0]),
                    float(np.ravel(values.get(f"{place}.running_var", variance))[0]),
                    int(np.ravel(values.get(f"{place}.num_batches_tracked", count))[0]),
                )
                self.set_statistic(h, normalizer.quantity, new)
        self.bin_edges.set_data(Tensor(edges, self.bin_edges.dtype))


class HeadStack(Stack):
    """The heads of an Orb: networks from node features to every output.

    Args:
        config: widths, version, and which outputs have networks of their own.
        names: one per data set, unique.
        seed: with a head's name it fixes that head's starting weights, whatever other heads there are.
        dtype: float32; float64 for checks.
    """

    def __init__(self, config: TrunkConfig, names: list[str], seed: int, dtype: ms.Type) -> None:
        outputs = outputs_of(config)
        draws = [_start(config, outputs, np.random.default_rng([seed, code(n)])) for n in names]
        super().__init__(config, names, _weight_names(outputs), draws, dtype)
        self.outputs = outputs
        self.first_slice = {output: PER_NETWORK * i for i, output in enumerate(outputs)}
        self.act = activation(config.version, dtype)

    def energy(self, slices: tuple[Tensor, ...], features: Tensor) -> Tensor:
        """Mean node features [n_graphs, D] -> normalised energy per atom [n_graphs]."""
        return self._network(slices, self.first_slice["energy"], features)[:, 0]

    def forces(self, slices: tuple[Tensor, ...], features: Tensor) -> Tensor:
        """Node features [n_atoms, D] -> raw forces [n_atoms, 3]."""
        return self._network(slices, self.first_slice["forces"], features)

    def stress(self, slices: tuple[Tensor, ...], features: Tensor) -> Tensor:
        """Mean node features [n_graphs, D] -> raw Voigt stress [n_graphs, 6]."""
        return self._network(slices, self.first_slice["stress"], features)

    def confidence(self, slices: tuple[Tensor, ...], features: Tensor) -> Tensor:
        """Node features [n_atoms, D] -> logits of the error classes [n_atoms, N_BINS].

        The features are taken as constants: learning to know its errors does not change the model.
        """
        return self._network(slices, self.first_slice["confidence"], ops.stop_gradient(features))

    def _network(self, slices: tuple[Tensor, ...], start: int, x: Tensor) -> Tensor:
        hidden = self.act(ops.dense(x, slices[start], slices[start + 1]))
        return ops.dense(hidden, slices[start + 2], slices[start + 3])


def code(name: str) -> int:
    """A number for a head's name that is the same in every process."""
    return zlib.crc32(name.encode())


def _weight_names(outputs: dict[str, int]) -> list[str]:
    return [
        f"{output}.mlp.NN-{layer}.{part}"
        for output in outputs
        for layer in (0, 1)
        for part in ("weight", "bias")
    ]


def _start(config: TrunkConfig, outputs: dict[str, int], rng: np.random.Generator) -> list[np.ndarray]:
    """Starting weights of one head: uniform in +-1/sqrt(n_in), the last layer 20 times smaller.

    So a new model begins by predicting its references, and no step is spent on unlearning noise.
    """
    arrays = []
    for n_out in outputs.values():
        layers = ((config.latent, config.head_hidden, 1.0), (config.head_hidden, n_out, LAST_LAYER))
        for n_in, width, size in layers:
            bound = size * n_in**-0.5
            arrays += [rng.uniform(-bound, bound, (width, n_in)), rng.uniform(-bound, bound, width)]
    return arrays
