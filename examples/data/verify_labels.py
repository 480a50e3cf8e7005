"""Check labels against finite differences of the energy, with the engine that made them.

For one frame of a sample file: the force on one atom from two energies with that atom moved, and
for periodic frames one diagonal component of the stress from two energies with the cell strained.

    python verify_labels.py pbe_oxides.extxyz --index 0 --atom 1
    python verify_labels.py wb97x_molecules.extxyz --index 0
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import make_bnbzto
import make_molecules
import make_oxides
import numpy as np
from ase import Atoms
from ase.io import read

LABELLERS: dict[str, Callable[[Atoms, Path], Atoms]] = {
    "gfn2_molecules": lambda atoms, work: make_molecules.gfn2(atoms),
    "wb97x_molecules": lambda atoms, work: make_molecules.LEVELS["wb97x"](atoms),
    "pbe_molecules": lambda atoms, work: make_molecules.LEVELS["pbe"](atoms),
    "pbe_oxides": lambda atoms, work: make_oxides.label(atoms, functional="PBE", work=work),
    "pbesol_oxides": lambda atoms, work: make_oxides.label(atoms, functional="PBEsol", work=work),
    "pbesol_bnbzto": lambda atoms, work: make_bnbzto.label(atoms, work=work),
}


def numerical_force(
    frame: Atoms, energy: Callable[[Atoms], float], *, atom: int, axis: int, step: float
) -> float:
    """Minus the central difference of the energy, eV/Å, for a step in Å."""
    energies = []
    for sign in (1, -1):
        moved = frame.copy()
        moved.positions[atom, axis] += sign * step
        energies.append(energy(moved))
    return (energies[1] - energies[0]) / (2 * step)


def numerical_stress(frame: Atoms, energy: Callable[[Atoms], float], *, axis: int, strain: float) -> float:
    """dE/dε divided by the volume, eV/Å³: one diagonal component, tension positive."""
    energies = []
    for sign in (1, -1):
        strained = frame.copy()
        deformation = np.eye(3)
        deformation[axis, axis] += sign * strain
        strained.set_cell(frame.cell.array @ deformation, scale_atoms=True)
        energies.append(energy(strained))
    return (energies[0] - energies[1]) / (2 * strain * frame.get_volume())


def main() -> None:
    """Print the stored label beside the numerical one."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("file", type=Path, help="one of the sample files, by its own name")
    arguments.add_argument("--index", type=int, default=0)
    arguments.add_argument("--atom", type=int, default=0)
    arguments.add_argument("--axis", type=int, choices=(0, 1, 2), default=0)
    arguments.add_argument("--step", type=float, default=0.01, help="displacement, Å")
    arguments.add_argument("--strain", type=float, default=0.002)
    arguments.add_argument("--work", type=Path, default=Path("work-verify"))
    options = arguments.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    frame = read(options.file, options.index)
    labeller = LABELLERS[options.file.stem]

    def energy(atoms: Atoms) -> float:
        return labeller(atoms, options.work).get_potential_energy()

    name, axis = frame.info.get("frame", frame.info["group"]), "xyz"[options.axis]
    force = numerical_force(frame, energy, atom=options.atom, axis=options.axis, step=options.step)
    stored = frame.get_forces()[options.atom, options.axis]
    symbol = frame.symbols[options.atom]
    print(f"{name}: force on {symbol}{options.atom} along {axis}: {stored:.5f} stored, "
          f"{force:.5f} numerical, eV/Å", flush=True)  # fmt: skip
    if frame.pbc.all():
        stress = numerical_stress(frame, energy, axis=options.axis, strain=options.strain)
        stored = frame.get_stress()[options.axis]
        print(f"{name}: stress {axis}{axis}: {stored:.6f} stored, {stress:.6f} numerical, eV/Å³")


if __name__ == "__main__":
    main()
