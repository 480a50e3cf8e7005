"""``lamkit show``: what a checkpoint, a run folder or a data set holds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamkit import presets
from lamkit.cli import shared_flags
from lamkit.console import table
from lamkit.errors import UserError

if TYPE_CHECKING:
    from lamkit.data.heads import LevelOfTheory
    from lamkit.train.checkpoint import Checkpoint

EPILOG = """examples:
  lamkit show run1                  architecture, heads, step and errors of the best checkpoint
  lamkit show run1/checkpoints/last
  lamkit show mydata                level of theory, elements, frames, labels"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("path", metavar="MODEL_OR_DATASET", help="checkpoint, run folder or data set")
    shared_flags(parser, out=False)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print what is there; returns it."""
    path = presets.or_shipped(Path(args.path))
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if _is_checkpoint(path):
        found = checkpoint_facts(path)
        text = _checkpoint_text
    else:
        found = dataset_facts(path)
        text = _dataset_text
    if not args.json:
        print(text(found))
    return found


def _is_checkpoint(path: Path) -> bool:
    """Whether there are weights, or a run that should have some; a stage's data/ folder has none."""
    return (path / "model.safetensors").exists() or (path / "checkpoints").is_dir() or path.is_file()


def checkpoint_facts(path: Path) -> dict[str, Any]:
    """Architecture, heads, training state and errors of a checkpoint.

    Raises:
        UserError: it is not a checkpoint, or it is damaged.
    """
    from lamkit import config
    from lamkit.train.checkpoint import read

    found = read(path)
    counts = _parameters(found)
    return {
        "kind": "checkpoint",
        "path": str(found.path),
        "trunk": config.dump(found.trunk),
        "parameters": {"trunk": counts.pop(""), "heads": counts},
        "step": found.state.get("step"),
        "best_step": found.state.get("best_step"),
        "score": found.state.get("best"),
        "heads": {head: _head(found, head) for head in found.heads},
    }


def _parameters(found: Checkpoint) -> dict[str, int]:
    """Number of weights of each head, and of the trunk under the empty name."""
    counts = dict.fromkeys(("", *found.heads), 0)
    for name, array in found.weights.items():
        owner = next((h for h in found.heads if name.startswith(f"heads.{h}.")), "")
        counts[owner] += int(array.size)
    return counts


def _head(found: Checkpoint, head: str) -> dict[str, Any]:
    from lamkit.data.frame import NUMBERS

    facts, elements = found.head_configs[head], found.elements[head]
    reference = found.references[head]
    errors = (found.state.get("best_errors") or found.state.get("errors") or {}).get(head, {})
    return {
        "title": facts.title,
        "level_of_theory": facts.level_of_theory.model_dump(mode="json"),
        "elements": elements,
        "references": {symbol: round(float(reference[NUMBERS[symbol]]), 6) for symbol in elements},
        "citation": facts.citation,
        "errors": {k: errors.get(k) for k in ("energy_mae", "forces_mae", "forces_rmse") if k in errors},
    }


def dataset_facts(path: Path) -> dict[str, Any]:
    """Counts, elements, labels and level of theory of a data set.

    Raises:
        UserError: it is not a data set, or it is damaged.
    """
    from lamkit.data.dataset import open_dataset
    from lamkit.data.frame import SYMBOLS
    from lamkit.stages.evaluate import PARTS

    inner = path / "data" if (path / "data" / "dataset.yaml").is_file() else path
    parts = [p for p in ("train", *PARTS) if (inner / p / "dataset.yaml").is_file()]
    if parts:
        return {"kind": "split", "path": str(inner), "parts": {p: dataset_facts(inner / p) for p in parts}}
    data = open_dataset(inner)
    level = data.facts.level_of_theory
    return {
        "kind": "dataset",
        "path": str(data.path),
        "head": data.facts.head or None,
        "title": data.facts.title,
        "level_of_theory": level.model_dump(mode="json") if level else None,
        "elements": [SYMBOLS[z] for z in data.elements],
        "n_frames": len(data),
        "n_atoms": int(data.n_atoms.sum()),
        "atoms_per_frame": [int(data.n_atoms.min()), int(data.n_atoms.max())],
        "n_groups": len(set(data.groups.tolist())),
        "labels": data.facts.labels,
        "licence": data.facts.licence,
        "citation": data.facts.citation,
        "notes": data.facts.notes,
    }


def level_in_words(level: LevelOfTheory | dict[str, Any] | None) -> str:
    """``PBE D3(BJ) +U, VASP`` of a level of theory."""
    if level is None:
        return "not stated"
    known = level if isinstance(level, dict) else level.model_dump()
    words = [known["functional"], known["dispersion"], "+U" if known["hubbard_u"] else None]
    return ", ".join(w for w in (" ".join(w for w in words if w), known["code"]) if w)


def _checkpoint_text(found: dict[str, Any]) -> str:
    trunk = found["trunk"]
    counts = found["parameters"]
    lines = [
        f"checkpoint {found['path']}",
        f"trunk      {_architecture(trunk)}, cutoff {trunk['cutoff']} Å",
        f"parameters {counts['trunk']} in the trunk, {sum(counts['heads'].values())} in {len(counts['heads'])} heads",
        f"step       {found['step']}" + (f", best at {found['best_step']}" if found["best_step"] else ""),
        "",
        table(
            [
                [
                    head, level_in_words(h["level_of_theory"]), _elements(h["elements"]), _span(h["references"]),
                    *(_milli(h["errors"].get(k)) for k in ("energy_mae", "forces_mae", "forces_rmse")),
                ]
                for head, h in found["heads"].items()
            ],
            ["head", "level of theory", "elements", "references (eV)", "E MAE", "F MAE", "F RMSE"],
        ),
        "errors on the validation part, meV/atom and meV/Å",
    ]  # fmt: skip
    return "\n".join(lines)


def _architecture(trunk: dict[str, Any]) -> str:
    """``Orb v3 conservative, 5 layers of width 256`` and the like."""
    if "layers" in trunk:
        return (
            f"Orb {trunk['version']} {trunk['output']}, {trunk['layers']} layers of width {trunk['latent']}"
        )
    widths = "-".join(str(n) for n in trunk["embedding"]), "-".join(str(n) for n in trunk["fitting"])
    known = (trunk["surroundings"] or {}).get("elements", [])
    return f"DeepPot-SE for {' '.join(known)}, embedding {widths[0]}, fitting {widths[1]}"


def _dataset_text(found: dict[str, Any]) -> str:
    if found["kind"] == "split":
        return "\n\n".join(f"part {name}\n{_dataset_text(part)}" for name, part in found["parts"].items())
    low, high = found["atoms_per_frame"]
    rows = {
        "data set": found["path"],
        "head": found["head"] or "none",
        "title": found["title"],
        "level of theory": level_in_words(found["level_of_theory"]),
        "frames": f"{found['n_frames']} in {found['n_groups']} groups",
        "atoms": f"{found['n_atoms']}, {low} to {high} a frame",
        "elements": " ".join(found["elements"]),
        "labels": ", ".join(f"{name} {n}" for name, n in found["labels"].items()),
        "licence": found["licence"] or "",
        "citation": found["citation"]
        if isinstance(found["citation"], str)
        else "; ".join(found["citation"] or ()),
    }
    lines = [f"{name:16}{value}" for name, value in rows.items() if value]
    return "\n".join([*lines, *(f"{'note':16}{note}" for note in found["notes"])])


def _elements(symbols: Sequence[str], most: int = 10) -> str:
    return " ".join(symbols) if len(symbols) <= most else f"{' '.join(symbols[:most])} … ({len(symbols)})"


def _span(references: dict[str, float]) -> str:
    values = sorted(references.values())
    return f"{values[0]:.2f} to {values[-1]:.2f}" if values else ""


def _milli(value: float | None) -> str:
    return "" if value is None else f"{1000 * value:.1f}"
