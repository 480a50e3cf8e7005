"""Labels of atoms beyond forces, put side by side for a batch: energies of atoms, products with the Hessian."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    from lamkit.data.batch import Graph

NAMES = ("atom_energies", "atom_energies_mask", "directions", "products", "products_mask")
VECTORS = ("directions", "products")


def atom_labels(
    graphs: Sequence[Graph], n_atoms: int, reference: NDArray | None, dtype: DTypeLike, direction: int
) -> dict[str, NDArray]:
    """The fields :data:`NAMES` of a batch; what is missing is 0 with mask 0.

    Args:
        graphs: of the batch.
        n_atoms: of the padded batch, N.
        reference: [119] eV, subtracted from the energies in float64; None subtracts nothing.
        dtype: of all arrays.
        direction: which of each graph's directions is taken, counted on from the first after the last.
    """
    batch = {name: np.zeros((n_atoms, 3) if name in VECTORS else n_atoms, dtype) for name in NAMES}
    start = 0
    for graph in graphs:
        rows = slice(start, start + graph.n_atoms)
        if graph.atom_energies is not None:
            baseline = 0.0 if reference is None else reference[graph.numbers]
            batch["atom_energies"][rows] = graph.atom_energies - baseline
            batch["atom_energies_mask"][rows] = 1.0
        if graph.hessian is not None:
            chosen = graph.hessian[direction % len(graph.hessian)]
            batch["directions"][rows], batch["products"][rows] = chosen
            batch["products_mask"][rows] = 1.0
        start += graph.n_atoms
    return batch
