"""Speed of a teacher and of its students: microseconds per atom and MD step, in ASE and in LAMMPS.

All run the same liquid water at its density, at 100 to 10,000 atoms, with time for neighbour lists: a 25M Orb
(orb-v3-conservative, random weights: they do not matter for the speed), orb-small, and deeppot-se in ASE and,
exported, in LAMMPS through TensorFlow (``.pb``), plain, compressed, and compressed in single precision. One thread,
then two (in LAMMPS two MPI ranks). Each measurement is a process of its own, is appended to the file when it is done,
and is not repeated.

    bash tests/deepmd_environment.sh DIR
    python benchmarks/student_speed.py --deepmd DIR --out speed.jsonl [--minutes 4]
    python benchmarks/student_speed.py --out speed.jsonl --table
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule

# Molecules along each axis: 96, 648, 3000 and 10,125 atoms.
SIZES = {96: (4, 4, 2), 648: (6, 6, 6), 3000: (10, 10, 10), 10125: (15, 15, 15)}
SPACING = 3.1  # Å, one molecule per cube of it is the density of water
TEACHERS = {"orb-v3-conservative-20": "configs/trunk", "orb-v3-conservative-inf": "configs/trunk"}
STUDENTS = dict.fromkeys(("orb-small", "deeppot-se", "deeppot-se-small"), "configs/student")
EXPORTED = ("deeppot-se", "deeppot-se-small")
FORMS = ("", " compressed", " compressed, float32")
PRESETS = {**TEACHERS, **STUDENTS}
SECONDS = 8.0  # of measured time, at least one step after the first; a large teacher takes minutes for it
TOGETHER = 20  # steps, after which MD begins anew: random weights do not keep atoms apart for long
NEIGHBORS = {"deeppot-se": {"H": 92, "O": 48}, "deeppot-se-small": {"H": 56, "O": 32}}
ELEMENTS = ["H", "O"]


def water(n_atoms: int) -> Atoms:
    """Rattled molecules on a cubic grid."""
    rng, atoms = np.random.default_rng(0), Atoms(pbc=True)
    for place in np.ndindex(*SIZES[n_atoms]):
        one = molecule("H2O")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3))
        one.positions += np.array(place) * SPACING
        atoms += one
    atoms.set_cell(np.array(SIZES[n_atoms]) * SPACING)
    atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
    atoms.wrap()
    return atoms


def write_checkpoint(name: str, folder: Path) -> Path:
    """A checkpoint of a preset with random weights that make small forces."""
    from lamkit.data.heads import HeadConfig, LevelOfTheory
    from lamkit.model.build import build
    from lamkit.model.config import DeepPotConfig, Surroundings, architecture
    from lamkit.model.runtime import setup
    from lamkit.train import checkpoint
    from lamkit.train.config import expand_preset

    setup("CPU")
    trunk = architecture(expand_preset(PRESETS[name], name), name)
    if isinstance(trunk, DeepPotConfig):
        known = Surroundings(
            elements=ELEMENTS,
            sel=[NEIGHBORS[name][e] for e in ELEMENTS],
            slots=sum(NEIGHBORS[name].values()),
            deviations=[(0.123, 0.076), (0.139, 0.085)],
            min_distance=0.9,
        )
        trunk = trunk.model_copy(update={"surroundings": known})
    potential = build(trunk, ["water"])
    potential.set_scale("water", "energy", 0.0, 0.01)
    head = HeadConfig(name="water", level_of_theory=LevelOfTheory(method="none", functional="none"))
    reference = {"water": np.zeros(119)}
    elements = {"water": ELEMENTS}
    made = checkpoint.Checkpoint(
        folder, trunk, ("water",), potential.state(), reference, {"water": head}, elements
    )
    checkpoint.write(folder, made)
    return folder


# -- one measurement ------------------------------------------------------------------------------


def in_ase(name: str, n_atoms: int) -> float:
    """Seconds per step of velocity Verlet in ASE."""
    from lamkit.calculator import LamCalculator

    atoms = water(n_atoms)
    with tempfile.TemporaryDirectory() as folder:
        atoms.calc = LamCalculator(write_checkpoint(name, Path(folder) / name))
        return pace(atoms)


def pace(atoms: Atoms) -> float:
    """Seconds per step of velocity Verlet by the calculator of ``atoms``: one evaluation each."""
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
    from ase.md.verlet import VelocityVerlet

    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    start = atoms.get_positions(), atoms.get_momenta()
    dynamics.run(1)  # compiles
    seconds, steps = 0.0, 0
    while not steps or seconds < SECONDS:
        if steps and steps % TOGETHER == 0:
            atoms.set_positions(start[0])
            atoms.set_momenta(start[1])
            atoms.get_forces()  # else the next step would take two evaluations
        began = time.perf_counter()
        dynamics.run(1)
        seconds += time.perf_counter() - began
        steps += 1
    return seconds / steps


INPUT = """units metal
boundary p p p
atom_style atomic
read_data conf.lmp
pair_style deepmd {model}
pair_coeff * * {elements}
neighbor 1.0 bin
neigh_modify every 5 delay 0 check yes
timestep 0.0005
velocity all create 300.0 1234
fix 1 all nve
thermo {steps}
run 2
run {steps}
"""


def in_lammps(model: Path, n_atoms: int, threads: int, environment: Path) -> float:
    """Seconds per step of velocity Verlet in LAMMPS, from its own loop time."""
    from ase.io.lammpsdata import write_lammps_data

    with tempfile.TemporaryDirectory() as folder:
        write_lammps_data(
            f"{folder}/conf.lmp", water(n_atoms), specorder=ELEMENTS, masses=True, units="metal"
        )
        steps = 3
        while True:
            text = INPUT.format(model=model, elements=" ".join(ELEMENTS), steps=steps)
            Path(folder, "in.lammps").write_text(text)
            command = ["lmp", "-in", "in.lammps"]
            if threads > 1:
                command = ["mpirun", "-np", str(threads), *command]
            output = call(environment, *command, cwd=Path(folder))
            seconds = float(re.findall(r"Loop time of (\S+) on", output)[-1])
            if seconds >= SECONDS / 2:
                return seconds / steps
            steps = max(2 * steps, int(SECONDS / max(seconds / steps, 1e-6)))


def call(environment: Path, *command: str, cwd: Path) -> str:
    """Run a program of DeePMD-kit's environment on one thread per process; its output."""
    variables = {
        **os.environ,
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(environment),
        "OMP_NUM_THREADS": "1",
        "TF_INTRA_OP_PARALLELISM_THREADS": "1",
        "TF_INTER_OP_PARALLELISM_THREADS": "1",
        "DP_INTRA_OP_PARALLELISM_THREADS": "1",
        "DP_INTER_OP_PARALLELISM_THREADS": "1",
    }
    path = environment / "bin" / command[0]
    done = subprocess.run(
        [str(path), *command[1:]], cwd=cwd, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


# -- all of them ----------------------------------------------------------------------------------


def lammps_models(environment: Path, folder: Path) -> dict[str, Path]:
    """The exported students, frozen for TensorFlow, plain and compressed."""
    from lamkit.stages import export

    found = {}
    for name, precision in itertools.product(EXPORTED, ("float64", "float32")):
        place = folder / (name if precision == "float64" else f"{name}-{precision}")
        plain, compressed = place / "student.pb", place / "compressed.pb"
        single = f", {precision}" if precision == "float32" else ""
        found |= {name + single: plain, f"{name} compressed{single}": compressed}
        if compressed.exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        model = write_checkpoint(name, place / "checkpoint")
        (place / "student.dp").unlink(missing_ok=True)
        options = export.Options(model=str(model), to="deepmd", precision=precision)
        export.run(options, place / "student.dp")
        call(environment, "dp", "convert-backend", "student.dp", "student.pb", cwd=place)
        call(environment, "python", "compress.py", "student.pb", "compressed.pb", cwd=place)
    return found


def pieces(lammps: bool, numbers: list[int], sizes: list[int], models: list[str] | None) -> list[dict]:
    """Every measurement on so many threads, the quick ones first; ``models`` are those to measure in ASE, None all."""
    found = []
    for n_atoms in sizes:
        for threads in numbers:
            if lammps:
                found += [
                    {"engine": "LAMMPS", "model": m, "threads": threads, "atoms": n_atoms}
                    for m in (f"{name}{form}" for name in EXPORTED for form in FORMS)
                ]
            found += [
                {"engine": "ASE", "model": m, "threads": threads, "atoms": n_atoms}
                for m in (*STUDENTS, *TEACHERS)
                if models is None or m in models
            ]
    return found


def measured(piece: dict, environment: Path | None, models: dict[str, Path]) -> float:
    """Seconds per step, measured in a process of its own."""
    if piece["engine"] == "LAMMPS":
        assert environment is not None
        return in_lammps(models[piece["model"]], piece["atoms"], piece["threads"], environment)
    cores = ",".join(str(c) for c in sorted(os.sched_getaffinity(0))[: piece["threads"]])
    variables = {**os.environ, "OMP_NUM_THREADS": str(piece["threads"])}
    done = subprocess.run(
        ["taskset", "-c", cores, sys.executable, __file__, "--one", json.dumps(piece)],
        env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return float(done.stdout.split()[-1])


def table(rows: list[dict]) -> str:
    """Microseconds per atom and step, and how many times as fast as the teachers."""
    of = {(r["engine"], r["model"], r["threads"], r["atoms"]): r["us_per_atom"] for r in rows}
    names = list(dict.fromkeys((r["engine"], r["model"]) for r in rows))
    lines = ["| model | engine | threads | " + " | ".join(f"{n} atoms" for n in SIZES) + " |"]
    lines += ["|---|---|---|" + "---|" * len(SIZES)]
    for engine, model in sorted(names):
        for threads in (1, 2):
            cells = [of.get((engine, model, threads, n)) for n in SIZES]
            shown = ["" if c is None else f"{c:.4g}" for c in cells]
            lines.append(f"| {model} | {engine} | {threads} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--deepmd", type=Path, help="environment of tests/deepmd_environment.sh")
    parser.add_argument("--out", type=Path, default=Path("student_speed.jsonl"))
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no measurement after this time")
    parser.add_argument("--threads", default="1,2", help="measure on so many")
    parser.add_argument("--models", type=lambda t: t.split(","), help="of ASE, only these")
    parser.add_argument(
        "--atoms", type=lambda t: [int(n) for n in t.split(",")], default=list(SIZES), help="only so many"
    )
    parser.add_argument("--table", action="store_true", help="print what has been measured")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        piece = json.loads(args.one)
        print(in_ase(piece["model"], piece["atoms"]))
        return
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    if args.table:
        print(table(rows))
        return
    began = time.monotonic()
    models = lammps_models(args.deepmd, args.out.with_suffix(".models").resolve()) if args.deepmd else {}
    keys = ("engine", "model", "threads", "atoms")
    done = {tuple(r[k] for k in keys) for r in rows}
    for piece in pieces(bool(models), [int(n) for n in args.threads.split(",")], args.atoms, args.models):
        if tuple(piece[k] for k in keys) in done:
            continue
        if time.monotonic() - began > 60 * args.minutes:
            print("time is over; call again to go on")
            return
        seconds = measured(piece, args.deepmd, models)
        row = {**piece, "seconds_per_step": seconds, "us_per_atom": 1e6 * seconds / piece["atoms"]}
        with open(args.out, "a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
