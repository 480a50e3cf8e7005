"""Structures with the labels of a public universal potential: SevenNet, whose weights come in its package on PyPI.

Reads structures (extended XYZ), writes them with energies, forces and stress. The potentials are those of Park et al.,
J. Chem. Theory Comput. 20, 4857 (2024), and of the package's own notes: ``7net-l3i5`` (PBE, trained on MPtrj), and
``7net-mf-0``, of which the part R2SCAN is taken (--modal).

Run, in an environment of its own: pip install sevenn; python benchmarks/make_public.py --structures FILE --out FILE
[--model 7net-mf-0 --modal R2SCAN] [--jobs 2]
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread
from collect import collect

LARGEST_FORCE = 30.0  # eV/Å; beyond it a structure is none that was meant


@functools.cache
def potential(model: str, modal: str | None) -> Any:
    """The calculator, on one thread: the processes of ``collect`` share the cores."""
    import torch
    from sevenn.calculator import SevenNetCalculator

    torch.set_num_threads(1)
    return SevenNetCalculator(model, device="cpu", **({"modal": modal} if modal else {}))


def labelled(job: tuple[Atoms, str, str | None]) -> list[Atoms]:
    """The structure with its labels, in a list; none where forces are beyond :data:`LARGEST_FORCE`."""
    atoms, model, modal = job
    atoms.calc = potential(model, modal)
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    if not np.abs(forces).max() < LARGEST_FORCE:
        return []
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
    return [atoms]


def structures(path: Path, model: str, modal: str | None) -> Iterator[tuple[Atoms, str, str | None]]:
    """Jobs; of what else a file says of a frame only its group is kept."""
    for atoms in iread(path, index=":"):
        group = {k: atoms.info[k] for k in ("group",) if k in atoms.info}
        yield Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=group), model, modal


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--structures", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="7net-l3i5", help="name of a model that the package ships")
    parser.add_argument("--modal", help="level of theory of a model that has several")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    collect(labelled, structures(args.structures, args.model, args.modal), args.jobs, args.out)


if __name__ == "__main__":
    main()
