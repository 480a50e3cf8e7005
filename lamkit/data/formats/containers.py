"""Files that hold several systems: DeePMD's HDF5, plain and mixed, and LMDB (msgpack, no pickles)."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from lamkit.errors import UserError

System = dict[str, Any]  # one system as dpdata's arrays

_LMDB_MAGIC = 0xBEEFC0DE
_META = struct.Struct("<16x I 20x I 92x Q Q")  # magic, page size, last page, transaction


def load_container(name: str, file: Path, source: str) -> list[System]:
    """All systems of a file that holds several."""
    import dpdata

    systems = dpdata.MultiSystems()
    fmt = "deepmd/hdf5/mixed" if name == "deepmd/hdf5" and hdf5_kind(file) == "deepmd/hdf5/mixed" else name
    if fmt in ("deepmd/lmdb", "lmdb"):
        place = file.parent if file.name == "data.mdb" else file
        require_whole_lmdb(place / "data.mdb" if place.is_dir() else place, source)
        systems = dpdata.MultiSystems.from_file(str(place), fmt=fmt)
    elif fmt == "deepmd/hdf5/mixed":
        systems = dpdata.MultiSystems().load_systems_from_file(str(file), fmt=fmt)
    else:
        return [dpdata.LabeledSystem(f"{file}#/{group}", fmt=fmt).data for group in hdf5_systems(file)]
    return [system.data for system in systems.systems.values()]


def require_whole_lmdb(file: Path, source: str) -> None:
    """Refuse an LMDB file that is cut off: mapped into memory, it would end the whole program with a bus error.

    Its first two pages each begin with 16 bytes and then magic number, version, address, map size, two records
    of 48 bytes (the page size begins the first), the last page in use and the number of the transaction.

    Raises:
        UserError: it is shorter than its newest first page says, or none at all.
    """
    size = file.stat().st_size
    with open(file, "rb") as stream:
        first = stream.read(_META.size)
        if len(first) < _META.size or _META.unpack(first)[0] != _LMDB_MAGIC:
            raise UserError(f"{source}: no LMDB file, or cut off at its beginning ({size} bytes)")
        page = _META.unpack(first)[1]
        stream.seek(page)
        second = stream.read(_META.size)
    metas = [_META.unpack(meta) for meta in (first, second) if len(meta) == _META.size]
    last_page = max(metas, key=lambda meta: meta[3])[2]
    if len(metas) < 2 or size < (last_page + 1) * page:
        raise UserError(
            f"{source}: cut off: has {size} bytes of {(last_page + 1) * page}; copy or fetch it again"
        )


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
