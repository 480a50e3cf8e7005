"""Make ``pbe_oxides.extxyz`` and ``pbesol_oxides.extxyz``: oxides of Ba, Na, Bi, Ti, Zr with CP2K.

Eight parent crystals of 2 to 10 atoms, each strained and rattled at random (seeded, so frame 7
is the same geometry for every user and for both functionals). Frames that the output file holds
already are skipped: a stopped run goes on where it was, and ``--frames 40`` extends a run made
with ``--frames 20``.

    python make_oxides.py --functional PBE    --out pbe_oxides.extxyz    --frames 40
    python make_oxides.py --functional PBEsol --out pbesol_oxides.extxyz --frames 40

The second run starts from the densities that the first left in ``--work``.
"""

import argparse
import math
import shutil
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read, write
from ase.spacegroup import crystal
from cp2k_single_point import FUNCTIONALS, EngineFailed, Level, single_point, wave_function

# A mesh point per this length of cell vector: 2x2x2 for a 4 Å perovskite. Å.
REPEAT_LENGTH = 7.1


def cubic_perovskite(a_site: str, b_site: str, a: float) -> Atoms:
    """ABO3 in Pm-3m, five atoms."""
    return crystal(
        [a_site, b_site, "O"],
        [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)],
        spacegroup=221,
        cellpar=[a, a, a, 90, 90, 90],
    )


def layered_nabiti2o6() -> Atoms:
    """Two perovskite cells along z, Na below, Bi above, ten atoms."""
    atoms = cubic_perovskite("Na", "Ti", 3.89).repeat((1, 1, 2))
    upper = [i for i, atom in enumerate(atoms) if atom.symbol == "Na" and atom.position[2] > 1.0]
    atoms.symbols[upper] = "Bi"
    return atoms


def parents() -> dict[str, Atoms]:
    """The unperturbed crystals, in the order in which frames are drawn from them."""
    fcc, primitive = 225, {"primitive_cell": True}
    return {
        "BaTiO3-cubic": cubic_perovskite("Ba", "Ti", 4.01),
        "TiO2-rutile": crystal(
            ["Ti", "O"],
            [(0, 0, 0), (0.305, 0.305, 0)],
            spacegroup=136,
            cellpar=[4.60, 4.60, 2.96, 90, 90, 90],
        ),
        "BaZrO3-cubic": cubic_perovskite("Ba", "Zr", 4.20),
        "NaBiTi2O6-layered": layered_nabiti2o6(),
        "BaO-rocksalt": crystal(
            ["Ba", "O"],
            [(0, 0, 0), (0.5, 0.5, 0.5)],
            spacegroup=fcc,
            cellpar=[5.55, 5.55, 5.55, 90, 90, 90],
            **primitive,
        ),
        "Bi2O3-trigonal": crystal(
            ["Bi", "O", "O"],
            [(1 / 3, 2 / 3, 0.245), (1 / 3, 2 / 3, 0.645), (0, 0, 0)],
            spacegroup=164,
            cellpar=[3.90, 3.90, 6.20, 90, 90, 120],
        ),
        "ZrO2-fluorite": crystal(
            ["Zr", "O"],
            [(0, 0, 0), (0.25, 0.25, 0.25)],
            spacegroup=fcc,
            cellpar=[5.08, 5.08, 5.08, 90, 90, 90],
            **primitive,
        ),
        "Na2O-antifluorite": crystal(
            ["O", "Na"],
            [(0, 0, 0), (0.25, 0.25, 0.25)],
            spacegroup=fcc,
            cellpar=[5.55, 5.55, 5.55, 90, 90, 90],
            **primitive,
        ),
    }


def mesh(parent: Atoms) -> tuple[int, int, int]:
    """The k-point mesh, which is the same for every strain of a parent."""
    return tuple(math.ceil(REPEAT_LENGTH / length) for length in parent.cell.lengths())


def perturbed(parent: Atoms, *, name: str, draw: int, seed: int) -> Atoms:
    """One random strain (diagonal to 4 %, shear to 2 %) and one random rattle (0.03 to 0.12 Å)."""
    random = np.random.default_rng([seed, draw, *name.encode()])
    atoms = Atoms(parent.get_chemical_symbols(), cell=parent.cell, pbc=True)
    atoms.positions = parent.positions
    strain = np.diag(random.uniform(-0.04, 0.04, 3))
    shear = np.triu(random.uniform(-0.01, 0.01, (3, 3)), k=1)
    strain += shear + shear.T
    amplitude = random.uniform(0.03, 0.12)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    atoms.positions += random.normal(scale=amplitude, size=(len(atoms), 3))
    atoms.info = {
        "group": f"{name}/{draw:03d}",
        "parent": name,
        "config_type": "strained and rattled crystal",
        "rattle": round(float(amplitude), 4),
        "volume_strain": round(float(np.linalg.det(np.eye(3) + strain) - 1), 4),
    }
    return atoms


def geometries(n_frames: int, *, seed: int) -> list[Atoms]:
    """The first ``n_frames`` geometries: one of each parent in turn, then the next draw."""
    crystals = list(parents().items())
    return [
        perturbed(
            crystals[i % len(crystals)][1],
            name=crystals[i % len(crystals)][0],
            draw=i // len(crystals),
            seed=seed,
        )
        for i in range(n_frames)
    ]


def label(atoms: Atoms, *, functional: str, work: Path) -> Atoms:
    """Compute one frame, from the density of the same geometry if there is one."""
    name = atoms.info["parent"]
    level = Level(functional=functional, kpoints=mesh(parents()[name]))
    kept = work / (atoms.info["group"].replace("/", "-") + ".kp")
    frame = single_point(
        atoms,
        level,
        folder=work / f"run-{functional}",
        guess=kept.resolve() if kept.exists() else None,
    )
    shutil.copy(wave_function(work / f"run-{functional}", level), kept)
    frame.info["method"] = functional
    frame.info["settings"] = level.describe()
    return frame


def main() -> None:
    """Label the geometries that the output file does not hold yet."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--functional", choices=list(FUNCTIONALS), default="PBE")
    arguments.add_argument("--out", type=Path, required=True, help="extxyz file, appended to")
    arguments.add_argument("--frames", type=int, default=40, help="frames in total")
    arguments.add_argument("--seed", type=int, default=11)
    arguments.add_argument("--work", type=Path, default=Path("work-oxides"), help="CP2K's files")
    options = arguments.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    done = set()
    if options.out.exists():
        done = {frame.info["group"] for frame in read(options.out, ":")}
    for atoms in geometries(options.frames, seed=options.seed):
        if atoms.info["group"] in done:
            continue
        start = time.monotonic()
        try:
            frame = label(atoms, functional=options.functional, work=options.work)
        except EngineFailed as failure:
            print(f"{atoms.info['group']}: left out: {failure}", flush=True)
            continue
        write(options.out, frame, format="extxyz", append=True)
        seconds = time.monotonic() - start
        energy = frame.get_potential_energy() / len(frame)
        print(f"{atoms.info['group']}: {energy:.4f} eV/atom, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
