"""Confidence intervals of errors by the bootstrap, over whole groups of frames where groups are known.

Frames of one trajectory are alike: resampling them one by one makes intervals far too narrow. So whole groups
are drawn with replacement (cluster bootstrap; Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from lamkit.data.frame import Frame

DRAWS = 1000
LEVEL = 95.0  # per cent
FEWEST = 3  # groups below which frames are drawn instead
BLOCKS = 4000  # groups beyond this number are put together at random, which the statistics do not notice
LABELS = ("energy", "forces", "stress")
_WIDTH = 3 * len(LABELS)


class Resampled:
    """Error sums of each frame, from which intervals are drawn in the end.

    Args:
        seed: of the draws.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._sums, self._groups = array("d"), array("q")
        self._names: dict[str, int] = {}

    def add(self, frame: Frame, prediction: Mapping[str, Any]) -> None:
        """Add one frame; labels that it lacks count nothing."""
        self._groups.append(self._names.setdefault(frame.group, len(self._names)))
        scale = {"energy": 1.0 / len(frame)}
        for label in LABELS:
            target, predicted = getattr(frame, label), prediction.get(label)
            if target is None or predicted is None:
                self._sums.extend((0.0, 0.0, 0.0))
                continue
            error = (np.asarray(predicted, dtype=np.float64) - np.asarray(target)) * scale.get(label, 1.0)
            error = error[~np.isnan(np.asarray(target))]
            self._sums.extend((float(error.size), float(np.abs(error).sum()), float(np.square(error).sum())))

    def result(self) -> dict[str, Any]:
        """``by`` (group or frame), ``n`` of these, ``level`` in per cent, and [low, high] of each error.

        Errors as :meth:`lamkit.metrics.ErrorSums.result` names them: ``energy_mae`` and ``energy_rmse`` (eV/atom),
        ``forces_…`` (eV/Å), ``stress_…`` (eV/Å³). Nothing where there are fewer than three frames.
        """
        frames = np.frombuffer(self._sums, dtype=np.float64).reshape(-1, _WIDTH)
        groups = np.frombuffer(self._groups, dtype=np.int64)
        by = "group" if len(self._names) >= FEWEST and "" not in self._names else "frame"
        places = groups if by == "group" else np.arange(len(frames))
        n = int(places.max()) + 1 if len(places) else 0
        if n < FEWEST:
            return {}
        rng = np.random.default_rng(self._seed)
        blocks = min(n, BLOCKS)
        if blocks < n:
            places = (rng.permutation(n) % blocks)[places]
        sums = np.zeros((blocks, _WIDTH))
        np.add.at(sums, places, frames)
        drawn = rng.multinomial(blocks, np.full(blocks, 1.0 / blocks), size=DRAWS) @ sums
        found: dict[str, Any] = {"by": by, "n": n, "level": LEVEL}
        for k, label in enumerate(LABELS):
            count, absolute, square = drawn[:, 3 * k : 3 * k + 3].T
            if (count > 0).all():
                found[f"{label}_mae"] = _interval(absolute / count)
                found[f"{label}_rmse"] = _interval(np.sqrt(square / count))
        return found


def _interval(values: np.ndarray) -> list[float]:
    tail = (100.0 - LEVEL) / 2
    return [float(v) for v in np.percentile(values, [tail, 100.0 - tail])]
