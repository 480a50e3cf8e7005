"""Heads: the output networks of every data set, stacked so that one compiled graph serves them all.

Each parameter has a leading axis over heads. The training step picks the slices of one head outside of the
network and differentiates with respect to them, so that a head which is not drawn is not touched.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from lamkit.model.config import TrunkConfig
from lamkit.model.layers import activation

# Width of each output network, in the order of the slices.
CONSERVATIVE_OUTPUTS = {"energy": 1}
DIRECT_OUTPUTS = {"energy": 1, "forces": 3, "stress": 6}
# Columns of the table of normalisers; diag and offdiag are the two halves of a Voigt stress.
SCALES = ("energy", "forces", "stress_diag", "stress_offdiag")
# Size of a head's last layer at the start, relative to the others.
LAST_LAYER = 0.05
# Tensors that make one output network: weight and bias of its two layers.
PER_NETWORK = 4


class HeadStack(nn.Cell):
    """Parameters and normalisers of all heads.

    Args:
        config: widths, version, and whether forces and stress have networks of their own.
        names: one per data set, unique.
        seed: with a head's name it fixes that head's starting weights, whatever other heads there are.
        dtype: float32; float64 for checks.
    """

    def __init__(self, config: TrunkConfig, names: list[str], seed: int, dtype: ms.Type) -> None:
        super().__init__()
        self.names = list(names)
        self.outputs = dict(CONSERVATIVE_OUTPUTS if config.conservative else DIRECT_OUTPUTS)
        draws = [_start(config, self.outputs, np.random.default_rng([seed, _code(n)])) for n in names]
        self.weights = ParameterTuple(
            [
                Parameter(Tensor(np.stack(values), dtype), name=name)
                for name, *values in zip(_weight_names(self.outputs), *draws, strict=True)
            ]
        )
        start = np.tile([0.0, 1.0], (len(names), len(SCALES)))
        self.scales = Parameter(Tensor(start, dtype), name="scales", requires_grad=False)
        self.act = activation(config.version, dtype)

    def pick(self, head: Tensor) -> tuple[Tensor, ...]:
        """Slices of every parameter for one head (scalar int32)."""
        slices = ()
        for weight in self.weights:
            slices = (*slices, ops.gather(weight, head, 0))  # type: ignore[assignment]  # graph mode
        return slices

    def pick_scales(self, head: Tensor) -> Tensor:
        """Means and deviations of one head, [8]: mean, deviation for each of :data:`SCALES`."""
        return ops.gather(self.scales, head, 0)

    def energy(self, slices: tuple[Tensor, ...], features: Tensor) -> Tensor:
        """Mean node features [n_graphs, D] -> normalised energy per atom [n_graphs]."""
        return self._network(slices, 0, features)[:, 0]

    def forces(self, slices: tuple[Tensor, ...], features: Tensor) -> Tensor:
        """Node features [n_atoms, D] -> raw forces [n_atoms, 3]."""
        return self._network(slices, PER_NETWORK, features)

    def stress(self, slices: tuple[Tensor, ...], features: Tensor) -> Tensor:
        """Mean node features [n_graphs, D] -> raw Voigt stress [n_graphs, 6]."""
        return self._network(slices, 2 * PER_NETWORK, features)

    def _network(self, slices: tuple[Tensor, ...], start: int, x: Tensor) -> Tensor:
        hidden = self.act(ops.dense(x, slices[start], slices[start + 1]))
        return ops.dense(hidden, slices[start + 2], slices[start + 3])

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        """Every value of every head under its own name."""
        arrays = [p.asnumpy() for p in self.weights]
        scales = self.scales.asnumpy()
        for h, head in enumerate(self.names):
            for name, array in zip(_weight_names(self.outputs), arrays, strict=True):
                yield f"heads.{head}.{name}", array[h].copy()
            for name, value in zip(_scale_names(), scales[h], strict=True):
                yield f"heads.{head}.{name}", np.array(value)

    def write(self, values: dict[str, np.ndarray]) -> None:
        """Set every value named in ``values`` (names and shapes as :meth:`read` gives them)."""
        for name, parameter in zip(_weight_names(self.outputs), self.weights, strict=True):
            array = parameter.asnumpy().copy()
            for h, head in enumerate(self.names):
                array[h] = values.get(f"heads.{head}.{name}", array[h])
            parameter.set_data(Tensor(array, parameter.dtype))
        scales = self.scales.asnumpy().copy()
        for h, head in enumerate(self.names):
            for k, name in enumerate(_scale_names()):
                scales[h, k] = values.get(f"heads.{head}.{name}", scales[h, k])
        self.scales.set_data(Tensor(scales, self.scales.dtype))


def _code(name: str) -> int:
    """A number for a head's name that is the same in every process."""
    return zlib.crc32(name.encode())


def _weight_names(outputs: dict[str, int]) -> list[str]:
    return [
        f"{output}.mlp.NN-{layer}.{part}"
        for output in outputs
        for layer in (0, 1)
        for part in ("weight", "bias")
    ]


def _scale_names() -> list[str]:
    places = [
        name.replace("stress_", "stress.") + ("_" if "stress" in name else ".") + "normalizer"
        for name in SCALES
    ]
    return [f"{place}.{part}" for place in places for part in ("mean", "std")]


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
