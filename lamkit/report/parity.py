"""Pairs of (data, prediction), thinned at random while the frames pass by, for parity plots."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lamkit.data.frame import Frame
from lamkit.errors import UserError
from lamkit.files import atomic_write

MAX_POINTS = 20_000
# Energies are per atom and less the reference energies of the elements, which span many eV and would hide
# everything else in a plot; the differences are those of the total energies. Units: eV/atom, eV/Å, eV/Å³.
QUANTITIES = ("energy", "forces", "stress")

Pairs = dict[str, NDArray[np.float64]]  # quantity -> [2, n_points]: data, prediction


class ParitySample:
    """Collects the pairs of a few frames and atoms, drawn before the first frame is seen.

    Args:
        n_atoms: atoms of each frame that will be added, in that order, ``[n_frames]``.
        reference: energy per atom by atomic number, eV, ``[119]``.
        seed: of the draw.
    """

    def __init__(self, n_atoms: ArrayLike, reference: NDArray[np.float64], seed: int = 0) -> None:
        counts = np.asarray(n_atoms, dtype=np.int64)
        rng = np.random.default_rng(seed)
        self._reference = reference
        self._ends = np.cumsum(counts)
        self._atoms = _draw(rng, int(counts.sum()), MAX_POINTS // 3)
        self._frames = {
            "energy": set(_draw(rng, len(counts), MAX_POINTS).tolist()),
            "stress": set(_draw(rng, len(counts), MAX_POINTS // 6).tolist()),
        }
        self._parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in QUANTITIES}

    def add(self, i: int, frame: Frame, prediction: Mapping[str, Any]) -> None:
        """Add frame ``i`` (its place in ``n_atoms``); labels that are missing are left out."""
        if frame.energy is not None and i in self._frames["energy"]:
            zero = float(self._reference[frame.numbers].sum())
            self._keep(
                "energy", (frame.energy - zero) / len(frame), (prediction["energy"] - zero) / len(frame)
            )
        if frame.forces is not None:
            end = int(self._ends[i])
            start = end - len(frame)
            drawn = self._atoms[slice(*np.searchsorted(self._atoms, [start, end]))] - start
            self._keep("forces", frame.forces[drawn], np.asarray(prediction["forces"])[drawn])
        if frame.stress is not None and prediction.get("stress") is not None and i in self._frames["stress"]:
            self._keep("stress", frame.stress, prediction["stress"])

    def _keep(self, name: str, data: ArrayLike, predicted: ArrayLike) -> None:
        pair = np.stack([np.ravel(data), np.ravel(predicted)]).astype(np.float64)
        self._parts[name].append(pair[:, ~np.isnan(pair[0])])

    def pairs(self) -> Pairs:
        """What was collected: quantity → [2, n_points], quantities without labels left out."""
        joined = {name: np.concatenate(parts, axis=1) for name, parts in self._parts.items() if parts}
        return {name: pair for name, pair in joined.items() if pair.size}


def _draw(rng: np.random.Generator, n: int, size: int) -> NDArray[np.int64]:
    """``size`` different numbers below ``n`` in rising order, or all of them where there are fewer."""
    if n <= size:
        return np.arange(n)
    return np.sort(rng.choice(n, size, replace=False, shuffle=False))


def save(path: str | Path, pairs_of_head: Mapping[str, Pairs]) -> None:
    """Write the pairs of each head as ``.npz`` with the names ``HEAD/QUANTITY``, [2, n_points] each."""
    arrays = {f"{head}/{name}": pair for head, pairs in pairs_of_head.items() for name, pair in pairs.items()}
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    atomic_write(path, stream.getvalue())


def load(path: str | Path) -> dict[str, Pairs]:
    """Head → pairs, as :func:`save` wrote them.

    Raises:
        UserError: the file is truncated or something else.
    """
    result: dict[str, Pairs] = {}
    try:
        with np.load(path, allow_pickle=False) as data:
            for key in data.files:
                head, _, name = key.rpartition("/")
                result.setdefault(head, {})[name] = data[key]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read ({error}); run 'lamkit evaluate' again") from None
    return result
