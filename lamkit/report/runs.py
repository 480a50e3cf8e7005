"""Reading what stages left in their folders, for the report: learning curves, errors, data facts, versions.

A report is also wanted of a run that is not over or that failed, so whatever is absent is left out; what is
there but cannot be read is an error.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from lamkit.errors import UserError
from lamkit.report import parity
from lamkit.report.parity import Pairs
from lamkit.report.plots import Curve

Kind = Literal["data", "pretrain", "finetune", "scratch", "distill", "evaluate"]
FORCES, ENERGY = "forces_rmse_meV_A", "energy_rmse_meV_atom"
_SKIPPED = {"checkpoints", "parts", "figures"}  # never hold a run of their own
_DEPTH = 4


@dataclass(frozen=True)
class Training:
    """A training run.

    Attributes:
        label: name of its folder.
        folder: the run folder.
        errors: head → column of metrics.csv → curve of the validation part.
        seconds: wall time at the last row.
        result: contents of result.json.
    """

    label: str
    folder: Path
    errors: dict[str, dict[str, Curve]]
    seconds: float
    result: dict[str, Any]

    def curve(self, head: str, column: str) -> Curve | None:
        """Curve of one head, None where no value is known."""
        curve = self.errors.get(head, {}).get(column)
        return curve if curve is not None and np.isfinite(curve.values).any() else None


@dataclass(frozen=True)
class Evaluation:
    """An evaluation: errors per head (see :mod:`lamkit.metrics`) and pairs for the parity plots."""

    label: str
    folder: Path
    errors: dict[str, dict[str, Any]]
    pairs: dict[str, Pairs] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """A data set: what it says of itself and what its conversion reported."""

    label: str
    folder: Path
    facts: dict[str, Any]
    report: dict[str, Any]


@dataclass(frozen=True)
class Distillation:
    """A distillation: its result.json, wall time and, where it has one, the training run of the student."""

    label: str
    folder: Path
    result: dict[str, Any]
    seconds: float
    student: Training | None


def read_json(path: Path) -> dict[str, Any]:
    """Contents of a JSON file, empty where there is none.

    Raises:
        UserError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run its stage again") from None


def read_training(folder: Path) -> Training:
    """A training run from its metrics.csv.

    Raises:
        UserError: no metrics.csv, or not one.
    """
    path = folder / "metrics.csv"
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); is this a training run?") from None
    table: dict[str, dict[str, dict[int, float]]] = {}
    seconds = 0.0
    for number, row in enumerate(rows, start=2):
        try:
            step, head, split = int(row["step"]), row["head"], row["split"]
            seconds = max(seconds, float(row["seconds"] or 0))
            values = {c: float(row[c]) if row[c] else np.nan for c in (FORCES, ENERGY)}
        except (KeyError, TypeError, ValueError):
            if number == len(rows) + 1:
                continue  # torn last line of a run that was killed
            raise UserError(f"{path}:{number}: not a row of metrics.csv: {row}") from None
        if split != "train":
            for column, value in values.items():
                table.setdefault(head, {}).setdefault(column, {})[step] = value
    errors = {head: {c: _curve(head, v) for c, v in columns.items()} for head, columns in table.items()}
    return Training(folder.name, folder, errors, seconds, read_json(folder / "result.json"))


def _curve(label: str, values: dict[int, float]) -> Curve:
    steps = sorted(values)
    return Curve(label, np.array(steps, dtype=float), np.array([values[s] for s in steps]))


def read_evaluation(folder: Path) -> Evaluation:
    """An evaluation from its result.json and parity.npz."""
    errors = read_json(folder / "result.json")
    if not errors:
        raise UserError(f"{folder}: no result.json; is this a folder that 'lamkit evaluate --out' wrote?")
    pairs = parity.load(folder / "parity.npz") if (folder / "parity.npz").is_file() else {}
    return Evaluation(folder.name, folder, errors, pairs)


def read_distillation(folder: Path) -> Distillation:
    """A distillation from its result.json; the student's run is the last training below the folder."""
    result = read_json(folder / "result.json")
    trainings = [folder, *_below(folder, _DEPTH)]
    with_metrics = [f for f in trainings if (f / "metrics.csv").is_file()]
    student = read_training(max(with_metrics, key=_made)) if with_metrics else None
    if not result and student is None:
        raise UserError(f"{folder}: neither result.json nor a training run; is this a distillation?")
    seconds = read_json(folder / "products.json").get("seconds") or result.get("seconds") or 0.0
    return Distillation(folder.name, folder, result, float(seconds), student)


def read_data(folder: Path) -> Data:
    """A data set from its dataset.yaml and the report.json of its conversion."""
    inner = folder if (folder / "dataset.yaml").is_file() else folder / "data"
    facts: dict[str, Any] = {}
    if (inner / "dataset.yaml").is_file():
        facts = yaml.safe_load((inner / "dataset.yaml").read_text(encoding="utf-8")) or {}
    report = read_json(folder / "report.json") or read_json(inner / "report.json")
    if not facts and not report:
        raise UserError(f"{folder}: neither dataset.yaml nor report.json; is this a data set?")
    return Data(folder.name, folder, facts, report)


def find(root: Path) -> dict[Kind, list[Path]]:
    """Run folders at or below ``root`` by what they hold, in the order in which they were made."""
    found: dict[Kind, list[Path]] = {}
    folders = [root, *_below(root, _DEPTH)]
    times = {folder: _made(folder) for folder in folders}
    for folder in sorted(folders, key=lambda f: (times[f], str(f))):
        kind = kind_of(folder)
        if kind is not None:
            found.setdefault(kind, []).append(folder)
    inside = tuple(f"{folder}/" for folder in found.get("distill", []))
    return {kind: [f for f in paths if not str(f).startswith(inside)] for kind, paths in found.items()}


def _below(folder: Path, depth: int) -> list[Path]:
    if depth == 0:
        return []
    result: list[Path] = []
    for path in _last_round(folder) or sorted(folder.iterdir()):
        hidden = path.name.startswith(".") or path.name in _SKIPPED
        if path.is_dir() and not hidden:
            inner = (path / "type.raw").is_file() or kind_of(folder) == "data"  # systems, parts of one set
            result += [] if inner else [path, *_below(path, depth - 1)]
    return result


def _last_round(folder: Path) -> list[Path]:
    """Stages of a loop's last round; empty for a folder that is no loop, and before the first round."""
    if read_json(folder / "stage.json").get("stage") != "loop":
        return []
    rounds = [path for path in folder.iterdir() if path.name.isdigit()]
    last = max(rounds, key=lambda path: int(path.name), default=None)
    number = read_json(folder / "result.json").get("n_rounds")
    return sorted((folder / str(number) if number else last).iterdir()) if last else []


def _made(folder: Path) -> float:
    times = [p.stat().st_mtime for p in folder.iterdir() if p.is_file()]
    return min(times, default=0.0)


def kind_of(folder: Path) -> Kind | None:
    """What a folder holds, by the stage that it names or by its files; None where it is no run."""
    stage = stage_of(folder)
    if (folder / "metrics.csv").is_file():
        if stage == "distill":
            return "distill"
        if "scratch" in folder.name:
            return "scratch"
        return "finetune" if stage == "finetune" else "pretrain"
    if stage == "distill" and (folder / "result.json").is_file():
        return "distill"
    if (folder / "parity.npz").is_file():
        return "evaluate"
    if (folder / "dataset.yaml").is_file() or (folder / "data" / "dataset.yaml").is_file():
        return "data" if stage in (None, "convert") else None
    return None


def stage_of(folder: Path) -> str | None:
    """Stage that wrote a folder: as the workflow or the run's configuration says, or the command line."""
    note = read_json(folder / "stage.json")
    if note:
        return str(note.get("stage"))
    if (folder / "config.yaml").is_file():
        resolved = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        if isinstance(resolved, dict) and resolved.get("verb"):
            return str(resolved["verb"])
    command = read_json(folder / "versions.json").get("command")
    if isinstance(command, list):
        words = [str(word) for word in command[1:] if not str(word).startswith("-")]
        return words[0] if words else None
    return None


def versions(folders: list[Path]) -> dict[str, dict[str, Any]]:
    """Name of a folder → contents of its versions.json, of those that have one."""
    found = {folder.name: read_json(folder / "versions.json") for folder in folders}
    return {name: content for name, content in found.items() if content}


def citations(folders: list[Path]) -> dict[str, list[str]]:
    """What to cite → names of the heads or data sets that ask for it, from their YAML files."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        files = [*folder.glob("dataset.yaml"), *folder.glob("data/dataset.yaml")]
        files += sorted(folder.glob("checkpoints/best/heads/*.yaml"))
        for file in files:
            facts = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            name = str(facts.get("name") or facts.get("head") or folder.name)
            cited = facts.get("citation") or []
            for text in [cited] if isinstance(cited, str) else cited:
                names = found.setdefault(" ".join(str(text).split()), [])
                names += [] if name in names else [name]
    return found
