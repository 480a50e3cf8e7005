"""Statistics of a head's frames as a stream: add frames, merge workers, store as JSON, read the result.

One pass over the frames that were kept gives everything: the sums for reference energies and normalisers,
distributions of forces, stress, volumes and distances, neighbour counts, and where the extremes are.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamkit.data.frame import SYMBOLS, Frame, volume
from lamkit.data.histogram import Axis, Histogram
from lamkit.data.label_sums import LabelSums
from lamkit.data.neighbor_counts import NeighborCounts

_BUFFER = 20_000  # atoms held back
AXES = {
    "force": Axis("log", 1e-5, 1e3, 160),  # length of the force on each atom, eV/Å
    "net_force": Axis("log", 1e-9, 1e2, 110),  # length of the sum of forces over atoms, per atom, eV/Å
    "stress": Axis("asinh", -100.0, 100.0, 240, 1e-4),  # known components, eV/Å³
    "pressure": Axis("asinh", -100.0, 100.0, 240, 1e-4),  # minus a third of the trace, eV/Å³
    "volume_per_atom": Axis("log", 1.0, 1e4, 160),  # Å³
    "energy_per_atom": Axis("asinh", -1e5, 1e3, 2000, 1.0),  # as given, eV
}
_LARGEST, _SMALLEST = "largest", "smallest"


class FrameStatistics:
    """Everything that is counted of frames which are kept.

    Args:
        neighbors_every: neighbours of each so-manieth frame only are counted (they take most of the time).

    Attributes:
        labels: sums for reference energies and normalisers.
        neighbors: neighbour counts and distances.
        histograms: quantity (:data:`AXES`) → distribution.
        sizes: atoms of a frame → number of frames.
        axes: "TTT", "TTF", ... → frames with these periodic axes.
        given: label → frames that have it (``stress_partly``: some components unknown).
        extremes: name → value and where it stands.
    """

    def __init__(self, *, neighbors_every: int = 1) -> None:
        self._labels = LabelSums()
        self._neighbors = NeighborCounts(neighbors_every)
        self._histograms = {name: Histogram(axis) for name, axis in AXES.items()}
        self._elements = {name: np.zeros(len(SYMBOLS)) for name in ("frames", "atoms", "forced", "square")}
        self._sizes: Counter[int] = Counter()
        self._axes: Counter[str] = Counter()
        self._given: Counter[str] = Counter()
        self._extremes: dict[str, tuple[float, str]] = {}
        self._pending: list[Frame] = []
        self._pending_atoms = 0

    def add(self, frame: Frame) -> None:
        """Take in one frame, sound by :mod:`lamkit.data.quality`."""
        self._pending.append(frame)
        self._pending_atoms += len(frame)
        if self._pending_atoms > _BUFFER:
            self._flush()

    def _flush(self) -> None:
        """Count the frames held back, all at once."""
        frames, self._pending, self._pending_atoms = self._pending, [], 0
        if not frames:
            return
        n_atoms = np.array([len(f) for f in frames])
        volumes = np.array([volume(f) if f.pbc.all() else 0.0 for f in frames])
        for frame, size in zip(frames, volumes, strict=True):
            self._neighbors.add(frame, float(size))
        self._sizes.update(n_atoms.tolist())
        self._axes.update("".join("FT"[int(p)] for p in f.pbc) for f in frames)
        self._labels.n_frames += len(frames)
        self._labels.n_atoms += int(n_atoms.sum())
        energies = np.array([np.nan if f.energy is None else f.energy for f in frames])
        self._compositions(frames, n_atoms, energies)
        self._observe("energy_per_atom", frames, energies / n_atoms)
        self._observe("volume_per_atom", frames, np.where(volumes > 0, volumes, np.nan) / n_atoms)
        self._given["energy"] += int(np.isfinite(energies).sum())
        self._forces([f for f in frames if f.forces is not None])
        self._stresses([f for f in frames if f.stress is not None])

    def _observe(self, name: str, frames: list[Frame], values: NDArray[np.float64]) -> None:
        """One value for each frame: its distribution and its extremes; NaN is no value."""
        self._histograms[name].add(values)
        self._extreme(name, frames, values)

    def _extreme(self, name: str, frames: list[Frame], values: NDArray[np.float64]) -> None:
        known = np.flatnonzero(np.isfinite(values))
        if not known.size:
            return
        for which, choose in ((_LARGEST, np.argmax), (_SMALLEST, np.argmin)):
            k = int(known[choose(values[known])])
            self._record(f"{which} {name}", float(values[k]), f"{frames[k].source}, step {frames[k].step}")

    def _record(self, name: str, value: float, where: str) -> None:
        before = self._extremes.get(name)
        sign = 1.0 if name.startswith(_LARGEST) else -1.0
        if before is None or sign * value > sign * before[0]:
            self._extremes[name] = (value, where)

    def _compositions(
        self, frames: list[Frame], n_atoms: NDArray[np.int64], energies: NDArray[np.float64]
    ) -> None:
        numbers = np.concatenate([f.numbers for f in frames])
        frame_of = np.repeat(np.arange(len(frames)), n_atoms)
        elements, column = np.unique(numbers, return_inverse=True)
        flat = np.bincount(frame_of * len(elements) + column, minlength=len(frames) * len(elements))
        counts = flat.reshape(len(frames), len(elements))
        self._elements["atoms"][elements] += counts.sum(axis=0)
        self._elements["frames"][elements] += (counts > 0).sum(axis=0)
        self._labels.composition.add(counts, elements, energies)

    def _forces(self, frames: list[Frame]) -> None:
        if not frames:
            return
        n_atoms = np.array([len(f) for f in frames])
        starts = np.cumsum(n_atoms) - n_atoms
        forces = np.concatenate([f.forces for f in frames if f.forces is not None])
        numbers = np.concatenate([f.numbers for f in frames])
        self._given["forces"] += len(frames)
        self._labels.forces.add(forces)
        square = np.einsum("ij,ij->i", forces, forces)
        self._histograms["force"].add(np.sqrt(square))
        self._extreme("force", frames, np.sqrt(np.maximum.reduceat(square, starts)))
        self._elements["forced"] += np.bincount(numbers, minlength=len(SYMBOLS))
        self._elements["square"] += np.bincount(numbers, weights=square, minlength=len(SYMBOLS))
        net = np.linalg.norm(np.add.reduceat(forces, starts, axis=0), axis=1) / n_atoms
        self._observe("net_force", frames, net)

    def _stresses(self, frames: list[Frame]) -> None:
        if not frames:
            return
        stress = np.stack([f.stress for f in frames if f.stress is not None])
        whole = np.isfinite(stress).all(axis=1)
        self._given["stress"] += int(whole.sum())
        self._given["stress_partly"] += int((~whole).sum())
        known = stress[np.isfinite(stress)]
        self._labels.stress.add(known)
        self._histograms["stress"].add(known)
        self._observe("pressure", frames, -stress[:, :3].mean(axis=1))

    def merge(self, other: FrameStatistics) -> None:
        """Take in what ``other`` took in."""
        self._flush()
        other._flush()
        self._labels.merge(other._labels)
        self._neighbors.merge(other._neighbors)
        for name, histogram in self._histograms.items():
            histogram.merge(other._histograms[name])
        for name, values in self._elements.items():
            values += other._elements[name]
        self._sizes.update(other._sizes)
        self._axes.update(other._axes)
        self._given.update(other._given)
        for name, found in other._extremes.items():
            self._record(name, *found)

    @property
    def labels(self) -> LabelSums:
        """Sums for reference energies and normalisers."""
        self._flush()
        return self._labels

    @property
    def neighbors(self) -> NeighborCounts:
        """Neighbour counts and distances."""
        self._flush()
        return self._neighbors

    @property
    def histograms(self) -> dict[str, Histogram]:
        """Quantity (:data:`AXES`) → distribution."""
        self._flush()
        return self._histograms

    @property
    def sizes(self) -> dict[int, int]:
        """Atoms of a frame → number of such frames, ascending."""
        self._flush()
        return dict(sorted(self._sizes.items()))

    def result(self, prior: NDArray[np.float64] | None = None) -> dict[str, Any]:
        """Everything for people and for reports, in types that JSON knows; NaN is None.

        Args:
            prior: eV by atomic number, ``[119]``, toward which the reference energies are drawn.
        """
        self._flush()
        scales: dict[str, Any] = {"forces_rms": _number(self._labels.forces.rms())}
        scales["stress_rms"] = _number(self._labels.stress.rms())
        result: dict[str, Any] = {
            "n_frames": self._labels.n_frames,
            "n_atoms": self._labels.n_atoms,
            "atoms_per_frame": self._size_summary(),
            "periodic_axes": dict(self._axes.most_common()),
            "labels": dict(self._given),
            "elements": self.element_table(),
            "normalisers": scales,
            "distributions": {name: h.summary() for name, h in self._histograms.items()},
            "distances": self._neighbors.nearest.summary(),
            "extremes": {name: {"value": v, "where": w} for name, (v, w) in sorted(self._extremes.items())},
            "neighbors": self._neighbors.result(),
        }
        if self._labels.composition.n_frames:
            fit = self._labels.composition.fit(prior)
            scales["energy_mean"], scales["energy_std"] = fit.residual_mean, fit.residual_std
            result["reference"] = {
                "energies": {SYMBOLS[z]: float(fit.reference[z]) for z in self._present()},
                "rank": fit.rank,
                "n_elements": fit.n_elements,
                "not_determined": fit.null_space,
                "residual_std": fit.residual_std,
                "residual_mean": fit.residual_mean,
                "n_frames": fit.n_frames,
                "prior": prior is not None,
            }
        return result

    def _present(self) -> list[int]:
        return [int(z) for z in np.flatnonzero(self._elements["atoms"])]

    def element_table(self) -> dict[str, dict[str, Any]]:
        """Symbol → frames, atoms and root mean square force component (eV/Å) of each element."""
        self._flush()
        with np.errstate(invalid="ignore", divide="ignore"):
            rms = np.sqrt(self._elements["square"] / (3 * self._elements["forced"]))
        return {
            SYMBOLS[z]: {
                "frames": int(self._elements["frames"][z]),
                "atoms": int(self._elements["atoms"][z]),
                "forces_rms": _number(float(rms[z])),
            }
            for z in self._present()
        }

    def _size_summary(self) -> dict[str, Any]:
        sizes = sorted(self._sizes.items())
        if not sizes:
            return {}
        reached = np.cumsum([n for _, n in sizes])
        median = sizes[int(np.searchsorted(reached, reached[-1] / 2))][0]
        mean = self._labels.n_atoms / self._labels.n_frames
        return {"min": sizes[0][0], "median": median, "mean": mean, "max": sizes[-1][0]}

    def to_json(self) -> dict[str, Any]:
        """Everything, in types that JSON knows; numbers to the last bit."""
        self._flush()
        present = self._present()
        return {
            "labels": self._labels.to_json(),
            "neighbors": self._neighbors.to_json(),
            "histograms": {name: h.to_json() for name, h in self._histograms.items()},
            "elements": {
                "numbers": present,
                **{name: values[present].tolist() for name, values in self._elements.items()},
            },
            "sizes": [[size, n] for size, n in self._sizes.items()],
            "axes": dict(self._axes),
            "given": dict(self._given),
            "extremes": {name: list(found) for name, found in self._extremes.items()},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FrameStatistics:
        """The inverse of :meth:`to_json`."""
        self = cls()
        self._labels = LabelSums.from_json(data["labels"])
        self._neighbors = NeighborCounts.from_json(data["neighbors"])
        self._histograms = {name: Histogram.from_json(h) for name, h in data["histograms"].items()}
        for name, values in self._elements.items():
            values[data["elements"]["numbers"]] = data["elements"][name]
        self._sizes = Counter(dict(data["sizes"]))
        self._axes, self._given = Counter(data["axes"]), Counter(data["given"])
        self._extremes = {name: (value, where) for name, (value, where) in data["extremes"].items()}
        return self


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
