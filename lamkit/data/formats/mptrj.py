"""The Materials Project trajectories (``MPtrj_2022.9_full.json``), streamed.

``{mp_id: {frame_id: {structure, uncorrected_total_energy, force, stress, ...}}}`` with energies in eV, the
total and uncorrected one being VASP's own; stress in kilobar with VASP's sign, compression positive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lamkit.data.formats import json_ranges
from lamkit.data.formats.json_structures import stream, structure
from lamkit.data.formats.reading import Dropped, Range, ReadOptions, Remark
from lamkit.data.frame import Frame, make_frame, to_voigt
from lamkit.errors import UserError
from lamkit.keys import KBAR_PER_EV_A3


def read(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of an MPtrj JSON file; the group is the mp-id."""
    step = 0
    for mp_id, records in stream(file, "", source, pairs=True):
        yield from frames_of(mp_id, records, source, options, step)
        step += len(records)


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
    for n, (frame_id, record) in enumerate(records.items()):
        origin = f"{source}: {frame_id}"
        if "uncorrected_total_energy" not in record:
            raise UserError(f"{origin}: no uncorrected_total_energy; is this an MPtrj file?")
        stress = record.get("stress")
        group = str(record.get("mp_id") or mp_id)
        yield make_frame(
            *structure(record["structure"], origin),
            energy=record["uncorrected_total_energy"],
            forces=None if record.get("force") is None else np.array(record["force"]).reshape(-1, 3),
            stress=None if stress is None else -to_voigt(stress) / KBAR_PER_EV_A3,
            source=source,
            step=step + n,
            group=group,
            info={"frame_id": frame_id, "material": group},
        )
