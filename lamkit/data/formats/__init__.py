"""The formats that LAMKit reads: one file each, and the table of them.

``FORMATS`` holds the ones with readers here; any other name of a dpdata format works too (see
:func:`get_format`). :func:`recognise` finds the format of a file from its name and its first bytes.
"""

from __future__ import annotations

from pathlib import Path

from lamkit.data.formats import (
    alexandria,
    any_dpdata,
    ase_files,
    deepmd,
    extxyz,
    jarvis,
    json_ranges,
    mlearn,
    mptrj,
    n2p2,
    vasp,
)
from lamkit.data.formats.json_structures import keys_of_first
from lamkit.data.formats.reading import (
    Dropped,
    Format,
    ReadOptions,
    Remark,
    options_for,
    plain_file,
    read_head,
)
from lamkit.errors import UserError, suggest

__all__ = [
    "FORMATS", "Dropped", "Format", "ReadOptions", "Remark", "get_format", "options_for", "plain_file",
    "recognise",
]  # fmt: skip

FORMATS: dict[str, Format] = {
    fmt.name: fmt
    for fmt in (
        Format("vasp/outcar", "VASP OUTCAR", vasp.read_outcar),
        Format("vasp/xml", "VASP vasprun.xml", vasp.read_vasprun),
        Format("extxyz", "extended XYZ", extxyz.read_extxyz, takes_options=True),
        Format("ase/db", "ASE database (SQLite)", ase_files.read_db, takes_options=True),
        Format("ase/lmdb", "ASE database (LMDB), as OMat24", ase_files.read_aselmdb, takes_options=True),
        Format("ase/traj", "ASE trajectory", ase_files.read_traj),
        Format("qe/pw", "Quantum ESPRESSO, output of pw.x", ase_files.read_pw),
        Format("n2p2", "RuNNer and n2p2, input.data", n2p2.read, options=n2p2.OBEYS),
        Format(
            "mptrj", "Materials Project trajectories, JSON", mptrj.read,
            options=mptrj.OBEYS, cut=json_ranges.cut, read_range=mptrj.read_range,
        ),
        Format("mlearn", "mlearn, JSON", mlearn.read),
        Format("jarvis", "JARVIS-DFT force-field sets, JSON", jarvis.read),
        Format("alexandria", "Alexandria relaxation paths, JSON", alexandria.read),
        Format("deepmd/npy", "DeePMD folders, plain or mixed; LAMKit data sets", deepmd.read),
    )
}
ALIASES = {"deepmd/npy/mixed": "deepmd/npy", "outcar": "vasp/outcar", "xml": "vasp/xml", "xyz": "extxyz"}


def get_format(name: str) -> Format:
    """The format of a name: one of ``FORMATS`` or one of dpdata's.

    Raises:
        UserError: unknown; the message lists what there is.
    """
    name = ALIASES.get(name, name)
    if name in FORMATS:
        return FORMATS[name]
    others = any_dpdata.names()
    if name in others:
        return any_dpdata.make(name)
    raise UserError(
        f"--format {name}: unknown.{suggest(name, [*FORMATS, *others])} LAMKit reads auto, "
        f"{', '.join(FORMATS)}; through dpdata also {', '.join(others)}"
    )


def recognise(path: Path) -> Format | None:
    """Format of a file or folder, from its name and its first bytes; None if it is none of ``FORMATS``.

    Raises:
        UserError: the format is known and cannot serve as a data set; the message says why.
    """
    if path.is_dir():
        return FORMATS["deepmd/npy"] if next(path.rglob("type.raw"), None) else None
    head = read_head(path)
    name = path.name.lower()
    if head.startswith(b"SQLite format 3\0"):
        return FORMATS["ase/db"]
    if b"<modeling>" in head[:2000] or (b"<?xml" in head[:100] and "vasprun" in name):
        return FORMATS["vasp/xml"]
    if head.lstrip().startswith(b"vasp.") or ("outcar" in name and b"NELM" in head):
        return FORMATS["vasp/outcar"]
    if head.lstrip()[:1] in (b"{", b"["):
        return _recognise_json(path)
    if ".lmdb" in name or name == "data.mdb":
        raise UserError(
            f"{path}: LMDB holds pickled objects, which can run any code when they are opened, so it is not "
            "read; export it to extended XYZ with the program that wrote it"
        )
    first = head.split(b"\n", 1)[0].strip()
    if first.isdigit() and (
        ".xyz" in name or ".extxyz" in name or b"Properties=" in head or b"Lattice" in head
    ):
        return FORMATS["extxyz"]
    return None


def _recognise_json(path: Path) -> Format | None:
    with plain_file(path) as file:
        kind, keys = keys_of_first(file)
    if kind == "list" and {"jid", "atoms", "total_energy", "forces"} <= keys:
        return FORMATS["jarvis"]
    if kind == "object" and "steps" in keys:
        return FORMATS["alexandria"]
    if kind == "object" and {"structure", "uncorrected_total_energy"} <= keys:
        return FORMATS["mptrj"]
    if kind == "list" and {"structure", "outputs", "virial_stress"} <= keys:
        return FORMATS["mlearn"]
    if "structure" in keys and "energy" in keys and not {"force", "forces"} & keys:
        raise UserError(f"{path}: holds energies without forces, from which no potential can be trained")
    return None
