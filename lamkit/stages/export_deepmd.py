"""Export to DeePMD-kit: a DeepPot-SE student as a ``.dp`` file, with an input that LAMMPS can run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamkit.console import log
from lamkit.errors import UserError
from lamkit.files import atomic_write
from lamkit.model.config import DeepPotConfig
from lamkit.model.public.deepmd import Precision, model_file
from lamkit.stages.student import EXAMPLE

if TYPE_CHECKING:
    from ase import Atoms

SUFFIX = ".dp"
INPUT, STRUCTURE, COMPRESS, CHECKPOINT = "in.lammps", "conf.lmp", "compress.py", "checkpoint.py"
HYDROGEN_STEP, STEP = 0.0005, 0.001  # ps
TEMPLATE = """# {title}
# 1. dp convert-backend {file} {frozen}       (once; DeePMD-kit with TensorFlow)
#    faster: python {compress} {frozen} {compressed}, and {compressed} below
# 2. lmp -in {input}                          (LAMMPS with the DeePMD plugin)
# To go on training it: python {checkpoint} {file} {trainable}   (once; DeePMD-kit with PyTorch)
#    dp --pt train input.json --finetune {trainable} --use-pretrain-script
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


# `dp compress` (3.2) asks for a learning rate, which a model that was not trained by DeePMD-kit has not.
COMPRESSION = """\
\"\"\"Compress a frozen model: python compress.py student.pb compressed.pb, in DeePMD-kit's environment.\"\"\"

import json
import os
import subprocess
import sys

import tensorflow as tf

source, target = sys.argv[1:]
graph = tf.compat.v1.GraphDef()
with open(source, "rb") as stream:
    graph.ParseFromString(stream.read())
for node in graph.node:
    if node.name == "train_attr/training_script":
        text = node.attr["value"].tensor
        script = json.loads(text.string_val[0])
        script["learning_rate"] = {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-8, "decay_steps": 5000}
        text.string_val[0] = json.dumps(script).encode()
prepared = target.removesuffix(".pb") + "-prepared.pb"
with open(prepared, "wb") as stream:
    stream.write(graph.SerializeToString())
code = subprocess.call(["dp", "--tf", "compress", "-i", prepared, "-o", target])
os.remove(prepared)
sys.exit(code)
"""


# `dp --pt train --finetune` and `--init-model` start from a checkpoint, which `dp convert-backend` does not write.
CHECKPOINTING = """\
\"\"\"A checkpoint for dp --pt train: python checkpoint.py student.dp student.pt (needs DeePMD-kit, PyTorch).\"\"\"

import sys

import torch
from deepmd.dpmodel.utils.serialization import load_dp_model
from deepmd.pt.model.model.model import BaseModel
from deepmd.pt.train.wrapper import ModelWrapper

source, target = sys.argv[1:]
data = load_dp_model(source)
network = ModelWrapper(BaseModel.deserialize(data["model"]), model_params=data["model_def_script"])
torch.save({"model": network.state_dict(), "optimizer": None}, target)
"""


def run(
    model: Path,
    head: str | None,
    out: Path,
    structure: Path | None = None,
    precision: Precision = "float64",
) -> dict[str, Any]:
    """Write ``out``, and beside it ``in.lammps``, ``conf.lmp`` and two scripts unless they are there.

    Args:
        model: checkpoint or run folder.
        head: which head, where there are several.
        out: the file.
        structure: file or data set whose first structure LAMMPS begins with; None takes the one that lies in the
            checkpoint of a distillation, or the first training frame where the data lie beside the checkpoint.
        precision: of the networks in the file.

    Returns:
        ``head``; ``elements`` in the order of the file's types; ``lammps`` and ``structure``, the files written
        beside it or None.

    Raises:
        UserError: no such model, head or structure, or it is no DeepPot.
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
    atoms = _kept(found.path, elements) if structure is None else _named(structure, elements)
    atomic_write(out, model_file(found.trunk, found.weights, found.references[name], name, precision))
    title = f"Molecular dynamics with {out.name}: head '{name}' of {found.path}"
    lammps = _write_beside(out, INPUT, _lammps_input(out, title, elements, atoms))
    _write_beside(out, COMPRESS, COMPRESSION)
    _write_beside(out, CHECKPOINT, CHECKPOINTING)
    written = None if atoms is None else _write_beside(out, STRUCTURE, _lammps_data(atoms, elements))
    log.info("%s: head '%s' of %s, elements in this order: %s", out, name, found.path, " ".join(elements))
    if lammps:
        log.info(
            "to run it in LAMMPS:\n  dp convert-backend %s %s.pb\n  lmp -in %s", out.name, out.stem, INPUT
        )
    if atoms is None:
        log.warning(
            "no structure is known of this checkpoint, so %s is not there, which %s reads: --structure FILE gives one",
            out.parent / STRUCTURE,
            INPUT,
        )
    return {"head": name, "elements": elements, "lammps": lammps, "structure": written}


def _lammps_input(out: Path, title: str, elements: list[str], atoms: Atoms | None) -> str:
    """The text of ``in.lammps`` for the file ``out``; ``atoms`` tells which directions are periodic (None: all)."""
    return TEMPLATE.format(
        compress=COMPRESS,
        checkpoint=CHECKPOINT,
        trainable=f"{out.stem}.pt",
        compressed=f"{out.stem}-compressed.pb",
        title=title,
        file=out.name,
        frozen=f"{out.stem}.pb",
        input=INPUT,
        structure=STRUCTURE,
        boundary="p p p" if atoms is None else " ".join("p" if p else "s" for p in atoms.pbc),
        elements=" ".join(elements),
        types=", ".join(f"{i} {e}" for i, e in enumerate(elements, start=1)),
        step=HYDROGEN_STEP if "H" in elements else STEP,
    )


def _named(path: Path, elements: list[str]) -> Atoms:
    """The first structure of a file or data set.

    Raises:
        UserError: it cannot be read, or holds elements that the model does not know.
    """
    from lamkit.data.frame import to_atoms
    from lamkit.stages.engine import read_frames

    atoms = to_atoms(read_frames(path).frame(0))
    if unknown := sorted(set(atoms.get_chemical_symbols()) - set(elements)):
        raise UserError(
            f"{path}: holds {', '.join(unknown)}, which the model does not know (it knows {', '.join(elements)}); "
            "--structure needs one of these elements"
        )
    return atoms


def _kept(path: Path, elements: list[str]) -> Atoms | None:
    """The structure in the checkpoint ``path``, or the first training frame of its run; None where neither is."""
    from lamkit.data.frame import to_atoms
    from lamkit.stages.engine import read_frames

    runs = [*path.resolve().parents[:2], *(run.parent for run in path.resolve().parents[:2])]
    for place in (path / EXAMPLE, *(run / "data" / "train" / "dataset.yaml" for run in runs)):
        if place.is_file():
            source = place if place.name == EXAMPLE else place.parent
            atoms = to_atoms(read_frames(source).frame(0))
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
    """Write a file into the folder of ``out``; another one that is there already is the user's and stays."""
    path = out.parent / name
    if path.is_file() and path.read_text() == text:
        return str(path)
    if path.exists():
        log.warning("%s is there already and stays as it is; another folder for --out gets its own", path)
        return None
    atomic_write(path, text)
    return str(path)
