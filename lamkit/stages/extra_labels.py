"""Labels beyond energy, forces and stress that a teacher may give: energies of atoms, products with its Hessian."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamkit.data.curvature import STEP, directions, product
from lamkit.data.frame import from_atoms
from lamkit.errors import UserError
from lamkit.stages.engine import Engine, evaluate

if TYPE_CHECKING:
    from ase import Atoms

ENERGIES = "energies"  # ASE's name of the energies of atoms
ADD_UP = 1e-4  # eV/atom, by which energies of atoms may miss the energy: rounding of a network in float32


@dataclass(frozen=True)
class Extra:
    """Which of them are wanted.

    Attributes:
        atom_energies: energies of the atoms.
        hessian: number of random directions of each frame whose products with the Hessian are taken.
    """

    atom_energies: bool = False
    hessian: int = 0


NOTHING = Extra()


def refuse_unable(engine: Engine, extra: Extra) -> None:
    """Raise where the teacher cannot give what is wanted, before any time is spent.

    Raises:
        UserError: it has no energies of atoms.
    """
    known = getattr(engine.calculator, "implemented_properties", ())
    if not extra.atom_energies or ENERGIES in known:
        return
    if engine.batched:
        why = "an Orb makes its energy of the mean over all atoms, and no atom has one of its own"
    else:
        why = f"its properties are {', '.join(known) or 'not told'}"
    raise UserError(
        f"{engine.name} gives no energies of single atoms ({why}). Leave atom_energies (of a distillation: "
        "train.loss.atom_energy) away; hessian works with every teacher"
    )


def evaluate_all(engine: Engine, atoms: Sequence[Atoms], extra: Extra) -> list[dict[str, Any]]:
    """As :func:`lamkit.stages.engine.evaluate`, with ``energies`` and ``hessian`` where they are wanted.

    Raises:
        Exception: whatever the calculator raises.
    """
    results = evaluate(engine, atoms, atom_energies=extra.atom_energies)
    if not extra.hessian:
        return results
    drawn = [directions(from_atoms(a), extra.hessian) for a in atoms]
    found = products(lambda copies: evaluate(engine, copies), atoms, drawn)
    for result, of_frame, hessian in zip(results, drawn, found, strict=True):
        result["hessian"] = np.stack([of_frame, hessian], axis=1)
    return results


def products(
    predict: Callable[[list[Atoms]], Sequence[Mapping[str, Any]]],
    atoms: Sequence[Atoms],
    along: Sequence[NDArray[np.floating]],
) -> list[NDArray[np.float64]]:
    """The Hessian of each structure times some directions, by differences of forces.

    Args:
        predict: structures → results with ``forces``.
        atoms: the structures.
        along: of each [K, n_atoms, 3].

    Returns:
        Of each [K, n_atoms, 3] eV/Å².
    """
    copies = []
    for a, of_frame in zip(atoms, along, strict=True):
        for v in of_frame:
            for sign in (1.0, -1.0):
                copies.append(a.copy())
                copies[-1].positions += sign * STEP * v
    forces = iter([r["forces"] for r in predict(copies)])
    return [np.array([product(next(forces), next(forces)) for _ in of_frame]) for of_frame in along]


def problem(result: dict[str, Any], extra: Extra) -> str | None:
    """What is wrong with the extra labels of a frame, if anything is."""
    if extra.atom_energies:
        miss = abs(float(np.sum(result[ENERGIES])) - result["energy"])
        if not miss <= ADD_UP * len(result[ENERGIES]):
            return f"the energies of the atoms miss the energy by {miss:.3g} eV"
    if extra.hessian and not np.isfinite(result["hessian"]).all():
        return "products with the Hessian are not finite"
    return None
