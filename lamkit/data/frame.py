"""The frame: one labelled structure, the unit that everything in ``data/`` passes on.

A frame is plain data; what is done with it are functions. Units are eV, Å, eV/Å, eV/Å³ without exception:
readers convert, nobody else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from lamkit.errors import UserError, suggest

if TYPE_CHECKING:
    from ase import Atoms

SYMBOLS: tuple[str, ...] = tuple(chemical_symbols)  # by atomic number; index 0 ('X') is no element
NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS) if number}

# Voigt order of ASE: xx yy zz yz xz xy, as index pairs of the 3x3 tensor.
VOIGT_ROWS = np.array([0, 1, 2, 1, 0, 0])
VOIGT_COLUMNS = np.array([0, 1, 2, 2, 2, 1])


@dataclass(frozen=True)
class Frame:
    """One structure with the labels that are known for it.

    Attributes:
        numbers: atomic numbers, shape ``[n_atoms]``.
        positions: Å, shape ``[n_atoms, 3]``.
        cell: Å, shape ``[3, 3]``, rows are lattice vectors; zeros where there is none.
        pbc: true along periodic axes, shape ``[3]``.
        energy: eV, total and force-consistent; None if unknown.
        forces: eV/Å, shape ``[n_atoms, 3]``; None if unknown.
        stress: eV/Å³, shape ``[6]``, Voigt xx yy zz yz xz xy, tension positive. NaN marks a component that
            is not known; None means that no component is known.
        atom_energies: eV, shape ``[n_atoms]``, their sum is the energy; None if unknown.
        hessian: second derivatives of the energy in a few directions, shape ``[K, 2, n_atoms, 3]``: K directions v
            (no unit; the mean square of their components is 1) and the product of the Hessian with each, eV/Å²;
            None if unknown.
        source: file it came from.
        step: ionic step or index of the frame in that file, from 0.
        group: frames of one group (a trajectory, a material) never stand in two parts of a split.
        info: small extras, for example a temperature.
    """

    numbers: NDArray[np.integer]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    energy: float | None = None
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None
    atom_energies: NDArray[np.float64] | None = None
    hessian: NDArray[np.float64] | None = None
    source: str = ""
    step: int = 0
    group: str = ""
    info: Mapping[str, str | float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers)


def make_frame(
    numbers: Any,
    positions: Any,
    cell: Any = None,
    pbc: Any = None,
    **labels: Any,
) -> Frame:
    """A :class:`Frame` with arrays in their proper types; a cell without any periodic axis is left out.

    Args:
        numbers: atomic numbers, ``[n_atoms]``.
        positions: Å, ``[n_atoms, 3]``.
        cell: Å, ``[3, 3]`` or None.
        pbc: three flags, or None: periodic if there is a cell.
        **labels: the remaining fields of :class:`Frame`.
    """
    cell = np.zeros((3, 3)) if cell is None else np.array(cell, dtype=np.float64).reshape(3, 3)
    pbc = np.full(3, cell.any()) if pbc is None else np.broadcast_to(np.asarray(pbc, dtype=bool), 3).copy()
    if not pbc.any():
        cell = np.zeros((3, 3))
    if labels.get("energy") is not None:
        labels["energy"] = float(labels["energy"])
    for name in ("forces", "stress", "atom_energies", "hessian"):
        if labels.get(name) is not None:
            labels[name] = np.asarray(labels[name], dtype=np.float64)
    stress = labels.get("stress")
    if stress is not None and stress.shape == (6,) and np.isnan(stress).all():
        labels["stress"] = None
    return Frame(
        numbers=np.asarray(numbers, dtype=np.int64),
        positions=np.asarray(positions, dtype=np.float64),
        cell=cell,
        pbc=pbc,
        **labels,
    )


def without_labels(frame: Frame) -> Frame:
    """The structure alone."""
    return replace(frame, energy=None, forces=None, stress=None, atom_energies=None, hessian=None)


def numbers_of(symbols: Any, origin: str = "") -> NDArray[np.int64]:
    """Atomic numbers of element symbols.

    Raises:
        UserError: a symbol that is not in the periodic table.
    """
    try:
        return np.array([NUMBERS[s] for s in symbols], dtype=np.int64)
    except KeyError as error:
        wrong = error.args[0]
        where = f"{origin}: " if origin else ""
        raise UserError(
            f"{where}'{wrong}' is no element of the periodic table.{suggest(str(wrong), NUMBERS)}"
        ) from None


def from_atoms(atoms: Atoms, **labels: Any) -> Frame:
    """Frame of an ASE structure; labels not given are taken from its calculator's stored results.

    Stored results are read without ASE's constraints, which would set the forces of fixed atoms to zero.
    The free energy is preferred, as it is the one that the forces belong to.

    Args:
        atoms: the structure.
        **labels: fields of :class:`Frame` that override what is stored.
    """
    results = dict(getattr(atoms.calc, "results", None) or {})
    found: dict[str, Any] = {
        "energy": results.get("free_energy", results.get("energy")),
        "forces": results.get("forces"),
        "stress": results.get("stress"),
    }
    if found["stress"] is not None and np.shape(found["stress"]) == (3, 3):
        found["stress"] = to_voigt(found["stress"])
    return make_frame(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, **{**found, **labels})


def to_atoms(frame: Frame) -> Atoms:
    """ASE structure with the known labels in a ``SinglePointCalculator``."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = Atoms(numbers=frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)
    labels: dict[str, Any] = {}
    if frame.energy is not None:
        labels |= {"energy": frame.energy, "free_energy": frame.energy}
    if frame.forces is not None:
        labels["forces"] = frame.forces
    if frame.stress is not None and not np.isnan(frame.stress).any():
        labels["stress"] = frame.stress
    if labels:
        atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def formula(frame: Frame) -> str:
    """Reduced chemical formula, elements in the order of the alphabet: ``H2O``."""
    numbers, counts = np.unique(frame.numbers, return_counts=True)
    return reduced_formula(numbers, counts)


def reduced_formula(numbers: Any, counts: Any) -> str:
    """Reduced formula of ``counts`` atoms of each of ``numbers``."""
    present = sorted((SYMBOLS[int(z)], int(n)) for z, n in zip(numbers, counts, strict=True) if n)
    divisor = gcd(*(n for _, n in present)) if present else 1
    return "".join(s + (str(n // divisor) if n != divisor else "") for s, n in present)


def volume(frame: Frame) -> float:
    """Volume of the cell in Å³; 0 where there is none."""
    # Written out: asked for several times for each frame, and ten times as fast as a general determinant.
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = frame.cell.tolist()
    return abs(ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx))


def to_voigt(tensor: Any) -> NDArray[np.float64]:
    """Voigt form xx yy zz yz xz xy of a 3x3 tensor (symmetrised), shape ``[..., 6]``."""
    tensor = np.asarray(tensor, dtype=np.float64)
    return 0.5 * (tensor[..., VOIGT_ROWS, VOIGT_COLUMNS] + tensor[..., VOIGT_COLUMNS, VOIGT_ROWS])


def from_voigt(voigt: Any) -> NDArray[np.float64]:
    """Symmetric 3x3 tensor of its Voigt form xx yy zz yz xz xy, shape ``[..., 3, 3]``."""
    voigt = np.asarray(voigt, dtype=np.float64)
    tensor = np.empty((*voigt.shape[:-1], 3, 3))
    tensor[..., VOIGT_ROWS, VOIGT_COLUMNS] = voigt
    tensor[..., VOIGT_COLUMNS, VOIGT_ROWS] = voigt
    return tensor
