"""An independent, slow reading of DeePMD-kit's ``.dp`` files in numpy: what the exported numbers have to mean."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import h5py
import numpy as np


def read(path: Path) -> dict:
    """The tree of a file with its arrays in their places."""
    with h5py.File(path) as file:
        arrays = {f"/{name}": np.array(file[name]) for name in file}

        def fill(value):
            if isinstance(value, dict):
                return {k: fill(v) for k, v in value.items()}
            if isinstance(value, list):
                return [fill(v) for v in value]
            return arrays[value] if isinstance(value, str) and value in arrays else value

        return fill(json.loads(file.attrs["json"]))


def network(tree: dict, x: np.ndarray) -> np.ndarray:
    """A stack of layers on rows [n, n_in]."""
    for layer in tree["layers"]:
        w, b = layer["@variables"]["w"], layer["@variables"]["b"]
        y = x @ w + b
        if layer["activation_function"] == "tanh":
            y = np.tanh(y)
        if layer["resnet"] and w.shape[0] == w.shape[1]:
            y = y + x
        elif layer["resnet"] and w.shape[1] == 2 * w.shape[0]:
            y = y + np.concatenate([x, x], axis=1)
        x = y
    return x


def atomic_energies(
    tree: dict, symbols: list[str], positions: np.ndarray, cell: np.ndarray | None
) -> np.ndarray:
    """Energies per atom, eV, by dense sums over ``sel`` places."""
    model = tree["model"]
    descriptor, fitting = model["descriptor"], model["fitting"]
    kinds = np.array([model["type_map"].index(s) for s in symbols])
    energies = []
    for i, kind in enumerate(kinds):
        rows = environment(descriptor, kinds, i, positions, cell)
        spread = descriptor["@variables"]
        scaled = (rows - spread["davg"][kind]) / spread["dstd"][kind]
        embedded = np.concatenate(
            [
                network(net, block[:, :1])
                for net, block in zip(
                    descriptor["embeddings"]["networks"],
                    np.split(scaled, np.cumsum(descriptor["sel"])[:-1]),
                    strict=True,
                )
            ]
        )
        a = embedded.T @ scaled / sum(descriptor["sel"])
        d = a @ a[: descriptor["axis_neuron"]].T
        energy = network(fitting["nets"]["networks"][kind], d.reshape(1, -1))[0, 0]
        bias = fitting["@variables"]["bias_atom_e"][kind, 0] + model["@variables"]["out_bias"][0, kind, 0]
        energies.append(energy + bias)
    return np.array(energies)


def environment(
    descriptor: dict, kinds: np.ndarray, i: int, positions: np.ndarray, cell: np.ndarray | None
) -> np.ndarray:
    """Rows of atom ``i`` before scaling: by element, nearest first, zeros where there is no neighbour."""
    cutoff, smooth = descriptor["rcut"], descriptor["rcut_smth"]
    shifts = np.zeros((1, 3))
    if cell is not None:
        heights = abs(np.linalg.det(cell)) / np.linalg.norm(
            np.cross(np.roll(cell, -1, 0), np.roll(cell, -2, 0)), axis=1
        )
        reach = np.ceil(cutoff / heights).astype(int) + 1
        shifts = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach)))) @ cell
    vectors = (positions[None] + shifts[:, None] - positions[i]).reshape(-1, 3)
    of = np.tile(kinds, len(shifts))
    r = np.linalg.norm(vectors, axis=1)
    near = (r > 1e-8) & (r < cutoff)
    blocks = []
    for k, room in enumerate(descriptor["sel"]):
        chosen = np.flatnonzero(near & (of == k))
        chosen = chosen[np.argsort(r[chosen])][:room]
        u = np.clip((r[chosen] - smooth) / (cutoff - smooth), 0, 1)
        w = 1 + u**3 * (-6 * u**2 + 15 * u - 10)
        block = np.zeros((room, 4))
        block[: len(chosen), 0] = w / r[chosen]
        block[: len(chosen), 1:] = vectors[chosen] * (w / r[chosen] ** 2)[:, None]
        blocks.append(block)
    return np.concatenate(blocks)
