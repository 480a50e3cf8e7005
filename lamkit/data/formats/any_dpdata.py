"""Every other format that dpdata knows (CP2K, QE, ABACUS, Gaussian, LAMMPS …), by dpdata's own names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lamkit.data.formats.reading import Dropped, Format, ReadOptions, Remark
from lamkit.data.frame import Frame, make_frame, numbers_of, to_voigt
from lamkit.errors import UserError


def names() -> list[str]:
    """Names of dpdata's formats that can give labelled systems."""
    from dpdata.format import Format as DpdataFormat

    return sorted(
        name
        for name, kind in DpdataFormat.get_formats().items()
        if kind.from_labeled_system is not DpdataFormat.from_labeled_system
    )


def make(name: str) -> Format:
    """A format that reads through dpdata."""

    def read(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
        return _read(file, source, name)

    return Format(name, f"dpdata: {name}", read)


def _read(file: Path, source: str, name: str) -> Iterator[Frame | Dropped | Remark]:
    import dpdata

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data = dpdata.LabeledSystem(str(file), fmt=name).data
    for warning in said:
        yield Remark(f"dpdata: {str(warning.message).splitlines()[0]}")
    if len(data["coords"]) == 0:
        raise UserError(f"{source}: dpdata found no labelled frame in it as {name}")
    numbers = numbers_of(np.array(data["atom_names"])[data["atom_types"]], source)
    periodic = not data.get("nopbc", False)
    for k, positions in enumerate(data["coords"]):
        cell = data["cells"][k] if periodic else None
        stress = None
        if cell is not None and "virials" in data:
            stress = -to_voigt(data["virials"][k]) / abs(np.linalg.det(cell))
        yield make_frame(
            numbers,
            positions,
            cell,
            periodic,
            energy=data["energies"][k],
            forces=data["forces"][k] if "forces" in data else None,
            stress=stress,
            source=source,
            step=k,
            group=source,
        )
