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
    cp2k,
    deepmd,
    extxyz,
    jarvis,
    json_ranges,
    mlearn,
    mptrj,
    n2p2,
    vasp,
    xyz_ranges,
)
from lamkit.data.formats.reading import (
    ALL_OPTIONS,
    Dropped,
    Format,
    ReadOptions,
    Remark,
    options_for,
    plain_file,
)
from lamkit.data.formats.recognise import format_name, why_passed_over, words_on_passed_over
from lamkit.errors import UserError, suggest

__all__ = [
    "FORMATS", "Dropped", "Format", "ReadOptions", "Remark", "get_format", "options_for", "plain_file",
    "recognise", "why_passed_over", "words_on_passed_over",
]  # fmt: skip

FORMATS: dict[str, Format] = {
    fmt.name: fmt
    for fmt in (
        Format("vasp/outcar", "VASP OUTCAR", vasp.read_outcar),
        Format("vasp/xml", "VASP vasprun.xml", vasp.read_vasprun),
        Format(
            "extxyz",
            "extended XYZ",
            extxyz.read_extxyz,
            options=ALL_OPTIONS,
            cut=xyz_ranges.cut,
            read_range=extxyz.read_range,
        ),
        Format("ase/db", "ASE database (SQLite)", ase_files.read_db, options=ALL_OPTIONS),
        Format("ase/lmdb", "ASE database (LMDB), as OMat24", ase_files.read_aselmdb, options=ALL_OPTIONS),
        Format("ase/traj", "ASE trajectory", ase_files.read_traj),
        Format("vasp/poscar", "VASP POSCAR and CONTCAR, structures without labels", ase_files.read_poscar),
        Format("qe/pw", "Quantum ESPRESSO, output of pw.x", ase_files.read_pw),
        Format("cp2k", "CP2K, log of a run", cp2k.read),
        Format("n2p2", "RuNNer and n2p2, input.data", n2p2.read, options=n2p2.OBEYS),
        Format(
            "mptrj",
            "Materials Project trajectories, JSON",
            mptrj.read,
            options=mptrj.OBEYS,
            cut=json_ranges.cut,
            read_range=mptrj.read_range,
        ),
        Format("mlearn", "mlearn, JSON", mlearn.read),
        Format("jarvis", "JARVIS-DFT force-field sets, JSON", jarvis.read),
        Format("alexandria", "Alexandria relaxation paths, JSON", alexandria.read),
        Format(
            "deepmd/npy",
            "DeePMD folders, plain or mixed; LAMKit data sets",
            deepmd.read,
            cut=deepmd.cut,
            read_range=deepmd.read_range,
        ),
    )
}


def get_format(name: str) -> Format:
    """The format of a name: one of ``FORMATS`` or one of dpdata's.

    Raises:
        UserError: unknown; the message lists what there is.
    """
    name = any_dpdata.REPLACED.get(name, name)
    if name in FORMATS:
        return FORMATS[name]
    others = any_dpdata.names()
    if name in others:
        return any_dpdata.make(name)
    raise UserError(
        f"--format {name}: unknown.{suggest(name, [*FORMATS, *others])} LAMKit reads auto, "
        f"{', '.join(FORMATS)}; through dpdata also {', '.join(n for n in others if n not in FORMATS)}"
    )


def recognise(path: Path) -> Format | None:
    """Format of a file or folder, from its name and its first bytes; None if it is none that is known.

    Raises:
        UserError: it fits several formats, or its format cannot serve as a data set; the message says why.
    """
    name = format_name(path)
    return None if name is None else get_format(name)
