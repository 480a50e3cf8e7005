"""Networks for prediction only: weights put in order once, and no more kept for the forces than memory allows.

Each network keeps, of the rows it has seen, both hidden layers (``all``), the second one (``half``, which costs a
twelfth more time) or none (``none``, half as much again) for its pull; what is not kept is made again with the same
bits. :func:`share` decides which by the number of rows.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from numpy.typing import NDArray

from lamkit.errors import UserError
from lamkit.model.native.build import library
from lamkit.model.native.cells import REALS, operator

# Part of the memory that is free at the start which a prediction may take.
FREE_PART = 0.8


class _Packed(nn.Cell):
    """Weights of one network for the forward and, where forces are gradients, for the reverse sweep.

    Args:
        version: v2 or v3.
        dtype: float32 or float64.
        name: for the parameters, unique.
        sizes: K, D, H, O: widths of a row's own part, of the nodes (0 without), of hidden layers and output.
        pulled: whether there will be a pull.
    """

    def __init__(
        self, version: str, dtype: ms.Type, name: str, sizes: tuple[int, int, int, int], pulled: bool
    ) -> None:
        super().__init__()
        self.version, self.real, self.dtype, self.sizes = version, REALS[dtype], dtype, sizes
        self.hidden, self.n_out = sizes[2], sizes[3]
        # Rows up to which a pull finds both hidden layers, or the second one.
        self.all_rows = self.half_rows = 0
        self.ahead = self._empty(f"{name}.ahead", 1)
        if pulled:
            self.back = self._empty(f"{name}.back", 0)
        self.pulled = pulled

    def _empty(self, name: str, ahead: int) -> Parameter:
        size = _functions(self.version, self.real).weights_size(*self.sizes, ahead)
        return Parameter(Tensor(np.zeros(size), self.dtype), name=name, requires_grad=False)

    def keep_all(self) -> None:
        """Keep both hidden layers however many rows there are."""
        self.all_rows = 2**62 if self.pulled else 0

    def fill(self, weights: list[NDArray[np.floating]]) -> None:
        """Take W1, b1, W2, b2, W3, b3, gain and shift as they are now."""
        self.ahead.set_data(Tensor(ordered(self.version, self.real, self.sizes, weights, 1)))
        if self.pulled:
            self.back.set_data(Tensor(ordered(self.version, self.real, self.sizes, weights, 0)))


class Rows(_Packed):
    """u = norm(MLP(x)) of rows x [M, K]; of these the first ``live`` (int32 [1]) are real, u is zero beyond."""

    def __init__(
        self, version: str, dtype: ms.Type, name: str, sizes: tuple[int, int, int, int], pulled: bool
    ) -> None:
        super().__init__(version, dtype, name, sizes, pulled)
        n_in, _, hidden, n_out = sizes

        def op(name: str, shapes: Any) -> Any:
            return operator(version, dtype, name, shapes)

        self.none = op("rows_none", lambda x, n, a: [x[0], n_out])
        self.half = op("rows_half", lambda x, n, a: ([x[0], n_out], [x[0], hidden], [x[0], n_out]))
        self.all = op(
            "rows_all", lambda x, n, a: ([x[0], n_out], [x[0], hidden], [x[0], hidden], [x[0], n_out])
        )
        self.none_pull = op("rows_none_pull", lambda du, n, x, a, b: x)
        self.half_pull = op("rows_half_pull", lambda du, n, h2, y, x, a, b: x)
        self.all_pull = op("rows_all_pull", lambda du, n, h1, h2, y, b: [du[0], n_in])

    def construct(self, x: Tensor, live: Tensor) -> tuple[Tensor, Any]:
        """Output [M, O] and what :meth:`pull` needs."""
        if x.shape[0] <= self.all_rows:
            u, h1, h2, y = self.all(x, live, self.ahead)
            return u, (live, h1, h2, y)
        if x.shape[0] <= self.half_rows:
            u, h2, y = self.half(x, live, self.ahead)
            return u, (live, h2, y, x)
        return self.none(x, live, self.ahead), (live, x)

    def pull(self, du: Tensor, kept: Any) -> Tensor:
        """Gradient with respect to the rows, [M, K]."""
        if du.shape[0] <= self.all_rows:
            return self.all_pull(du, *kept, self.back)
        if du.shape[0] <= self.half_rows:
            return self.half_pull(du, *kept, self.ahead, self.back)
        return self.none_pull(du, *kept, self.ahead, self.back)


class Layer(_Packed):
    """An interaction layer up to its node network: messages [N, 2 D] and updated edges [M, D]."""

    def __init__(
        self, version: str, dtype: ms.Type, name: str, sizes: tuple[int, int, int, int], pulled: bool
    ) -> None:
        super().__init__(version, dtype, name, sizes, pulled)
        hidden = sizes[2]

        def op(name: str, shapes: Any) -> Any:
            return operator(version, dtype, name, shapes)

        def out(nodes: list[int], edges: list[int]) -> tuple[list[int], ...]:
            return [nodes[0], 2 * nodes[1]], edges

        self.none = op("layer_none", lambda v, e, c, i, j, w, b, n, a: out(v, e))
        self.half = op("layer_half", lambda v, e, c, i, j, w, b, n, a: (*out(v, e), [e[0], hidden], e))
        self.all = op(
            "layer_all", lambda v, e, c, i, j, w, b, n, a: (*out(v, e), [e[0], hidden], [e[0], hidden], e)
        )
        self.none_pull = op("layer_none_pull", lambda dm, de, v, e, c, *_: (e, c, v))
        self.half_pull = op("layer_half_pull", lambda dm, de, v, e, c, *_: (e, c, v))
        self.all_pull = op("layer_all_pull", lambda dm, de, v, e, c, *_: (e, c, v))

    def construct(
        self,
        nodes: Tensor,
        edges: Tensor,
        cutoff: Tensor,
        senders: Tensor,
        receivers: Tensor,
        gates: tuple[Tensor, Tensor],
        live: Tensor,
    ) -> tuple[Tensor, Tensor, Any]:
        """Messages, edges and what :meth:`pull` needs; ``gates`` are weights [2, D] and biases [2].

        The first ``live`` edges are real, the others come out as zero.
        """
        given = (nodes, edges, cutoff, senders, receivers, gates[0], gates[1], live)
        if edges.shape[0] <= self.all_rows:
            messages, after, h1, h2, y = self.all(*given, self.ahead)
            return messages, after, (*given, h1, h2, y)
        if edges.shape[0] <= self.half_rows:
            messages, after, h2, y = self.half(*given, self.ahead)
            return messages, after, (*given, h2, y)
        messages, after = self.none(*given, self.ahead)
        return messages, after, given

    def pull(self, d_messages: Tensor, d_edges: Tensor, kept: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients with respect to edges [M, D], cutoff [M, 1] and nodes [N, D]; ``d_edges`` [1, D] is zero."""
        n_edges = kept[1].shape[0]
        if n_edges <= self.all_rows:
            return self.all_pull(d_messages, d_edges, *kept, self.back)
        if n_edges <= self.half_rows:
            return self.half_pull(d_messages, d_edges, *kept, self.ahead, self.back)
        return self.none_pull(d_messages, d_edges, *kept, self.ahead, self.back)


def ordered(
    version: str, real: str, sizes: tuple[int, int, int, int], weights: list[NDArray[np.floating]], ahead: int
) -> NDArray[np.floating]:
    """Weights of one network in the order of the forward (``ahead`` 1) or of the reverse sweep (0).

    Args:
        version: v2 or v3.
        real: float32 or float64.
        sizes: as of :class:`_Packed`.
        weights: as of :meth:`_Packed.fill`.
        ahead: which sweep.
    """
    functions = _functions(version, real)
    arrays = [np.ascontiguousarray(w, real) for w in weights]
    pointers = (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
    out = np.empty(functions.weights_size(*sizes, ahead), real)
    functions.weights_write(*sizes, ahead, pointers, ctypes.c_void_p(out.ctypes.data))
    return out


@functools.cache
def _functions(version: str, real: str) -> ctypes.CDLL:
    """The library's functions that are no operators."""
    found = ctypes.CDLL(str(library(version, real).path))
    found.weights_size.argtypes = [ctypes.c_long] * 4 + [ctypes.c_int]
    found.weights_size.restype = ctypes.c_long
    found.weights_write.argtypes = [ctypes.c_long] * 4 + [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    found.weights_write.restype = None
    return found


def share(networks: list[_Packed], room: float, others: int) -> None:
    """Set for each of ``networks``, which see the same rows, up to how many it keeps its hidden layers.

    First every network keeps its second hidden layer and y, then, in the same order, the first one, too, for as
    long as all of it and ``others`` (numbers per row that are needed anyhow) take no more than ``room`` bytes.
    """
    bytes_each = 8 if networks[0].real == "float64" else 4
    numbers = others
    for network in networks:
        numbers += network.hidden + network.n_out
        network.half_rows = int(room / (bytes_each * numbers))
    for network in networks:
        numbers += network.hidden
        network.all_rows = int(room / (bytes_each * numbers))


def room() -> float:
    """Bytes that a prediction may take: a part of the free memory, or ``LAMKIT_MEMORY_GB``.

    Raises:
        UserError: that variable is no number, or negative.
    """
    given = os.environ.get("LAMKIT_MEMORY_GB")
    if given is not None:
        try:
            value = float(given)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            raise UserError(f"LAMKIT_MEMORY_GB={given} is no amount of memory in GB, such as 8")
        return value * 1e9
    return FREE_PART * _free()


def _free() -> float:
    """Bytes that this process could still take: the machine's, or what its control group leaves."""
    free = float("inf")
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            free = 1024.0 * int(line.split()[1])
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{n}").read_text().strip() for n in ("max", "current"))
    except OSError:  # no control group, or an old one
        return free
    return free if limit == "max" else min(free, float(limit) - float(used))
