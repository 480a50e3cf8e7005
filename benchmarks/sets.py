"""The real data sets that the benchmarks of training learn from: converted and divided once, into OUT/parts.

Each is divided into train, valid and test: mlearn as its authors did, ``group`` by trajectory or material (a single
trajectory is cut into blocks), ``random`` frame by frame, where frames are the currency: n of them drawn from one
distribution and tested on the same one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from lamkit import presets

BAR = ("--stress-unit", "bar", "--stress-sign", "compression")
SETS: dict[
    str, tuple[str, str, tuple[str, ...]]
] = {  # name → source, how it is divided, flags of its conversion
    "Mo": ("mlearn/Mo", "published", ()),
    "Li": ("mlearn/Li", "published", ()),
    "Si": ("mlearn/Si", "published", ()),
    "MAPbI3": ("dpgen_MAPbI3_SCAN/sys.000", "group", ()),
    "water": ("deepmd_water", "group", ()),
    "carbon": ("carbon_GAP17_LDA", "group", ()),
    "Ta": ("ta_snap_xyz", "random", BAR),
    "bpa": ("3bpa_wB97X", "random", ()),
    "ethanol": ("md17_ethanol_PBE_TS_kcal", "random", ("--units", "kcal/mol")),
    "mn15": ("nopbc_MN15/C3H3O4", "random", ()),
    "optb88": ("jarvis_optB88vdW/id_prop.json", "random", ()),
    "mptrj": ("mptrj/mptrj-random-1k.xyz", "group", ()),
    "alexandria": ("alexandria_pbe/alexandria-random-1k.xyz", "group", ()),
    "perovskite": ("dpgen_MAPbI3_SCAN/sys.000", "random", ()),
    "gfn2": ("OUT/gfn2.extxyz", "group", ()),
    "perovskites": ("OUT/perovskites.extxyz", "random", ()),
    "wb97x": ("EXAMPLES/wb97x_molecules.extxyz", "group", ()),
    "pbe": ("EXAMPLES/pbe_molecules.extxyz", "group", ()),
    "Cu": ("mlearn/Cu/test.json", "whole", ()),
    "Ni": ("mlearn/Ni/test.json", "whole", ()),
}


def lamkit(*arguments: str) -> dict:
    """Run a verb; its JSON result."""
    command = [sys.executable, "-m", "lamkit", *arguments, "--json"]
    print("$ lamkit", *arguments, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def prepare(names: Iterable[str], shared: Path, out: Path) -> dict[str, Path]:
    """Folders with train/, valid/ and test/ of the named sets; ``whole`` sets have a test part only."""
    found = {}
    for name in names:
        source, how, flags = SETS[name]
        found[name] = out / "parts" / name
        if not (found[name] / "test" / "dataset.yaml").exists():
            make = {"published": _published, "whole": _whole}.get(how, _divided)
            make(name, _place(source, shared, out), out, flags)
    return found


def _place(source: str, shared: Path, out: Path) -> Path:
    """A file of the third-party data, of the shipped examples, or one that was made here."""
    root, _, rest = source.partition("/")
    if root == "EXAMPLES":
        return presets.examples() / "data" / rest
    if root != "OUT":
        return shared / "data" / source
    if not (out / rest).exists():
        script = f"make_{Path(rest).stem}.py --out {out / rest}"
        raise SystemExit(f"{out / rest} is missing: python benchmarks/{script} makes it")
    return out / rest


def _published(name: str, source: Path, out: Path, flags: tuple[str, ...]) -> None:
    """mlearn: its authors' own test part; a tenth of their training part, at random, chooses the checkpoint."""
    data, parts = str(out / "data" / name), out / "parts" / name
    lamkit("data", "convert", str(source / "training.json"), "--out", data, "-q", *flags)
    lamkit("data", "split", data, "--out", str(parts), "--by", "random", "-q")
    lamkit("data", "convert", str(source / "test.json"), "--out", str(parts / "test"), "-q", *flags)


def _whole(name: str, source: Path, out: Path, flags: tuple[str, ...]) -> None:
    """A set that is only tested on."""
    lamkit("data", "convert", str(source), "--out", str(out / "parts" / name / "test"), "-q", *flags)


def _divided(name: str, source: Path, out: Path, flags: tuple[str, ...]) -> None:
    """Train, valid and test parts: by group, in blocks of a trajectory, or at random."""
    data, how = str(out / "data" / name), SETS[name][1]
    lamkit("data", "convert", str(source), "--out", data, "-q", *flags)
    shares = ("--test", "0.2" if how == "random" else "0.1", "--by", how)
    lamkit("data", "split", data, "--out", str(out / "parts" / name), "-q", *shares)
