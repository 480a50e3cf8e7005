"""Figures of a data set: distributions of labels and geometry, and the elements on the periodic table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from lamkit.data.frame import NUMBERS
from lamkit.data.histogram import Axis, Histogram
from lamkit.report.plots import COLORS, _figure, _plain_ticks, _styled

BARS = 70  # bins drawn at most
COLUMNS = 3
LAYOUT = (  # row and columns of the elements in the order of their numbers; the f block is in rows 9 and 10
    (1, (1, 18)), (2, (1, 2, *range(13, 19))), (3, (1, 2, *range(13, 19))), (4, range(1, 19)),
    (5, range(1, 19)), (6, (1, 2)), (9, range(3, 18)), (6, range(4, 19)), (7, (1, 2)), (10, range(3, 18)),
    (7, range(4, 19)),
)  # fmt: skip


class Panel(NamedTuple):
    """One distribution to draw.

    Attributes:
        title: quantity with its unit.
        counts: per bin, ``[n]``.
        edges: ``[n + 1]``.
        scale: of the axis: ``linear``, ``log`` or ``asinh``.
        unit: where an asinh axis turns from linear to logarithmic.
        what: what is counted.
        note: text inside, such as how much lies outside.
    """

    title: str
    counts: NDArray[np.int64]
    edges: NDArray[np.float64]
    scale: str = "linear"
    unit: float = 1.0
    what: str = "frames"
    note: str = ""


def panel(title: str, histogram: Histogram, what: str, factor: float = 1.0) -> Panel | None:
    """A histogram as a panel, cut to where its values are; ``factor`` changes the unit.

    None where there is nothing to see: no value, or one value only.
    """
    filled = np.flatnonzero(histogram.counts[1:-1])
    if not filled.size or histogram.largest - histogram.smallest <= 1e-9 * abs(histogram.largest):
        return None
    first, last = int(filled[0]), int(filled[-1]) + 1
    step = -(-(last - first) // BARS)
    last = min(histogram.axis.n_bins, first + -(-(last - first) // step) * step)
    cuts = np.arange(first, last, step)
    counts = np.add.reduceat(histogram.counts[1:-1][:last], cuts)
    edges = factor * histogram.axis.edges()[[*cuts, last]]
    below, above = int(histogram.counts[0]), int(histogram.counts[-1])
    outside = [f"{short(n)} {side} the axis" for n, side in ((below, "below"), (above, "above")) if n]
    note = ", ".join(outside)
    return Panel(title, counts, edges, histogram.axis.scale, factor * histogram.axis.unit, what, note)


def numbers_panel(title: str, values: NDArray[np.float64], what: str) -> Panel | None:
    """Numbers in memory as a panel; the outermost hundredth at each end is cut off where it is far out."""
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    low, high = np.quantile(values, [0.01, 0.99])
    room = 3 * max(high - low, 1e-6)
    low, high = max(float(values.min()), low - room), min(float(values.max()), high + room)
    if high - low < 1e-9:
        low, high = low - 1e-3, high + 1e-3
    counts, edges = np.histogram(values, bins=min(60, max(8, int(np.sqrt(values.size)))), range=(low, high))
    outside = int(values.size - counts.sum())
    return Panel(title, counts, edges, what=what, note=f"{outside} further out" if outside else "")


def sizes_panel(sizes: Mapping[int, int]) -> Panel | None:
    """Atoms per frame; None where all frames have the same number."""
    if len(sizes) < 2:
        return None
    histogram = Histogram(Axis("linear", min(sizes) - 0.5, max(sizes) + 0.5, max(sizes) - min(sizes) + 1))
    histogram.add(np.repeat(list(sizes), list(sizes.values())))
    return panel("atoms per frame", histogram, "frames")


@_styled
def distributions(panels: list[Panel]) -> Figure:
    """One panel for each quantity, three in a row."""
    rows = -(-len(panels) // COLUMNS)
    figure, axes = _figure(COLUMNS, 3.3 * COLUMNS, 2.35 * rows, rows=rows)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, drawn in zip(axes.flat, panels, strict=False):
        _draw(ax, drawn)
    return figure


def _draw(ax: Axes, drawn: Panel) -> None:
    ax.stairs(drawn.counts, drawn.edges, fill=True, color=COLORS[0], alpha=0.85)
    low, high = float(drawn.edges[0]), float(drawn.edges[-1])
    if drawn.scale == "asinh":
        ax.set_xscale("asinh", linear_width=drawn.unit)
        ax.xaxis.set_major_locator(FixedLocator(_decades(low, high, drawn.unit)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
    elif drawn.scale == "log":
        ax.set_xscale("log")
        _plain_ticks(ax.xaxis)
    ax.set(xlabel=drawn.title, ylabel=drawn.what)
    ax.grid(visible=False, axis="x")
    ax.margins(x=0.02)
    ax.set_ylim(bottom=0)
    if drawn.note:
        ax.set_title(drawn.note, loc="right", fontsize=7.5, fontweight="normal", color="#5b6478", pad=3)


def _decades(low: float, high: float, unit: float) -> list[float]:
    """Ticks of an asinh axis: zero and at most three powers of ten to each side."""
    ticks = [0.0]
    for sign, end in ((1.0, high), (-1.0, -low)):
        top = int(np.floor(np.log10(max(end, unit))))
        bottom = int(np.ceil(np.log10(10 * unit)))
        step = max(1, -(-(top - bottom + 1) // 3))
        ticks += [sign * 10.0**k for k in range(top, bottom - 1, -step)]
    return sorted(ticks)


def places() -> dict[int, tuple[int, int]]:
    """Atomic number → row and column on the periodic table."""
    return dict(enumerate(((row, column) for row, columns in LAYOUT for column in columns), start=1))


@_styled
def periodic_table(frames: Mapping[str, int]) -> Figure:
    """The elements on the periodic table, coloured by the number of frames that they occur in.

    Args:
        frames: symbol → frames.
    """
    figure, axes = _figure(1, 8.6, 4.4)
    ax = axes[0, 0]
    most = max(frames.values())
    norm, colours = LogNorm(1, max(most, 2)), matplotlib.colormaps["Blues"]
    spots = places()
    for symbol, z in NUMBERS.items():
        row, column = spots[z]
        n = frames.get(symbol, 0)
        depth = 0.15 + 0.75 * float(norm(n)) if n else 0.0
        face = colours(depth) if n else "#f4f6f9"
        ax.add_patch(Rectangle((column, -row), 0.94, 0.94, facecolor=face, edgecolor="none"))
        ink = "#ffffff" if depth > 0.55 else "#1d2433" if n else "#b9c0cc"
        ax.text(column + 0.47, -row + 0.6, symbol, ha="center", va="center", fontsize=8.5, color=ink)
        if n:
            ax.text(column + 0.47, -row + 0.22, short(n), ha="center", va="center", fontsize=5.5, color=ink)
    ax.set(xlim=(0.9, 19), ylim=(-10.1, 0.05), aspect="equal")
    ax.set_axis_off()
    return figure


def short(n: int) -> str:
    """``1234`` → ``1.2k``."""
    for unit, scale in (("M", 1_000_000), ("k", 1000)):
        if n >= scale:
            return f"{n / scale:.1f}{unit}" if n < 10 * scale else f"{n / scale:.0f}{unit}"
    return str(n)
