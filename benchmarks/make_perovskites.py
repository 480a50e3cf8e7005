"""A cheap level of theory to pre-train on: halide perovskites with GFN2-xTB labels.

ABX3 with A of methylammonium, formamidinium and caesium, X of iodine and bromine (each cell has one A and one X, B is
lead): cells of 2 x 2 x 1 formula units, strained, the cage rattled, each cation turned at random and its atoms
displaced a little. Energies, forces and stress at the Gamma point by tblite, which takes two seconds a frame.
(GFN1-xTB gives forces of hundreds of eV/Å for these cells, where nitrogen meets iodine.)

Run: python benchmarks/make_perovskites.py --out perovskites.extxyz     (needs ``pip install ase tblite``)
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from collect import collect

EDGE = {"I": 6.30, "Br": 5.95}  # of the cubic cell, Å
SHARES = {("MA", "I"): 0.6, ("MA", "Br"): 0.2, ("FA", "I"): 0.1, ("Cs", "I"): 0.1}
REPEAT = (2, 2, 1)
CATIONS = {
    "Cs": Atoms("Cs"),
    "MA": Atoms(
        "CNH6",
        [
            (-0.75, 0, 0), (0.75, 0, 0), (-1.12, 1.03, 0), (-1.12, -0.515, 0.892), (-1.12, -0.515, -0.892),
            (1.09, -0.97, 0), (1.09, 0.485, 0.84), (1.09, 0.485, -0.84),
        ],
    ),
    "FA": Atoms(
        "CN2H5",
        [
            (0, 0.42, 0), (1.17, -0.17, 0), (-1.17, -0.17, 0), (0, 1.51, 0), (1.26, -1.18, 0), (2.01, 0.40, 0),
            (-1.26, -1.18, 0), (-2.01, 0.40, 0),
        ],
    ),
}  # fmt: skip


def perovskite(cation: str, halide: str, random: np.random.Generator) -> Atoms:
    """A cell of four formula units, out of order."""
    edge = EDGE[halide] * (1 + random.uniform(-0.05, 0.05))
    atoms = Atoms(cell=np.array(REPEAT) * edge, pbc=True)
    rattle = random.uniform(0.02, 0.2)
    for corner in np.ndindex(*REPEAT):
        cage = np.array([(0, 0, 0), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)]) + corner
        atoms += Atoms(["Pb", *[halide] * 3], cage * edge + random.normal(0, rattle, (4, 3)))
        one = CATIONS[cation].copy()
        one.euler_rotate(*random.uniform(0, 360, 3), center="COP")
        one.positions += random.normal(0, random.uniform(0.01, 0.06), one.positions.shape)
        one.positions += (np.array(corner) + 0.5) * edge + random.normal(0, 0.2, 3)
        atoms += one
    strain = random.uniform(-0.04, 0.04, (3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=False)
    return atoms


def labelled(job: tuple[int, Atoms]) -> list[Atoms]:
    """The structure with its labels, in a list; none where self-consistency fails or atoms nearly touch."""
    from tblite.ase import TBLite

    index, atoms = job
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    try:
        energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    except RuntimeError:
        return []
    if np.abs(forces).max() > 15.0:
        return []
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
    atoms.info = {"group": f"{atoms.get_chemical_formula()}-{index}", "method": "GFN2-xTB"}
    return [atoms]


def drawn(n: int, seed: int) -> Iterator[tuple[int, Atoms]]:
    """The structures to label; no two atoms nearer than 0.8 Å."""
    random = np.random.default_rng(seed)
    kinds = list(SHARES)
    for index in range(n):
        cation, halide = kinds[random.choice(len(kinds), p=list(SHARES.values()))]
        atoms = perovskite(cation, halide, random)
        distances = atoms.get_all_distances(mic=True) + 10 * np.eye(len(atoms))
        if distances.min() > 0.8:
            yield index, atoms


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("perovskites.extxyz"))
    parser.add_argument("--frames", type=int, default=450, help="structures to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    collect(labelled, drawn(args.frames, args.seed), args.jobs, args.out)


if __name__ == "__main__":
    main()
