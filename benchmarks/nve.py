"""Does a model conserve energy? Drift of the total energy in NVE at the default time step.

Each model relaxes the structure, is brought to the temperature by a Langevin thermostat for --equilibrate ps, and
then runs --ps of velocity Verlet. Printed is the slope of a straight line through the total energy with its
standard error (from means over blocks of 0.5 ps, which are longer than the energy remembers), the fluctuation
around that line, and what the float32 of the network leaves in the energy: the spread of the energies of copies
of one structure whose atoms stand in another order.

Run: python benchmarks/nve.py                                           the sample model, 40 atoms of BaTiO3
     python benchmarks/nve.py --model RUN --head NAME --structure FILE --repeat 3,3,3
Several --model with one --structure are compared; direct models drift, and are stopped when they leave the limits.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.optimize import FIRE

from lamkit import presets
from lamkit.calculator import LamCalculator
from lamkit.stages.dynamics import Dynamics, Walk

BLOCK_PS = 0.5


def settled(atoms: Atoms, calculator: LamCalculator, kelvin: float, steps: int, timestep: float) -> Atoms:
    """The structure relaxed and then thermalised, with its velocities."""
    atoms = atoms.copy()
    atoms.calc = calculator
    FIRE(atoms, logfile=None).run(fmax=0.05, steps=200)
    dynamics = Dynamics(friction=0.05, timestep=timestep)
    walk = Walk(atoms, calculator, dynamics, temperature=kelvin, seed=0)
    advance(walk, steps)
    momenta = atoms.get_momenta()
    atoms.set_momenta(momenta - atoms.get_masses()[:, None] * momenta.sum(axis=0) / atoms.get_masses().sum())
    return atoms


def advance(walk: Walk, steps: int) -> np.ndarray:
    """Total energy (eV) and temperature (K) before and after each step, [n, 2]; ends early when it must."""
    walk.begin()
    values = [_values(walk)]
    while walk.stopped is None and len(values) <= steps:
        walk.advance()
        if walk.stopped is None:
            values.append(_values(walk))
    return np.array(values)


def _values(walk: Walk) -> tuple[float, float]:
    return walk.conserved(float(walk.atoms.get_potential_energy())), walk.kelvin()


def line(time_ps: np.ndarray, energy: np.ndarray) -> tuple[float, float]:
    """Slope of the energy and its standard error, by a fit through block means."""
    n_blocks = max(int(time_ps[-1] / BLOCK_PS), 3)
    t = np.array([b.mean() for b in np.array_split(time_ps, n_blocks)])
    e = np.array([b.mean() for b in np.array_split(energy, n_blocks)])
    slope, offset = np.polyfit(t, e, 1)
    residual = e - slope * t - offset
    variance = residual @ residual / max(n_blocks - 2, 1)
    return float(slope), float(np.sqrt(variance / np.square(t - t.mean()).sum()))


def rounding(atoms: Atoms, calculator: LamCalculator) -> float:
    """Spread of the energies (eV/atom) of reordered copies, which are the same structure."""
    rng = np.random.default_rng(0)
    copies = [atoms[rng.permutation(len(atoms))] for _ in range(16)]
    return float(np.std([r["energy"] for r in calculator.predict(copies)]) / len(atoms))


def measure(atoms: Atoms, calculator: LamCalculator, options: argparse.Namespace) -> dict[str, Any]:
    """The row of one model."""
    per_ps = 1000.0 / options.timestep
    atoms = settled(
        atoms, calculator, options.temperature, int(options.equilibrate * per_ps), options.timestep
    )
    dynamics = Dynamics(ensemble="nve", timestep=options.timestep)
    walk = Walk(atoms, calculator, dynamics, temperature=options.temperature, seed=0, keep_velocities=True)
    began = time.perf_counter()
    values = advance(walk, int(options.ps * per_ps))
    seconds, n_shapes = time.perf_counter() - began, len(calculator._network.shapes.shapes)
    time_ps = np.arange(len(values)) / per_ps
    energy = values[:, 0] / len(atoms)
    slope, error = line(time_ps, energy)
    fluctuation = float(np.std(energy - np.polyval(np.polyfit(time_ps, energy, 1), time_ps)))
    return {
        "model": str(calculator.path),
        "head": calculator.head,
        "output": calculator.trunk.output,
        "dtype": options.dtype,
        "formula": atoms.get_chemical_formula(),
        "n_atoms": len(atoms),
        "ps": round(float(time_ps[-1]), 3),
        "temperature_K": round(float(values[:, 1].mean()), 1),
        "drift_eV_atom_ps": slope,
        "error_eV_atom_ps": error,
        "fluctuation_eV_atom": fluctuation,
        "rounding_eV_atom": rounding(atoms, calculator),
        "stopped": walk.stopped,
        "ms_per_step": round(1e3 * seconds / len(values), 2),
        "searches": calculator._skin.n_builds,
        "compiled_shapes": n_shapes,
    }


def main() -> None:
    """Print a line of JSON per model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", help="checkpoint; may be repeated")
    parser.add_argument("--head")
    parser.add_argument("--structure", help="file that ASE reads, its first structure")
    parser.add_argument("--repeat", default="1,1,1")
    parser.add_argument("--temperature", type=float, default=300.0)
    parser.add_argument("--timestep", type=float, default=1.0, help="fs")
    parser.add_argument("--ps", type=float, default=10.0)
    parser.add_argument("--equilibrate", type=float, default=2.0, help="ps")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    options = parser.parse_args()
    structure = options.structure or str(presets.examples() / "data" / "pbe_oxides.extxyz")
    repeat = "2,2,2" if options.structure is None else options.repeat
    atoms = ase.io.read(structure, 0)
    atoms = make_supercell(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc),
                           np.diag([int(n) for n in repeat.split(",")]))  # fmt: skip
    for path in options.model or [presets.examples() / "model"]:
        head = options.head or ("pbe_oxides" if options.model is None else None)
        calculator = LamCalculator(Path(path), head=head, dtype=options.dtype)
        print(json.dumps(measure(atoms, calculator, options)), flush=True)


if __name__ == "__main__":
    main()
