"""Space-group operations of a crystal as permutations of its sites (spglib)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamkit.errors import UserError

if TYPE_CHECKING:
    from ase import Atoms

SYMPREC = 1e-3  # Å


def permutations(
    atoms: Atoms, labels: NDArray[np.integer], sites: NDArray[np.intp], symprec: float = SYMPREC
) -> NDArray[np.intp]:
    """Every way in which the operations of the space group permute some of the sites, each once.

    Operations are those that keep the lattice of this very cell; for a supercell they hold the translations
    inside it.

    Args:
        atoms: periodic crystal.
        labels: sites with different labels are never exchanged, ``[n_atoms]``.
        sites: the sites asked for; together they must be closed under the operations.
        symprec: tolerance, Å.

    Returns:
        ``[n_permutations, len(sites)]``: the place in ``sites`` of the image of each of them.

    Raises:
        UserError: no symmetry can be found (atoms on top of each other), or sites are left by an operation.
    """
    rotations, translations = operations(atoms, labels, symprec)
    scaled = atoms.get_scaled_positions()[sites]
    found = np.empty((len(rotations), len(sites)), dtype=np.intp)
    for k, (rotation, translation) in enumerate(zip(rotations, translations, strict=True)):
        difference = (scaled @ rotation.T + translation)[:, None] - scaled[None]
        difference -= np.round(difference)
        distances = np.linalg.norm(difference @ atoms.cell.array, axis=2)
        found[k] = distances.argmin(axis=1)
        worst = distances[np.arange(len(sites)), found[k]].max()
        if worst > 10 * symprec or len(np.unique(found[k])) != len(sites):
            raise UserError(
                f"an operation of the space group moves one of the chosen sites to where none of them is "
                f"(off by {worst:.3g} Å); choose all sites that are equal by symmetry, or change symprec"
            )
    return np.unique(found, axis=0)


def operations(
    atoms: Atoms, labels: NDArray[np.integer], symprec: float = SYMPREC
) -> tuple[NDArray[np.intc], NDArray[np.float64]]:
    """Rotations ``[n, 3, 3]`` and translations ``[n, 3]`` in fractions of the cell.

    Raises:
        UserError: spglib finds none.
    """
    import spglib

    if not atoms.pbc.all():
        raise UserError("symmetry needs a crystal: a cell that is periodic along all three axes")
    cell = (atoms.cell.tolist(), atoms.get_scaled_positions().tolist(), labels.tolist())
    try:
        found = spglib.get_symmetry(cell, symprec=symprec)
    except spglib.SpglibError as error:
        raise UserError(f"spglib finds no symmetry of {atoms.get_chemical_formula()}: {error}") from None
    if found is None:
        raise UserError(
            f"spglib finds no symmetry of {atoms.get_chemical_formula()}: {spglib.get_error_message()}; "
            "atoms may lie on top of each other"
        )
    return found["rotations"], found["translations"]


def space_group(atoms: Atoms, symprec: float = SYMPREC) -> str:
    """Symbol and number, ``Pm-3m (221)``; empty where spglib finds none."""
    import spglib

    cell = (atoms.cell.tolist(), atoms.get_scaled_positions().tolist(), atoms.numbers.tolist())
    try:
        return spglib.get_spacegroup(cell, symprec=symprec) or ""
    except spglib.SpglibError:
        return ""
