"""The C++ operators as cells with hand-written gradients.

Three kinds of network pieces, each with a forward operator, its reverse, and the reverse of that:
rows (an MLP with norm on independent rows), edges (the same on [edge, sender, receiver]) and the exchange
(gates, messages to the nodes, edge residual). Formulas are in the headers beside this file; the plain forms of
the same functions, which the tests compare with, are in ``layers.py`` and ``trunk.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from lamkit.model.native.build import library

Shapes = tuple[list[int], ...] | list[int]
# Primitives: functions of ``ops`` fail to compile inside a bprop that is differentiated again.
_zeros = ops.ZerosLike()
REALS = {ms.float32: "float32", ms.float64: "float64"}


def available(version: str, dtype: ms.Type) -> bool:
    """True where the operators can be used: on a CPU, compiled, in this precision."""
    if ms.get_context("device_target") != "CPU" or dtype not in REALS:
        return False
    return library(version, REALS[dtype]).path is not None


def operator(version: str, dtype: ms.Type, name: str, shapes: Callable[..., Shapes]) -> Any:
    """One function of the library; ``shapes`` gives the shapes of its outputs from those of its inputs."""
    path, count = library(version, REALS[dtype]).path, _count(name)
    return ops.Custom(
        f"{path}:{name}",
        out_shape=shapes,
        out_dtype=lambda *_: (dtype,) * count if count > 1 else dtype,
        func_type="aot",
    )


# Outputs of each operator.
_COUNTS = {
    "forward_keep": 4,
    "row_pull_keep": 4,
    "edge_pull_keep": 5,
    "row_reverse": 9,
    "edge_reverse": 10,
    "twice": 8,
    "exchange_forward": 2,
    "exchange_pull": 3,
    "exchange_reverse": 5,
    "exchange_twice": 7,
    "rows_none": 1,
    "rows_half": 3,
    "rows_all": 4,
    "rows_none_pull": 1,
    "rows_half_pull": 1,
    "rows_all_pull": 1,
    "layer_none": 2,
    "layer_half": 4,
    "layer_all": 5,
    "layer_none_pull": 3,
    "layer_half_pull": 3,
    "layer_all_pull": 3,
}


def _count(name: str) -> int:
    for key in (name, name.removesuffix("_add"), name.split("_", 1)[1]):
        if key in _COUNTS:
            return _COUNTS[key]
    raise KeyError(name)


def _weights(w1: list[int], w2: list[int], w3: list[int]) -> tuple[list[int], ...]:
    """Gradients of W1, b1, W2, b2, W3, b3, gain, shift."""
    hidden, out = [w2[0]], [w3[0]]
    return w1, hidden, w2, hidden, w3, out, out, out


def _kept(rows: int, w3: list[int]) -> tuple[list[int], ...]:
    """Shapes of u, h1, h2, y."""
    return [rows, w3[0]], [rows, w3[1]], [rows, w3[1]], [rows, w3[0]]


class RowForward(nn.Cell):
    """u = norm(MLP(x)) of rows x [M, K], with the hidden layers before their activations.

    Args:
        version: v2 or v3.
        dtype: float32 or float64.
        twice: whether hidden layers and y get gradients of their own (from :class:`RowPull`).
    """

    def __init__(self, version: str, dtype: ms.Type, twice: bool) -> None:
        super().__init__()
        self.twice = twice
        self.op = operator(
            version, dtype, "row_forward_keep", lambda x, w1, b1, w2, b2, w3, b3, g, s: _kept(x[0], w3)
        )
        if twice:
            self.back = operator(
                version, dtype, "row_reverse_add",
                lambda du, g1, g2, gy, h1, h2, y, x, w1, w2, w3, g: (x, *_weights(w1, w2, w3)),
            )  # fmt: skip
        else:
            self.back = operator(
                version, dtype, "row_reverse",
                lambda du, h1, h2, y, x, w1, w2, w3, g: (x, *_weights(w1, w2, w3)),
            )  # fmt: skip

    def construct(
        self,
        x: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        w3: Tensor,
        b3: Tensor,
        g: Tensor,
        s: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Outputs u [M, O], h1 [M, H], h2 [M, H], y [M, O]."""
        return self.op(x, w1, b1, w2, b2, w3, b3, g, s)

    def bprop(
        self, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor, g: Tensor, s: Tensor,
        out: Any, dout: Any,
    ) -> Any:  # fmt: skip
        """Gradients with respect to rows and weights."""
        if self.twice:
            return self.back(dout[0], dout[1], dout[2], dout[3], out[1], out[2], out[3], x, w1, w2, w3, g)
        return self.back(dout[0], out[1], out[2], out[3], x, w1, w2, w3, g)


class RowPull(nn.Cell):
    """Gradient of :class:`RowForward` with respect to its rows, to be differentiated once more."""

    def __init__(self, version: str, dtype: ms.Type) -> None:
        super().__init__()
        self.op = operator(
            version, dtype, "row_pull_keep",
            lambda du, h1, h2, y, w1, w2, w3, g: ([du[0], w1[1]], h1, h2, y),
        )  # fmt: skip
        self.back = operator(
            version, dtype, "row_twice",
            lambda t, du, h1, h2, y, a1, a2, dy, w1, w2, w3, g: (du, h1, h2, y, w1, w2, w3, g),
        )  # fmt: skip

    def construct(
        self, du: Tensor, h1: Tensor, h2: Tensor, y: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, g: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradient dx [M, K], then what the reverse needs."""
        return self.op(du, h1, h2, y, w1, w2, w3, g)

    def bprop(
        self, du: Tensor, h1: Tensor, h2: Tensor, y: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, g: Tensor,
        out: Any, dout: Any,
    ) -> Any:  # fmt: skip
        """Gradients with respect to du, hidden layers, y and weights; only dx is used by the network."""
        return self.back(dout[0], du, h1, h2, y, out[1], out[2], out[3], w1, w2, w3, g)


class EdgeForward(nn.Cell):
    """:class:`RowForward` of [edge, node of the sender, node of the receiver]."""

    def __init__(self, version: str, dtype: ms.Type, twice: bool) -> None:
        super().__init__()
        self.twice = twice
        self.op = operator(
            version,
            dtype,
            "edge_forward_keep",
            lambda e, n, i, j, w1, b1, w2, b2, w3, b3, g, s: _kept(e[0], w3),
        )
        if twice:
            self.back = operator(
                version, dtype, "edge_reverse_add",
                lambda du, g1, g2, gy, h1, h2, y, e, n, i, j, w1, w2, w3, g: (e, n, *_weights(w1, w2, w3)),
            )  # fmt: skip
        else:
            self.back = operator(
                version, dtype, "edge_reverse",
                lambda du, h1, h2, y, e, n, i, j, w1, w2, w3, g: (e, n, *_weights(w1, w2, w3)),
            )  # fmt: skip

    def construct(
        self, e: Tensor, n: Tensor, i: Tensor, j: Tensor,
        w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor, g: Tensor, s: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """From edges [M, K], nodes [N, D], senders and receivers [M] to u [M, O], h1, h2 [M, H], y [M, O]."""
        return self.op(e, n, i, j, w1, b1, w2, b2, w3, b3, g, s)

    def bprop(
        self, e: Tensor, n: Tensor, i: Tensor, j: Tensor,
        w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor, g: Tensor, s: Tensor,
        out: Any, dout: Any,
    ) -> Any:  # fmt: skip
        """Gradients with respect to edges, nodes and weights."""
        h1, h2, y = out[1], out[2], out[3]
        if self.twice:
            d = self.back(dout[0], dout[1], dout[2], dout[3], h1, h2, y, e, n, i, j, w1, w2, w3, g)
        else:
            d = self.back(dout[0], h1, h2, y, e, n, i, j, w1, w2, w3, g)
        return d[0], d[1], _zeros(i), _zeros(j), d[2], d[3], d[4], d[5], d[6], d[7], d[8], d[9]


class EdgePull(nn.Cell):
    """Gradient of :class:`EdgeForward` with respect to edges and nodes, to be differentiated once more."""

    def __init__(self, version: str, dtype: ms.Type) -> None:
        super().__init__()
        self.op = operator(
            version, dtype, "edge_pull_keep",
            lambda du, h1, h2, y, n, i, j, w1, w2, w3, g: ([du[0], w1[1] - 2 * n[1]], n, h1, h2, y),
        )  # fmt: skip
        self.back = operator(
            version, dtype, "edge_twice",
            lambda t, tn, i, j, du, h1, h2, y, a1, a2, dy, w1, w2, w3, g: (du, h1, h2, y, w1, w2, w3, g),
        )  # fmt: skip

    def construct(
        self, du: Tensor, h1: Tensor, h2: Tensor, y: Tensor, n: Tensor, i: Tensor, j: Tensor,
        w1: Tensor, w2: Tensor, w3: Tensor, g: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """Gradients de [M, K], dn [N, D], then what the reverse needs; of ``n`` only the shape is read."""
        return self.op(du, h1, h2, y, n, i, j, w1, w2, w3, g)

    def bprop(
        self, du: Tensor, h1: Tensor, h2: Tensor, y: Tensor, n: Tensor, i: Tensor, j: Tensor,
        w1: Tensor, w2: Tensor, w3: Tensor, g: Tensor, out: Any, dout: Any,
    ) -> Any:  # fmt: skip
        """Gradients with respect to du, hidden layers, y and weights; only de and dn are used by the network."""
        d = self.back(dout[0], dout[1], i, j, du, h1, h2, y, out[2], out[3], out[4], w1, w2, w3, g)
        return d[0], d[1], d[2], d[3], _zeros(n), _zeros(i), _zeros(j), d[4], d[5], d[6], d[7]


class Exchange(nn.Cell):
    """Messages [N, 2 D] (received, sent) and updated edges [M, D] of an interaction layer."""

    def __init__(self, version: str, dtype: ms.Type) -> None:
        super().__init__()
        self.op = operator(
            version, dtype, "exchange_forward", lambda n, e, u, c, i, j, w, b: ([n[0], 2 * e[1]], e)
        )
        self.back = operator(
            version, dtype, "exchange_reverse", lambda dm, de, e, u, c, i, j, w, b: (e, e, c, w, b)
        )

    def construct(
        self, n: Tensor, e: Tensor, u: Tensor, c: Tensor, i: Tensor, j: Tensor, w: Tensor, b: Tensor
    ) -> tuple[Tensor, Tensor]:
        """From edges e, their update u [M, D], cutoff c [M, 1], gates w [2, D], b [2]; of n only the length is read."""
        return self.op(n, e, u, c, i, j, w, b)

    def bprop(
        self, n: Tensor, e: Tensor, u: Tensor, c: Tensor, i: Tensor, j: Tensor, w: Tensor, b: Tensor,
        out: Any, dout: Any,
    ) -> Any:  # fmt: skip
        """Gradients with respect to edges, update, cutoff and gates."""
        d = self.back(dout[0], dout[1], e, u, c, i, j, w, b)
        return _zeros(n), d[0], d[1], d[2], _zeros(i), _zeros(j), d[3], d[4]


class ExchangePull(nn.Cell):
    """Gradient of :class:`Exchange` with respect to edges, update and cutoff, to be differentiated once more."""

    def __init__(self, version: str, dtype: ms.Type) -> None:
        super().__init__()
        self.op = operator(version, dtype, "exchange_pull", lambda dm, de, e, u, c, i, j, w, b: (e, e, c))
        self.back = operator(
            version, dtype, "exchange_twice",
            lambda te, tu, tc, dm, de, e, u, c, i, j, w, b: (dm, e, e, e, c, w, b),
        )  # fmt: skip

    def construct(
        self,
        dm: Tensor,
        de: Tensor,
        e: Tensor,
        u: Tensor,
        c: Tensor,
        i: Tensor,
        j: Tensor,
        w: Tensor,
        b: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """From the gradients of messages dm [N, 2 D] and of edges de [M, D] to those of e, u, c."""
        return self.op(dm, de, e, u, c, i, j, w, b)

    def bprop(
        self, dm: Tensor, de: Tensor, e: Tensor, u: Tensor, c: Tensor, i: Tensor, j: Tensor, w: Tensor, b: Tensor,
        out: Any, dout: Any,
    ) -> Any:  # fmt: skip
        """Gradients with respect to everything but the topology."""
        d = self.back(dout[0], dout[1], dout[2], dm, de, e, u, c, i, j, w, b)
        return d[0], d[1], d[2], d[3], d[4], _zeros(i), _zeros(j), d[5], d[6]
