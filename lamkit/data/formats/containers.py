"""DeePMD's files that hold several systems: HDF5, plain and mixed, and LMDB (msgpack, no pickles)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

System = dict[str, Any]  # one system as dpdata's arrays


def load_container(name: str, file: Path, source: str) -> list[System]:
    """All systems of a file that holds several."""
    import dpdata

    systems = dpdata.MultiSystems()
    fmt = "deepmd/hdf5/mixed" if name == "deepmd/hdf5" and hdf5_kind(file) == "deepmd/hdf5/mixed" else name
    if fmt in ("deepmd/lmdb", "lmdb"):
        place = file.parent if file.name == "data.mdb" else file
        systems = dpdata.MultiSystems.from_file(str(place), fmt=fmt)
    elif fmt == "deepmd/hdf5/mixed":
        systems = dpdata.MultiSystems().load_systems_from_file(str(file), fmt=fmt)
    else:
        return [dpdata.LabeledSystem(f"{file}#/{group}", fmt=fmt).data for group in hdf5_systems(file)]
    return [system.data for system in systems.systems.values()]


def hdf5_systems(file: Path) -> list[str]:
    """Groups of an HDF5 file that are systems of DeePMD."""
    import h5py

    found: list[str] = []
    with h5py.File(file, "r") as data:
        if "type.raw" in data:
            return [""]
        data.visit(lambda name: found.append(name.rpartition("/")[0]) if name.endswith("/type.raw") else None)
    return sorted(found)


def hdf5_kind(file: Path) -> str | None:
    """Format of an HDF5 file; None if it holds no system of DeePMD."""
    import h5py

    systems = hdf5_systems(file)
    if not systems:
        return None
    with h5py.File(file, "r") as data:
        group = data[systems[0] or "/"]
        mixed = any("real_atom_types.npy" in group[name] for name in group if name.startswith("set."))
    return "deepmd/hdf5/mixed" if mixed else "deepmd/hdf5"
