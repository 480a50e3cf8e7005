"""Frames that come again, in other digits and from other files too.

The same run as OUTCAR and as vasprun.xml differs by rounding: positions have five or eight decimals. So what
is compared are numbers that rounding hardly moves, each within a tolerance.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lamkit.data.frame import Frame, volume

if TYPE_CHECKING:
    from lamkit.data.dataset import Dataset, View

DUPLICATE = "duplicate of an earlier frame"
DUPLICATE_ELSEWHERE = "duplicate of a frame in another data set"

ENERGY_GRID = 1e-6  # eV; VASP prints eight decimals in all its files
# Tolerances of the vector: six structure factors, rms force (eV/Å), length of the cell or molecule (relative).
TOLERANCES = np.array([5e-4] * 6 + [2e-4, 1e-4], dtype=np.float32)
WAVES = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=np.float64)


class Fingerprint(NamedTuple):
    """What identifies a frame.

    Attributes:
        key: 64 bits of composition, periodicity and energy.
        vector: numbers that are compared within ``TOLERANCES``, float32 ``[8]``.
    """

    key: int
    vector: NDArray[np.float32]


def fingerprint(frame: Frame) -> Fingerprint:
    """Fingerprint of a frame; the order of the atoms, the origin and the orientation do not matter."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(np.sort(frame.numbers).astype(np.int16).tobytes())
    digest.update(frame.pbc.tobytes())
    weights = np.sqrt(frame.numbers.astype(np.float64))
    shape = _waves(frame, weights) if frame.pbc.all() and volume(frame) > 0 else _moments(frame, weights)
    if frame.energy is None:  # nothing but the structure tells frames apart
        digest.update(np.round(frame.positions, 4).tobytes())
    else:  # the offset keeps decimal numbers away from the edges between two steps of the grid
        digest.update(np.floor(np.float64(frame.energy) / ENERGY_GRID + 0.3137).tobytes())
    force = (
        0.0
        if frame.forces is None or not len(frame)
        else float(np.sqrt((frame.forces**2).sum() / len(frame)))
    )
    vector = np.array([*shape[:6], force, shape[6]], dtype=np.float32)
    return Fingerprint(int.from_bytes(digest.digest(), "little"), vector)


def _waves(frame: Frame, weights: NDArray[np.float64]) -> list[float]:
    """``|Σ w exp(2πi k·f)|`` over ``Σ w`` for six waves of the cell, and the logarithm of the cell's length."""
    phases = 2 * np.pi * (frame.positions @ np.linalg.inv(frame.cell)) @ WAVES.T
    waves = np.abs((weights[:, None] * np.exp(1j * phases)).sum(axis=0)) / weights.sum()
    return [*waves.tolist(), float(np.log(volume(frame)) / 3)]


def _moments(frame: Frame, weights: NDArray[np.float64]) -> list[float]:
    """Moments of a molecule about its centre, none of which turns with it."""
    if not len(frame):
        return [0.0] * 7
    share = weights / weights.sum()
    arms = frame.positions - share @ frame.positions
    squares = (arms**2).sum(axis=1)
    axes = np.linalg.eigvalsh((share[:, None] * arms).T @ arms)
    length = float(np.sqrt(share @ squares)) + 1e-3
    skew = float(np.abs(share @ (np.linalg.norm(arms, axis=1) ** 3))) / length**3
    farthest = float(squares.max() / length**2)
    return [
        *(axes / length**2).tolist(),
        skew,
        farthest,
        float(share @ squares**2) / length**4,
        float(np.log(length)),
    ]


class Duplicates:
    """Remembers frames, some 150 bytes each, to find those that come again."""

    def __init__(self) -> None:
        self._first: dict[int, int] = {}
        self._vectors = np.empty((1024, len(TOLERANCES)), dtype=np.float32)
        self._next = np.empty(1024, dtype=np.int32)
        self._n = 0
        self._n_elsewhere = 0

    def __call__(self, frame: Frame) -> bool:
        """Whether this frame was here before; if not, remember it."""
        return self.add(fingerprint(frame))

    def add(self, mark: Fingerprint) -> bool:
        """Whether a frame with this fingerprint was here before; if not, remember it."""
        if self._find(mark) is not None:
            return True
        if self._n == len(self._next):
            self._vectors = np.concatenate([self._vectors, np.empty_like(self._vectors)])
            self._next = np.concatenate([self._next, np.empty_like(self._next)])
        self._vectors[self._n] = mark.vector
        self._next[self._n] = self._first.get(mark.key, -1)
        self._first[mark.key] = self._n
        self._n += 1
        return False

    def reason(self, mark: Fingerprint) -> str | None:
        """Like :meth:`add`, in words for the report; None if the frame is new."""
        row = self._find(mark)
        if row is None:
            self.add(mark)
            return None
        return DUPLICATE_ELSEWHERE if row < self._n_elsewhere else DUPLICATE

    def remember(self, dataset: Dataset | View) -> None:
        """Count the frames of another data set as seen. To be called before any frame is added."""
        for i in range(len(dataset)):
            self.add(fingerprint(dataset.frame(i)))
        self._n_elsewhere = self._n

    def _find(self, mark: Fingerprint) -> int | None:
        row = self._first.get(mark.key, -1)
        while row >= 0:
            if (np.abs(self._vectors[row] - mark.vector) <= TOLERANCES).all():
                return row
            row = int(self._next[row])
        return None
