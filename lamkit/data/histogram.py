"""Histograms that merge: fixed bins, so that two workers' counts add up to what one would have counted.

Bins are even on a scale that suits the quantity: linear, logarithmic for positive ones that span decades, or
asinh for signed ones (linear within ``unit`` of zero, logarithmic beyond). Sums and extremes are exact.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scale = Literal["linear", "log", "asinh"]


class Axis(NamedTuple):
    """Bins of a histogram.

    Attributes:
        scale: on which they are even.
        low, high: where the first begins and the last ends.
        n_bins: how many.
        unit: where an asinh scale turns from linear to logarithmic.
    """

    scale: Scale
    low: float
    high: float
    n_bins: int
    unit: float = 1.0

    def forward(self, values: ArrayLike) -> NDArray[np.float64]:
        """Values on the even scale."""
        values = np.asarray(values, dtype=np.float64)
        if self.scale == "log":
            return np.log(np.maximum(values, np.finfo(np.float64).tiny))
        return np.arcsinh(values / self.unit) if self.scale == "asinh" else values

    def backward(self, values: ArrayLike) -> NDArray[np.float64]:
        """The inverse of :meth:`forward`."""
        values = np.asarray(values, dtype=np.float64)
        if self.scale == "log":
            return np.exp(values)
        return self.unit * np.sinh(values) if self.scale == "asinh" else values

    def edges(self) -> NDArray[np.float64]:
        """Edges of the bins, ``[n_bins + 1]``."""
        low, high = self.forward([self.low, self.high]).tolist()
        return self.backward(np.linspace(low, high, self.n_bins + 1))


class Histogram:
    """Counts, sum, sum of squares and extremes of finite numbers.

    Args:
        axis: the bins.

    Attributes:
        counts: ``[n_bins + 2]`` int64; the first and the last are what lies below and above the bins.
        n, total, square: of the values.
        smallest, largest: infinite as long as there is no value.
    """

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        self.counts = np.zeros(axis.n_bins + 2, dtype=np.int64)
        self.n, self.total, self.square = 0, 0.0, 0.0
        self.smallest, self.largest = np.inf, -np.inf

    def add(self, values: ArrayLike) -> None:
        """Count values of any shape; what is not finite is left out."""
        flat = np.asarray(values, dtype=np.float64).ravel()
        flat = flat[np.isfinite(flat)]
        if not flat.size:
            return
        low, high = self.axis.forward([self.axis.low, self.axis.high])
        place = np.floor((self.axis.forward(flat) - low) * (self.axis.n_bins / (high - low)))
        index = np.clip(place, -1, self.axis.n_bins).astype(np.int64) + 1
        self.counts += np.bincount(index, minlength=len(self.counts))
        self.n += flat.size
        self.total += float(flat.sum())
        self.square += float(flat @ flat)
        self.smallest = min(self.smallest, float(flat.min()))
        self.largest = max(self.largest, float(flat.max()))

    def merge(self, other: Histogram) -> None:
        """Add what ``other`` counted, with the same bins."""
        if other.axis != self.axis:
            raise ValueError(f"histograms with other bins: {self.axis} and {other.axis}")
        self.counts += other.counts
        self.n += other.n
        self.total += other.total
        self.square += other.square
        self.smallest = min(self.smallest, other.smallest)
        self.largest = max(self.largest, other.largest)

    def mean(self) -> float:
        """NaN without values."""
        return self.total / self.n if self.n else float("nan")

    def rms(self) -> float:
        """Root mean square; NaN without values."""
        return float(np.sqrt(self.square / self.n)) if self.n else float("nan")

    def quantile(self, q: float) -> float:
        """Value below which a part ``q`` lies, to the width of a bin; exact for 0 and 1."""
        if not self.n:
            return float("nan")
        if q <= 0 or q >= 1:
            return self.smallest if q <= 0 else self.largest
        reached = np.cumsum(self.counts)
        k = int(np.searchsorted(reached, q * self.n))
        edges = np.concatenate([[self.smallest], self.axis.edges(), [self.largest]])
        left, right = np.clip(edges[[k, k + 1]], self.smallest, self.largest)
        before = reached[k] - self.counts[k]
        return float(left + (right - left) * (q * self.n - before) / max(self.counts[k], 1))

    def summary(self) -> dict[str, float | int | None]:
        """Number, mean, rms and quantiles for people; None where there is no value."""
        if not self.n:
            return {"n": 0}
        names = {"p01": 0.01, "median": 0.5, "p99": 0.99}
        return {
            "n": self.n,
            "mean": self.mean(),
            "rms": self.rms(),
            "min": self.smallest,
            **{name: self.quantile(q) for name, q in names.items()},
            "max": self.largest,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, in types that JSON knows; long runs of empty bins at both ends are left out."""
        filled = np.flatnonzero(self.counts)
        first, last = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, 0)
        return {
            "axis": list(self.axis),
            "first": first,
            "counts": self.counts[first:last].tolist(),
            "sums": [self.n, self.total, self.square],
            "range": [self.smallest, self.largest] if self.n else None,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Histogram:
        """The inverse of :meth:`to_json`."""
        self = cls(Axis(*data["axis"]))
        counts = data["counts"]
        self.counts[data["first"] : data["first"] + len(counts)] = counts
        self.n, self.total, self.square = data["sums"]
        if data["range"] is not None:
            self.smallest, self.largest = data["range"]
        return self
