"""Some frames of a data set, with the interface of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lamkit.data.frame import Frame
from lamkit.data.storage import count_elements

if TYPE_CHECKING:
    from lamkit.data.dataset import Dataset


class View:
    """Some frames of a data set, with the data set's interface.

    Args:
        dataset: the whole.
        indices: which frames, in which order.
    """

    def __init__(self, dataset: Dataset, indices: NDArray[np.int64]) -> None:
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(dataset)):
            raise IndexError(
                f"indices up to {indices.max()} of {dataset.path}, which has {len(dataset)} frames"
            )
        self.dataset, self.indices = dataset, indices
        self.path, self.facts = dataset.path, dataset.facts

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"View({str(self.path)!r}, {len(self)} of {len(self.dataset)} frames)"

    def frame(self, i: int) -> Frame:
        """Frame ``i`` of the view."""
        if not 0 <= i < len(self):
            raise IndexError(f"frame {i} of a view of {len(self)} frames")
        return self.dataset.frame(int(self.indices[i]))

    @property
    def group_names(self) -> list[str]:
        """Name of each group of the whole data set."""
        return self.dataset.group_names

    @property
    def sources(self) -> list[str]:
        """Files that the frames of the whole data set came from."""
        return self.dataset.sources

    @property
    def material_names(self) -> list[str]:
        """Name of each material of the whole data set."""
        return self.dataset.material_names

    @property
    def n_atoms(self) -> NDArray[np.int32]:
        """Atoms of each frame."""
        return self.dataset.n_atoms[self.indices]

    @property
    def groups(self) -> NDArray[np.int32]:
        """Group of each frame."""
        return self.dataset.groups[self.indices]

    @property
    def steps(self) -> NDArray[np.int64]:
        """Step of each frame in its source."""
        return self.dataset.steps[self.indices]

    @property
    def source_ids(self) -> NDArray[np.int32]:
        """Source of each frame."""
        return self.dataset.source_ids[self.indices]

    @property
    def materials(self) -> NDArray[np.int32]:
        """Material of each frame, an index into ``material_names``; -1 where not known."""
        return self.dataset.materials[self.indices]

    @property
    def temperatures(self) -> NDArray[np.float32]:
        """Temperature in K of the run that each frame comes from, NaN where not known."""
        return self.dataset.temperatures[self.indices]

    @property
    def energies(self) -> NDArray[np.float64]:
        """Total energy of each frame in eV, NaN where missing."""
        return self.dataset.energies[self.indices]

    @cached_property
    def elements(self) -> list[int]:
        """Atomic numbers that occur in these frames, ascending."""
        numbers = np.array(self.dataset.elements, dtype=np.int64)
        present = np.zeros(len(numbers), dtype=bool)
        for _, counts in self.composition_chunks():
            present |= counts.any(axis=0)
        return [int(z) for z in numbers[present]]

    def compositions(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Atoms of each element in each frame, ``[n_frames, n_elements]``, and the elements' numbers."""
        numbers = np.array(self.dataset.elements, dtype=np.int64)
        counts = np.zeros((len(self), len(numbers)), dtype=np.int32)
        for piece, rows in self.composition_chunks():
            counts[piece] = rows
        return counts, numbers

    def composition_chunks(self, size: int = 65536) -> Iterator[tuple[slice, NDArray[np.int32]]]:
        """:meth:`compositions` in pieces of at most ``size`` frames."""
        column = np.full(119, -1)
        column[self.dataset.elements] = np.arange(len(self.dataset.elements))
        width = len(self.dataset.elements)
        for start in range(0, len(self), size):
            piece = slice(start, min(start + size, len(self)))
            counts = np.zeros((piece.stop - start, width), dtype=np.int32)
            for places, system, place, rows in self.dataset.blocks(self.indices[piece]):
                counts[places] = count_elements(system, place, rows, column, width)
            yield piece, counts

    def subset(self, indices: ArrayLike) -> View:
        """Some frames of this view."""
        return View(self.dataset, self.indices[np.asarray(indices, dtype=np.int64)])
