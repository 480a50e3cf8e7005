"""A cheap level of theory to pre-train on: organic molecules with GFN2-xTB labels.

Closed-shell molecules of H, C, N, O: those of ASE's G2 collection (without ethanol, which the benchmarks keep as a
downstream set), FRAGMENTS with up to 28 atoms (ethers, amines, pyridines, acids and their like; 3BPA is not among
them), pairs side by side, and clusters of four to ten waters: from each a Langevin run at each of three temperatures,
300, 600 and 1200 K. Some 16,000 frames in a quarter of an hour on one core; ``--fragments 0 --pairs 30 --clusters 0
--frames 8`` makes 2000 in a minute.

Run: python benchmarks/make_gfn2.py --out gfn2.extxyz     (needs ``pip install ase tblite rdkit``)
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.collections import g2
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from collect import collect

TEMPERATURES = (300, 600, 1200)  # K
LEFT_OUT = {"CH3CH2OH", "CH2_s1A1d", "O3"}
FRAGMENTS = """
Cc1ccccc1 Oc1ccccc1 Nc1ccccc1 COc1ccccc1 OCc1ccccc1 NCc1ccccc1 O=Cc1ccccc1 N#Cc1ccccc1 CC(=O)c1ccccc1 C=Cc1ccccc1
C#Cc1ccccc1 CCOc1ccccc1 COCc1ccccc1 CNc1ccccc1 CN(C)c1ccccc1 OCCc1ccccc1 O=C(O)c1ccccc1 NC(=O)c1ccccc1 Cc1ccccn1
Cc1cccnc1 Nc1ccccn1 Nc1cccnc1 Nc1ccncc1 Oc1ccccn1 Oc1cccnc1 O=c1cccc[nH]1 COc1ccccn1 COc1cccnc1 Nc1ncccc1O
COc1cccnc1N NCc1ccccn1 OCc1cccnc1 O=Cc1cccnc1 N#Cc1ccncc1 c1ccc2ccccc2c1 c1ccc2[nH]ccc2c1 c1ccc2occc2c1 c1ccc2ncccc2c1
c1ccc(-c2ccccc2)cc1 c1ccc(Oc2ccccc2)cc1 c1cnccn1 c1cncnc1 c1ccnnc1 c1c[nH]cn1 c1cn[nH]c1 c1cocn1 c1ccon1 Cn1ccnc1
Cc1ccco1 Cc1ccc[nH]1 OCc1ccco1 O=Cc1ccco1 O=Cc1ccc[nH]1 C1CCOC1 C1CCNC1 C1CCOCC1 C1CCNCC1 C1COCCN1 C1COCCO1
C1CNCCN1 O=C1CCCO1 O=C1CCCN1 O=C1CCCCC1 O=C1CCCC1 OC1CCCCC1 OC1CCCC1 NC1CCCCC1 C1=CCCCC1 C1CCC2CCCCC2C1
CCCO CC(C)O CCCCO CC(C)(C)O OCCO OCC(O)CO COCCO CCOCC COCOC CCCN CC(C)N CCNCC CCN(CC)CC NCCN NCCO CNCCO
CCC=O CC(C)=O CCC(C)=O CC(=O)CC(C)=O O=CC=O CC(=O)C=O O=CC=C CC=CC=O CC(=O)C=C CC(=O)O CCC(=O)O CC(=O)OC COC=O
CCOC(C)=O COC(=O)C=C COC(=O)OC OC(=O)C(=O)O CC(O)C(=O)O OC(=O)CC(=O)O OC(=O)C=C OCC(=O)O COC(=O)CO NCC(=O)O
CC(N)C(=O)O OCC(N)C(=O)O CC(=O)N CNC=O CN(C)C=O CNC(C)=O CC(=O)N(C)C NC(N)=O CNC(=O)NC NC(=O)CO CC(=O)NCC(N)=O
NC(=O)c1cccnc1 O=C1NC(=O)C=CN1 Nc1ccnc(=O)[nH]1 Cc1c[nH]c(=O)[nH]c1=O Nc1ncnc2[nH]cnc12 CCC#N N#CCC#N C=CC#N
NCC#N OCC#N CC#CC C#CCO C=CC=C CC(C)=C CC=CC C=CCO C=COC C=CN(C)C CC=NC CC=NO NN=CC CN=C=O CNN CN(C)N NC(=N)N
CONC COO COOC CC(=O)OO C1CO1 C1CN1 CC1CO1 C1COC1 O=C1CO1 C1CC1 C1CCC1 CC1CC1 O=C1CC1 C1=CC1 C1=CCC=C1 C1=CC=CCC=C1
CCCCC CC(C)CC CC(C)(C)C CCCCCC CCC(C)C C1CCCCC1 CC1CCCCC1 C1CCCCCC1 C[N+](=O)[O-] O=[N+]([O-])c1ccccc1 CON=O
OCC1CCCO1 OC1COC1 O=C1C=CC(=O)C=C1 Oc1ccc(O)cc1 COc1ccc(N)cc1 Nc1ccc(O)cc1 Cc1ccc(C)cc1 OCc1ccc(O)cc1
c1ccc(OCc2ccccc2)cc1 c1ccc(Cc2ccccc2)cc1 O(Cc1ccccn1)C NCCc1ccccc1 CC(=O)Nc1ccccc1 CC(=O)Oc1ccccc1 COC(=O)c1ccccc1
"""  # SMILES


def names() -> list[str]:
    """Closed-shell molecules of H, C, N, O with three atoms or more in the G2 collection."""
    found = []
    for name in g2.names:
        atoms = molecule(name)
        closed = not np.any(atoms.get_initial_magnetic_moments())
        if set(atoms.symbols) <= set("HCNO") and len(atoms) > 2 and closed and name not in LEFT_OUT:
            found.append(name)
    return sorted(found)


def embedded(smiles: str, seed: int) -> Atoms:
    """A conformer, by RDKit's distance geometry."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    found = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if AllChem.EmbedMolecule(found, randomSeed=seed):
        raise SystemExit(f"RDKit finds no conformer of {smiles}")
    return Atoms([a.GetSymbol() for a in found.GetAtoms()], found.GetConformer().GetPositions())


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


def cluster(n: int, random: np.random.Generator) -> Atoms:
    """Waters, turned at random, on places of a cubic lattice of the liquid's density."""
    places = np.array(list(np.ndindex(3, 3, 2)))
    atoms = Atoms()
    for place in random.permutation(places)[:n] if n > 8 else places[places.max(axis=1) < 2][:n]:
        one = molecule("H2O")
        one.euler_rotate(*random.uniform(0, 360, 3), center="COM")
        one.positions += 3.0 * place
        atoms += one
    return atoms


def starts(n_fragments: int, n_pairs: int, n_clusters: int, seed: int) -> Iterator[tuple[str, Atoms]]:
    """Every structure that a run starts from, with its name."""
    random = np.random.default_rng(seed)
    single = {name: molecule(name) for name in names()}
    known = list(single)
    single |= {smiles: embedded(smiles, seed + 1) for smiles in FRAGMENTS.split()[:n_fragments]}
    yield from single.items()
    for _ in range(n_pairs):
        a, b = random.choice(known, 2, replace=False)
        yield f"{a}+{b}", pair(single[a], single[b], random)
    for k in range(n_clusters):
        n = 4 + k % 7
        yield f"{n}H2O-{k}", cluster(n, random)


def sampled(job: tuple[str, Atoms, int, int], n_frames: int, stride: int) -> list[Atoms]:
    """Frames of one Langevin run with their labels; those before a self-consistency cycle that fails."""
    from tblite.ase import TBLite

    name, start, temperature, seed = job
    random, frames = np.random.default_rng(seed), []
    atoms = Atoms(start.get_chemical_symbols(), positions=start.positions)
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * temperature, rng=random)
    dynamics = Langevin(
        atoms, units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=random, fixcm=False
    )
    for _ in range(n_frames):
        try:
            dynamics.run(stride)
        except RuntimeError as error:
            print(f"{name} at {temperature} K: {error}")
            break
        frame = atoms.copy()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
        frame.set_momenta(np.zeros((len(frame), 3)))
        frame.info = {"group": f"{name}-{temperature}", "method": "GFN2-xTB", "temperature": temperature}
        frames.append(frame)
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gfn2.extxyz"))
    parser.add_argument("--fragments", type=int, default=len(FRAGMENTS.split()), help="the first so many")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--clusters", type=int, default=40)
    parser.add_argument("--frames", type=int, default=16, help="of each run")
    parser.add_argument("--stride", type=int, default=10, help="fs between them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--limit", type=int, help="only so many molecules and pairs")
    args = parser.parse_args()
    chosen = list(starts(args.fragments, args.pairs, args.clusters, args.seed))[: args.limit]
    jobs = [
        (name, start, temperature, args.seed + i)
        for i, (name, start) in enumerate(chosen)
        for temperature in TEMPERATURES
    ]
    run = functools.partial(sampled, n_frames=args.frames, stride=args.stride)
    collect(run, jobs, args.jobs, args.out)


if __name__ == "__main__":
    main()
