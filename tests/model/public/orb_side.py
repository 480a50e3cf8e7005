"""Run by a Python that has torch and orb-models: builds files there, and evaluates files there.

usage: orb_side.py JOB.json
"""

from __future__ import annotations

import json
import sys

import ase.io
import numpy as np
import torch
from orb_models.forcefield import pretrained
from orb_models.forcefield.atomic_system import SystemConfig, ase_atoms_to_atom_graphs

SIZES = {
    "latent_dim": 16, "base_mlp_hidden_dim": 24, "head_mlp_hidden_dim": 12, "num_message_passing_steps": 2,
}  # fmt: skip


def architecture(kind: str, neighbors: int):
    """A small public model with random weights and normalisers that are not trivial."""
    torch.manual_seed(0)
    system = SystemConfig(radius=6.0, max_num_neighbors=neighbors)
    if kind == "v2":
        model = pretrained.orb_v2_architecture(
            num_message_passing_steps=1, device="cpu", system_config=system
        )
    else:
        build = getattr(pretrained, f"orb_v3_{kind.removesuffix('-omol')}_architecture")
        omol = kind.endswith("-omol")
        model = build(
            **SIZES, has_charge_spin_cond=omol, has_stress=not omol, device="cpu", system_config=system
        )
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.fill_(0.1 + 0.01 * len(name))
        if name.endswith("running_var"):
            buffer.fill_(0.5 + 0.01 * len(name))
    return model


def build(job: dict) -> None:
    """Write the state dict of a fresh model in several ways, and its predictions."""
    model = architecture(job["kind"], job["neighbors"])
    state = model.state_dict()
    plain = {name: tensor.clone() for name, tensor in state.items()}
    torch.save(state, job["folder"] + "/ordered.ckpt")
    torch.save(plain, job["folder"] + "/plain.ckpt")
    parameters = dict(model.named_parameters())
    torch.save({n: parameters.get(n, t) for n, t in plain.items()}, job["folder"] + "/parameters.ckpt")
    torch.save(plain, job["folder"] + "/protocol4.ckpt", pickle_protocol=4)
    torch.save(plain, job["folder"] + "/legacy.ckpt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": plain}, job["folder"] + "/nested.ckpt")
    torch.save(model, job["folder"] + "/model.ckpt")
    wide = {n: t.double() if t.is_floating_point() else t for n, t in plain.items()}
    torch.save(wide, job["folder"] + "/double.ckpt")
    half = {n: t.bfloat16() if t.is_floating_point() else t for n, t in plain.items()}
    torch.save(half, job["folder"] + "/bfloat16.ckpt")
    # Views of one storage, half of them transposed, as some tools save them.
    floats = [n for n, t in plain.items() if t.dtype == torch.float32]
    flat = torch.cat([plain[n].T.reshape(-1) if plain[n].ndim == 2 else plain[n].reshape(-1) for n in floats])
    views, start = dict(plain), 0
    for name in floats:
        tensor = plain[name]
        piece = flat[start : start + tensor.numel()]
        views[name] = piece.view(tensor.shape[::-1]).T if tensor.ndim == 2 else piece.view(tensor.shape)
        start += tensor.numel()
    torch.save(views, job["folder"] + "/views.ckpt")
    np.savez(job["folder"] + "/arrays.npz", **{n: t.detach().numpy() for n, t in plain.items()})
    # Built anew in double precision: the constants of the pair repulsion are not in the file.
    torch.set_default_dtype(torch.float64)
    again = architecture(job["kind"], job["neighbors"])
    again.load_state_dict(plain)
    predict(again.eval(), job)


def predict(model, job: dict) -> None:
    """Energies and forces of the structures, in the precision of the model."""
    dtype = next(model.parameters()).dtype
    found = {}
    for i, atoms in enumerate(ase.io.read(job["structures"], ":")):
        # The package wants plain numbers there.
        atoms.info = {"charge": float(atoms.info["charge"]), "spin": float(atoms.info["spin"])}
        with torch.enable_grad():
            graph = ase_atoms_to_atom_graphs(atoms, system_config=model.system_config, output_dtype=dtype)
            out = model.predict(graph, split=False)
        forces = out["grad_forces"] if "grad_forces" in out else out["forces"]
        found[f"energy{i}"] = out["energy"].detach().numpy()
        found[f"forces{i}"] = forces.detach().numpy()
    np.savez(job["out"], **found)


def evaluate(job: dict) -> None:
    """Load a file by the lines that the export gave, in double precision, and predict."""
    code = job["code"].replace('precision="float32-highest"', 'precision="float64"')
    names: dict = {}
    torch.set_default_dtype(torch.float64)
    exec(compile(code, "load_with", "exec"), names)
    predict(names["model"], job)


if __name__ == "__main__":
    with open(sys.argv[1]) as stream:
        job = json.load(stream)
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(1)
    {"build": build, "evaluate": evaluate}[job["do"]](job)
