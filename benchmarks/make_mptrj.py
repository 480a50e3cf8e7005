"""Make a JSON file in the form of MPtrj with as many frames as wanted, from excerpts of the real one.

    python benchmarks/make_mptrj.py --shared ../shared --frames 1000000 --out /tmp/mptrj.json

Structures and labels come from ``data/mptrj/mptrj-random-1k.xyz`` (1000 frames, 31 atoms on average, as in MPtrj
as a whole) and the keys from ``MPtrj_excerpt_allkeys.json``. Each material gets a trajectory of 1 to 20 frames in
which cell, positions, energy, forces and stress differ by small random amounts: for measuring speed and memory, not
for training. The same seed gives the same file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

KBAR = 1602.1766208  # kB in an eV/A^3
DIGITS = 8


def templates(shared: Path) -> list[dict]:
    """Labelled structures as arrays."""
    import ase.io

    found = []
    for atoms in ase.io.iread(shared / "data/mptrj/mptrj-random-1k.xyz", index=":"):
        found.append(
            {
                "symbols": atoms.get_chemical_symbols(),
                "cell": atoms.cell.array,
                "fractional": atoms.get_scaled_positions(wrap=False),
                "energy": atoms.get_potential_energy(),
                "forces": atoms.get_forces(apply_constraint=False),
                "stress": -atoms.get_stress(voigt=False) * KBAR,  # VASP's sign, kB
            }
        )
    return found


def record(frame: dict, mp_id: str, rng: np.random.Generator) -> dict:
    """One frame with all keys of MPtrj, jittered."""
    n = len(frame["symbols"])
    strain = np.eye(3) + rng.normal(0, 0.005, (3, 3))
    cell = np.round(frame["cell"] @ strain, DIGITS)
    inverse = np.linalg.inv(cell)
    moves = rng.normal(0, 0.01, (n, 3))
    fractional = frame["fractional"] + moves @ inverse
    positions = np.round(fractional @ cell, DIGITS)
    energy = round(frame["energy"] + n * float(rng.normal(0, 0.005)), DIGITS)
    forces = frame["forces"] + rng.normal(0, 0.05, (n, 3))
    forces = np.round(forces - forces.mean(axis=0), DIGITS)
    stress = frame["stress"] + rng.normal(0, 2.0, (3, 3))
    lengths = np.linalg.norm(cell, axis=1)
    cosines = [cell[i] @ cell[j] / (lengths[i] * lengths[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    angles = np.degrees(np.arccos(cosines))
    sites = [
        {"species": [{"element": s, "occu": 1}], "abc": abc, "properties": {}, "label": s, "xyz": xyz}
        for s, abc, xyz in zip(frame["symbols"], fractional.tolist(), positions.tolist(), strict=True)
    ]
    lattice = {
        "matrix": cell.tolist(), "pbc": [True, True, True],
        **dict(zip("abc", lengths.tolist(), strict=True)),
        **dict(zip(("alpha", "beta", "gamma"), angles.tolist(), strict=True)),
        "volume": float(abs(np.linalg.det(cell))),
    }  # fmt: skip
    structure = {
        "@module": "pymatgen.core.structure", "@class": "Structure", "charge": 0.0, "lattice": lattice,
        "properties": {}, "sites": sites,
    }  # fmt: skip
    return {
        "structure": structure,
        "uncorrected_total_energy": energy,
        "corrected_total_energy": round(energy - 0.1 * n, DIGITS),
        "energy_per_atom": (energy - 0.1 * n) / n,
        "ef_per_atom": float(rng.normal(-1, 0.5)),
        "e_per_atom_relaxed": (energy - 0.1 * n) / n - 0.01,
        "ef_per_atom_relaxed": float(rng.normal(-1, 0.5)),
        "magmom": np.round(rng.normal(0, 1, n), 3).tolist(),
        "bandgap": None,
        "force": forces.tolist(),
        "stress": np.round(0.5 * (stress + stress.T), DIGITS).tolist(),
        "mp_id": mp_id,
    }


def write(shared: Path, out: Path, n_frames: int, seed: int) -> None:
    """Write the file, streaming."""
    known = templates(shared)
    rng = np.random.default_rng(seed)
    done = material = 0
    with open(out, "w") as stream:
        stream.write("{")
        while done < n_frames:
            mp_id = f"mp-{1000 + 7 * material}"
            template = known[int(rng.integers(len(known)))]
            length = min(int(rng.integers(1, 21)), n_frames - done)
            frames = {f"{mp_id}-0-{k}": record(template, mp_id, rng) for k in range(length)}
            stream.write(f"{', ' if material else ''}{json.dumps(mp_id)}: {json.dumps(frames)}")
            done += length
            material += 1
        stream.write("}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder of third-party data")
    parser.add_argument("--frames", type=int, default=50_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write(args.shared, args.out, args.frames, args.seed)
    print(f"{args.out}: {args.frames} frames, {args.out.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
