"""Does a student make the same matter as its teacher? MD of both, other random numbers, the same starts.

- rdf, msd: pair distributions and self-diffusion (NVT, Langevin), as in water at 330 K.
- lattice: cube root of the volume per atom against temperature (NPT, 0 GPa), as of a crystal.

Run: python benchmarks/distilled_properties.py --teacher T --student S --head water --starts DATA --kelvin 330
     python benchmarks/distilled_properties.py --teacher T --student S --head Mo --starts crystal.xyz \
         --ensemble npt --kelvin 300,900,1500
Trajectories are kept in OUT and gone on with; the result is OUT/result.json and a table, OUT/table.md: both values
with the standard error of the mean (block averages), and how many of these they are apart. Of a distribution or a
displacement that is the root mean square over all distances or times; about 1 where both are samples of the same.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lamkit.data.frame import Frame
from lamkit.stages import explore, parts, properties
from lamkit.stages.dynamics import Dynamics
from lamkit.stages.engine import enlarge, load_engine, read_frames


def trajectories(args: argparse.Namespace, starts: list[Frame], dynamics: Dynamics) -> dict[str, list[Any]]:
    """(temperature, row, frames) of every trajectory of teacher and student."""
    found: dict[str, list[Any]] = {}
    for name, path in (("teacher", args.teacher), ("student", args.student)):
        engine = load_engine(str(path), args.head, None)
        tasks = explore.plan(starts, args.kelvin, parts.seed_for(args.seed, name), prefix=name)
        folder = args.out / name
        rows = explore.run_tasks(tasks, engine, dynamics, folder, args.together)
        found[name] = [
            (task.temperature, row, parts.load_frames(folder / f"{task.name}.npz"))
            for task, row in zip(tasks, rows, strict=True)
        ]
    return found


def lattice(frames: Sequence[Frame]) -> tuple[float, float]:
    """Cube root of the volume per atom in Å, and its error from blocks."""
    edges = np.array([(abs(np.linalg.det(f.cell)) / len(f)) ** (1 / 3) for f in frames])
    blocks = [b.mean() for b in np.array_split(edges, properties.BLOCKS)]
    return float(edges.mean()), float(np.std(blocks, ddof=1) / np.sqrt(len(blocks)))


def at_one_temperature(both: dict[str, list[list[Frame]]], interval: float, npt: bool) -> dict[str, Any]:
    """Everything that is compared, of teacher and student at one temperature."""
    result: dict[str, Any] = {}
    rdf = {k: properties.pair_distributions(t) for k, t in both.items()}
    msd = {k: properties.displacements(t, interval) for k, t in both.items()}
    result["rdf_deviation"] = properties.worst(rdf["teacher"], rdf["student"])
    result["msd_deviation"] = properties.worst(msd["teacher"], msd["student"])
    for pair, curve in rdf["teacher"].items():
        k = int(curve.mean.argmax())
        other = rdf["student"][pair]
        j = int(other.mean.argmax())
        result[f"first peak {pair}"] = {
            "teacher": [float(curve.x[k]), float(curve.mean[k]), float(curve.error[k])],
            "student": [float(other.x[j]), float(other.mean[j]), float(other.error[j])],
        }
    for symbol in () if npt else msd["teacher"]:  # a breathing cell moves atoms that do not diffuse
        result[f"diffusion {symbol}"] = {k: properties.diffusion(c[symbol]) for k, c in msd.items()}
    if npt:
        result["edge per atom"] = {k: lattice([f for t in ts for f in t]) for k, ts in both.items()}
    result["rdf"] = {
        k: {p: [c.x.tolist(), c.mean.tolist(), c.error.tolist()] for p, c in curves.items()}
        for k, curves in rdf.items()
    }
    return result


def rows(kelvin: str, entry: dict[str, Any]) -> list[str]:
    """Lines of the table at one temperature."""
    found = []
    for name, value in entry.items():
        if name in ("rdf_deviation", "msd_deviation"):
            kind = name.split("_")[0].upper()
            found += [f"| {kelvin} | {kind} {pair} | | | {worst:.1f} |" for pair, worst in value.items()]
        elif name.startswith("first peak"):
            shown = [f"{g:.2f} ± {e:.2f} at {x:.2f} Å" for x, g, e in (value["teacher"], value["student"])]
            found.append(f"| {kelvin} | {name} | {shown[0]} | {shown[1]} | |")
        elif name.startswith(("diffusion", "edge")):
            (a, da), (b, db) = value["teacher"], value["student"]
            unit = "Å²/ps" if name.startswith("diffusion") else "Å"
            apart = abs(a - b) / max(np.hypot(da, db), 1e-12)
            found.append(
                f"| {kelvin} | {name}, {unit} | {a:.4f} ± {da:.4f} | {b:.4f} ± {db:.4f} | {apart:.1f} |"
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--head", required=True)
    parser.add_argument("--starts", required=True)
    parser.add_argument("--n-starts", type=int, default=1)
    parser.add_argument("--atoms", type=int, default=1, help="repeat smaller cells until they have so many")
    parser.add_argument("--kelvin", type=lambda t: [float(v) for v in t.split(",")], default=[300.0])
    parser.add_argument("--ensemble", choices=["nvt", "npt"], default="nvt")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--timestep", type=float, default=1.0)
    parser.add_argument("--together", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("lamkit-properties"))
    args = parser.parse_args()
    source = read_frames(args.starts)
    chosen = np.linspace(0, len(source) - 1, args.n_starts).round().astype(int)
    starts = [enlarge(source.frame(int(i)), args.atoms) for i in chosen]
    dynamics = Dynamics(
        ensemble=args.ensemble, steps=args.steps, timestep=args.timestep, save_every=5,
        equilibrate=args.steps // 5, barostat_time=500.0,
    )  # fmt: skip
    found = trajectories(args, starts, dynamics)
    result: dict[str, Any] = {"steps": args.steps, "timestep": args.timestep, "n_atoms": len(starts[0])}
    for kelvin in args.kelvin:
        at = {k: [(r, f) for t, r, f in runs if t == kelvin] for k, runs in found.items()}
        stopped = {k: [r["stopped"] for r, _ in runs if r["stopped"]] for k, runs in at.items()}
        entry: dict[str, Any] = {"stopped": stopped}
        if not any(stopped.values()):
            both = {k: [f for _, f in runs] for k, runs in at.items()}
            entry |= at_one_temperature(both, 5e-3 * args.timestep, args.ensemble == "npt")
        result[f"{kelvin:g} K"] = entry
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "result.json").write_text(json.dumps(result, indent=1))
    lines = ["| | property | teacher | student | standard errors apart |", "|---|---|---|---|---|"]
    for name, entry in result.items():
        if isinstance(entry, dict):
            broken = [f"| {name} | {k} stopped: {r[0]} | | | |" for k, r in entry["stopped"].items() if r]
            lines += broken or rows(name, entry)
    (args.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
