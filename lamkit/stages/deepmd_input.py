"""DeePMD's ``input.json``, single or multi-task, as options of ``lamkit pretrain`` or ``lamkit finetune``.

What means the same is carried over; what has no counterpart (its descriptor, above all) is listed, key by key, so
that nothing is dropped in silence. Keys that begin with ``_`` are comments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lamkit.console import log, table
from lamkit.data.storage import find_systems, read_header
from lamkit.errors import UserError
from lamkit.stages.deepmd_keys import InputFile

SINGLE = "deepmd"  # head of a file with a single task
AUTO_BATCH = 32  # atoms of a batch_size "auto"
UNCLIPPED = 1e12  # gradient norm that is never reached
PREFACTORS = {"energy": ("e", 0.02, 1.0), "forces": ("f", 1000.0, 1.0), "stress": ("v", 0.0, 0.0)}


class Translation(NamedTuple):
    """An ``input.json`` in LAMKit's words.

    Attributes:
        options: of the verb.
        taken: (key there, value, key here).
        left: (key there, why it has no counterpart).
        multitask: whether it trains several heads.
    """

    options: dict[str, Any]
    taken: list[tuple[str, str, str]]
    left: list[tuple[str, str]]
    multitask: bool


def recognise(data: Any) -> bool:
    """Whether a file's contents are DeePMD's: LAMKit has no key ``model`` beside one called ``training``."""
    return isinstance(data, Mapping) and all(isinstance(data.get(k), Mapping) for k in ("model", "training"))


def translate(
    data: Mapping[str, Any], origin: str, *, finetune: bool, head: str | None = None
) -> Translation:
    """Options of a verb from the contents of an ``input.json``.

    Args:
        data: contents.
        origin: the file, for messages.
        finetune: for ``lamkit finetune``; else for ``lamkit pretrain``.
        head: name of the head of a file with a single task.

    Raises:
        UserError: no data, or something that LAMKit cannot train.
    """
    file = InputFile(data, origin)
    branches = file.peek("model.model_dict")
    multitask = isinstance(branches, Mapping)
    if multitask and head is not None:
        raise UserError(f"{origin}: trains {', '.join(branches)}; --head or --heads cannot name them anew")
    heads = list(branches) if isinstance(branches, Mapping) else [head or SINGLE]
    sets = {name: _data(file, name if multitask else None) for name in heads}
    init = {name: _branch(file, name if multitask else None) for name in heads}
    train: dict[str, Any] = {"preset": "finetune" if finetune else "pretrain"}
    train |= _schedule(file, sets) | _rate(file) | _optimizer(file)
    train["loss"] = _loss(file, heads, multitask)
    file.take("model.type", None)
    options: dict[str, Any] = {"data": {name: found["data"] for name, found in sets.items()}, "train": train}
    if finetune:
        options["head"] = heads if multitask else heads[0]
        options["data"] = options["data"] if multitask else options["data"][heads[0]]
        chosen = {name: "random" if b == "RANDOM" else b for name, b in init.items() if b is not None}
        options |= {"init": chosen} if chosen else {}
    else:
        file.left += [(f"finetune_head {b}", "only for lamkit finetune") for b in init.values() if b]
    return Translation(options, file.taken, [*file.left, *file.rest()], multitask)


def report(found: Translation, origin: str) -> None:
    """Print what became of each key."""
    log.info(
        "%s is DeePMD's; in LAMKit's words:\n%s", origin, table(found.taken, ("DeePMD", "value", "LAMKit"))
    )
    if found.left:
        log.warning("%s: without a counterpart:\n%s", origin, table(found.left, ("DeePMD", "here")))


def _data(file: InputFile, branch: str | None) -> dict[str, Any]:
    """Systems of a head, and what its ``batch_size`` means in atoms."""
    base = "training" if branch is None else f"training.data_dict.{branch}"
    listed, batch = f"{base}.training_data", f"{base}.training_data.batch_size"
    if file.peek(listed) is None and file.peek(f"{base}.systems") is not None:  # as in version 1
        listed, batch = base, f"{base}.batch_size"
    what = "data" if branch is None else f"data.{branch}"
    train = _listed(file, f"{listed}.systems", f"{what}.train")
    if not train:
        raise UserError(f"{file.origin}: {listed}.systems: names no data")
    valid = _listed(file, f"{base}.validation_data.systems", f"{what}.valid")
    sizes = _sizes(train)
    atoms = _batch_atoms(file, batch, sizes)
    return {
        "data": {"train": train, "valid": valid, "type_map": _type_map(file, branch)},
        "batch_atoms": atoms,
        "n_atoms": sum(frames * n for frames, n in sizes),
    }


def _listed(file: InputFile, place: str, here: str) -> list[str]:
    value = file.take(place, [], here)
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(p, str) for p in paths):
        raise UserError(f"{file.origin}: {place}: expected folders, found {value!r}")
    for path in paths:
        if not Path(path).is_dir():
            raise UserError(
                f"{file.origin}: {place}: {path}: no such folder (paths count from where you are)"
            )
    return paths


def _type_map(file: InputFile, branch: str | None) -> list[str] | None:
    place = "model.type_map" if branch is None else f"model.model_dict.{branch}.type_map"
    value = file.take(place, None)
    if isinstance(value, str):  # the name of an entry of shared_dict
        name, value = value, file.shared(value)
        if value is None:
            raise UserError(f"{file.origin}: {place}: model.shared_dict has no '{name}'")
    if value is not None and not (isinstance(value, list) and all(isinstance(s, str) for s in value)):
        raise UserError(f"{file.origin}: {place}: expected symbols, found {value!r}")
    return value


def _sizes(paths: Sequence[str]) -> list[tuple[int, int]]:
    """Frames and atoms of each system, from the headers of its files."""
    found = []
    for system in (s for path in paths for s in find_systems(Path(path))):
        shapes = [_shape(file) for file in sorted(system.glob("set.*/coord.npy"))]
        found.append((sum(int(s[0]) for s in shapes), len((system / "type.raw").read_text().split())))
    return found


def _shape(file: Path) -> tuple[int, ...]:
    try:
        return read_header(file)[0]
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: missing or no .npy file ({error})") from None


def _batch_atoms(file: InputFile, place: str, sizes: Sequence[tuple[int, int]]) -> int:
    """Atoms per step: frames times their mean size; as few frames as hold N atoms for ``auto:N``, N for ``max:N``."""
    value = file.take(place, "auto", "train.batch_atoms")
    frames = sum(n for n, _ in sizes)
    mean = sum(n * atoms for n, atoms in sizes) / frames if frames else 1.0
    if isinstance(value, str):
        kind, _, number = value.partition(":")
        if kind in ("auto", "max", "filter", "mixed") and (not number or number.isdigit()):
            wanted = int(number or AUTO_BATCH)
            if kind in ("max", "filter"):
                file.left.append((f"{place} {value}", "a larger frame makes a batch of its own"))
                return max(1, wanted)
            return max(1, round((wanted if kind == "mixed" else math.ceil(wanted / mean)) * mean))
    elif isinstance(value, int) and value > 0:
        return round(value * mean)
    elif isinstance(value, list) and value and all(isinstance(v, int) and v > 0 for v in value):
        if len(set(value)) > 1:
            file.left.append(
                (f"{place} of each system", f"one for all of them, their mean: {np.mean(value):.3g} frames")
            )
        return round(float(np.mean(value)) * mean)
    raise UserError(f'{file.origin}: {place}: expected a number or "auto:N", found {value!r}')


def _branch(file: InputFile, branch: str | None) -> str | None:
    place = "model.finetune_head" if branch is None else f"model.model_dict.{branch}.finetune_head"
    return file.take(place, None, "init")


def _schedule(file: InputFile, sets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Steps, batches, drawing weights, how often things are written."""
    sizes = {name: int(found["batch_atoms"]) for name, found in sets.items()}
    train: dict[str, Any] = {"batch_atoms": max(sizes.values())}
    if len(set(sizes.values())) > 1:
        train["head_batch_atoms"] = sizes
    train |= _length(file, sets)
    weights = file.take("training.model_prob", None, "train.weights")
    if isinstance(weights, Mapping):
        train["weights"] = {str(k): v for k, v in weights.items() if not str(k).startswith("_")}
    shown = file.whole("training.disp_freq", 1000, "train.valid_every, train.log_every")
    every = max(shown, math.ceil(train["max_steps"] / 1000), 1)
    if every > shown:
        file.left.append(
            (f"training.disp_freq {shown}", f"validated every {every} steps, a thousand times in all")
        )
    train |= {"valid_every": every, "log_every": max(1, shown)}
    train["save_every"] = max(1, file.whole("training.save_freq", 1000, "train.save_every"))
    if (kept := file.take("training.max_ckpt_keep", None, "train.keep")) is not None:
        train["keep"] = max(0, int(kept))
    if (seed := file.take("training.seed", None, "train.seed")) is not None:
        train["seed"] = int(seed)
    norm = file.number("training.gradient_max_norm", 0.0, "train.clip_norm")
    return {**train, "clip_norm": norm if norm > 0 else UNCLIPPED}


def _length(file: InputFile, sets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """``max_steps`` from steps or epochs; with epochs of several tasks their drawing weights, too."""
    for name in ("numb_steps", "num_steps", "numb_step", "num_step", "stop_batch"):
        if file.peek(f"training.{name}") is not None:
            return {"max_steps": max(1, file.whole(f"training.{name}", 1, "train.max_steps"))}
    passes = {name: max(1, math.ceil(s["n_atoms"] / s["batch_atoms"])) for name, s in sets.items()}
    wanted = file.take("training.num_epoch_dict", None, "train.max_steps, train.weights")
    if isinstance(wanted, Mapping):
        if missing := [name for name in sets if name not in wanted]:
            raise UserError(f"{file.origin}: training.num_epoch_dict: no epochs for {', '.join(missing)}")
        steps = {name: wanted[name] * passes[name] for name in sets}
        return {"max_steps": max(1, math.ceil(sum(steps.values()))), "weights": steps}
    for name in ("numb_epoch", "num_epoch", "num_epochs", "numb_epochs"):
        if file.peek(f"training.{name}") is not None:
            epochs = file.number(f"training.{name}", 1, "train.max_steps")
            return {"max_steps": max(1, math.ceil(epochs * sum(passes.values())))}
    raise UserError(f"{file.origin}: training.numb_steps: is missing, so how long to train is not known")


def _rate(file: InputFile) -> dict[str, Any]:
    """Peak, end and form of the learning rate."""
    kind = file.take("learning_rate.type", "exp", "train.decay")
    if kind not in ("exp", "cosine"):
        raise UserError(f"{file.origin}: learning_rate.type: '{kind}'; LAMKit knows exp and cosine")
    start = file.number("learning_rate.start_lr", 1e-3, "train.learning_rate")
    ratio = file.take("learning_rate.stop_lr_ratio", None, "train.final_learning_rate")
    stop = (
        float(ratio) * start
        if ratio is not None
        else file.number(
            "learning_rate.stop_lr", 1e-8 if kind == "exp" else 1e-5, "train.final_learning_rate"
        )
    )
    if not 0 < stop <= start:
        raise UserError(
            f"{file.origin}: learning_rate: start_lr {start} and stop_lr {stop} must fall and be > 0"
        )
    warmup = file.whole("learning_rate.warmup_steps", 0, "train.warmup_steps")
    warmup = file.whole("training.warmup_steps", warmup, "train.warmup_steps")
    return {
        "decay": "exponential" if kind == "exp" else "cosine",
        "learning_rate": start,
        "final_learning_rate": stop / start,
        "warmup_steps": warmup,
    }


def _optimizer(file: InputFile) -> dict[str, Any]:
    """Moments and weight decay; Adam has none."""
    kind = file.take("training.opt_type", None) or file.take("optimizer.type", None) or "Adam"
    base = "optimizer" if isinstance(file.peek("optimizer"), Mapping) else "training"
    if kind not in ("Adam", "AdamW"):
        file.left.append((f"opt_type {kind}", "AdamW in its place"))
    decay = file.number(f"{base}.weight_decay", 0.0 if kind == "Adam" else 1e-3, "train.weight_decay")
    found = {"weight_decay": decay}
    for beta in ("beta1", "beta2"):
        if (value := file.take(f"{base}.adam_{beta}", None, f"train.{beta}")) is not None:
            found[beta] = value
    return found


def _loss(file: InputFile, heads: Sequence[str], multitask: bool) -> dict[str, Any]:
    """DeePMD's loss: squares in physical units, prefactors that follow the learning rate."""
    kinds: set[tuple[Any, bool]] = set()
    of_heads: dict[str, Any] = {}
    deltas: dict[str, float] = {}
    for name in heads:
        base = f"loss_dict.{name}" if multitask else "loss"
        if (kind := file.take(f"{base}.type", "ener")) != "ener":
            raise UserError(
                f"{file.origin}: {base}.type: '{kind}'; LAMKit trains energies, forces and stresses (ener)"
            )
        huber = bool(file.take(f"{base}.use_huber", False, "train.loss.kind"))
        delta = file.number(f"{base}.huber_delta", 0.01, "train.loss.delta" if huber else None)
        penalty = file.take(f"{base}.loss_func", "mse", "train.loss.kind")
        intensive = bool(file.take(f"{base}.intensive_ener_virial", False, "train.loss.intensive"))
        kinds.add(("huber" if huber else penalty, intensive))
        deltas |= {"delta": delta} if huber else {}
        own: dict[str, Any] = {"limit": {}}
        for label, (letter, start, limit) in PREFACTORS.items():
            here = f"train.loss.heads.{name}"
            own[label] = file.number(f"{base}.start_pref_{letter}", start, f"{here}.{label}")
            own["limit"][label] = file.number(f"{base}.limit_pref_{letter}", limit, f"{here}.limit.{label}")
        of_heads[name] = own
    if len(kinds) > 1:
        raise UserError(
            f"{file.origin}: loss_dict: one loss_func and intensive_ener_virial for all heads is needed here"
        )
    ((penalty, intensive),) = kinds
    if penalty not in ("mse", "mae", "huber"):
        raise UserError(f"{file.origin}: loss_func: '{penalty}'; LAMKit knows mse and mae")
    return {"kind": penalty, "units": "physical", "intensive": intensive, **deltas, "heads": of_heads}
