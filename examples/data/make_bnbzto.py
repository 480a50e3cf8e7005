"""Make ``pbesol_bnbzto.extxyz``: the scarce downstream set, (Ba,Na,Bi)(Ti,Zr)O3 with CP2K.

Cells of 2x2x2 perovskite units, Ba4 Na2 Bi2 Ti7 Zr1 O24, 40 atoms. Each arrangement of the
cations is drawn at random, no two equivalent by their distances. Along one arrangement the
displacements and the strain turn step by step into new random ones, so that the last wave
function is a good guess for the next frame; all its frames carry one ``group``. The
arrangements are taken in turn, one frame each.

    python make_bnbzto.py --out pbesol_bnbzto.extxyz --frames 12

Several minutes per frame on one core, the first of an arrangement longest. Frames that the
output file holds already are skipped, so a stopped run goes on where it was.
"""

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read, write
from cp2k_single_point import EngineFailed, Level, single_point, wave_function

LATTICE = 8.0  # Å, edge of the 2x2x2 cell
A_SITES = ["Ba"] * 4 + ["Na"] * 2 + ["Bi"] * 2
B_SITES = ["Ti"] * 7 + ["Zr"]
RATTLE = 0.1  # Å, standard deviation of each coordinate
STRAIN = 0.02  # largest diagonal strain of a pattern (two are added); shear to a third of it
TURN = np.pi / 4  # between one frame and the next along the path

LEVEL = Level(functional="PBEsol", kpoints=None)


def ideal(a_sites: list[str], b_sites: list[str]) -> Atoms:
    """The undistorted cell with the given cations on the A and B sites, atoms sorted by element."""
    corners = np.array([(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]) / 2
    oxygens = [corners + shift for shift in ((0.25, 0.25, 0), (0.25, 0, 0.25), (0, 0.25, 0.25))]
    symbols = np.array([*a_sites, *b_sites, *["O"] * 24])
    positions = np.concatenate([corners, corners + 0.25, *oxygens])
    order = np.argsort(symbols, kind="stable")
    return Atoms(symbols[order], scaled_positions=positions[order], cell=[LATTICE] * 3, pbc=True)


def fingerprint(atoms: Atoms) -> tuple:
    """All distances between cations by pair of elements: equal for equivalent arrangements."""
    cations = atoms[[atom.index for atom in atoms if atom.symbol != "O"]]
    distances = cations.get_all_distances(mic=True).round(3)
    upper = zip(*np.triu_indices(len(cations), k=1), strict=True)
    return tuple(sorted((cations[i].symbol, cations[j].symbol, distances[i, j].item()) for i, j in upper))


def arrangements(n: int, *, seed: int) -> list[Atoms]:
    """``n`` random, pairwise inequivalent arrangements."""
    random = np.random.default_rng(seed)
    found = {}
    while len(found) < n:
        atoms = ideal(list(random.permutation(A_SITES)), list(random.permutation(B_SITES)))
        found.setdefault(fingerprint(atoms), atoms)
    return list(found.values())


def path(start: Atoms, *, name: str, n: int, seed: int) -> list[Atoms]:
    """``n`` perturbed copies; neighbours differ by ``TURN`` between two random patterns.

    With patterns p, q and angle t the pattern is p cos t + q sin t; after a right angle q takes
    the place of p and a new q is drawn.
    """
    random = np.random.default_rng([seed, *name.encode()])
    steps = round(np.pi / 2 / TURN)
    old, new = draw_pattern(start, random), draw_pattern(start, random)
    frames = []
    for i in range(n):
        if i and i % steps == 0:
            old, new = new, draw_pattern(start, random)
        angle = TURN * (i % steps)
        shift, strain = (np.cos(angle) * a + np.sin(angle) * b for a, b in zip(old, new, strict=True))
        atoms = start.copy()
        atoms.set_cell(start.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        atoms.positions += shift
        atoms.info = {
            "group": name,
            "frame": f"{name}/{i:03d}",
            "config_type": "strained and rattled arrangement",
            "rattle": round(float(shift.std()), 4),
            "volume_strain": round(float(np.linalg.det(np.eye(3) + strain) - 1), 4),
        }
        frames.append(atoms)
    return frames


def draw_pattern(start: Atoms, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Displacements [n_atoms, 3] in Å and a symmetric strain [3, 3]."""
    shift = random.normal(scale=RATTLE, size=(len(start), 3))
    strain = np.diag(random.uniform(-STRAIN, STRAIN, 3))
    shear = np.triu(random.uniform(-STRAIN, STRAIN, (3, 3)) / 3, k=1)
    return shift, strain + shear + shear.T


def label(atoms: Atoms, *, work: Path) -> Atoms:
    """Compute one frame, from the last wave function of its arrangement if there is one."""
    kept = work / f"{atoms.info['group']}.wfn"
    frame = single_point(atoms, LEVEL, folder=work / "run", guess=kept.resolve() if kept.exists() else None)
    shutil.copy(wave_function(work / "run", LEVEL), kept)
    frame.info["method"] = LEVEL.functional
    frame.info["settings"] = LEVEL.describe()
    return frame


def main() -> None:
    """Label the frames that the output file does not hold yet."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, required=True, help="extxyz file, appended to")
    arguments.add_argument("--frames", type=int, default=12, help="frames in total")
    arguments.add_argument("--arrangements", type=int, default=3)
    arguments.add_argument("--seed", type=int, default=3)
    arguments.add_argument("--work", type=Path, default=Path("work-bnbzto"), help="CP2K's files")
    options = arguments.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    done = set()
    if options.out.exists():
        done = {frame.info["frame"] for frame in read(options.out, ":")}
    paths = [
        path(start, name=f"bnbzto-{k}", n=options.frames, seed=options.seed)
        for k, start in enumerate(arrangements(options.arrangements, seed=options.seed))
    ]
    in_turn = [atoms for frames in zip(*paths, strict=True) for atoms in frames]
    for atoms in in_turn[: options.frames]:
        if atoms.info["frame"] in done:
            continue
        start = time.monotonic()
        try:
            frame = label(atoms, work=options.work)
        except EngineFailed as failure:
            print(f"{atoms.info['frame']}: left out: {failure}", flush=True)
            continue
        write(options.out, frame, format="extxyz", append=True)
        seconds = time.monotonic() - start
        energy = frame.get_potential_energy() / len(frame)
        print(f"{atoms.info['frame']}: {energy:.4f} eV/atom, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
