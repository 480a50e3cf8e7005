"""The Materials Project trajectories (``MPtrj_2022.9_full.json``), streamed.

``{mp_id: {frame_id: {structure, uncorrected_total_energy, force, stress, ...}}}`` with energies in eV, the
total and uncorrected one being VASP's own; stress in kilobar with VASP's sign, compression positive.

The energy is the uncorrected one, which the forces belong to, unless a head's YAML (``source.reading.energy_key``)
or a flag names another: the corrections of MP2020 depend on the composition and oxidation states alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lamkit.data.formats import json_ranges
from lamkit.data.formats.json_structures import SHAPE_ERRORS, structure
from lamkit.data.formats.reading import Dropped, Range, ReadOptions, Remark
from lamkit.data.frame import Frame, make_frame, to_voigt
from lamkit.errors import UserError
from lamkit.keys import KBAR_PER_EV_A3

OBEYS = frozenset({"energy_key"})
UNCORRECTED = "uncorrected_total_energy"
# Energies that may be chosen, and whether they are per atom; the others in the file are formation energies or
# belong to another frame (``*_relaxed``).
ENERGIES = {UNCORRECTED: False, "corrected_total_energy": False, "energy_per_atom": True}
EXTRAS = ("bandgap", "corrected_total_energy", "energy_per_atom", "ef_per_atom", "e_per_atom_relaxed",
          "ef_per_atom_relaxed")  # fmt: skip


def read(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of an MPtrj JSON file; the group is the mp-id."""
    for part in json_ranges.cut(file, json_ranges.PIECE):
        yield from read_range(file, part, source, options)


def read_range(
    file: Path, part: Range, source: str, options: ReadOptions
) -> Iterator[Frame | Dropped | Remark]:
    """Frames of a part of the file."""
    step = part.first
    for mp_id, records in json_ranges.records(file, part, source):
        yield from frames_of(mp_id, records, source, options, step)
        step += len(records)


def frames_of(
    mp_id: str, records: Mapping[str, Any], source: str, options: ReadOptions, step: int
) -> Iterator[Frame | Dropped | Remark]:
    """Frames of one material; ``step`` is that of its first record."""
    if not isinstance(records, Mapping):
        raise UserError(
            f"{source}: {mp_id}: {type(records).__name__} instead of frames; is this an MPtrj file?"
        )
    for n, (frame_id, record) in enumerate(records.items()):
        try:
            yield _frame(mp_id, frame_id, record, source, options, step + n)
        except SHAPE_ERRORS as error:
            yield Dropped(f"record that cannot be read ({type(error).__name__})", step=step + n)


def _frame(
    mp_id: str, frame_id: str, record: Mapping[str, Any], source: str, options: ReadOptions, step: int
) -> Frame:
    origin = f"{source}: {frame_id}"
    stress = record.get("stress")
    group = str(record.get("mp_id") or mp_id)
    return make_frame(
        *structure(record["structure"], origin),
        energy=energy_of(record, options.energy_key or UNCORRECTED, origin),
        forces=None
        if record.get("force") is None
        else np.array(record["force"], dtype=np.float64).reshape(-1, 3),
        stress=None if stress is None else -to_voigt(np.reshape(stress, (3, 3))) / KBAR_PER_EV_A3,
        source=source,
        step=step,
        group=group,
        info={"frame_id": frame_id, "material": group, **_extras(record)},
    )


def energy_of(record: Mapping[str, Any], key: str, origin: str) -> float:
    """Total energy of a record in eV under one of the names in ``ENERGIES``.

    Raises:
        UserError: the name is not one of these, or is not in this record.
    """
    if key not in ENERGIES:
        raise UserError(f"{origin}: {key} is no energy to train on; choose one of {', '.join(ENERGIES)}")
    if record.get(key) is None:
        there = ", ".join(name for name in ENERGIES if record.get(name) is not None)
        raise UserError(f"{origin}: no {key}; it has {there or 'no energy at all: is this an MPtrj file?'}")
    return float(record[key]) * (len(record["structure"]["sites"]) if ENERGIES[key] else 1)


def _extras(record: Mapping[str, Any]) -> dict[str, float]:
    """The other numbers of a record; null stays away."""
    return {name: float(record[name]) for name in EXTRAS if record.get(name) is not None}
