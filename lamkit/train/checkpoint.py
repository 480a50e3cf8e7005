"""Checkpoints on disk: one folder, written whole or not at all, readable without MindSpore.

``model.safetensors`` holds what inference uses (the averaged weights where averaging is on), the reference
energies (float64) and the normalisers; ``optimizer.safetensors`` holds what only training needs (raw weights
and moments); ``state.json`` the position of the run; ``config.yaml`` and ``heads/*.yaml`` what it was made of;
``checksums.json`` the SHA-256 of the first three, so that a byte changed by a bad disk is not trained on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lamkit import config, presets
from lamkit.data.heads import HeadConfig
from lamkit.errors import LamkitError, UserError, suggest
from lamkit.files import atomic_write, replace_folder, sha256, temporary_folder
from lamkit.model.config import Architecture, architecture

FORMAT = 2
MODEL, OPTIMIZER, STATE, CONFIG = "model.safetensors", "optimizer.safetensors", "state.json", "config.yaml"
CHECKSUMS = "checksums.json"


@dataclass(frozen=True)
class Checkpoint:
    """One trained model with all that is needed to use it or to train it on.

    Attributes:
        path: folder it was read from.
        trunk: architecture.
        heads: names of the heads, in their order in the network.
        weights: parameter name → array, in the names of ``Potential.state``.
        references: head → energy per atom by atomic number, [119] float64, eV.
        head_configs: head → what its YAML said.
        elements: head → symbols that its training data held.
        config: the resolved configuration of the run.
        state: step, metric and sampler position.
    """

    path: Path
    trunk: Architecture
    heads: tuple[str, ...]
    weights: dict[str, NDArray[Any]]
    references: dict[str, NDArray[np.float64]]
    head_configs: dict[str, HeadConfig]
    elements: dict[str, list[str]]
    config: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)

    def head(self, name: str | None) -> str:
        """``name`` if the checkpoint has that head; with None, its only head.

        Raises:
            UserError: no such head, or several and none named.
        """
        if name is None:
            if len(self.heads) == 1:
                return self.heads[0]
            raise UserError(f"{self.path}: has several heads; name one with --head: {', '.join(self.heads)}")
        if name not in self.heads:
            raise UserError(
                f"{self.path}: no head named '{name}'.{suggest(name, self.heads)} "
                f"This checkpoint has: {', '.join(self.heads)}"
            )
        return name


def locate(path: str | Path) -> Path:
    """The checkpoint folder that ``path`` means: itself, or the best, else the last, of a run folder.

    Those that come with LAMKit (``examples/base``) are found from any folder.

    Raises:
        UserError: nothing there that is a checkpoint.
    """
    path = presets.or_shipped(Path(path))
    names = ("best", "last", "previous")
    for candidate in (path, *(path / "checkpoints" / name for name in names), *(path / n for n in names)):
        if (candidate / MODEL).is_file():
            return candidate
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint or run folder")
    raise UserError(
        f"{path}: not a checkpoint (no {MODEL}) and not a run folder with checkpoints/best or /last"
    )


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint folder or the best checkpoint of a run folder.

    Raises:
        UserError: missing, truncated or of another format, with the file and the reason.
    """
    folder = locate(path)
    for name in (STATE, CONFIG):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: {name} is missing; the checkpoint is not complete")
    resolved, _ = config.read_yaml(folder / CONFIG)
    if not isinstance(resolved, Mapping) or resolved.get("format") != FORMAT:
        found = resolved.get("format") if isinstance(resolved, Mapping) else type(resolved).__name__
        raise UserError(f"{folder / CONFIG}: checkpoint format {found!r}, this LAMKit reads format {FORMAT}")
    trunk = architecture(resolved["trunk"], origin=f"{folder / CONFIG}: trunk")
    try:
        state = json.loads((folder / STATE).read_text())
    except ValueError as error:
        raise UserError(f"{folder / STATE}: not valid JSON ({error}); the checkpoint is damaged") from None
    heads = tuple(resolved["heads"])
    verify(folder, STATE)
    arrays = _arrays(folder / MODEL)
    verify(folder, MODEL)
    references, weights = {}, {}
    for name, array in arrays.items():
        if name.startswith("references."):
            references[name.removeprefix("references.")] = array
        else:
            weights[name] = array
    if missing := [h for h in heads if h not in references]:
        raise UserError(
            f"{folder / MODEL}: no reference energies for {', '.join(missing)}; the file is damaged"
        )
    configs = {h: config.load(HeadConfig, folder / "heads" / f"{h}.yaml") for h in heads}
    elements = {h: list(resolved["elements"][h]) for h in heads}
    return Checkpoint(folder, trunk, heads, weights, references, configs, elements, dict(resolved), state)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); truncated or not a safetensors file") from None


def verify(folder: Path, name: str) -> None:
    """Compare a file of a checkpoint with the checksum that was written with it, where there is one.

    Raises:
        UserError: the file has changed since.
    """
    if not (folder / CHECKSUMS).is_file():  # a checkpoint of an older LAMKit
        return
    try:
        wanted = json.loads((folder / CHECKSUMS).read_text()).get(name)
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"{folder / CHECKSUMS}: not valid JSON ({error}); the checkpoint is damaged"
        ) from None
    if wanted is not None and sha256(folder / name) != wanted:
        raise UserError(
            f"{folder / name}: differs from what was written (checksum); the checkpoint is damaged"
        )


def read_optimizer(folder: Path) -> dict[str, NDArray[Any]]:
    """Arrays of the optimizer in a checkpoint folder.

    Raises:
        UserError: there is none, so the run cannot be resumed from here.
    """
    if not (folder / OPTIMIZER).is_file():
        raise UserError(f"{folder}: no {OPTIMIZER}; start from it with --from instead of --resume")
    arrays = _arrays(folder / OPTIMIZER)
    verify(folder, OPTIMIZER)
    return arrays


def write(
    folder: str | Path,
    checkpoint: Checkpoint,
    optimizer: Mapping[str, NDArray[Any]] | None = None,
    *,
    previous: Path | None = None,
) -> None:
    """Write ``checkpoint`` to ``folder``; a checkpoint already there is replaced in one rename.

    Args:
        folder: where.
        checkpoint: what.
        optimizer: arrays that only training needs.
        previous: the checkpoint that was in ``folder`` stays under this name.

    Raises:
        LamkitError: the disk is full or cannot be written; what was in ``folder`` before is untouched.
    """
    folder = Path(folder)
    try:
        _write(folder, checkpoint, optimizer, previous)
    except (OSError, safetensors.SafetensorError) as error:
        there = folder if folder.parent.is_dir() else Path()
        free = shutil.disk_usage(there.parent).free / 1e6
        raise LamkitError(
            f"{folder}: the checkpoint could not be written ({error}); {free:.0f} MB are free there. "
            + ("The one before is whole. " if folder.is_dir() else "")
            + "Free space or mend the folder, then go on with --resume"
        ) from error


def _write(
    folder: Path, checkpoint: Checkpoint, optimizer: Mapping[str, NDArray[Any]] | None, previous: Path | None
) -> None:
    temporary = temporary_folder(folder)
    try:
        arrays = {name: np.asarray(a, order="C") for name, a in checkpoint.weights.items()}
        for head in checkpoint.heads:
            arrays[f"references.{head}"] = np.ascontiguousarray(checkpoint.references[head], dtype=np.float64)
        save_file(arrays, temporary / MODEL, metadata={"format": "lamkit", "version": str(FORMAT)})
        if optimizer is not None:
            save_file({k: np.asarray(v, order="C") for k, v in optimizer.items()}, temporary / OPTIMIZER)
        resolved = {
            **checkpoint.config,
            "format": FORMAT,
            "trunk": config.dump(checkpoint.trunk),
            "heads": list(checkpoint.heads),
            "elements": {h: list(checkpoint.elements[h]) for h in checkpoint.heads},
        }
        config.write_yaml(temporary / CONFIG, resolved)
        for head in checkpoint.heads:
            config.write_yaml(temporary / "heads" / f"{head}.yaml", checkpoint.head_configs[head])
        atomic_write(temporary / STATE, json.dumps(checkpoint.state, indent=1))
        sums = {n: sha256(temporary / n) for n in (MODEL, OPTIMIZER, STATE) if (temporary / n).is_file()}
        atomic_write(temporary / CHECKSUMS, json.dumps(sums, indent=1))
        replace_folder(temporary, folder, previous)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
