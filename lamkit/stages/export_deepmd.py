"""Export to DeePMD-kit: a DeepPot-SE student as a ``.dp`` file, with an input that LAMMPS can run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamkit.console import log
from lamkit.errors import UserError
from lamkit.files import atomic_write
from lamkit.model.config import DeepPotConfig
from lamkit.model.public.deepmd import model_file

if TYPE_CHECKING:
    from ase import Atoms

SUFFIX = ".dp"
INPUT, STRUCTURE = "in.lammps", "conf.lmp"
HYDROGEN_STEP, STEP = 0.0005, 0.001  # ps
TEMPLATE = """# {title}
# 1. dp convert-backend {file} {frozen}       (once; DeePMD-kit with TensorFlow)
# 2. lmp -in {input}                          (LAMMPS with the DeePMD plugin)
# Elements by LAMMPS type: {types}
units           metal
boundary        {boundary}
atom_style      atomic
read_data       {structure}

pair_style      deepmd {frozen}
pair_coeff      * * {elements}

neighbor        1.0 bin
neigh_modify    every 5 delay 0 check yes
timestep        {step}

velocity        all create 300.0 1234 mom yes rot yes
fix             1 all nvt temp 300.0 300.0 0.1
thermo          100
thermo_style    custom step time temp pe ke etotal press vol
dump            1 all custom 100 traj.lammpstrj id type element x y z
dump_modify     1 sort id element {elements}
run             10000
"""


def run(model: Path, head: str | None, out: Path) -> dict[str, Any]:
    """Write ``out``, and beside it ``in.lammps`` and ``conf.lmp`` unless files of these names are there.

    The structure is the first training frame, where the training data lie beside the checkpoint.

    Returns:
        ``head``; ``elements`` in the order of the file's types; ``lammps`` and ``structure``, the files written
        beside it or None.

    Raises:
        UserError: no such model or head, or it is no DeepPot.
    """
    from lamkit.train import checkpoint

    found = checkpoint.read(model)
    name = found.head(head)
    if not isinstance(found.trunk, DeepPotConfig) or found.trunk.surroundings is None:
        raise UserError(
            f"{found.path}: is an Orb, which DeePMD-kit cannot run. Distil it into a student that can be exported: "
            f"lamkit distill --teacher {model} --student deeppot-se"
        )
    elements = list(found.trunk.surroundings.elements)
    atomic_write(out, model_file(found.trunk, found.weights, found.references[name], name))
    atoms = _structure(found.path, elements)
    boundary = "p p p" if atoms is None else " ".join("p" if p else "s" for p in atoms.pbc)
    text = TEMPLATE.format(
        title=f"Molecular dynamics with {out.name}: head '{name}' of {found.path}",
        file=out.name,
        frozen=f"{out.stem}.pb",
        input=INPUT,
        structure=STRUCTURE,
        boundary=boundary,
        elements=" ".join(elements),
        types=", ".join(f"{i} {e}" for i, e in enumerate(elements, start=1)),
        step=HYDROGEN_STEP if "H" in elements else STEP,
    )
    lammps = _write_beside(out, INPUT, text)
    structure = None if atoms is None else _write_beside(out, STRUCTURE, _lammps_data(atoms, elements))
    log.info("%s: head '%s' of %s, elements in this order: %s", out, name, found.path, " ".join(elements))
    if lammps:
        missing = (
            "" if atoms is not None else f" (write {STRUCTURE} first: no training data lie beside the model)"
        )
        log.info(
            "to run it in LAMMPS:\n  dp convert-backend %s %s.pb\n  lmp -in %s%s",
            out.name,
            out.stem,
            INPUT,
            missing,
        )
    return {"head": name, "elements": elements, "lammps": lammps, "structure": structure}


def _structure(path: Path, elements: list[str]) -> Atoms | None:
    """The first training frame of the run that the checkpoint ``path`` belongs to; None where it is not found."""
    from lamkit.data.dataset import open_dataset
    from lamkit.data.frame import to_atoms

    for run in path.resolve().parents[:2]:
        for folder in (run / "data" / "train", run.parent / "data" / "train"):
            if (folder / "dataset.yaml").is_file():
                atoms = to_atoms(open_dataset(folder).frame(0))
                return atoms if set(atoms.get_chemical_symbols()) <= set(elements) else None
    return None


def _lammps_data(atoms: Atoms, elements: list[str]) -> str:
    """A LAMMPS data file, types in the order of ``elements``, with masses."""
    from ase.io.lammpsdata import write_lammps_data

    atoms = atoms.copy()
    atoms.calc = None
    if atoms.cell.rank != 3:
        atoms.center(vacuum=10.0)
    atoms.wrap()
    stream = io.StringIO()
    write_lammps_data(stream, atoms, specorder=elements, masses=True, units="metal", atom_style="atomic")
    return stream.getvalue()


def _write_beside(out: Path, name: str, text: str) -> str | None:
    """Write a file into the folder of ``out``; one that is there already is the user's and stays."""
    path = out.parent / name
    if path.exists():
        log.warning("%s is there already and stays as it is; another folder for --out gets its own", path)
        return None
    atomic_write(path, text)
    return str(path)
