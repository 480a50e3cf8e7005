"""Figures: learning curves, parity, fine-tuning against from-scratch, teacher against student.

Each function takes plain data and returns a matplotlib ``Figure``; nothing is shown and no global state of
matplotlib is touched. :func:`png` renders one.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from lamkit.report.parity import QUANTITIES, Pairs

# Okabe and Ito's colours, which colour-blind readers tell apart; black is kept for lines of reference.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#6A51A3")
MANY = len(COLORS)  # with more heads than this, lines are thin and a map of colours is used
MAX_ROWS = 12
DOTS = 3000  # more points than this are drawn as density
STYLE: Any = {  # keys of rcParams
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}
PARITY_LABELS = {
    "energy": ("energy less references", "eV/atom", 1000.0, "meV/atom"),
    "forces": ("force component", "eV/Å", 1000.0, "meV/Å"),
    "stress": ("stress component", "eV/Å³", 1000.0, "meV/Å³"),
}


class Curve(NamedTuple):
    """One learning curve.

    Attributes:
        label: what it is called in the legend.
        steps: training steps, ascending.
        values: error at each step; NaN where there was no label.
    """

    label: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as the bytes of a PNG file."""
    stream = io.BytesIO()
    FigureCanvasAgg(figure)
    # The software's version in the file would make equal figures differ.
    figure.savefig(stream, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    return stream.getvalue()


def _figure(columns: int, width: float, height: float, rows: int = 1) -> tuple[Figure, NDArray[Any]]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes


def _styled(function: Any) -> Any:
    """Run a plot function with the style of the report (legends are styled when they are made)."""

    def inner(*args: Any, **kwargs: Any) -> Figure:
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    inner.__doc__, inner.__name__ = function.__doc__, function.__name__
    return inner


def _colors(n: int) -> list[Any]:
    if n <= MANY:
        return list(COLORS[:n])
    return list(matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, n)))


@_styled
def learning_curves(
    panels: Mapping[str, Sequence[Curve]], baselines: Mapping[str, float] | None = None
) -> Figure:
    """Errors against training steps on logarithmic scales, one panel for each quantity.

    Args:
        panels: label of the vertical axis → a curve for each head; the same heads in the same colour.
        baselines: head → its error under a model of zero forces, drawn dotted in the first panel.
    """
    labels = list(dict.fromkeys(c.label for curves in panels.values() for c in curves))
    figure, axes = _figure(len(panels), 4.6 * len(panels), 3.2 + 0.2 * math.ceil(len(labels) / 5))
    colors = dict(zip(labels, _colors(len(labels)), strict=True))
    few = len(labels) <= MANY
    for ax, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for curve in curves:
            _draw_curve(ax, curve, colors[curve.label], few)
        ax.set(yscale="log", xlabel="step", title=title)
        ax.margins(x=0.03)
        _plain_ticks(ax.yaxis)
    for label, value in (baselines or {}).items():
        if label in colors and few and value:
            axes[0, 0].axhline(value, color=colors[label], linestyle=":", linewidth=1)
    if baselines and few:
        axes[0, 0].plot([], [], color="#666666", linestyle=":", label="zero forces")
    handles, names = axes[0, 0].get_legend_handles_labels()
    if len(labels) > 1 or baselines:
        figure.legend(handles, names, loc="outside lower center", ncols=min(5, len(names)))
    return figure


def _draw_curve(ax: Axes, curve: Curve, color: Any, few: bool) -> None:
    known = np.isfinite(curve.values) & (curve.values > 0)
    ax.plot(
        curve.steps[known], curve.values[known], color=color, label=curve.label,
        linewidth=1.6 if few else 0.7, marker="o" if known.sum() <= 15 and few else "", markersize=3,
    )  # fmt: skip


def _plain_ticks(axis: Axis) -> None:
    """Write 20, 50, 100 instead of powers on a logarithmic axis that spans less than three decades."""
    low, high = axis.get_view_interval()
    if low > 0 and high / low < 1e3:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low > 5 else range(1, 10)))
        formatter = ScalarFormatter()
        formatter.set_scientific(False)
        axis.set_major_formatter(formatter)
        axis.set_minor_formatter(NullFormatter())


@_styled
def parity(pairs_of_head: Mapping[str, Pairs]) -> Figure:
    """Prediction against data: a row for each head, a column for each quantity that is known.

    Args:
        pairs_of_head: head → quantity → [2, n_points]; the first 12 heads are drawn.
    """
    heads = list(pairs_of_head)[:MAX_ROWS] or ["-"]
    columns = [q for q in QUANTITIES if any(q in pairs for pairs in pairs_of_head.values())] or ["energy"]
    figure, axes = _figure(len(columns), 3.2 * len(columns), 3.1 * len(heads), rows=len(heads))
    for row, head in zip(axes, heads, strict=True):
        for ax, quantity in zip(row, columns, strict=True):
            pair = pairs_of_head.get(head, {}).get(quantity)
            if pair is None or not pair.size:
                ax.set_axis_off()
                ax.text(
                    0.5, 0.5, f"no {quantity} labels", ha="center", transform=ax.transAxes, color="#888888"
                )
            else:
                _draw_parity(ax, pair, quantity)
        row[0].set_title(head)
    return figure


def _draw_parity(ax: Axes, pair: NDArray[np.float64], quantity: str) -> None:
    name, unit, factor, small_unit = PARITY_LABELS[quantity]
    data, predicted = pair
    low, high = float(pair.min()), float(pair.max())
    pad = 0.04 * (high - low) or 0.04 * abs(high) or 1e-3
    limits = (low - pad, high + pad)
    ax.plot(limits, limits, color="black", linewidth=0.8, zorder=3)
    if data.size > DOTS:
        ax.hexbin(data, predicted, gridsize=70, extent=(*limits, *limits), mincnt=1, cmap="viridis_r",
                  norm=LogNorm(), linewidths=0.1)  # fmt: skip
    else:
        ax.scatter(data, predicted, s=9, color=COLORS[0], alpha=0.5, linewidths=0)
    error = predicted - data
    mae, rmse = factor * np.abs(error).mean(), factor * np.sqrt((error**2).mean())
    text = "\n".join(
        f"{k} {v:.0f}" if v >= 1000 else f"{k} {v:.3g}" for k, v in {"MAE": mae, "RMSE": rmse}.items()
    )
    ax.text(0.04, 0.96, f"{text}\n{small_unit}", transform=ax.transAxes, va="top", fontsize=8)
    ax.set(xlim=limits, ylim=limits, xlabel=f"{name}, data ({unit})", ylabel=f"predicted ({unit})")
    ax.set_aspect("equal")


@_styled
def speed_and_error(names: Sequence[str], errors: Sequence[float], times: Sequence[float]) -> Figure:
    """Force error against time per atom and step: below and to the left is better.

    Args:
        names: models.
        errors: force RMSE, meV/Å.
        times: µs per atom and step.
    """
    figure, axes = _figure(1, 5.2, 3.4)
    ax = axes[0, 0]
    for name, error, time, color in zip(names, errors, times, _colors(len(names)), strict=True):
        ax.scatter([time], [error], s=60, color=color, zorder=3)
        ax.annotate(name, (time, error), xytext=(7, 5), textcoords="offset points", fontsize=9)
    if len(names) > 1:
        fastest, slowest = min(times), max(times)
        ax.annotate("", (fastest, min(errors) * 0.82), (slowest, min(errors) * 0.82),
                    arrowprops={"arrowstyle": "->", "color": "#666666"})  # fmt: skip
        ax.text(np.sqrt(fastest * slowest), min(errors) * 0.83, f"{slowest / fastest:.3g}× faster",
                ha="center", va="bottom", color="#444444", fontsize=8)  # fmt: skip
    ax.set(
        xscale="log",
        title="Force RMSE (meV/Å) and time (µs per atom and step)",
        xlabel="µs per atom and step",
    )
    ax.set(ylim=(min(errors) * 0.7, max(errors) * 1.25), xlim=(min(times) * 0.5, max(times) * 3))
    _plain_ticks(ax.xaxis)
    return figure


@_styled
def bars(labels: Sequence[str], groups: Mapping[str, Sequence[float | None]], title: str) -> Figure:
    """Grouped horizontal bars, for example errors before and after for each head; None leaves a gap."""
    height = 0.8 / max(len(groups), 1)
    figure, axes = _figure(1, 6.4, 0.8 + 0.34 * max(len(labels), 1) * max(len(groups), 1) ** 0.7)
    ax = axes[0, 0]
    places = np.arange(len(labels))[::-1]
    for k, ((name, values), color) in enumerate(zip(groups.items(), _colors(len(groups)), strict=True)):
        lengths = [np.nan if v is None else v for v in values]
        shifted = places + 0.4 - height * (k + 0.5)
        drawn = ax.barh(shifted, lengths, height=0.9 * height, color=color, label=name)
        ax.bar_label(drawn, fmt=lambda v: "" if np.isnan(v) else f"{v:.3g}", fontsize=7, padding=2)
    ax.set_yticks(places, labels)
    ax.grid(visible=False, axis="y")
    ax.set_title(title)
    ax.margins(x=0.1)
    if len(groups) > 1:
        ax.legend(loc="best")
    return figure
