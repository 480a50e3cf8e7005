"""A LAMKit model from ASE: heads side by side, a relaxation, an equation of state, MD, and own frames out.

    python examples/ase/first_steps.py [MODEL] [--steps N] [--out FOLDER]

MODEL is any checkpoint; without it the sample model that comes with LAMKit, which shows how things work and is no
model for research.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.io import write
from ase.md.langevin import Langevin
from ase.optimize import BFGS

from lamkit import presets
from lamkit.calculator import LamCalculator


def heads_side_by_side(model: Path) -> None:
    """One network, several levels of theory: forces can be compared, total energies of different codes cannot."""
    water = molecule("H2O")
    calculator = LamCalculator(model, head="gfn2_molecules")
    for head in ("gfn2_molecules", "wb97x_molecules", "pbe_molecules"):
        calculator.head = head  # costs nothing: the compiled network is the same
        water.calc = calculator
        calculator.reset()
        largest = np.abs(water.get_forces()).max()
        print(f"{head:16} energy {water.get_potential_energy():12.3f} eV, largest force {largest:.3f} eV/Å")


def relaxed(calculator: LamCalculator) -> Atoms:
    """Cubic BaTiO3, cell and positions, by ASE's own optimizer."""
    places = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    atoms = Atoms("BaTiO3", scaled_positions=places, cell=[4.05] * 3, pbc=True, calculator=calculator)
    BFGS(FrechetCellFilter(atoms, hydrostatic_strain=True), logfile=None).run(fmax=0.01, steps=60)
    print(f"relaxed lattice constant {atoms.cell.lengths()[0]:.3f} Å")
    return atoms


def equation_of_state(atoms: Atoms) -> None:
    """Bulk modulus from energies at seven volumes, evaluated in one batch."""
    calculator: LamCalculator = atoms.calc
    strained = []
    for factor in np.linspace(0.97, 1.03, 7):
        copy = atoms.copy()
        copy.set_cell(atoms.cell * factor, scale_atoms=True)
        strained.append(copy)
    energies = [result["energy"] for result in calculator.predict(strained)]
    volume, _, modulus = EquationOfState([a.get_volume() for a in strained], energies).fit()
    print(f"equation of state: {volume:.2f} Å³, bulk modulus {modulus / units.GPa:.0f} GPa")


def dynamics(atoms: Atoms, steps: int, out: Path) -> None:
    """Langevin dynamics at 300 K; every tenth frame goes to a file that `lamkit data convert` reads."""
    cell = atoms.repeat(2)
    cell.calc = atoms.calc
    rng = np.random.default_rng(0)  # starts at rest: the thermostat heats it within some 50 fs
    walk = Langevin(cell, units.fs, temperature_K=300, friction=0.02 / units.fs, fixcm=False, rng=rng)
    frames: list[Atoms] = []
    walk.attach(lambda: frames.append(cell.copy()), interval=10)
    walk.run(steps)
    write(out / "md.extxyz", frames)
    print(f"{steps} steps at {cell.get_temperature():.0f} K; {len(frames)} frames in {out / 'md.extxyz'}")


def main() -> None:
    """The four parts, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", type=Path, default=presets.examples() / "model")
    parser.add_argument("--head", default="pbe_oxides", help="head for the oxide (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="steps of MD (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the trajectory")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.model == presets.examples() / "model":
        heads_side_by_side(given.model)
    crystal = relaxed(LamCalculator(given.model, head=given.head))
    equation_of_state(crystal)
    dynamics(crystal, given.steps, given.out)


if __name__ == "__main__":
    main()
