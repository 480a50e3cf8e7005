"""Which sites of a crystal share which species: from partial occupancies of a CIF, or from what the user says.

A composition is written as a formula whose numbers are in proportion: ``Ba4Na2Bi2`` and ``Ba0.5Na0.25Bi0.25`` mean
the same. ``X`` stands for a vacancy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamkit.crystal.occupations import Pool
from lamkit.data.frame import NUMBERS
from lamkit.errors import UserError, suggest

if TYPE_CHECKING:
    from ase import Atoms

VACANCY = "X"
ROUNDING = 0.05  # of a site: CIFs print occupancies with few digits
KIND, PARENT = "spacegroup_kinds", "parent_atom"  # names of ASE's arrays: its own, and ours
_TERM = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)")
_RANGE = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


def composition(text: str) -> dict[str, float]:
    """Species → proportion of a formula such as ``Ti7Zr`` or ``O0.95X0.05``.

    Raises:
        UserError: not a formula of elements and ``X``.
    """
    terms = _TERM.findall(text)
    if not terms or "".join(s + n for s, n in terms) != text:
        raise UserError(f"composition '{text}': expected a formula such as Ba4Na2Bi2 or Ti0.875Zr0.125")
    result: dict[str, float] = {}
    for species, number in terms:
        if species != VACANCY and species not in NUMBERS:
            raise UserError(
                f"composition '{text}': '{species}' is no element and not {VACANCY}, which means a vacancy."
                f"{suggest(species, NUMBERS)}"
            )
        result[species] = result.get(species, 0.0) + (float(number) if number else 1.0)
    if sum(result.values()) <= 0:
        raise UserError(f"composition '{text}': all numbers are zero")
    return result


def whole_numbers(proportions: Mapping[str, float], n_sites: int, where: str) -> tuple[tuple[str, int], ...]:
    """Species and how many of ``n_sites`` they get.

    Raises:
        UserError: the proportions do not come out even; names the size of cell in which they do.
    """
    share = np.array(list(proportions.values())) / sum(proportions.values())
    counts = np.round(share * n_sites).astype(int)
    if np.abs(share * n_sites - counts).max() > ROUNDING or counts.sum() != n_sites:
        wanted = ", ".join(f"{s} {x:.4g}" for s, x in zip(proportions, share * n_sites, strict=True))
        fits = next((m for m in range(1, 1025) if np.abs(share * m - np.round(share * m)).max() < 1e-3), None)
        cure = f"a number of sites that {fits} divides" if fits else "another composition"
        raise UserError(
            f"{where}: {n_sites} sites cannot be shared out as asked (that would be {wanted}); "
            f"take a supercell with {cure}"
        )
    return tuple(zip(proportions, counts.tolist(), strict=True))


def number_parent(atoms: Atoms) -> Atoms:
    """A copy that remembers the index of each atom, so that a supercell knows where its atoms come from."""
    atoms = atoms.copy()
    atoms.calc = None
    atoms.set_constraint()
    atoms.set_array(PARENT, np.arange(len(atoms)))
    return atoms


def find_pools(
    atoms: Atoms,
    sites: Mapping[str, str],
    vacancies: Mapping[str, int],
    substitutions: Mapping[str, int],
) -> list[tuple[NDArray[np.intp], tuple[tuple[str, int], ...]]]:
    """Sites of a supercell that are shared among species, each with the numbers of its species.

    Args:
        atoms: supercell of an ordered or disordered crystal (:func:`number_parent` before it was made larger).
        sites: site → composition. A site is an element of the parent, or indices of its atoms: ``0-3,8``.
        vacancies: element → atoms to be taken out.
        substitutions: ``Ti:Zr`` → atoms of the first element that the second takes the place of.

    Raises:
        UserError: an unknown site, one named twice, or a composition that does not come out even.
    """
    found: list[tuple[NDArray[np.intp], tuple[tuple[str, int], ...]]] = []
    taken = np.zeros(len(atoms), dtype=bool)
    for name, text in sites.items():
        where = chosen(atoms, name)
        _claim(taken, where, name)
        found.append((where, whole_numbers(composition(text), len(where), f"site {name}")))
    for element, changes in _changes(vacancies, substitutions).items():
        where = chosen(atoms, element)
        _claim(taken, where, element)
        left = len(where) - sum(changes.values())
        if left < 0:
            raise UserError(
                f"{element}: {sum(changes.values())} atoms to be changed, the cell has {len(where)}"
            )
        found.append((where, ((element, left), *changes.items())))
    for where, shares in _partly_occupied(atoms):
        if not taken[where].any():
            found.append((where, whole_numbers(shares, len(where), f"site of {_formula(shares)}")))
    return found


def _changes(vacancies: Mapping[str, int], substitutions: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Element → what takes its place → how often."""
    changes: dict[str, dict[str, int]] = {}
    for element, n in vacancies.items():
        changes.setdefault(element, {})[VACANCY] = n
    for pair, n in substitutions.items():
        old, colon, new = pair.partition(":")
        if not colon or new not in NUMBERS or old == new:
            raise UserError(f"substitution '{pair}': expected OLD:NEW, two elements, for example Ti:Zr")
        changes.setdefault(old, {})[new] = n
    return changes


def _claim(taken: NDArray[np.bool_], where: NDArray[np.intp], name: str) -> None:
    if taken[where].any():
        raise UserError(f"site {name}: some of its atoms are named twice; give them one composition")
    taken[where] = True


def chosen(atoms: Atoms, name: str) -> NDArray[np.intp]:
    """Atoms of the supercell that ``name`` means.

    Raises:
        UserError: none.
    """
    if _RANGE.fullmatch(name):
        wanted: set[int] = set()
        for part in name.split(","):
            first, _, last = part.partition("-")
            wanted |= set(range(int(first), int(last or first) + 1))
        where = np.nonzero(np.isin(atoms.arrays[PARENT], sorted(wanted)))[0]
        highest = int(atoms.arrays[PARENT].max())
        if max(wanted) > highest:
            raise UserError(f"site {name}: the cell that was read has the atoms 0 to {highest}")
        return where
    symbols = atoms.get_chemical_symbols()
    where = np.array([i for i, s in enumerate(symbols) if s == name], dtype=np.intp)
    if not len(where):
        known = sorted(set(symbols))
        raise UserError(
            f"site {name}: no such element in {atoms.get_chemical_formula()}.{suggest(name, known)} "
            f"Known: {', '.join(known)}, or indices of atoms such as 0-3"
        )
    return where


def _partly_occupied(atoms: Atoms) -> list[tuple[NDArray[np.intp], dict[str, float]]]:
    """Sites of a CIF with less than one atom or more than one species, by its kinds of sites."""
    kinds, occupancy = atoms.arrays.get(KIND), atoms.info.get("occupancy")
    if kinds is None or occupancy is None:
        return []
    result = []
    for kind in np.unique(kinds):
        shares = dict(occupancy.get(str(kind), {}))
        missing = 1.0 - sum(shares.values())
        if missing < -ROUNDING:
            raise UserError(
                f"site of {_formula(shares)}: the occupancies add up to {1 - missing:.3g}, above 1"
            )
        if missing > 1e-3:
            shares[VACANCY] = missing
        if len(shares) > 1:
            result.append((np.nonzero(kinds == kind)[0], shares))
    return result


def _formula(shares: Mapping[str, float]) -> str:
    return "".join(f"{s}{x:.4g}" for s, x in shares.items())


def pools_of(
    found: list[tuple[NDArray[np.intp], tuple[tuple[str, int], ...]]],
) -> tuple[NDArray[np.intp], list[Pool]]:
    """All shared sites one after the other, and the pools in terms of their places in that list."""
    sites = np.concatenate([where for where, _ in found]) if found else np.zeros(0, dtype=np.intp)
    pools, start = [], 0
    for where, counts in found:
        pools.append(Pool(tuple(range(start, start + len(where))), counts))
        start += len(where)
    return sites, pools


def labels(
    atoms: Atoms, found: list[tuple[NDArray[np.intp], tuple[tuple[str, int], ...]]]
) -> NDArray[np.int64]:
    """Numbers that tell sites apart before they are occupied: by element, and by pool where they are shared."""
    result = atoms.numbers.astype(np.int64)
    for k, (where, _) in enumerate(found):
        result[where] = 1000 + k
    return result


def occupy(atoms: Atoms, sites: NDArray[np.intp], names: Mapping[int, str]) -> Atoms:
    """A copy with species on the shared sites; vacant ones are taken out.

    Args:
        atoms: the supercell.
        sites: all shared sites.
        names: place in ``sites`` → species.
    """
    result = atoms.copy()
    for name in (KIND, PARENT):
        if name in result.arrays:
            del result.arrays[name]
    result.info = {}
    vacant = [int(sites[place]) for place, species in names.items() if species == VACANCY]
    for place, species in names.items():
        if species != VACANCY:
            result.numbers[sites[place]] = NUMBERS[species]
    del result[vacant]
    return result
