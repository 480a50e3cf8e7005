"""How many neighbours atoms have: the numbers from which the padded shapes of a run are chosen.

Counted once, when data are converted, for the cutoffs and limits that the shipped networks use; a run with
others counts on a sample of its own (:mod:`lamkit.data.buckets`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import vesin
from ase.data import covalent_radii
from numpy.typing import NDArray

from lamkit.data.frame import SYMBOLS, Frame
from lamkit.data.histogram import Axis, Histogram
from lamkit.data.neighbors import complete_cell

REACH = 6.0  # Å: up to here distances are looked at
SETTINGS = tuple((cutoff, limit) for cutoff in (4.0, 5.0, 6.0) for limit in (20, 120))
DISTANCES = Axis("linear", 0.0, REACH, 300)
EDGES = Axis("log", 1.0, 1e7, 280)  # edges of one frame
DENSITIES = Axis("log", 0.1, 1000.0, 160)  # edges per atom of one frame
NEIGHBORS = Axis("linear", -0.5, 1999.5, 2000)  # neighbours of one atom
SHOWN_PAIRS = 40  # of elements, in reports
_BALL = 4 / 3 * np.pi * REACH**3
_LARGER = 1.1  # a frame that promises so many times the edges of all before is counted in any case
_BUFFER = 100_000  # pairs held back


class Setting(NamedTuple):
    """Counts for one cutoff and one limit of neighbours.

    Attributes:
        edges: directed edges of each frame, the limit applied.
        density: edges per atom of each frame.
    """

    edges: Histogram
    density: Histogram


def pairs_within(frame: Frame, reach: float) -> tuple[NDArray, NDArray, NDArray[np.float64]]:
    """Each pair of atoms or images closer than ``reach`` Å once: both atoms, distance."""
    cell, periodic = complete_cell(frame.cell, frame.pbc)
    if len(frame) == 0 or (len(frame) == 1 and not periodic.any()):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    builder = vesin.NeighborList(cutoff=reach, full_list=False)
    positions = np.ascontiguousarray(frame.positions, dtype=np.float64)
    first, second, distances = builder.compute(positions, cell, periodic, quantities="ijd")
    return first.astype(np.int64), second.astype(np.int64), distances


class NeighborCounts:
    """Neighbour counts and distances of frames; merges, and is stored as JSON.

    Args:
        every: count each so-manieth frame only, and in any case one that promises more edges than all before.

    Attributes:
        n_seen, n_counted: frames.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self._settings = {key: Setting(Histogram(EDGES), Histogram(DENSITIES)) for key in SETTINGS}
        self._neighbors = {cutoff: Histogram(NEIGHBORS) for cutoff in sorted({c for c, _ in SETTINGS})}
        self._distances, self._nearest = Histogram(DISTANCES), Histogram(DISTANCES)
        self._closest: dict[tuple[int, int], tuple[float, str]] = {}
        self.n_seen = self.n_counted = 0
        self._largest = 0.0  # edges that the mean density promises for the frame counted that has the most
        self._pending: list[tuple[Frame, NDArray, NDArray, NDArray[np.float64]]] = []
        self._pending_pairs = 0

    def add(self, frame: Frame, volume: float) -> None:
        """Take in a frame; ``volume`` of its cell in Å³, 0 without one."""
        self.n_seen += 1
        expected = len(frame) * min(len(frame) / volume * _BALL if volume > 0 else len(frame), 1e3)
        if (self.n_seen - 1) % self.every and expected < _LARGER * self._largest:
            return
        self._largest = max(self._largest, expected)
        found = pairs_within(frame, REACH)
        self._pending.append((frame, *found))
        self._pending_pairs += len(found[2])
        if self._pending_pairs > _BUFFER:
            self._flush()

    def _flush(self) -> None:
        """Count the pairs of the frames held back, all at once."""
        if not self._pending:
            return
        frames = [frame for frame, *_ in self._pending]
        self.n_counted += len(frames)
        sizes = np.array([len(frame) for frame in frames])
        starts = np.cumsum(sizes) - sizes
        first, second = (
            np.concatenate([held[k] + start for held, start in zip(self._pending, starts, strict=True)])
            for k in (1, 2)
        )
        distances = np.concatenate([held[3] for held in self._pending])
        self._pending, self._pending_pairs = [], 0
        self._distances.add(distances)
        nearest = np.full(int(sizes.sum()), np.inf)
        np.minimum.at(nearest, first, distances)
        np.minimum.at(nearest, second, distances)
        self._nearest.add(nearest)
        self._count(first, second, distances, sizes, starts)
        self._near(frames, first, second, distances, sizes)

    def _count(
        self, first: NDArray, second: NDArray, distances: NDArray, sizes: NDArray, starts: NDArray
    ) -> None:
        """Neighbours of each atom and edges of each frame, for every setting."""
        for cutoff, histogram in self._neighbors.items():
            near = distances < cutoff
            counts = np.bincount(first[near], minlength=int(sizes.sum()))
            counts += np.bincount(second[near], minlength=len(counts))
            histogram.add(counts)
            for limit in (limit for c, limit in SETTINGS if c == cutoff):
                edges = np.add.reduceat(np.minimum(counts, limit), starts)
                self._settings[cutoff, limit].edges.add(edges)
                self._settings[cutoff, limit].density.add(edges / sizes)

    def _near(
        self, frames: list[Frame], first: NDArray, second: NDArray, distances: NDArray, sizes: NDArray
    ) -> None:
        """The smallest distance of each pair of elements."""
        numbers = np.concatenate([frame.numbers for frame in frames])
        a, b = numbers[first], numbers[second]
        code = np.minimum(a, b) * 1000 + np.maximum(a, b)
        order = np.lexsort((distances, code))
        codes, place = np.unique(code[order], return_index=True)
        frame_of = np.repeat(np.arange(len(frames)), sizes)
        for pair, best in zip(codes.tolist(), order[place].tolist(), strict=True):
            key, distance = divmod(pair, 1000), float(distances[best])
            if key not in self._closest or distance < self._closest[key][0]:
                frame = frames[frame_of[first[best]]]
                self._closest[key] = (distance, f"{frame.source}, step {frame.step}")

    def merge(self, other: NeighborCounts) -> None:
        """Take in what ``other`` took in."""
        self._flush()
        other._flush()
        for key, setting in self._settings.items():
            setting.edges.merge(other._settings[key].edges)
            setting.density.merge(other._settings[key].density)
        for cutoff, histogram in self._neighbors.items():
            histogram.merge(other._neighbors[cutoff])
        self._distances.merge(other._distances)
        self._nearest.merge(other._nearest)
        for pair, found in other._closest.items():
            if pair not in self._closest or found[0] < self._closest[pair][0]:
                self._closest[pair] = found
        self.n_seen += other.n_seen
        self.n_counted += other.n_counted
        self._largest = max(self._largest, other._largest)

    def setting(self, cutoff: float, limit: int | None) -> Setting | None:
        """Counts for one cutoff (Å) and limit of neighbours; None if these were not counted."""
        self._flush()
        return self._settings.get((cutoff, limit)) if limit is not None and self.n_counted else None

    def within(self, cutoff: float) -> Histogram:
        """Neighbours of each atom within ``cutoff`` Å (4, 5 or 6), no limit applied."""
        self._flush()
        return self._neighbors[cutoff]

    @property
    def distances(self) -> Histogram:
        """Distances of all pairs up to ``REACH``, Å."""
        self._flush()
        return self._distances

    @property
    def nearest(self) -> Histogram:
        """Distance of each atom to its nearest neighbour, Å; of atoms that have one within ``REACH``."""
        self._flush()
        return self._nearest

    def result(self) -> dict[str, Any]:
        """For people: per setting percentiles and maxima, and the smallest distance of each pair of elements."""
        self._flush()
        return {
            "frames_counted": self.n_counted,
            "settings": [
                {
                    "cutoff": cutoff,
                    "max_neighbors": limit,
                    "edges_per_frame": setting.edges.summary(),
                    "edges_per_atom": setting.density.summary(),
                }
                for (cutoff, limit), setting in self._settings.items()
            ],
            "neighbors_per_atom": {f"{c:g}": h.summary() for c, h in self._neighbors.items()},
            "closest": self._contacts(),
        }

    def _contacts(self) -> list[dict[str, Any]]:
        """The smallest distance of each pair of elements, the shortest bonds for their radii first."""
        found: list[dict[str, Any]] = [
            {
                "pair": "-".join(SYMBOLS[z] for z in pair),
                "distance": distance,
                "of_bond": distance / float(covalent_radii[list(pair)].sum()),
                "where": where,
            }
            for pair, (distance, where) in self._closest.items()
        ]
        return sorted(found, key=lambda entry: entry["of_bond"])[:SHOWN_PAIRS]

    def to_json(self) -> dict[str, Any]:
        """Everything, in types that JSON knows."""
        self._flush()
        return {
            "every": self.every,
            "settings": [
                [*key, setting.edges.to_json(), setting.density.to_json()]
                for key, setting in self._settings.items()
            ],
            "neighbors": [[cutoff, h.to_json()] for cutoff, h in self._neighbors.items()],
            "distances": self._distances.to_json(),
            "nearest": self._nearest.to_json(),
            "closest": [[*pair, *found] for pair, found in self._closest.items()],
            "frames": [self.n_seen, self.n_counted, self._largest],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> NeighborCounts:
        """The inverse of :meth:`to_json`."""
        self = cls(data["every"])
        for cutoff, limit, edges, density in data["settings"]:
            self._settings[cutoff, limit] = Setting(Histogram.from_json(edges), Histogram.from_json(density))
        self._neighbors = {cutoff: Histogram.from_json(h) for cutoff, h in data["neighbors"]}
        self._distances = Histogram.from_json(data["distances"])
        self._nearest = Histogram.from_json(data["nearest"])
        self._closest = {(a, b): (distance, where) for a, b, distance, where in data["closest"]}
        self.n_seen, self.n_counted, self._largest = data["frames"]
        return self
