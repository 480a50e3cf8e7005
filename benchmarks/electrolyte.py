"""Diffusion in a solid electrolyte: alpha silver iodide by its teacher and by the student distilled from it.

1. `lamkit distill --calculator silver_iodide:teacher` (the potential of Parrinello, Rahman and Vashishta, an ASE
   calculator, see silver_iodide.py) makes a DeepPot-SE from MD of 108 ions at the temperatures of TRAINED. Such a
   student sees neighbours within its cutoff; the teacher has Coulomb's law at all distances.
2. Teacher and student both run in LAMMPS: the same crystals of 256 ions, thermostat, time step and edge, at
   temperatures that the student was not trained at, with several seeds each (other sites, other velocities).
3. Compared are the diffusion of silver, the displacement of iodide, which must not diffuse, pair distributions and
   pressure, with standard errors over the seeds; forces of the student on configurations of the teacher's runs; and the
   forces that LAMMPS finds with those of the ASE calculators.

    bash tests/deepmd_environment.sh DIR
    python benchmarks/electrolyte.py --deepmd DIR --out lamkit-electrolyte

Each finished piece is kept and not done again. The table is printed and written to OUT/table.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from distilled import resumed
from student_speed import call

TRAINED = [450.0, 800.0]  # K
HEAD, CELL, STARTS = "agi", 3, 8  # of the distillation: edges of the training cell, crystals to start from
STEP, STRIDE = 0.005, 20  # ps; steps between frames
FIT = (2.0, 10.0)  # ps, between which the slope of the displacement is taken
SHELLS = 7.0  # Å, end of the pair distributions
BLOCK = 20  # frames of each run that forces are compared on
BOLTZMANN = 8.617333e-5  # eV/K
POTENTIALS = {
    "teacher": """pair_style hybrid/overlay coul/long {cutoff} table linear {points}
pair_coeff * * coul/long
pair_coeff 1 1 table {folder}/teacher.table AgAg
pair_coeff 1 2 table {folder}/teacher.table AgI
pair_coeff 2 2 table {folder}/teacher.table II
kspace_style pppm 1e-5""",
    "student": """pair_style deepmd {folder}/student-compressed.pb
pair_coeff * * Ag I""",
}
INPUT = """units metal
atom_style charge
read_data conf.lmp
{potential}
neighbor 1.0 bin
neigh_modify every 5 delay 0 check yes
thermo_style custom step temp press pe
"""
MD = """timestep {step}
velocity all create {kelvin} {seed} mom yes
fix 1 all nvt temp {kelvin} {kelvin} 0.2
thermo 1000
run {settle}
reset_timestep 0
thermo {stride}
dump 1 all custom {stride} md.dump id type xu yu zu
dump_modify 1 sort id format float %.5f
run {steps}
"""
ONCE = """dump 1 all custom 1 md.dump id type fx fy fz
dump_modify 1 sort id format float %.10g
run 0
"""


def distilled(args: argparse.Namespace) -> Path:
    """The student, and what LAMMPS needs of both; the folder of the latter."""
    import silver_iodide
    from ase.io import write

    place = args.out.resolve() / "potentials"
    place.mkdir(parents=True, exist_ok=True)
    silver_iodide.write_table(place / "teacher.table")
    starts = args.out / "starts.extxyz"
    if not starts.exists():
        write(
            starts,
            [silver_iodide.crystal(CELL, np.random.default_rng([args.seed, k])) for k in range(STARTS)],
        )
    settings = {
        "student": {"preset": args.student, "cutoff": args.cutoff},
        "n_starts": STARTS - 2,
        "temperatures": TRAINED,
        "heldout": {"n_starts": 2},
        "dynamics": {"steps": 500, "timestep": 1000 * STEP, "save_every": 10, "equilibrate": 100},
        "perturb": {"n": 10, "rattle": 0.15, "squeezed": 2},
        "method": "random",  # the teacher has no features, and those of the silver ions are all alike
        "n_frames": args.frames,
        "rounds": args.rounds,
        "guards": {"steps": 1000},
        "train": {"max_steps": args.steps, "seed": args.seed},
        "seed": args.seed,
    }
    config = args.out / "distill.json"
    config.write_text(json.dumps(settings, indent=1))  # JSON is YAML
    student = args.out / "student"
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH")))
    )
    resumed(
        student, "distill", str(config), "--calculator", "silver_iodide:teacher", "--head", HEAD,
        "--starts", str(starts),
    )  # fmt: skip
    if not (place / "student-compressed.pb").exists():
        made = (student / "lammps").resolve()
        call(args.deepmd, "dp", "convert-backend", str(made / "student.dp"), "student.pb", cwd=place)
        call(
            args.deepmd, "python", str(made / "compress.py"), "student.pb", "student-compressed.pb", cwd=place
        )
    return place


# -- LAMMPS ---------------------------------------------------------------------------------------


def lammps(model: str, atoms: Any, text: str, folder: Path, args: argparse.Namespace) -> str:
    """Run LAMMPS in ``folder``; what it says."""
    import silver_iodide
    from ase.io.lammpsdata import write_lammps_data

    folder.mkdir(parents=True, exist_ok=True)
    atoms.set_initial_charges([silver_iodide.CHARGE[s] for s in atoms.get_chemical_symbols()])
    write_lammps_data(
        folder / "conf.lmp", atoms, specorder=["Ag", "I"], masses=True, units="metal", atom_style="charge"
    )
    potential = POTENTIALS[model].format(
        folder=args.out.resolve() / "potentials", cutoff=silver_iodide.CUTOFF, points=silver_iodide.TABLE
    )
    (folder / "in.lammps").write_text(INPUT.format(potential=potential) + text)
    return call(args.deepmd, "lmp", "-in", "in.lammps", "-log", "none", cwd=folder)


def vectors(dump: Path) -> np.ndarray:
    """The last three columns of a sorted dump, ``[n_frames, n_atoms, 3]``."""
    parts = dump.read_text().split("ITEM: TIMESTEP\n")[1:]
    return np.array([[row.split()[2:5] for row in part.splitlines()[8:]] for part in parts], dtype=float)


def run(model: str, kelvin: float, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One trajectory and what is measured of it, once."""
    import silver_iodide

    folder = args.out / "md" / f"{model}-{kelvin:g}-{seed}"
    done = folder / "measured.json"
    if done.exists():
        return json.loads(done.read_text())
    atoms = silver_iodide.crystal(args.repeat, np.random.default_rng([args.seed, seed, 1]))
    text = MD.format(
        step=STEP, kelvin=kelvin, seed=seed + 1, stride=STRIDE, settle=round(args.settle / STEP),
        steps=round(args.ps / STEP),
    )  # fmt: skip
    said = lammps(model, atoms, text, folder, args)
    last = said.rpartition("Step")[2].splitlines()
    rows = [line.split() for line in last if re.match(r"\s*\d+(\s+-?[\d.e+-]+){3}\s*$", line)]
    thermo = np.array(rows, dtype=float)[1:]
    found = {
        "temperature": float(thermo[:, 1].mean()),
        "pressure": 1e-4 * float(thermo[:, 2].mean()),
        "us_per_atom": 1e6 * float(re.findall(r"Loop time of (\S+) on", said)[-1]) / (args.ps / STEP) / len(atoms),
        **measured(atoms, vectors(folder / "md.dump")),
    }  # fmt: skip
    done.write_text(json.dumps(found))
    print(f"{model} {kelvin:g} K, seed {seed}: D(Ag) {found['D Ag']:.2f}e-5 cm²/s", flush=True)
    return found


def measured(atoms: Any, paths: np.ndarray) -> dict[str, Any]:
    """Displacements, diffusion (1e-5 cm²/s) and pair distributions of a trajectory."""
    from lamkit.data.frame import make_frame
    from lamkit.stages import properties

    frames = [make_frame(atoms.numbers, p, atoms.cell.array) for p in paths]
    moved = properties.displacements([frames], STRIDE * STEP, blocks=1)
    pairs = properties.pair_distributions([frames], SHELLS, blocks=1)
    found: dict[str, Any] = {"rdf": {k: c.mean.tolist() for k, c in pairs.items()}}
    found["r"] = next(iter(pairs.values())).x.tolist()
    for symbol, curve in moved.items():
        fitted = (curve.x >= FIT[0]) & (curve.x <= FIT[1])
        found[f"D {symbol}"] = 10 * float(np.polyfit(curve.x[fitted], curve.mean[fitted], 1)[0]) / 6
        found[f"moved {symbol}"] = float(np.interp(FIT[1], curve.x, curve.mean))
        found[f"msd {symbol}"] = [curve.x[fitted].tolist(), curve.mean[fitted].tolist()]
    return found


def agreement(model: str, args: argparse.Namespace) -> dict[str, float]:
    """Largest difference of LAMMPS's forces to those of the ASE calculator, and the largest force, eV/Å."""
    import silver_iodide

    from lamkit.calculator import LamCalculator

    done = args.out / "md" / f"agreement-{model}.json"
    if not done.exists():
        atoms = silver_iodide.crystal(args.repeat, np.random.default_rng(args.seed))
        atoms.rattle(0.1, rng=np.random.default_rng(args.seed))
        lammps(model, atoms, ONCE, done.with_suffix(""), args)
        forces = vectors(done.with_suffix("") / "md.dump")[0]
        atoms.calc = (
            silver_iodide.teacher()
            if model == "teacher"
            else LamCalculator(args.out / "student", dtype="float64")
        )
        expected = atoms.get_forces()
        found = {"difference": float(abs(forces - expected).max()), "largest": float(abs(expected).max())}
        done.write_text(json.dumps(found))
    return json.loads(done.read_text())


def force_error(kelvin: float, args: argparse.Namespace) -> dict[str, float]:
    """Root-mean-square error of the student's forces on the teacher's trajectories, and of zero, meV/Å."""
    import silver_iodide

    from lamkit.calculator import LamCalculator

    done = args.out / "md" / f"forces-{kelvin:g}.json"
    if not done.exists():
        errors, forces = [], []
        student, teacher = LamCalculator(args.out / "student"), silver_iodide.teacher()
        for seed in range(args.seeds):
            atoms = silver_iodide.crystal(args.repeat, np.random.default_rng([args.seed, seed, 1]))
            paths = vectors(args.out / "md" / f"teacher-{kelvin:g}-{seed}" / "md.dump")
            for positions in paths[:: max(1, len(paths) // BLOCK)]:
                atoms.positions = positions
                forces.append(teacher.get_forces(atoms))
                errors.append(student.get_forces(atoms) - forces[-1])
        found = {
            k: 1000 * float(np.sqrt(np.mean(np.square(v)))) for k, v in (("error", errors), ("zero", forces))
        }
        done.write_text(json.dumps(found))
    return json.loads(done.read_text())


# -- the table ------------------------------------------------------------------------------------


def average(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), float(error)


def row(kelvin: str, name: str, a: tuple[float, float], b: tuple[float, float], digits: int) -> str:
    """A property of teacher and student, and by how many standard errors they differ."""
    shown = [f"{v:.{digits}f} ± {e:.{digits}f}" for v, e in (a, b)]
    apart = abs(a[0] - b[0]) / max(float(np.hypot(a[1], b[1])), 1e-12)
    return f"| {kelvin} | {name} | {shown[0]} | {shown[1]} | {b[0] / a[0] - 1:+z.0%} | {apart:.1f} |"


def compared(kelvin: float, both: dict[str, list[dict[str, Any]]], args: argparse.Namespace) -> list[str]:
    """Lines of the table at one temperature."""
    from lamkit.stages.properties import Curve, deviation

    lines, mark = [], f"{kelvin:g} K"
    for key, name, digits in (
        ("D Ag", "diffusion of Ag, 1e-5 cm²/s", 2),
        ("D I", "diffusion of I, 1e-5 cm²/s", 3),
        ("moved Ag", f"square displacement of Ag in {FIT[1]:g} ps, Å²", 1),
        ("moved I", f"square displacement of I in {FIT[1]:g} ps, Å²", 3),
        ("pressure", "pressure, GPa", 2),
        ("temperature", "mean temperature, K", 1),
    ):
        a, b = (average([r[key] for r in both[model]]) for model in POTENTIALS)
        lines.append(row(mark, name, a, b, digits))
    r = np.array(both["teacher"][0]["r"])
    for pair in both["teacher"][0]["rdf"]:
        curves = []
        for model in POTENTIALS:
            stack = np.array([run["rdf"][pair] for run in both[model]])
            curves.append(Curve(r, stack.mean(axis=0), stack.std(axis=0, ddof=1) / np.sqrt(len(stack))))
        k = int(curves[0].mean.argmax())
        most = float(abs(curves[0].mean - curves[1].mean).max())
        shown = [f"{c.mean[k]:.2f} ± {c.error[k]:.2f}" for c in curves]
        lines.append(
            f"| {mark} | g(r) {pair} at {r[k]:.2f} Å, its peak | {shown[0]} | {shown[1]} "
            f"| {most:.2f} at most | {deviation(*curves):.1f} |"
        )
    f = force_error(kelvin, args)
    lines.append(
        f"| {mark} | forces on the teacher's configurations, meV/Å | rms {f['zero']:.0f} | error {f['error']:.0f} "
        f"| {f['error'] / f['zero']:.0%} | |"
    )
    return lines


def activation(runs: dict[str, dict[float, list[dict[str, Any]]]]) -> str:
    """Activation energy of silver's diffusion between the lowest and the highest temperature."""
    found = []
    for model in POTENTIALS:
        low, high = min(runs[model]), max(runs[model])
        (a, da), (b, db) = (average([r["D Ag"] for r in runs[model][t]]) for t in (low, high))
        span = BOLTZMANN / (1 / low - 1 / high)
        found.append((span * np.log(b / a), span * float(np.hypot(da / a, db / b))))
    return row("", "activation energy of Ag, eV", found[0], found[1], 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--deepmd", type=Path, required=True, help="environment of tests/deepmd_environment.sh"
    )
    parser.add_argument("--out", type=Path, default=Path("lamkit-electrolyte"))
    parser.add_argument(
        "--student", default="deeppot-se-small", help="preset of configs/student that LAMMPS runs"
    )
    parser.add_argument("--cutoff", type=float, default=7.0, help="of the student, Å")
    parser.add_argument("--frames", type=int, default=400, help="that the teacher labels in each round")
    parser.add_argument("--rounds", type=int, default=2, help="of the distillation")
    parser.add_argument("--steps", type=int, default=4000, help="of training in each round")
    parser.add_argument(
        "--kelvin", type=lambda t: [float(v) for v in t.split(",")], default=[500.0, 700.0],
        help="temperatures of the comparison",
    )  # fmt: skip
    parser.add_argument("--repeat", type=int, default=4, help="edges of the cell along each axis")
    parser.add_argument("--seeds", type=int, default=4, help="runs at each temperature, of each potential")
    parser.add_argument("--settle", type=float, default=6.0, help="ps that are not measured")
    parser.add_argument("--ps", type=float, default=30.0, help="ps that are measured")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not (args.deepmd / "bin" / "lmp").exists():
        parser.error(
            f"--deepmd {args.deepmd}: no bin/lmp there; bash tests/deepmd_environment.sh DIR makes it"
        )
    distilled(args)
    checks = {model: agreement(model, args) for model in POTENTIALS}
    runs: dict[str, dict[float, list[dict[str, Any]]]] = {m: {k: [] for k in args.kelvin} for m in POTENTIALS}
    for seed in range(args.seeds):
        for kelvin in args.kelvin:
            for model in POTENTIALS:
                runs[model][kelvin].append(run(model, kelvin, seed, args))
    lines = [
        "| | property | teacher | student | difference | standard errors apart |",
        "|---|---|---|---|---|---|",
    ]
    for kelvin in args.kelvin:
        lines += compared(kelvin, {m: runs[m][kelvin] for m in POTENTIALS}, args)
    if len(args.kelvin) > 1:
        lines.append(activation(runs))
    lines.append("")
    for model, found in checks.items():
        lines.append(
            f"{model}: LAMMPS's forces within {found['difference']:.1e} eV/Å of the calculator's, the largest "
            f"{found['largest']:.2f}; "
            f"{np.min([r['us_per_atom'] for t in runs[model].values() for r in t]):.0f} µs per atom and step at best"
        )
    (args.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
