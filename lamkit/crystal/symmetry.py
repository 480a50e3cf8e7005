"""Space-group operations of a crystal as permutations of its sites (spglib)."""

from __future__ import annotations

from dataclasses import dataclass
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
        found[k] = _places(scaled @ rotation.T + translation, scaled, atoms.cell.array, symprec)
    return np.unique(found, axis=0)


@dataclass(frozen=True)
class Turn:
    """An operation of the crystal that carries the lattice of a supercell into another one.

    It can carry an occupation into one of the same supercell all the same, if the occupation repeats itself more
    often than the supercell does.

    Attributes:
        repeats: for each vector of the supercell the permutation of sites by the translation that the
            operation carries into it; the occupation must be the same under all three, ``[3, n_sites]``.
        origins: site from which the operation brings the species of each site, ``[n_sites]``.
    """

    repeats: NDArray[np.intp]
    origins: NDArray[np.intp]


def turns(
    parent: Atoms,
    labels: NDArray[np.integer],
    atoms: Atoms,
    sites: NDArray[np.intp],
    symprec: float = SYMPREC,
) -> list[Turn]:
    """Operations of the parent crystal that do not keep the supercell's lattice, one for each rotation.

    Args:
        parent: the cell of which the supercell is made.
        labels: sites of the parent with different labels are never exchanged.
        atoms: the supercell.
        sites: the sites asked for, as in :func:`permutations`.
        symprec: tolerance, Å.
    """
    rotations, translations = operations(parent, labels, symprec)
    basis, cell = parent.cell.array, atoms.cell.array
    scaled = atoms.get_scaled_positions()[sites]
    positions = scaled @ cell
    found, seen = [], set()
    for rotation, translation in zip(rotations, translations, strict=True):
        if rotation.tobytes() in seen:
            continue
        seen.add(rotation.tobytes())
        turn = np.linalg.solve(basis, rotation.T @ basis)  # x → x @ turn, Cartesian
        turned = np.linalg.solve(cell.T, (cell @ turn).T).T
        if np.abs(turned - np.round(turned)).max() < 1e-3:
            continue
        back = np.linalg.inv(turn)
        moved = [np.linalg.solve(cell.T, (positions + v).T).T for v in cell @ back]
        origins = np.linalg.solve(cell.T, ((positions - translation @ basis) @ back).T).T
        found.append(
            Turn(
                np.stack([_places(m, scaled, cell, symprec) for m in moved]),
                _places(origins, scaled, cell, symprec, one_to_one=False),
            )
        )
    return found


def _places(
    moved: NDArray[np.float64],
    scaled: NDArray[np.float64],
    cell: NDArray[np.float64],
    symprec: float,
    *,
    one_to_one: bool = True,
) -> NDArray[np.intp]:
    """The site at which each point lies, both in fractions of the cell.

    Raises:
        UserError: there is none.
    """
    from scipy.spatial import cKDTree

    _, places = cKDTree(_wrapped(scaled), boxsize=1.0).query(_wrapped(moved))
    difference = moved - scaled[places]
    difference -= np.round(difference)
    worst = float(np.linalg.norm(difference @ cell, axis=1).max()) if len(moved) else 0.0
    if worst > 10 * symprec or (one_to_one and len(np.unique(places)) != len(moved)):
        raise UserError(
            f"an operation of the space group moves one of the chosen sites to where none of them is "
            f"(off by {worst:.3g} Å); choose all sites that are equal by symmetry, or change symprec"
        )
    return places


def _wrapped(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Into [0, 1), the upper end left out also after rounding."""
    inside = scaled - np.floor(scaled)
    inside[inside >= 1.0] = 0.0
    return inside


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
