"""Operations with gradients written by hand, where MindSpore's own are right but slow when taken twice.

Conservative potentials differentiate every operation twice. Each cell here gives the first gradient in few
passes over memory, in a form whose own gradient is again cheap. Values are those of the plain operations.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops

# Primitives: functions of ``ops`` fail to compile inside a bprop that is differentiated again.
_gather = ops.Gather()
_sum = ops.UnsortedSegmentSum()
_zeros = ops.ZerosLike()


class Silu(nn.Cell):
    """x sigmoid(x).

    With s = sigmoid(x), y = x s: slope d = y + s (1 - y) and curvature d + s - 2 d s, so one sigmoid serves
    all three. s and y are passed as constants; the chain rule through them is in the formulas.
    """

    def __init__(self) -> None:
        super().__init__()
        self.product = _SiluProduct()

    def construct(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return self.product(x, ops.stop_gradient(ops.sigmoid(x)))


class _SiluProduct(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.slope = _SiluSlope()

    def construct(self, x: Tensor, s: Tensor) -> Tensor:
        return x * s

    def bprop(self, x: Tensor, s: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        return dout * self.slope(x, ops.stop_gradient(out), s), _zeros(s)


class _SiluSlope(nn.Cell):
    def construct(self, x: Tensor, y: Tensor, s: Tensor) -> Tensor:
        return y + s * (1.0 - y)

    def bprop(
        self, x: Tensor, y: Tensor, s: Tensor, out: Tensor, dout: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return dout * (out + s * (1.0 - (out + out))), _zeros(y), _zeros(s)


class MeanSquare(nn.Cell):
    """Mean of x^2 over the last axis, which is kept."""

    def construct(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., 1]."""
        return ops.mean(x * x, -1, True)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        """2 x / width, once per element."""
        return (x * (dout * (2.0 / x.shape[-1])),)


class Gather(nn.Cell):
    """Rows of ``table`` by index; the gradient is a sum over equal indices."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = _PlainSum()

    def construct(self, table: Tensor, index: Tensor) -> Tensor:
        """[n, ...], [m] -> [m, ...]."""
        return _gather(table, index, 0)

    def bprop(self, table: Tensor, index: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the incoming rows."""
        return self.sum(dout, index, ops.stop_gradient(table)), _zeros(index)


class SegmentSum(nn.Cell):
    """Sum of rows that have the same index; the gradient gathers, without the masks of the built-in one."""

    def __init__(self) -> None:
        super().__init__()
        self.gather = _PlainGather()

    def construct(self, rows: Tensor, index: Tensor, like: Tensor) -> Tensor:
        """[m, ...], [m] -> [n, ...] with n the length of ``like``; every index in 0 ... n-1."""
        return _sum(rows, index, like.shape[0])

    def bprop(
        self, rows: Tensor, index: Tensor, like: Tensor, out: Tensor, dout: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each row gets the gradient of its sum."""
        return self.gather(dout, index), _zeros(index), _zeros(like)


class _PlainGather(nn.Cell):
    """:class:`Gather` one gradient further in, where built-in sums end the chain."""

    def construct(self, table: Tensor, index: Tensor) -> Tensor:
        return _gather(table, index, 0)

    def bprop(self, table: Tensor, index: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        return _sum(dout, index, table.shape[0]), _zeros(index)


class _PlainSum(nn.Cell):
    """:class:`SegmentSum` one gradient further in, where built-in gathers end the chain."""

    def construct(self, rows: Tensor, index: Tensor, like: Tensor) -> Tensor:
        return _sum(rows, index, like.shape[0])

    def bprop(
        self, rows: Tensor, index: Tensor, like: Tensor, out: Tensor, dout: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _gather(dout, index, 0), _zeros(index), _zeros(like)
