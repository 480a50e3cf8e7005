"""What a data set holds, and how several compare: for people and for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamkit import config
from lamkit.data import statistics_file
from lamkit.data.dataset import Dataset
from lamkit.data.frame import NUMBERS, SYMBOLS
from lamkit.data.label_sums import LabelSums, label_sums
from lamkit.data.storage import ATOM_ENERGIES, HESSIAN


def sums_of(dataset: Dataset) -> LabelSums:
    """The label sums of a data set: as stored with it, else from its arrays."""
    stored = statistics_file.load(dataset)
    return stored.labels if stored is not None else label_sums(dataset)


def prior_of(dataset: Dataset) -> NDArray[np.float64] | None:
    """The data set's prior by atomic number, eV, ``[119]``, NaN where not given; None if it has none."""
    energies = dataset.facts.reference_prior
    if energies is None:
        return None
    known = np.full(119, np.nan)
    for symbol, energy in energies.items():
        known[NUMBERS[symbol]] = energy
    return known


def summary(dataset: Dataset) -> dict[str, Any]:
    """Counts, elements, labels, ranges, reference energies and level of theory."""
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
        "created": facts.created,
        "converter": facts.converter,
    }
    if known.any():
        per_atom = energies[known] / n_atoms[known]
        sums = sums_of(dataset)
        fit = sums.composition.fit(prior_of(dataset))
        scales = sums.statistics(fit.reference)
        result |= {
            "energy_per_atom": [float(per_atom.min()), float(per_atom.max())],
            "energy_spread": fit.residual_std,
            "forces_rms": _number(scales.forces_rms),
            "stress_rms": _number(scales.stress_rms),
            "rank": fit.rank,
            "reference": {s: float(fit.reference[NUMBERS[s]]) for s in result["elements"]},
            "not_determined": fit.null_space,
        }
    stored = statistics_file.load(dataset)
    if stored is not None:
        found = stored.result()
        result["distributions"] = {**found["distributions"], "nearest": found["distances"]}
        result["neighbors"] = found["neighbors"]["settings"]
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
    names = {
        "energy": "energy", "force": "forces", "virial": "stress", "stress": "stress_partly",
        ATOM_ENERGIES: "atom_energies", HESSIAN: "hessian",
    }  # fmt: skip
    for _, _, place, rows in dataset.blocks(np.arange(len(dataset))):
        for array, label in names.items():
            if array in place.arrays():
                counts[label] += len(rows)
    return dict(counts)


def compare(datasets: Sequence[Dataset]) -> dict[str, Any]:
    """Several data sets beside each other.

    Returns:
        ``sets`` (a :func:`summary` each), ``common_elements`` (in all sets), ``pairs``: for each ordered pair
        of sets what the energies of the first (``of``) are off when the references of the second (``by``) are
        taken, as ``shift`` and ``scatter`` in eV/atom (None where the second lacks an element of the first).
    """
    sets = [summary(d) for d in datasets]
    elements = [set(s["elements"]) for s in sets]
    pairs = [_pair(i, j, datasets, sets) for i in range(len(sets)) for j in range(len(sets)) if i != j]
    return {
        "sets": sets,
        "common_elements": sorted(set.intersection(*elements), key=lambda s: NUMBERS[s]),
        "all_elements": sorted(set.union(*elements), key=lambda s: NUMBERS[s]),
        "pairs": pairs,
    }


def _pair(i: int, j: int, datasets: Sequence[Dataset], sets: list[dict[str, Any]]) -> dict[str, Any]:
    ours, theirs = sets[i], sets[j]
    common = [s for s in ours["elements"] if s in theirs["elements"]]
    levels = (ours["level_of_theory"], theirs["level_of_theory"])
    pair: dict[str, Any] = {
        "of": ours["path"],
        "by": theirs["path"],
        "common_elements": common,
        "same_level": None if None in levels else differences(*levels) == [],
        "level_differs_in": [] if None in levels else differences(*levels),
        "shift": None,
        "scatter": None,
    }
    if len(common) == len(ours["elements"]) and "reference" in ours and "reference" in theirs:
        reference = np.zeros(119)
        for symbol, energy in theirs["reference"].items():
            reference[NUMBERS[symbol]] = energy
        pair["shift"], pair["scatter"] = sums_of(datasets[i]).composition.residual(reference)
    return pair


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Parts in which two levels of theory differ; of a part that one does not state nothing is known.

    No U and no dispersion are statements, as they are in a head's YAML. Of the code its name counts.
    """
    named = [{**level, "code": (level.get("code") or "").split()[:1] or None} for level in (one, other)]
    parts = [p for p in ("method", "functional", "code") if all(level.get(p) for level in named)]
    return [p for p in (*parts, "hubbard_u", "dispersion") if named[0].get(p) != named[1].get(p)]
