"""Which element each atom is: names of POTCAR and vasprun.xml, and counts that VASP cuts off."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lamkit.data.frame import NUMBERS
from lamkit.errors import UserError

_SYMBOL = re.compile(r"([A-Z][a-z]?)(?=_|\d|$|:)")
MOST_TRIALS = 500_000


def element_in(words: str) -> str | None:
    """Element named in the title of a pseudopotential (``PAW_PBE Sn_d 06Sep2000``); None if there is none."""
    for word in words.replace("=", " ").split():
        found = _SYMBOL.match(word)
        if found and found[1] in NUMBERS:
            return found[1]
    return None


def true_element(symbol: str, pseudopotential: str, source: str) -> str:
    """The element of an atom of vasprun.xml (trap A3: VASP 5.3 writes ``X`` for Xe).

    Raises:
        UserError: neither the symbol nor the title of the pseudopotential names an element.
    """
    symbol = symbol.strip()
    if symbol in NUMBERS:
        return symbol
    found = element_in(pseudopotential)
    if found is None:
        raise UserError(
            f"{source}: '{symbol}' is no element of the periodic table, and its pseudopotential "
            f"'{pseudopotential.strip()}' names none either; correct the symbol in <atominfo>"
        )
    return found


def cut_off_counts(
    counts: Sequence[int],
    valences: Sequence[float],
    atom_energies: Sequence[float],
    n_atoms: int,
    n_electrons: float,
    atom_energy: float,
) -> list[int] | None:
    """Atoms per type where VASP prints those of the first ten types only (trap D11).

    The missing ones are the only whole numbers that give the count of atoms, the count of electrons and the
    total energy of the free atoms (``EATOM``), which VASP all prints.

    Args:
        counts: those that are printed.
        valences: electrons of each type's pseudopotential.
        atom_energies: energy of one free atom of each type, eV, with its kinetic energy error taken off.
        n_atoms: number of atoms.
        n_electrons: number of electrons.
        atom_energy: energy of all free atoms together, eV.

    Returns:
        Atoms of every type; None if no or more than one answer fits.
    """
    known = len(counts)
    rest = len(valences) - known
    atoms_left = n_atoms - sum(counts)
    electrons_left = n_electrons - sum(n * z for n, z in zip(counts, valences, strict=False))
    energy_left = atom_energy - sum(n * e for n, e in zip(counts, atom_energies, strict=False))
    if rest < 1 or atoms_left < rest or len(atom_energies) != len(valences):
        return None
    tolerance = 2e-4 * n_atoms  # the energies are printed with four digits
    answers = []
    for trial, some in enumerate(_shares(atoms_left, rest)):
        if trial > MOST_TRIALS:
            return None
        if abs(sum(n * z for n, z in zip(some, valences[known:], strict=True)) - electrons_left) > 0.01:
            continue
        if (
            abs(sum(n * e for n, e in zip(some, atom_energies[known:], strict=True)) - energy_left)
            < tolerance
        ):
            answers.append([*counts, *some])
    return answers[0] if len(answers) == 1 else None


def _shares(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to give ``total`` things to ``parts`` people, at least one to each."""
    if parts == 1:
        yield (total,)
        return
    for first in range(1, total - parts + 2):
        for others in _shares(total - first, parts - 1):
            yield (first, *others)
