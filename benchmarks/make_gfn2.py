"""A cheap level of theory to pre-train on: some 2000 frames of organic molecules with GFN2-xTB labels.

The closed-shell molecules of H, C, N, O in ASE's G2 collection (without ethanol, which the benchmarks keep as a
downstream set) and 30 pairs of them side by side: from each three Langevin runs at 300, 600 and 1200 K, a frame every
20 fs. Some minutes on one core.

Run: python benchmarks/make_gfn2.py --out gfn2.extxyz     (needs ``pip install ase tblite``)
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.collections import g2
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

TEMPERATURES = (300, 600, 1200)  # K
FRAMES, STRIDE = 8, 20  # frames per run, fs between them
LEFT_OUT = {"CH3CH2OH", "CH2_s1A1d", "O3"}
N_PAIRS = 30


def names() -> list[str]:
    """Closed-shell molecules of H, C, N, O with three atoms or more."""
    found = []
    for name in g2.names:
        atoms = molecule(name)
        closed = not np.any(atoms.get_initial_magnetic_moments())
        if set(atoms.symbols) <= set("HCNO") and len(atoms) > 2 and closed and name not in LEFT_OUT:
            found.append(name)
    return sorted(found)


def pair(first: Atoms, second: Atoms, random: np.random.Generator) -> Atoms:
    """Both molecules, the second turned at random and put where no two atoms are nearer than 2.4 Å."""
    second = second.copy()
    second.rotate(random.uniform(0, 360), random.normal(size=3), center="COM")
    direction = random.normal(size=3)
    direction /= np.linalg.norm(direction)
    second.positions += first.get_center_of_mass() - second.get_center_of_mass()
    while np.linalg.norm(first.positions[:, None] - second.positions, axis=-1).min() < 2.4:
        second.positions += 0.2 * direction
    return first + second


def starts(seed: int) -> Iterator[tuple[str, Atoms]]:
    """Every structure that a run starts from, with its name."""
    random = np.random.default_rng(seed)
    known = names()
    for name in known:
        yield name, molecule(name)
    for _ in range(N_PAIRS):
        a, b = random.choice(known, 2, replace=False)
        yield f"{a}+{b}", pair(molecule(a), molecule(b), random)


def sampled(name: str, start: Atoms, temperature: int, seed: int) -> Iterator[Atoms]:
    """Frames of one Langevin run with their labels."""
    from tblite.ase import TBLite

    random = np.random.default_rng(seed)
    atoms = Atoms(start.get_chemical_symbols(), positions=start.positions)
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * temperature, rng=random)
    dynamics = Langevin(
        atoms, units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=random, fixcm=False
    )
    for _ in range(FRAMES):
        dynamics.run(STRIDE)
        frame = atoms.copy()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
        frame.set_momenta(np.zeros((len(frame), 3)))
        frame.info = {"group": f"{name}-{temperature}", "method": "GFN2-xTB", "temperature": temperature}
        yield frame


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gfn2.extxyz"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="only so many molecules and pairs")
    args = parser.parse_args()
    frames: list[Atoms] = []
    for i, (name, start) in enumerate(list(starts(args.seed))[: args.limit]):
        for temperature in TEMPERATURES:
            try:
                frames += sampled(name, start, temperature, args.seed + i)
            except RuntimeError as error:  # a self-consistency cycle that did not converge ends that run
                print(f"{name} at {temperature} K: {error}")
        print(name, len(frames), flush=True)
    temporary = args.out.with_name(f"{args.out.stem}.part{args.out.suffix}")
    write(temporary, frames, format="extxyz")
    temporary.rename(args.out)


if __name__ == "__main__":
    main()
