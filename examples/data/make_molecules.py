"""Make ``gfn2_molecules``, ``wb97x_molecules`` and ``pbe_molecules``: one chemistry, three levels.

Small closed-shell molecules of H, C, N, O and three dimers, away from equilibrium: for each a
Langevin run with GFN2-xTB at 400 K and one at 900 K (dimers: 150 K and 350 K), started from the
relaxed molecule, and relaxed geometries with every atom displaced at random. The GFN2 file takes
a frame every 50 fs; the two DFT files take the frames half-way between, some of them the same,
so that the levels can be compared on equal geometries without being copies of each other.

    python make_molecules.py --level gfn2  --out gfn2_molecules.extxyz  --frames 440
    python make_molecules.py --level wb97x --out wb97x_molecules.extxyz --frames 154
    python make_molecules.py --level pbe   --out pbe_molecules.extxyz   --frames 154

Needs ``tblite`` and, for the DFT levels, ``pyscf``. Frames that the output file holds already
are skipped, so a stopped run goes on where it was. The geometries are kept in ``--work``; use
one folder for the three levels, so that they share them to the last digit.
"""

import argparse
import importlib.metadata
import time
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.optimize import BFGS

# fmt: off
MOLECULES = [
    "H2O", "NH3", "CH4", "HCN", "H2CO", "CO2", "C2H2", "N2H4", "H2O2", "CH3OH", "C2H4", "HCOOH",
    "H3CNH2", "CH3CN", "H2CCO", "C2H6", "CH3CHO", "CH3CH2OH", "CH3CONH2",
]
# fmt: on
DIMERS = {
    "H2O+H2O": ("H2O", "H2O"),
    "H2O+NH3": ("H2O", "NH3"),
    "H2O+CH3OH": ("H2O", "CH3OH"),
}
TEMPERATURES = {"molecule": (400, 900), "dimer": (150, 350)}  # K
SAMPLES = 8  # frames per run for GFN2, and as many half-way frames for DFT
RATTLED = 4  # rattled frames per molecule and kind of level
HALF_INTERVAL = 25  # steps of 1 fs between a GFN2 frame and the next half-way frame


class NotConverged(RuntimeError):
    """The self-consistency cycle did not reach its threshold."""


def gfn2_calculator():
    """GFN2-xTB, silent, tight."""
    from tblite.ase import TBLite

    return TBLite(method="GFN2-xTB", accuracy=0.1, max_iterations=300, verbosity=0)


def relaxed(name: str) -> Atoms:
    """The molecule or dimer at its GFN2 minimum."""
    if name in DIMERS:
        first, second = (molecule(part) for part in DIMERS[name])
        first.rotate(104.5 / 2, "x")
        second.rotate(60, "y")
        second.translate([0.3, 0.2, 3.1])
        atoms = first + second
    else:
        atoms = molecule(name)
    atoms = Atoms(atoms.get_chemical_symbols(), positions=atoms.positions)
    atoms.calc = gfn2_calculator()
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=300)
    return atoms


def run_molecular_dynamics(start: Atoms, *, temperature: int, seed: int) -> list[Atoms]:
    """Snapshots every 25 fs of one Langevin run: even ones for GFN2, odd ones for DFT."""
    random = np.random.default_rng(seed)
    atoms = start.copy()
    atoms.calc = gfn2_calculator()
    widths = np.sqrt(atoms.get_masses() * units.kB * temperature)
    atoms.set_momenta(random.normal(size=(len(atoms), 3)) * widths[:, None])
    dynamics = Langevin(
        atoms,
        1.0 * units.fs,
        temperature_K=temperature,
        friction=0.02 / units.fs,
        fixcm=False,
        rng=random,
    )
    dynamics.run(2 * HALF_INTERVAL)
    snapshots = []
    for _ in range(2 * SAMPLES):
        snapshots.append(Atoms(atoms.symbols, positions=atoms.positions))
        dynamics.run(HALF_INTERVAL)
    return snapshots


def rattle(start: Atoms, *, n: int, seed: int) -> list[tuple[float, Atoms]]:
    """Amplitude (Å) and geometry of ``n`` copies with every coordinate displaced at random."""
    random = np.random.default_rng(seed)
    pairs = []
    for amplitude in random.uniform(0.02, 0.07, n):
        atoms = Atoms(start.symbols, positions=start.positions)
        atoms.positions += random.normal(scale=amplitude, size=(len(atoms), 3))
        pairs.append((round(float(amplitude), 4), atoms))
    return pairs


def draw_geometries(name: str, *, seed: int) -> list[Atoms]:
    """All geometries of one molecule, in the order of time, half-way frames included."""
    start = relaxed(name)
    seed = seed + 1000 * [*MOLECULES, *DIMERS].index(name)
    frames = []
    for i, temperature in enumerate(TEMPERATURES["dimer" if name in DIMERS else "molecule"]):
        snapshots = run_molecular_dynamics(start, temperature=temperature, seed=seed + i)
        for j, atoms in enumerate(snapshots):
            atoms.info = {
                "group": f"{name}/md-{temperature}K",
                "frame": f"{name}/md-{temperature}K/{(j + 2) * HALF_INTERVAL}fs",
                "config_type": "molecular dynamics",
                "temperature": temperature,
            }
        frames += snapshots
    for j, (amplitude, atoms) in enumerate(rattle(start, n=2 * RATTLED, seed=seed + 9)):
        atoms.info = {
            "group": f"{name}/rattled",
            "frame": f"{name}/rattled/{j}",
            "config_type": "rattled molecule",
            "rattle": amplitude,
        }
        frames.append(atoms)
    return frames


def geometries(name: str, *, level: str, seed: int, work: Path) -> list[Atoms]:
    """The geometries of one molecule for one level, drawn once and then read from ``work``.

    Of the half-way frames, in random order, every other one serves both DFT levels.
    """
    kept = work / f"{name}-seed{seed}.extxyz"
    if not kept.exists():
        write(kept, draw_geometries(name, seed=seed), format="extxyz")
    frames = read(kept, ":")
    if level == "gfn2":
        return frames[::2]
    half_way = frames[1::2]
    np.random.default_rng([seed, *name.encode()]).shuffle(half_way)
    third = len(half_way) // 3
    shared, *own = (half_way[i * third : (i + 1) * third] for i in range(3))
    pairs = zip(shared, own[level == "pbe"], strict=True)
    return list(chain.from_iterable(pairs))


def in_turn(lists: list[list[Atoms]]) -> Iterator[Atoms]:
    """The first of every list, then the second of every list, and so on."""
    return (atoms for atoms in chain(*zip_longest(*lists)) if atoms is not None)


def gfn2(atoms: Atoms) -> Atoms:
    """Label with GFN2-xTB."""
    from tblite.exceptions import TBLiteRuntimeError

    frame = atoms.copy()
    frame.calc = gfn2_calculator()
    try:
        energy, forces = frame.get_potential_energy(), frame.get_forces()
    except (TBLiteRuntimeError, RuntimeError) as failure:
        raise NotConverged(str(failure)) from failure
    frame.calc = SinglePointCalculator(frame, energy=float(energy), forces=forces)
    frame.info |= {
        "engine": f"tblite {importlib.metadata.version('tblite')}",
        "method": "GFN2-xTB",
        "settings": "accuracy 0.1, electronic temperature 300 K, closed shell",
    }
    return frame


def kohn_sham(atoms: Atoms, *, functional: str, basis: str) -> Atoms:
    """Label with restricted, density-fitted Kohn-Sham DFT; the gradient includes the grid's."""
    import pyscf
    from pyscf import dft, gto

    coordinates = list(zip(atoms.symbols, atoms.positions, strict=True))
    system = gto.M(atom=coordinates, basis=basis, unit="Angstrom", verbose=0)
    field = dft.RKS(system, xc=functional).density_fit()
    field.conv_tol = 1e-9
    field.grids.level = 3
    energy = field.kernel()
    if not field.converged:
        raise NotConverged("the self-consistency cycle did not converge")
    gradient = field.nuc_grad_method()
    gradient.grid_response = True
    forces = -gradient.kernel() * units.Hartree / units.Bohr
    frame = atoms.copy()
    frame.calc = SinglePointCalculator(frame, energy=float(energy) * units.Hartree, forces=forces)
    frame.info |= {
        "engine": f"PySCF {pyscf.__version__}",
        "method": f"{functional}/{basis}",
        "settings": "RKS, density fitting (default auxiliary basis), grid level 3, "
        "conv_tol 1e-9 Ha, no dispersion correction",
    }
    return frame


LEVELS = {
    "gfn2": gfn2,
    "wb97x": lambda atoms: kohn_sham(atoms, functional="wB97X", basis="6-31G(d)"),
    "pbe": lambda atoms: kohn_sham(atoms, functional="PBE", basis="def2-SVP"),
}


def main() -> None:
    """Label the geometries that the output file does not hold yet."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--level", choices=list(LEVELS), default="gfn2")
    arguments.add_argument("--out", type=Path, required=True, help="extxyz file, appended to")
    arguments.add_argument("--frames", type=int, default=440, help="frames in total")
    arguments.add_argument("--seed", type=int, default=5)
    arguments.add_argument("--work", type=Path, default=Path("work-molecules"))
    options = arguments.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    done = set()
    if options.out.exists():
        done = {frame.info["frame"] for frame in read(options.out, ":")}
    names = [*MOLECULES, *DIMERS][: options.frames]
    lists = [geometries(name, level=options.level, seed=options.seed, work=options.work) for name in names]
    start = time.monotonic()
    for atoms in islice(in_turn(lists), options.frames):
        if atoms.info["frame"] in done:
            continue
        try:
            frame = LEVELS[options.level](atoms)
        except NotConverged as failure:
            print(f"{atoms.info['frame']}: left out: {failure}", flush=True)
            continue
        write(options.out, frame, format="extxyz", append=True)
        energy = frame.get_potential_energy() / len(frame)
        seconds = time.monotonic() - start
        print(f"{atoms.info['frame']}: {energy:.4f} eV/atom, {seconds:.0f} s so far", flush=True)


if __name__ == "__main__":
    main()
