"""Which format a file is of, from its name and its first bytes.

A file may fit one format, none (it is then passed over, with a word on what it is where that is known), or
several, which is an error that names them. Files that hold pickled Python objects are refused: opening one can
run any code.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from lamkit.data.formats.containers import hdf5_kind, require_whole_lmdb
from lamkit.data.formats.json_structures import keys_of_first
from lamkit.data.formats.reading import plain_file, read_head
from lamkit.errors import UserError

Sign = Callable[[str, bytes], bool]  # (name in lower case, first bytes)

EXPORT_HINT = (
    "Export it with the program that wrote it, on a machine where that file is trusted, for example to extended XYZ "
    "with ase.io.write, and convert that"
)


def _says(*words: bytes) -> Sign:
    return lambda name, head: any(word in head for word in words)


def _outcar(name: str, head: bytes) -> bool:
    return head.lstrip().startswith(b"vasp.") or ("outcar" in name and b"NELM" in head)


def _vasprun(name: str, head: bytes) -> bool:
    return b"<modeling>" in head[:2000] or (b"<?xml" in head[:100] and "vasprun" in name)


def _cp2k(name: str, head: bytes) -> bool:
    return b"CP2K| version string" in head or b"DBCSR| Multiplication driver" in head


def _abacus(run: str) -> Sign:
    logs = {"scf": ("scf",), "md": ("md",), "relax": ("relax", "cell-relax")}[run]
    return lambda name, head: any(name.startswith(f"running_{log}.log") for log in logs)


def _lines(head: bytes, n: int = 3) -> list[str]:
    return [line.decode(errors="replace").strip() for line in head.split(b"\n", n)[:n]]


def _extxyz(name: str, head: bytes) -> bool:
    first, second, *_ = [*_lines(head), "", ""]
    if not first.isdigit() or cp2k_trajectory(second):
        return False
    return ".xyz" in name or ".extxyz" in name or "Properties=" in second or "Lattice" in second


def cp2k_trajectory(comment: str) -> bool:
    """Whether the second line of an XYZ file is CP2K's, of positions, velocities or forces."""
    return re.match(r"i\s*=\s*\d+,.*\bE\s*=", comment) is not None


def _openmx(name: str, head: bytes) -> bool:
    first, second, *_ = [*_lines(head), "", ""]
    return first.isdigit() and second.startswith("time=") and "Cell_Vectors=" in second


def _n2p2(name: str, head: bytes) -> bool:
    words = [line.split()[0] for line in _lines(head, 12) if line and not line.startswith("#")]
    return words[:1] == ["begin"] and bool({"atom", "lattice", "comment"} & set(words))


def _fchk(name: str, head: bytes) -> bool:
    return re.search(rb"^Number of atoms +I +\d+", head, re.MULTILINE) is not None


def _netcdf(ending: str) -> Sign:
    return lambda name, head: name.endswith(ending) and head[:3] == b"CDF"


SIGNS: dict[str, Sign] = {
    "vasp/outcar": _outcar,
    "vasp/xml": _vasprun,
    "ase/db": lambda name, head: head.startswith(b"SQLite format 3\0"),
    "ase/traj": _says(b"- of UlmASE-Trajectory"),
    "extxyz": _extxyz,
    "cp2k": _cp2k,
    "qe/pw": _says(b"Program PWSCF"),
    "qe/cp/traj": lambda name, head: name.endswith(".evp"),
    "abacus/scf": _abacus("scf"),
    "abacus/md": _abacus("md"),
    "abacus/relax": _abacus("relax"),
    "siesta/output": _says(b"Siesta Version", b"Welcome to SIESTA", b"WELCOME TO SIESTA"),
    "fhi_aims/md": _says(b"Invoking FHI-aims"),
    "gaussian/log": _says(b"Entering Gaussian System", b"Gaussian, Inc."),
    "gaussian/fchk": _fchk,
    "orca/spout": _says(b"* O   R   C   A *"),
    "psi4/out": _says(b"Psi4: An Open-Source"),
    "sqm/out": _says(b"AMBER SQM VERSION"),
    "amber/md": _netcdf(".mdfrc"),
    "pwmat/movement": _says(b"atoms,Iteration"),
    "openmx/md": _openmx,
    "n2p2": _n2p2,
    "dftbplus": lambda name, head: name.startswith("detailed") and b"Total Mermin free energy" in head,
}

# Files that are read together with another one, or that no potential can be trained on; said where they are
# passed over.
PASSED_OVER: tuple[tuple[str, str], ...] = (
    (r".*-(pos|frc|vel)-\d+\.xyz", "part of a CP2K run, read with its log"),
    (r".*\.(pos|for|cel|str|vel)", "part of a cp.x run, read with its .evp file"),
    (r".*\.(parm7|mden|mdout)", "part of an AMBER run, read with its .mdfrc file"),
    (r"(dftb_p?in\.hsd)", "part of a DFTB+ run, read with detailed.out"),
    (r"md_dump|stru(_ion.*)?|stru_.*\.cif", "part of an ABACUS run, read with running_*.log"),
    (r"(incar|kpoints|potcar|oszicar|xdatcar|chgcar|wavecar|doscar|eigenval|procar|ibzkpt).*",
     "a file of VASP without labels"),
    (r"lock\.mdb|.*-lock", "lock of a database"),
    (r"(poscar|contcar).*|.*\.(vasp|cif)", "a structure without labels (--format vasp/poscar --unlabelled keeps it)"),
)  # fmt: skip


def format_name(path: Path) -> str | None:
    """Name of the format of a file or folder; None if it is none that is known.

    Raises:
        UserError: it fits several formats, or its format cannot serve as a data set; the message says why.
    """
    if path.is_dir():
        return _folder(path)
    head, name = read_head(path), path.name.lower()
    refuse_pickle(path, head)
    if head[16:20] == b"\xde\xc0\xef\xbe":
        return _lmdb(path)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _hdf5(path)
    if head.lstrip()[:1] in (b"{", b"["):
        return _json(path)
    found = [fmt for fmt, sign in SIGNS.items() if sign(name, head)]
    if len(found) > 1:
        raise UserError(f"{path}: could be {' or '.join(found)}; name the format with --format")
    return found[0] if found else None


def why_passed_over(path: Path) -> str | None:
    """What a file is that was not recognised as data; None if that is not known either."""
    if path.suffix == ".xyz" and path.is_file():
        lines = _lines(read_head(path, 2000))
        if len(lines) > 1 and cp2k_trajectory(lines[1]):
            return PASSED_OVER[0][1]
    return next((why for sign, why in PASSED_OVER if re.fullmatch(sign, path.name.lower())), None)


def words_on_passed_over(paths: Sequence[str]) -> list[str]:
    """One line for each kind of file that was passed over, with how many and an example."""
    kinds: dict[str, list[str]] = {}
    for path in paths:
        kinds.setdefault(why_passed_over(Path(path)) or "not a format that is recognised", []).append(path)
    return [f"{len(some)} x {why}: {some[0]}{' …' if len(some) > 1 else ''}" for why, some in kinds.items()]


def refuse_pickle(path: Path, head: bytes) -> None:
    """Stop at pickled objects, whether plain or packed by torch or NumPy.

    Raises:
        UserError: it is one, with the reason and the way round.
    """
    plain = re.match(rb"\x80[\x02-\x05]", head) is not None and path.suffix not in (".npy",)
    torch = head.startswith(b"PK") and zipfile.is_zipfile(path) and any(
        member.endswith(".pkl") for member in zipfile.ZipFile(path).namelist()
    )  # fmt: skip
    if plain or torch:
        raise UserError(
            f"{path}: pickled Python objects, which can run any code when they are opened, so it is not read. "
            f"{EXPORT_HINT}"
        )


def _folder(path: Path) -> str | None:
    if (path / "data.mdb").is_file():
        return _lmdb(path / "data.mdb")
    systems = [file.parent for file in path.rglob("type.raw")]
    if not systems:
        return None
    raw = [folder for folder in systems if not any(folder.glob("set.*")) and (folder / "coord.raw").is_file()]
    return "deepmd/raw" if len(raw) == len(systems) == 1 and raw == [path] else "deepmd/npy"


def _lmdb(path: Path) -> str:
    """What an LMDB file holds, by its first values, which are looked at and not unpickled."""
    import lmdb

    require_whole_lmdb(path, str(path))
    try:
        with (
            lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_readers=1) as database,
            database.begin() as transaction,
        ):
            if transaction.get(b"__metadata__") is not None:
                return "deepmd/lmdb"
            values = [bytes(value[:2]) for _, (_, value) in zip(range(5), transaction.cursor(), strict=False)]
    except lmdb.Error as error:
        raise UserError(f"{path}: an LMDB file that cannot be opened ({error})") from None
    if any(re.match(rb"\x80[\x02-\x05]", value) for value in values):
        raise UserError(
            f"{path}: LMDB that holds pickled objects, which can run any code when they are opened, so it is not "
            f"read. {EXPORT_HINT}"
        )
    if values and all(value[:1] == b"\x78" for value in values):  # zlib, as ASE's backend writes
        return "ase/lmdb"
    raise UserError(
        f"{path}: LMDB of a kind that is not known here (neither ASE's nor DeePMD's). {EXPORT_HINT}"
    )


def _hdf5(path: Path) -> str:
    try:
        kind = hdf5_kind(path)
    except OSError as error:
        raise UserError(f"{path}: an HDF5 file that cannot be opened ({error})") from None
    if kind is None:
        raise UserError(f"{path}: HDF5 without a system of DeePMD (type.raw). {EXPORT_HINT}")
    return kind


def _json(path: Path) -> str | None:
    """Format of a JSON file by the keys of its first records."""
    with plain_file(path) as file:
        kind, keys = keys_of_first(file)
    if kind == "list" and {"jid", "atoms", "total_energy", "forces"} <= keys:
        return "jarvis"
    if kind == "list" and {"structure", "outputs", "virial_stress"} <= keys:
        return "mlearn"
    if kind == "object" and "steps" in keys:
        return "alexandria"
    if kind == "object" and "structure" in keys and {"uncorrected_total_energy", "energy_per_atom"} & keys:
        return "mptrj"
    if "structure" in keys and {"energy", "entry_id"} & keys and not {"force", "forces"} & keys:
        raise UserError(f"{path}: holds energies without forces, from which no potential can be trained")
    return None
