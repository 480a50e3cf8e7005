"""Blocks of the trunk: linear layers, activations, norms, multi-layer perceptrons.

Everything is written with operations whose second derivative is right in graph mode; constants that are
not exact in float32 are tensors, because MindSpore rounds Python floats through float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from lamkit.model.gradients import MeanSquare, Silu
from lamkit.model.native import cells

START_GAIN, START_BIAS = 1.5, 0.1
Named = Iterator[tuple[str, Parameter]]


def uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float, dtype: ms.Type) -> Parameter:
    """A parameter drawn uniformly from [-bound, bound]."""
    return Parameter(Tensor(rng.uniform(-bound, bound, shape), dtype))


class Linear(nn.Cell):
    """y = x W^T + b.

    W starts uniform with standard deviation 1.5/sqrt(n_in), b nearly zero. PyTorch's default, with which the
    public models began (W and b uniform in +-1/sqrt(n_in)), shrinks a signal threefold in each layer and lets
    the biases, which know nothing of the structure, drive what the norms then blow up: from it, training on
    small data stands still for hundreds of steps.
    """

    def __init__(self, n_in: int, n_out: int, rng: np.random.Generator, dtype: ms.Type) -> None:
        super().__init__()
        self.weight = uniform(rng, (n_out, n_in), START_GAIN * (3.0 / n_in) ** 0.5, dtype)
        self.bias = uniform(rng, (n_out,), START_BIAS * n_in**-0.5, dtype)

    def construct(self, x: Tensor) -> Tensor:
        """[..., n_in] -> [..., n_out]."""
        return ops.dense(x, self.weight, self.bias)

    def named(self, prefix: str) -> Named:
        """Parameters under their public names."""
        yield f"{prefix}.weight", self.weight
        yield f"{prefix}.bias", self.bias


class ShiftedSoftplus(nn.Cell):
    """ln(1 + e^x) - ln 2, in the form max(x, 0) + ln(1/2 + e^-|x|/2), which neither overflows nor loses digits.

    With ln 2 subtracted at the end the mean rounding error is six times as large in float32, and adds up over
    the layers. ``ops.softplus`` computes in float32 whatever it is given.
    """

    def __init__(self, dtype: ms.Type) -> None:
        super().__init__()
        # PyTorch is linear above 20, and the public weights were trained so. In float32 that follows by
        # itself, the logarithm being lost in rounding there.
        self.cut = dtype == ms.float64

    def construct(self, x: Tensor) -> Tensor:
        """Elementwise."""
        tail = ops.exp(-ops.abs(x))
        if self.cut:
            tail = tail * ops.cast(x <= 20.0, x.dtype)
        return ops.relu(x) + ops.log(0.5 + 0.5 * tail)


class LayerNorm(nn.Cell):
    """(x - mean) / sqrt(variance + 1e-5) * weight + bias over the last axis, biased variance."""

    def __init__(self, width: int, dtype: ms.Type) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(np.ones(width), dtype))
        self.bias = Parameter(Tensor(np.zeros(width), dtype))
        self.epsilon = Tensor(1e-5, dtype)
        self.mean_square = MeanSquare()

    def construct(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        centred = x - ops.mean(x, -1, True)
        scale = ops.rsqrt(self.mean_square(centred) + self.epsilon)
        return centred * scale * self.weight + self.bias

    def named(self, prefix: str) -> Named:
        """Parameters under their public names."""
        yield f"{prefix}.weight", self.weight
        yield f"{prefix}.bias", self.bias


class RmsNorm(nn.Cell):
    """x / sqrt(mean(x^2) + machine epsilon) * weight over the last axis."""

    def __init__(self, width: int, dtype: ms.Type) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(np.ones(width), dtype))
        precision = np.float64 if dtype == ms.float64 else np.float32
        self.epsilon = Tensor(np.finfo(precision).eps, dtype)
        self.mean_square = MeanSquare()

    def construct(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        return x * ops.rsqrt(self.mean_square(x) + self.epsilon) * self.weight

    def named(self, prefix: str) -> Named:
        """Parameters under their public names."""
        yield f"{prefix}.weight", self.weight


def activation(version: str, dtype: ms.Type) -> nn.Cell:
    """The activation of Orb ``version``."""
    return ShiftedSoftplus(dtype) if version == "v2" else Silu()


def norm(version: str, width: int, dtype: ms.Type) -> nn.Cell:
    """The norm of Orb ``version``."""
    return LayerNorm(width, dtype) if version == "v2" else RmsNorm(width, dtype)


class Mlp(nn.Cell):
    """Linear, activation, Linear, activation, Linear, norm: the one network shape of the trunk.

    The first layer can also be given in parts (see :meth:`rest`).

    Args:
        n_in: width of the input.
        hidden: width of the two hidden layers.
        n_out: width of the output.
        version: v2 or v3, for activation and norm.
        rng: draws the starting weights.
        dtype: float32; float64 for checks.
        normed: end with a norm.
        native: ``rows`` or ``edges`` for the C++ operator of that kind, which the caller then uses through
            :meth:`kept` and :meth:`pull`; empty for plain operations.
        twice: whether gradients of gradients will be asked of the C++ operator.
    """

    def __init__(
        self,
        n_in: int,
        hidden: int,
        n_out: int,
        version: str,
        rng: np.random.Generator,
        dtype: ms.Type,
        normed: bool = True,
        native: str = "",
        twice: bool = False,
    ) -> None:
        super().__init__()
        self.first = Linear(n_in, hidden, rng, dtype)
        self.second = Linear(hidden, hidden, rng, dtype)
        self.third = Linear(hidden, n_out, rng, dtype)
        self.normed = normed
        if normed:
            self.norm = norm(version, n_out, dtype)
        self.act = activation(version, dtype)
        self.shifted = version == "v2"
        self.on_edges = native == "edges"
        if native == "rows":
            self.forward = cells.RowForward(version, dtype, twice)
            self.backward = cells.RowPull(version, dtype)
        elif native == "edges":
            self.forward = cells.EdgeForward(version, dtype, twice)
            self.backward = cells.EdgePull(version, dtype)

    def kept(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        """Output [M, n_out] by the C++ operator and what :meth:`pull` needs.

        ``inputs`` are rows [M, n_in], or edges, nodes, senders and receivers.
        """
        out, h1, h2, y = self.forward(*inputs, *self._weights())
        return out, (h1, h2, y)

    def _weights(self) -> tuple[Tensor, ...]:
        return (
            self.first.weight, self.first.bias, self.second.weight, self.second.bias,
            self.third.weight, self.third.bias, self.norm.weight,
            self.norm.bias if self.shifted else self.norm.weight,
        )  # fmt: skip

    def weights(self) -> list[np.ndarray]:
        """W1, b1, W2, b2, W3, b3, gain and shift of the norm (where it has none, the gain again)."""
        return [w.asnumpy() for w in self._weights()]

    def pull(self, d_out: Tensor, kept: Any, *ends: Tensor) -> Any:
        """Gradient with respect to the rows, or to edges and nodes, from that of the output.

        ``ends`` are nodes, senders and receivers where the inputs were edges.
        """
        out = self.backward(
            d_out, kept[0], kept[1], kept[2], *ends,
            self.first.weight, self.second.weight, self.third.weight, self.norm.weight,
        )  # fmt: skip
        return out[:2] if self.on_edges else out[0]

    def construct(self, x: Tensor) -> Tensor:
        """[..., n_in] -> [..., n_out]."""
        return self.rest(self.first(x))

    def rest(self, x: Tensor) -> Tensor:
        """Everything after the first linear layer: [..., hidden] -> [..., n_out]."""
        y = self.third(self.act(self.second(self.act(x))))
        return self.norm(y) if self.normed else y

    def named(self, prefix: str) -> Named:
        """Parameters under their public names; the norm is called layer_norm in both versions."""
        for i, layer in enumerate((self.first, self.second, self.third)):
            yield from layer.named(f"{prefix}.mlp.NN-{i}")
        if self.normed:
            yield from self.norm.named(f"{prefix}.layer_norm")
