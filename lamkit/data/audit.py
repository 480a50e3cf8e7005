"""Looking at a data set: a summary of what it holds, and an audit of whether it is sound."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lamkit import config
from lamkit.console import Progress
from lamkit.data.dataset import Dataset
from lamkit.data.frame import SYMBOLS
from lamkit.data.label_sums import label_sums
from lamkit.data.quality import Duplicates, first_fault
from lamkit.errors import UserError
from lamkit.files import sha256

EXAMPLES = 10  # frames named for each fault


def summary(dataset: Dataset) -> dict[str, Any]:
    """Counts, elements, labels, ranges and level of theory, for people and for JSON."""
    facts, energies, n_atoms = dataset.facts, dataset.energies, dataset.n_atoms
    known = np.isfinite(energies)
    result: dict[str, Any] = {
        "path": str(dataset.path),
        "head": facts.head,
        "title": facts.title,
        "level_of_theory": config.dump(facts.level_of_theory) if facts.level_of_theory else None,
        "n_frames": len(dataset),
        "n_atoms": int(n_atoms.sum(dtype=np.int64)),
        "atoms_per_frame": [int(n_atoms.min()), int(n_atoms.max())],
        "n_groups": len(np.unique(dataset.groups)),
        "n_sources": len(dataset.sources),
        "elements": {SYMBOLS[z]: n for z, n in _frames_with(dataset).items()},
        "labels": label_counts(dataset),
        "notes": facts.notes,
        "split": facts.split,
    }
    if known.any():
        per_atom = energies[known] / n_atoms[known]
        sums = label_sums(dataset)
        fit = sums.composition.fit()
        scales = sums.statistics(fit.reference)
        result |= {
            "energy_per_atom": [float(per_atom.min()), float(per_atom.max())],
            "energy_spread": fit.residual_std,
            "forces_rms": _number(scales.forces_rms),
            "stress_rms": _number(scales.stress_rms),
            "not_determined": fit.null_space,
        }
    return result


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _frames_with(dataset: Dataset) -> dict[int, int]:
    """Element -> number of frames in which it occurs."""
    total = np.zeros(len(dataset.elements), dtype=np.int64)
    for _, counts in dataset.composition_chunks():
        total += (counts > 0).sum(axis=0)
    return {z: int(n) for z, n in zip(dataset.elements, total, strict=True)}


def label_counts(dataset: Dataset) -> dict[str, int]:
    """Label -> frames that have it."""
    counts = Counter[str](energy=0, forces=0, stress=0, stress_partly=0)
    names = {"energy": "energy", "force": "forces", "virial": "stress", "stress": "stress_partly"}
    for _, _, place, rows in dataset.blocks(np.arange(len(dataset))):
        for array, label in names.items():
            counts[label] += len(rows) if array in place.arrays() else 0
    return dict(counts)


def audit(dataset: Dataset) -> dict[str, Any]:
    """Check every file and every frame.

    Returns:
        ``ok``, ``n_frames``, ``problems`` (what -> how often) and ``examples`` (what -> where).
    """
    problems: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}

    def note(what: str, where: str) -> None:
        problems[what] += 1
        if problems[what] <= EXAMPLES:
            examples.setdefault(what, []).append(where)

    for what, where in _bad_files(dataset.path, dataset.facts.checksums):
        note(what, where)
    repeated = Duplicates()
    with Progress(len(dataset), "checking") as progress:
        for i in range(len(dataset)):
            try:
                frame = dataset.frame(i)
            except UserError as error:  # a damaged array; every frame of its set would say the same
                note("array cannot be read", str(error))
                break
            fault = first_fault(frame, skip=("labelled",))
            if fault is None and repeated(frame):
                fault = "duplicate of an earlier frame"
            if fault is not None:
                note(fault, f"frame {i} (step {frame.step} of {frame.source})")
            progress.update(i + 1)
    return {
        "ok": not problems,
        "path": str(dataset.path),
        "n_frames": len(dataset),
        "problems": dict(problems.most_common()),
        "examples": examples,
    }


def _bad_files(path: Path, checksums: dict[str, str]) -> list[tuple[str, str]]:
    bad = []
    for name, digest in checksums.items():
        file = path / name
        if not file.is_file():
            bad.append(("file is missing", str(file)))
        elif sha256(file) != digest:
            bad.append(("file differs from its checksum", str(file)))
    return bad
