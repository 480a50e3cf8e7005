"""The mlearn data sets (Li, Mo, Ni, Cu, Si, Ge; github.com/materialsvirtuallab/mlearn).

A list of ``{structure, outputs: {energy, forces, virial_stress}, group, description, ...}`` in eV and eV/Å.
``virial_stress`` is the stress in kilobar, compression positive, as xx yy zz xy and then yz, zx in an order
that differs from group to group. Where that order is known it is used, elsewhere the shear is masked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamkit.data.formats.json_structures import SHAPE_ERRORS, stream, structure
from lamkit.data.formats.reading import Dropped, ReadOptions, Remark
from lamkit.data.frame import Frame, make_frame
from lamkit.keys import KBAR_PER_EV_A3

# Where xx yy zz yz zx xy stand among the six numbers of the file.
YZ_ZX = (0, 1, 2, 4, 5, 3)
ZX_YZ = (0, 1, 2, 5, 4, 3)
# Elastic of Si, Mo, Cu, Ni: from symmetry, as a cubic crystal sheared in yz has shear stress in yz only, and
# the size then gives C44 (Si 100, Mo 107, Cu 86, Ni 140 GPa). AIMD and Vacancy: the order in which the stress
# agrees with the strain derivative of the published moment-tensor potentials. Not here: Li Elastic, whose
# shear contradicts its own energies; all Surface frames; AIMD and Vacancy of Cu and Ni, not determined.
SHEAR_ORDER = {
    ("Si", "Elastic"): YZ_ZX,
    ("Ge", "Elastic"): YZ_ZX,
    ("Si", "AIMD-NVT"): ZX_YZ,
    ("Si", "Vacancy"): ZX_YZ,
    ("Ge", "AIMD-NVT"): ZX_YZ,
    ("Ge", "Vacancy"): ZX_YZ,
    ("Mo", "Elastic"): ZX_YZ,
    ("Mo", "AIMD-NVT"): ZX_YZ,
    ("Mo", "Vacancy"): ZX_YZ,
    ("Cu", "Elastic"): ZX_YZ,
    ("Ni", "Elastic"): ZX_YZ,
    ("Li", "AIMD-NVT"): YZ_ZX,
    ("Li", "Vacancy"): YZ_ZX,
}
NO_SHEAR = 0.01  # kbar; below it the order does not matter
_SNAPSHOT = re.compile(r"Snapshot (\d+) of \d+ of\s*")


def read(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of an mlearn JSON file; a group is one MD run, one strain mode or one surface."""
    for index, record in enumerate(stream(file, "item", source, pairs=False)):
        try:
            frame, masked = _frame(record, index, source)
        except SHAPE_ERRORS as error:
            yield Dropped(f"record that cannot be read ({type(error).__name__})", step=index)
            continue
        if masked:
            kind = f"{record['element']} {record['group']}"
            yield Remark(
                f"shear stress masked: not certain which component is which for {kind}", step=frame.step
            )
        yield frame


def _frame(record: Mapping[str, Any], index: int, source: str) -> tuple[Frame, bool]:
    """Frame of one record, and whether its shear stress is masked."""
    outputs, element, kind = record["outputs"], record["element"], record["group"]
    stress, masked = convert_stress(outputs["virial_stress"], element, kind)
    group, step = trajectory(record, index)
    frame = make_frame(
        *structure(record["structure"], f"{source}: record {index}"),
        energy=outputs["energy"],
        forces=np.array(outputs["forces"], dtype=np.float64).reshape(-1, 3),
        stress=stress,
        source=source,
        step=step,
        group=group,
        info={"config_type": kind},
    )
    return frame, masked


def convert_stress(values: Any, element: str, kind: str) -> tuple[NDArray[np.float64], bool]:
    """Stress in eV/Å³ (ASE's sign and order) of the six numbers in the file, and whether shear was masked."""
    numbers = np.array(values, dtype=np.float64).reshape(6)
    order = SHEAR_ORDER.get((element, kind))
    stress = -numbers[list(order or YZ_ZX)] / KBAR_PER_EV_A3
    masked = order is None and float(np.abs(numbers[3:]).max()) > NO_SHEAR
    if masked:
        stress[3:] = np.nan
    return stress, masked


def trajectory(record: Mapping[str, Any], index: int) -> tuple[str, int]:
    """Group and step of a record: MD snapshots by their run, strained cells by their mode."""
    text = str(record.get("description", ""))
    snapshot = _SNAPSHOT.match(text)
    step = int(snapshot[1]) if snapshot else index
    run = _SNAPSHOT.sub("", text).split(", strain")[0]
    return f"{record['element']} {record['group']}: {run}", step
