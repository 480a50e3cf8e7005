"""Finished parts of a run that is not over: what a stopped stage finds again when it resumes.

A stage splits its work into parts (a trajectory, a chunk of labels, a round). Each finished part is one file,
written whole or not at all, so that Ctrl-C and kill -9 cost at most the part that was under way.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lamkit.config import Model, dump, write_yaml
from lamkit.data.frame import Frame
from lamkit.errors import UserError
from lamkit.files import atomic_write

FINISHED, PLAN = "result.json", "parts/plan.json"
IGNORED = {"resume", "device"}  # options that do not change what is computed


def begin(
    out: Path, options: Model, resume: bool, stage: str, may_change: Sequence[str] = ()
) -> dict[str, Any] | None:
    """Look at the run folder of a stage before anything is loaded; nothing is written.

    Args:
        out: the folder.
        options: all options of the run; a run can only go on with the same.
        resume: go on with what the folder holds.
        stage: name of the stage, for messages.
        may_change: options with which a run may go on though it was begun with others, as ``key`` or ``group.key``.

    Returns:
        The result of the run if it is finished already and ``resume`` is set; else None.

    Raises:
        UserError: the folder holds a run and ``resume`` is not set, or one with other options.
    """
    plan, wanted = out / PLAN, _lasting(options)
    if plan.is_file():
        if not resume:
            raise UserError(
                f"{out}: holds a run of '{stage}' already; go on with it by --resume, or give another --out"
            )
        before = json.loads(plan.read_text())
        ours, theirs = (_without(given, may_change) for given in (wanted, before))
        changed = sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k))
        if changed:
            raise UserError(
                f"{out}: was begun with other options ({', '.join(changed)}); "
                "give the same ones to resume, or another --out"
            )
        if (out / FINISHED).is_file() and wanted == before:
            return json.loads((out / FINISHED).read_text())
    elif (out / "dataset.yaml").exists() or (out / "data").exists():
        raise UserError(f"{out}: holds data already; give another --out")
    return None


def start(out: Path, options: Model) -> None:
    """Make the run folder, once all that the user gave has been found to be right."""
    (out / FINISHED).unlink(missing_ok=True)  # of a run that goes on now, with a larger budget
    write_yaml(out / "config.yaml", options)
    atomic_write(out / PLAN, json.dumps(_lasting(options), indent=1))


def _lasting(options: Model) -> dict[str, Any]:
    return {k: v for k, v in dump(options).items() if k not in IGNORED}


def _without(options: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Options less those named ``key`` or ``group.key``."""
    result = json.loads(json.dumps(options))
    for group, _, key in (name.rpartition(".") for name in keys):
        (result.get(group) or {} if group else result).pop(key, None)
    return result


def finish(out: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Write the result, which marks the run as finished."""
    atomic_write(out / FINISHED, json.dumps(result, indent=1, default=_plain) + "\n")
    return json.loads(json.dumps(result, default=_plain))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


def remember(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The JSON part at ``path``, computed only if it is not there yet."""
    if path.is_file():
        return json.loads(path.read_text())
    value = compute()
    atomic_write(path, json.dumps(value, default=_plain))
    return json.loads(path.read_text())


def save_frames(path: Path, frames: Sequence[Frame], notes: dict[str, Any] | None = None) -> None:
    """Write frames with their labels and some notes as one part (``.npz``)."""
    n = [len(f) for f in frames]
    whole = {
        "n_atoms": np.array(n, dtype=np.int64),
        "numbers": _joined([f.numbers for f in frames], (0,)),
        "positions": _joined([f.positions for f in frames], (0, 3)),
        "cell": np.array([f.cell for f in frames]).reshape(-1, 3, 3),
        "pbc": np.array([f.pbc for f in frames], dtype=bool).reshape(-1, 3),
        "energy": np.array([np.nan if f.energy is None else f.energy for f in frames]),
        "forces": _joined(
            [np.full((len(f), 3), np.nan) if f.forces is None else f.forces for f in frames], (0, 3)
        ),
        "stress": np.array([np.full(6, np.nan) if f.stress is None else f.stress for f in frames]).reshape(
            -1, 6
        ),
        "atom_energies": _joined(
            [np.full(len(f), np.nan) if f.atom_energies is None else f.atom_energies for f in frames], (0,)
        ),
        "n_directions": np.array(
            [0 if f.hessian is None else len(f.hessian) for f in frames], dtype=np.int64
        ),
        "hessian": _joined([f.hessian.ravel() for f in frames if f.hessian is not None], (0,)),
    }
    facts = [{"source": f.source, "step": f.step, "group": f.group, "info": dict(f.info)} for f in frames]
    text = json.dumps({"facts": facts, "notes": notes or {}}, default=_plain)
    stream = io.BytesIO()
    np.savez(stream, text=np.frombuffer(text.encode(), dtype=np.uint8), **whole)
    atomic_write(path, stream.getvalue())


def _joined(arrays: list[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(empty)


def load_notes(path: Path) -> dict[str, Any]:
    """The notes of a part written by :func:`save_frames`."""
    with np.load(path) as data:
        return json.loads(data["text"].tobytes())["notes"]


def load_frames(path: Path) -> list[Frame]:
    """The frames of a part written by :func:`save_frames`."""
    with np.load(path) as data:
        whole = {k: data[k] for k in data.files}
    facts = json.loads(whole["text"].tobytes())["facts"]
    ends = np.cumsum(whole["n_atoms"])
    products = np.split(whole["hessian"], np.cumsum(6 * whole["n_atoms"] * whole["n_directions"]))
    frames = []
    for k, (end, n, fact) in enumerate(zip(ends, whole["n_atoms"], facts, strict=True)):
        rows = slice(int(end - n), int(end))
        of_atoms, hessian = whole["atom_energies"][rows], products[k].reshape(-1, 2, int(n), 3)
        energy, forces, stress = float(whole["energy"][k]), whole["forces"][rows], whole["stress"][k]
        frames.append(
            Frame(
                numbers=whole["numbers"][rows].astype(np.int64),
                positions=whole["positions"][rows],
                cell=whole["cell"][k],
                pbc=whole["pbc"][k],
                energy=None if np.isnan(energy) else energy,
                forces=None if np.isnan(forces).any() else forces,
                stress=None if np.isnan(stress).all() else stress,
                atom_energies=None if np.isnan(of_atoms).any() else of_atoms,
                hessian=hessian if len(hessian) else None,
                **fact,
            )
        )
    return frames


def seed_for(*words: Any) -> int:
    """A seed that belongs to these words alone, so that a part is the same whichever ran before it."""
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:4], "big")
