"""Every other labelled format that dpdata knows, by dpdata's own names.

Where dpdata 1.1.0 gives wrong labels or needs something else than one file, an :class:`Engine` of
:mod:`lamkit.data.formats.engines` stands in between.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lamkit.data.formats.engines import ENGINES, Engine
from lamkit.data.formats.reading import Dropped, Format, ReadOptions, Remark
from lamkit.data.frame import Frame, make_frame, numbers_of, to_voigt
from lamkit.errors import UserError

# Not files: ASE structures, strings and lists in memory.
IN_MEMORY = frozenset({"ase/structure", "list", "vasp/string"})
# Formats with readers of LAMKit's own, which obey the same name.
REPLACED = {
    "outcar": "vasp/outcar",
    "xml": "vasp/xml",
    "deepmd/npy/mixed": "deepmd/npy",
    "deepmd/comp": "deepmd/npy",
    "qe/pw/scf": "qe/pw",
    "cp2k/output": "cp2k",
    "cp2k/aimd_output": "cp2k",
    # All five are extended XYZ; dpdata 1.1.0 takes a header with 'Lattice = "..."' for a molecule in a box of
    # 100 A, and gives the first formula only.
    "quip/gap/xyz": "extxyz",
    "quip/gap/xyz_file": "extxyz",
    "gpumd/xyz": "extxyz",
    "nequip/xyz": "extxyz",
    "mace/xyz": "extxyz",
    "xyz": "extxyz",
}


@cache
def names() -> list[str]:
    """Names of dpdata's formats that can give labelled systems from files."""
    from dpdata.format import Format as DpdataFormat

    def labelled(kind: Any) -> bool:
        mixed = hasattr(kind, "from_labeled_system_mix")
        return mixed or kind.from_labeled_system is not DpdataFormat.from_labeled_system

    return sorted(
        n for n, kind in DpdataFormat.get_formats().items() if labelled(kind) and n not in IN_MEMORY
    )


def make(name: str) -> Format:
    """A format that reads through dpdata."""
    engine = ENGINES.get(name, Engine())

    def read(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
        return _read(file, source, name, engine)

    return Format(name, engine.title or f"dpdata: {name}", read, folder=engine.folder)


def _read(file: Path, source: str, name: str, engine: Engine) -> Iterator[Frame | Dropped | Remark]:
    if (reason := engine.refuse(file)) is not None:
        raise UserError(f"{source}: {reason}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        systems = engine.load(name, file, source)
    unconverged = engine.count_unconverged(file)
    for warning in said:
        words = str(warning.message).splitlines()[0]
        if issubclass(warning.category, UserWarning) and not ("unconverged" in words and unconverged):
            yield Remark(f"dpdata: {words}")
    step = 0
    for data in systems:
        yield from engine.repair(data, file)
        for frame in _frames(data, source, step, group=source if len(systems) == 1 else f"{source} {step}"):
            yield frame
            step += 1
    if unconverged:
        yield Dropped("electronic steps did not converge", unconverged)
    if step == 0 and not unconverged:
        raise UserError(f"{source}: dpdata found no labelled frame in it as {name}")


def _frames(data: dict[str, Any], source: str, start: int, group: str) -> Iterator[Frame]:
    """Frames of one of dpdata's systems."""
    if len(data.get("energies", ())) == 0:
        return
    numbers = numbers_of(np.array(data["atom_names"])[data["atom_types"]], source)
    n_frames, periodic = len(data["coords"]), not data.get("nopbc", False)
    arrays = {name: data.get(name) for name in ("forces", "virials")}
    whole = {name: value for name, value in arrays.items() if value is not None and len(value) == n_frames}
    for k, positions in enumerate(data["coords"]):
        cell = data["cells"][k] if periodic else None
        stress = None
        if cell is not None and "virials" in whole:
            stress = -to_voigt(whole["virials"][k]) / abs(np.linalg.det(cell))
        yield make_frame(
            numbers,
            positions,
            cell,
            periodic,
            energy=data["energies"][k],
            forces=whole["forces"][k] if "forces" in whole else None,
            stress=stress,
            source=source,
            step=start + k,
            group=group,
        )
