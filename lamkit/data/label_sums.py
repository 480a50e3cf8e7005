"""Sums over labels from which a head's reference energies and normalisers follow, for any part of the data.

They merge over workers and are stored with the data set, so that training need not read every label again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamkit.data.dataset import Dataset, View
from lamkit.data.reference import CompositionFit
from lamkit.data.storage import System

_ROWS = 512  # frames of one set read at once


@dataclass(frozen=True)
class Statistics:
    """What a head's normalisers need.

    Attributes:
        energy_mean: mean of the energy per atom after the reference is taken off, eV/atom.
        energy_std: its standard deviation, eV/atom.
        forces_rms: root mean square of all force components, eV/Å; NaN without forces.
        stress_rms: root mean square of the known stress components, eV/Å³; NaN without stress.
        n_frames: number of frames.
        mean_atoms: mean number of atoms of a frame.
    """

    energy_mean: float
    energy_std: float
    forces_rms: float
    stress_rms: float
    n_frames: int
    mean_atoms: float


class SquareSum:
    """Running mean square of finite numbers.

    Attributes:
        n, square: how many, and the sum of their squares.
        n_bad: numbers that were not finite.
    """

    def __init__(self, n: int = 0, square: float = 0.0, n_bad: int = 0) -> None:
        self.n, self.square, self.n_bad = n, square, n_bad

    def add(self, values: NDArray) -> None:
        """Take in numbers of any shape."""
        flat = np.asarray(values, dtype=np.float64).ravel()
        finite = flat[np.isfinite(flat)]
        self.n += len(finite)
        self.n_bad += len(flat) - len(finite)
        self.square += float(finite @ finite)

    def merge(self, other: SquareSum) -> None:
        """Take in what ``other`` took in."""
        self.n, self.square = self.n + other.n, self.square + other.square
        self.n_bad += other.n_bad

    def rms(self) -> float:
        """Root mean square; NaN without numbers."""
        return float(np.sqrt(self.square / self.n)) if self.n else float("nan")


class LabelSums:
    """Sums over the labels of frames.

    Attributes:
        composition: least squares of energies on compositions.
        forces: force components, eV/Å.
        stress: known stress components, eV/Å³ (NaN there means unknown, and is not bad).
        n_frames, n_atoms: what was taken in.
    """

    def __init__(self) -> None:
        self.composition = CompositionFit()
        self.forces, self.stress = SquareSum(), SquareSum()
        self.n_frames = self.n_atoms = 0

    def merge(self, other: LabelSums) -> None:
        """Take in what ``other`` took in."""
        self.composition.merge(other.composition)
        self.forces.merge(other.forces)
        self.stress.merge(other.stress)
        self.n_frames += other.n_frames
        self.n_atoms += other.n_atoms

    def statistics(self, reference: NDArray[np.float64]) -> Statistics:
        """What normalisers need, the energies less ``reference`` (eV by atomic number, ``[119]``)."""
        mean, scatter = self.composition.residual(reference)
        known = self.composition.n_frames > 0
        return Statistics(
            energy_mean=mean if known else 0.0,
            energy_std=scatter if known else 1.0,
            forces_rms=self.forces.rms(),
            stress_rms=self.stress.rms(),
            n_frames=self.n_frames,
            mean_atoms=self.n_atoms / max(self.n_frames, 1),
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, in types that JSON knows."""
        return {
            "composition": self.composition.to_json(),
            "forces": vars(self.forces),
            "stress": vars(self.stress),
            "n_frames": self.n_frames,
            "n_atoms": self.n_atoms,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LabelSums:
        """The inverse of :meth:`to_json`."""
        self = cls()
        self.composition = CompositionFit.from_json(data["composition"])
        self.forces, self.stress = SquareSum(**data["forces"]), SquareSum(**data["stress"])
        self.n_frames, self.n_atoms = data["n_frames"], data["n_atoms"]
        return self


def label_sums(dataset: Dataset | View) -> LabelSums:
    """The sums over a data set, from its arrays, piece by piece."""
    view = dataset if isinstance(dataset, View) else dataset.subset(np.arange(len(dataset)))
    sums, energies = LabelSums(), view.energies
    for piece, counts in view.composition_chunks():
        sums.composition.add(counts, view.dataset.elements, energies[piece])
        sums.n_atoms += int(counts.sum(dtype=np.int64))
    sums.n_frames = len(view)
    for _, system, place, rows in view.dataset.blocks(view.indices):
        arrays = place.arrays()
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            if "force" in arrays:
                sums.forces.add(_real_forces(arrays, system, some))
            sums.stress.add(_stress_components(arrays, some))
    return sums


def _real_forces(
    arrays: Mapping[str, NDArray], system: System, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Force components of atoms that exist; DeePMD pads mixed systems."""
    values = np.asarray(arrays["force"][rows], dtype=np.float64)
    if not system.mixed:
        return values
    return values[np.repeat(arrays["real_atom_types"][rows] >= 0, 3, axis=1)]


def _stress_components(arrays: Mapping[str, NDArray], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Known stress components of rows of a set, eV/Å³, flat."""
    if "stress" in arrays:
        values = np.asarray(arrays["stress"][rows], dtype=np.float64).ravel()
        return values[~np.isnan(values)]
    if "virial" in arrays and "box" in arrays:
        virial = np.asarray(arrays["virial"][rows], dtype=np.float64)
        box = np.asarray(arrays["box"][rows], dtype=np.float64).reshape(-1, 3, 3)
        volume = np.abs(np.linalg.det(box))
        return (-virial[:, [0, 4, 8, 5, 2, 1]] / volume[:, None]).ravel()
    return np.empty(0)
