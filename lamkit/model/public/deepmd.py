"""A DeepPot in DeePMD-kit's model file ``.dp``: HDF5 that holds one JSON tree and its arrays.

The tree is written with the class versions that DeePMD-kit 3.0, 3.1 and 3.2 all read (Layer 1, Fitting 2).
What LAMKit scales beside the networks goes into weights here: descriptor constants and the number of places
into the first layer of a fitting network, the head's normaliser into the last.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lamkit import __version__
from lamkit.data.frame import NUMBERS
from lamkit.model.config import DeepPotConfig, Surroundings

Precision = Literal["float64", "float32"]
PRECISION: Precision = "float64"
Arrays = Mapping[str, NDArray[Any]]


def model_file(
    config: DeepPotConfig,
    weights: Arrays,
    reference: NDArray[np.float64],
    head: str,
    precision: Precision = PRECISION,
) -> bytes:
    """The file's bytes.

    Args:
        config: architecture, with its surroundings.
        weights: names as in a checkpoint.
        reference: [119] eV, energy per atom by atomic number.
        head: whose fitting networks.
        precision: of the networks.
    """
    import h5py

    tree, arrays = _without_arrays(_in_precision(model_tree(config, weights, reference, head), precision))
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.attrs["json"] = json.dumps(tree, separators=(",", ":"))
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    return stream.getvalue()


def _in_precision(value: Any, precision: str) -> Any:
    """The tree with networks of another precision; what surrounds them, references among it, stays float64."""
    if isinstance(value, list):
        return [_in_precision(v, precision) for v in value]
    if not isinstance(value, dict):
        return value
    changed = {k: precision if k == "precision" else _in_precision(v, precision) for k, v in value.items()}
    if value.get("@class") == "Layer":
        arrays = value["@variables"].items()
        changed["@variables"] = {k: None if a is None else a.astype(precision) for k, a in arrays}
    return changed


def _without_arrays(tree: dict[str, Any]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The tree with every array replaced by the name of its data set, and the arrays by that name."""
    arrays: dict[str, NDArray[Any]] = {}

    def copy(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            name = f"variable_{len(arrays):04d}"
            arrays[name] = value
            return f"/{name}"
        if isinstance(value, dict):
            return {k: copy(v) for k, v in value.items()}
        return [copy(v) for v in value] if isinstance(value, list) else value

    return copy(tree), arrays


def model_tree(
    config: DeepPotConfig, weights: Arrays, reference: NDArray[np.float64], head: str
) -> dict[str, Any]:
    """The file's content as nested dictionaries with arrays; arguments as for :func:`model_file`."""
    known = config.surroundings
    assert known is not None
    exact = {name: np.asarray(array, np.float64) for name, array in weights.items()}
    energies = np.array([reference[NUMBERS[e]] for e in known.elements], np.float64)
    model = {
        "@class": "Model",
        "type": "standard",
        "@version": 2,
        "type_map": list(known.elements),
        "atom_exclude_types": [],
        "pair_exclude_types": [],
        "rcond": None,
        "preset_out_bias": None,
        "@variables": {
            # The references are with the fitting networks: `dp compress` forgets this one.
            "out_bias": np.zeros((1, len(energies), 1)),
            "out_std": np.ones((1, len(energies), 1)),
        },
        "descriptor": _descriptor(config, known, exact),
        "fitting": {**_fitting(config, known, exact, head), "@variables": _biases(energies)},
    }
    return {
        "software": f"LAMKit {__version__}",
        "version": __version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "backend": "DPModel",
        "model": model,
        "model_def_script": _script(config, known),
        "min_nbor_dist": known.min_distance,
        "@variables": {"min_nbor_dist": np.array(known.min_distance)},
    }


def _script(config: DeepPotConfig, known: Surroundings) -> dict[str, Any]:
    """The ``model`` section of an ``input.json`` that describes the same networks."""
    return {
        "type_map": list(known.elements),
        "descriptor": {
            "type": "se_e2_a",
            "sel": list(known.sel),
            "rcut": config.cutoff,
            "rcut_smth": config.smooth_from,
            "neuron": list(config.embedding),
            "axis_neuron": config.axis,
            "resnet_dt": False,
            "type_one_side": True,
            "set_davg_zero": True,
            "precision": PRECISION,
        },
        "fitting_net": {"neuron": list(config.fitting), "resnet_dt": False, "precision": PRECISION},
    }


def _descriptor(config: DeepPotConfig, known: Surroundings, weights: Arrays) -> dict[str, Any]:
    n, places = len(known.elements), sum(known.sel)
    deviations = np.array([(radial, *[angular] * 3) for radial, angular in known.deviations])
    networks = []
    for element in known.elements:
        layers = [
            _layer(
                weights[f"model.embedding.{element}.{i}.weight"],
                weights[f"model.embedding.{element}.{i}.bias"],
                hidden=True,
            )
            for i in range(len(config.embedding))
        ]
        networks.append(
            {
                "@class": "EmbeddingNetwork",
                "@version": 2,
                "in_dim": 1,
                "neuron": list(config.embedding),
                "bias": True,
                **_network(layers),
            }
        )
    return {
        "@class": "Descriptor",
        "type": "se_e2_a",
        "@version": 2,
        "rcut": config.cutoff,
        "rcut_smth": config.smooth_from,
        "sel": list(known.sel),
        "neuron": list(config.embedding),
        "axis_neuron": config.axis,
        "resnet_dt": False,
        "trainable": True,
        "type_one_side": True,
        "exclude_types": [],
        "env_protection": 0.0,
        "set_davg_zero": True,
        "activation_function": "tanh",
        "precision": PRECISION,
        "spin": None,
        "type_map": list(known.elements),
        "env_mat": {
            "rcut": config.cutoff,
            "rcut_smth": config.smooth_from,
            "protection": 0.0,
            "use_exp_switch": False,
        },
        "embeddings": _collection("embedding_network", networks),
        "@variables": {
            "davg": np.zeros((n, places, 4)),
            "dstd": np.repeat(deviations[:, None, :], places, axis=1),
        },
    }


def _fitting(config: DeepPotConfig, known: Surroundings, weights: Arrays, head: str) -> dict[str, Any]:
    networks = []
    for element in known.elements:
        layers = _fitting_layers(config, known, weights, head, element)
        networks.append(
            {
                "@class": "FittingNetwork",
                "@version": 1,
                "in_dim": config.descriptor_width,
                "out_dim": 1,
                "neuron": list(config.fitting),
                "bias_out": True,
                **_network(layers),
            }
        )
    return {
        "@class": "Fitting",
        "@version": 2,
        "type": "ener",
        "var_name": "energy",
        "ntypes": len(known.elements),
        "dim_descrpt": config.descriptor_width,
        "neuron": list(config.fitting),
        "resnet_dt": False,
        "numb_fparam": 0,
        "numb_aparam": 0,
        "rcond": None,
        "activation_function": "tanh",
        "precision": PRECISION,
        "mixed_types": False,
        "exclude_types": [],
        "type_map": list(known.elements),
        "tot_ener_zero": False,
        "trainable": [True] * (len(config.fitting) + 1),
        "layer_name": None,
        "use_aparam_as_mask": False,
        "spin": None,
        "dim_out": 1,
        "atom_ener": [],
        "nets": _collection("fitting_network", networks),
    }


def _biases(energies: NDArray[np.float64]) -> dict[str, Any]:
    """Energies per atom by element, and parameters of frames and atoms, of which there are none."""
    absent = dict.fromkeys(("fparam_avg", "fparam_inv_std", "aparam_avg", "aparam_inv_std"))
    return {"bias_atom_e": energies.reshape(-1, 1), **absent}


def _fitting_layers(
    config: DeepPotConfig, known: Surroundings, weights: Arrays, head: str, element: str
) -> list[dict[str, Any]]:
    """Layers of one fitting network with the scales of input and output in their weights."""
    depth = len(config.fitting) + 1
    place = f"heads.{head}.fitting.{element}"
    matrices = [weights[f"{place}.{i}.weight"] for i in range(depth)]
    biases = [weights[f"{place}.{i}.bias"] for i in range(depth)]
    # W (D - centre) / spread + b, with D = D' (places of the file / slots of the model)².
    first = matrices[0] / weights[f"model.descriptor.{element}.spread"]
    biases[0] = biases[0] - first @ weights[f"model.descriptor.{element}.centre"]
    matrices[0] = first * (sum(known.sel) / known.slots) ** 2
    normalizer = f"heads.{head}.energy.normalizer.bn"
    mean = float(np.ravel(weights[f"{normalizer}.running_mean"])[0])
    deviation = float(np.sqrt(np.ravel(weights[f"{normalizer}.running_var"])[0]))
    matrices[-1], biases[-1] = matrices[-1] * deviation, biases[-1] * deviation + mean
    return [_layer(w, b, hidden=i < depth - 1) for i, (w, b) in enumerate(zip(matrices, biases, strict=True))]


def _layer(weight: NDArray[np.float64], bias: NDArray[np.float64], *, hidden: bool) -> dict[str, Any]:
    """One layer; ``weight`` is [n_out, n_in], DeePMD-kit has it the other way round."""
    return {
        "@class": "Layer",
        "@version": 1,
        "bias": True,
        "use_timestep": False,
        "activation_function": "tanh" if hidden else "none",
        "resnet": hidden,
        "precision": PRECISION,
        "@variables": {"w": np.ascontiguousarray(weight.T), "b": bias, "idt": None},
    }


def _network(layers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"activation_function": "tanh", "resnet_dt": False, "precision": PRECISION, "layers": layers}


def _collection(kind: str, networks: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "@class": "NetworkCollection",
        "@version": 1,
        "ndim": 1,
        "ntypes": len(networks),
        "network_type": kind,
        "networks": networks,
    }
