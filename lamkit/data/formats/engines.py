"""Quantum-chemistry and DFT programs that are read through dpdata, and what has to be put right around it.

An :class:`Engine` says how dpdata wants the files of one program, when a file must be refused because dpdata
would join labels that do not belong together, and what to repair in what dpdata returns. Each function names
its reason; everything was observed with dpdata 1.1.0.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import units

from lamkit.data.formats.containers import System, load_container
from lamkit.data.formats.reading import Remark
from lamkit.errors import UserError


def _load(name: str, file: Path, source: str) -> list[System]:
    """One system from one file."""
    import dpdata

    return [dpdata.LabeledSystem(str(file), fmt=name).data]


def _nothing(data: System, file: Path) -> Iterator[Remark]:
    yield from ()


@dataclass(frozen=True)
class Engine:
    """How one program's files are read.

    Attributes:
        title: one line for people.
        load: systems of a file, as dpdata's arrays: ``(name of the format, file, source)``.
        refuse: why a file cannot be read, or None.
        repair: changes a system in place; yields what should be known of it.
        count_unconverged: frames that dpdata leaves out because they did not converge.
        folder: the whole folder is the input.
    """

    title: str = ""
    load: Callable[[str, Path, str], list[System]] = _load
    refuse: Callable[[Path], str | None] = lambda file: None
    repair: Callable[[System, Path], Iterator[Remark]] = _nothing
    count_unconverged: Callable[[Path], int] = lambda file: 0
    folder: bool = False


def _count(file: Path, *words: str) -> int:
    """Lines of a file that hold any of ``words``."""
    with open(file, errors="replace") as stream:
        return sum(any(word in line for word in words) for line in stream)


def _single_point(gradient: str, unconverged: str) -> Callable[[Path], str | None]:
    """Refuse outputs with several gradients: dpdata joins the last of each kind it finds."""

    def refuse(file: Path) -> str | None:
        if _count(file, unconverged):
            return f"the electronic steps did not converge ('{unconverged}')"
        n = _count(file, gradient)
        if n == 1:
            return None
        return (
            f"{n} gradients in it, where single points with one gradient can be read"
            if n
            else "no gradient in it"
        )

    return refuse


# ABACUS --------------------------------------------------------------------------------------------------------


def abacus_folder(file: Path, source: str) -> Path:
    """The folder with INPUT, from that folder or from a log in its ``OUT.*``."""
    for folder in (file, file.parent, file.parent.parent, Path(source).parent.parent):
        if (folder / "INPUT").is_file() and any(folder.glob("OUT.*")):
            return folder
    raise UserError(f"{source}: ABACUS needs INPUT and STRU, in the folder above OUT.*")


def _abacus(name: str, file: Path, source: str) -> list[System]:
    """Dpdata reads the log that INPUT means, which may be another than the one that was found."""
    folder, log = abacus_folder(file, source), Path(source)
    suffix = re.search(r"^\s*suffix\s+(\S+)", (folder / "INPUT").read_text(errors="replace"), re.MULTILINE)
    output = f"OUT.{suffix[1] if suffix else 'ABACUS'}"
    if log.is_file() and log.parent.name not in (output, folder.name):
        raise UserError(f"{source}: not the run of {folder / 'INPUT'}, whose output is in {output}")
    return _load(name, folder, source)


def _abacus_unconverged(file: Path) -> int:
    """Steps that dpdata leaves out without a word."""
    logs = [file] if file.is_file() else sorted(file.glob("OUT.*/running_*.log"))
    return sum(
        _count(log, "convergence has NOT been achieved", "convergence has not been achieved") for log in logs
    )


ABACUS = Engine("ABACUS", load=_abacus, count_unconverged=_abacus_unconverged, folder=True)


# Sets of files with one name -----------------------------------------------------------------------------------


def _prefix(*needed: str, **options: Any) -> Callable[[str, Path, str], list[System]]:
    """Several files with one name, of which dpdata wants the part in front of the endings."""

    def load(name: str, file: Path, source: str) -> list[System]:
        import dpdata

        path = Path(source)
        prefix = path.with_suffix("") if path.suffix[1:] in (*needed, "mden", "mdout", "cel", "str") else path
        missing = [f"{prefix.name}.{ending}" for ending in needed if not Path(f"{prefix}.{ending}").is_file()]
        if missing:
            raise UserError(f"{source}: {name} needs {', '.join(missing)} beside it")
        return [dpdata.LabeledSystem(str(prefix), fmt=name, **options).data]

    return load


def _cp(name: str, file: Path, source: str) -> list[System]:
    """The input of cp.x has any name and mostly lies a folder higher; dpdata wants it under the prefix."""
    prefix = Path(source).with_suffix("")
    inputs = [
        prefix.with_suffix(".in"),
        *sorted(prefix.parent.glob("*.in")),
        *sorted(prefix.parent.parent.glob("*.in")),
    ]
    for path in inputs:
        named = rf"prefix\s*=\s*['\"]{re.escape(prefix.name)}['\"]"
        if path.is_file() and (
            path.stem == prefix.name or re.search(named, path.read_text(errors="replace"))
        ):
            break
    else:
        raise UserError(
            f"{source}: cp.x needs its input (*.in with prefix='{prefix.name}') here or a folder higher"
        )
    with tempfile.TemporaryDirectory(prefix="lamkit-") as folder:
        for part in prefix.parent.glob(f"{prefix.name}.*"):
            (Path(folder) / part.name).symlink_to(part.resolve())
        (Path(folder) / f"{prefix.name}.in").unlink(missing_ok=True)
        (Path(folder) / f"{prefix.name}.in").symlink_to(path.resolve())
        return _prefix("in", "pos", "for", "evp")(name, file, str(Path(folder) / f"{prefix.name}.evp"))


def _amber(name: str, file: Path, source: str) -> list[System]:
    """AMBER's atom types (``CT``, ``HC``) are no elements; dpdata gives elements for atoms that are listed."""
    prefix = Path(source).with_suffix("")
    topology = Path(f"{prefix}.parm7")
    found = (
        re.search(r"%FLAG POINTERS\s+%FORMAT\S+\s+(\d+)", topology.read_text())
        if topology.is_file()
        else None
    )
    every = list(range(int(found[1]))) if found else None
    return _prefix("parm7", "nc", "mdfrc", use_element_symbols=every)(name, file, source)


def _force_field(data: System, file: Path) -> Iterator[Remark]:
    yield Remark("AMBER: labels of a force field, unless the run was QM/MM", len(data["energies"]))


def _openmx_converged(data: System, file: Path) -> Iterator[Remark]:
    """Steps that did not converge go: dpdata keeps those with ``scf_conv=0`` and only warns."""
    text = file.read_text(errors="replace")
    flags = re.findall(r"scf_conv=\s*(\d)", text)
    bad = (
        np.array([flag == "0" for flag in flags])
        if len(flags) == len(data["energies"])
        else np.zeros(0, bool)
    )
    if bad.any():
        for name in ("energies", "forces", "coords", "cells"):
            data[name] = data[name][~bad]
    yield from ()


def _openmx_unconverged(file: Path) -> int:
    return len(re.findall(r"scf_conv=\s*0", file.read_text(errors="replace")))


# Molecules -----------------------------------------------------------------------------------------------------

# What Gaussian prints when the forces belong to another energy than "SCF Done", which is what dpdata takes.
_POST_SCF = ("EUMP2 =", "E(TD-HF/TD-DFT)", "CCSD(T)=", "ONIOM: extrapolated energy", "E(CORR)=")


def _gaussian_refuse(file: Path) -> str | None:
    with open(file, errors="replace") as stream:
        for line in stream:
            word = next((word for word in _POST_SCF if word in line), None)
            if word is not None:
                return f"its forces belong to another energy ({word.rstrip(' =')}) than the SCF energy that is read"
    return None


def _gaussian(name: str, file: Path, source: str) -> list[System]:
    """All geometries and not the last one alone; each has its positions, energy and forces."""
    return _load("gaussian/md", file, source)


def _gaussian_unconverged(file: Path) -> int:
    return _count(file, "Convergence failure -- run terminated")


def _fchk(name: str, file: Path, source: str) -> list[System]:
    """A file without a Hessian is empty to dpdata, unless it is told."""
    import dpdata

    return [dpdata.LabeledSystem(str(file), fmt=name, has_hessian=False).data]


def _psi4(name: str, file: Path, source: str) -> list[System]:
    """Psi4 before 1.4 titles the gradient in another way, with two lines fewer."""
    text = file.read_text(errors="replace")
    if "  -Total Gradient:\n" not in text:
        return _load(name, file, source)
    text = text.replace("  -Total Gradient:\n", "  ## Total Gradient (Symmetry 0) ##\n  Irrep: 1\n\n")
    with tempfile.TemporaryDirectory(prefix="lamkit-") as folder:
        (Path(folder) / "psi4.out").write_text(text)
        return _load(name, Path(folder) / "psi4.out", source)


def _dftb_input(file: Path) -> Path:
    for name in ("dftb_pin.hsd", "dftb_in.hsd"):
        if (found := file.parent / name).is_file():
            return found
    raise UserError(f"{file}: DFTB+ needs dftb_pin.hsd or dftb_in.hsd beside it")


def _dftb(name: str, file: Path, source: str) -> list[System]:
    """Two files; dpdata takes every structure for a molecule, and the positions of the input."""
    import dpdata

    path = Path(source)
    given, output = _dftb_input(path), path if path.suffix == ".out" else path.with_name("detailed.out")
    text = given.read_text(errors="replace")
    count = re.search(r"Geometry\s*=\s*GenFormat\s*\{\s*\d+\s+([CSF])", text)
    if count is None or count[1] != "C":
        raise UserError(
            f"{source}: dpdata reads DFTB+ for molecules in GenFormat 'C' alone; this one is periodic"
        )
    if re.search(r"^\s*Driver\s*=?\s*(?!\{\s*\})\w", text, re.MULTILINE):
        raise UserError(f"{source}: atoms were moved (Driver), and the positions are those of the start")
    return [dpdata.LabeledSystem((str(given), str(output)), fmt=name).data]


def _dftb_refuse(file: Path) -> str | None:
    return "the charges did not converge" if _count(file, "SCC is NOT converged") else None


def _mermin(data: System, file: Path) -> Iterator[Remark]:
    """The forces belong to the Mermin free energy and not to the total energy that dpdata takes."""
    found = re.findall(r"Total Mermin free energy:\s+(\S+)", file.read_text(errors="replace"))
    if found:
        data["energies"] = np.array([float(found[-1]) * units.Hartree])
    yield from ()


# Solids --------------------------------------------------------------------------------------------------------


def _siesta(name: str, file: Path, source: str) -> list[System]:
    """Runs with several steps are another format of dpdata's, and as a single one give the first step."""
    several = _count(file, "siesta: E_KS(eV) =") > 1
    return _load("siesta/aimd_output" if several else "siesta/output", file, source)


def _siesta_repair(data: System, file: Path) -> Iterator[Remark]:
    """SIESTA prints the stress with tension positive (its pressure is minus the trace), dpdata takes it as virial."""
    if "virials" in data:
        data["virials"] = -np.asarray(data["virials"])
    free = re.findall(r"FreeEng =\s+(\S+)", file.read_text(errors="replace"))
    if free and len(data["energies"]) == 1:  # the one that the forces belong to, with more digits
        data["energies"] = np.array([float(free[-1])])
    elif len(data["energies"]):
        yield Remark(
            "energy is E_KS, with 4 decimals; at a high electronic temperature the forces belong to FreeEng",
            len(data["energies"]),
        )


def _aims_refuse(file: Path) -> str | None:
    if _count(file, "Attempting to predict improved coordinates"):
        return "a relaxation: dpdata joins the labels of FHI-aims with the positions of the next step; read it with ASE"
    return None


def _aims(name: str, file: Path, source: str) -> list[System]:
    moving = _count(file, "Molecular dynamics time step", "Molecular dynamics: Attempting") > 0
    return _load("fhi_aims/md" if moving else "fhi_aims/scf", file, source)


def _aims_repair(data: System, file: Path) -> Iterator[Remark]:
    """The forces belong to the electronic free energy; dpdata takes the total energy, and a cell of no numbers."""
    if np.size(data.get("cells", ())) == 0:
        data["nopbc"] = True
    energies = np.asarray(data["energies"], dtype=np.float64)
    pairs = _aims_energies(file)
    total = np.array([pair[0] for pair in pairs])
    for k, energy in enumerate(energies):
        same = np.flatnonzero(np.abs(total - energy) < 1e-6)
        if len(same):
            energies[k] = pairs[same[0]][1]
    data["energies"] = energies
    yield from ()


def _aims_energies(file: Path) -> list[tuple[float, float]]:
    """Total and free energy of each electronic step, eV."""
    text = file.read_text(errors="replace")
    number = r"\s*:\s+(\S+) eV"
    total = re.findall(rf"\| Total energy uncorrected{number}", text)
    free = re.findall(rf"\| Electronic free energy {number}", text)
    return [(float(a), float(b)) for a, b in zip(total, free, strict=False)]


def _pwmat_unconverged(file: Path) -> int:
    """As dpdata decides: 100 electronic steps at the start, 40 later."""
    n = 0
    with open(file, errors="replace") as stream:
        for line in stream:
            found = re.search(r"Iteration \(fs\) =\s*(\S+),.*SCF =\s*(\d+)", line)
            n += bool(found and int(found[2]) >= (40 if float(found[1]) > 0 else 100))
    return n


ENGINES: dict[str, Engine] = {
    **dict.fromkeys(
        [f"abacus/{basis}{run}" for basis in ("", "pw/", "lcao/") for run in ("scf", "md", "relax")], ABACUS
    ),
    "amber/md": Engine("AMBER", load=_amber, repair=_force_field),
    **dict.fromkeys(("deepmd", "deepmd/raw"), Engine("DeePMD, raw text")),
    "deepmd/hdf5": Engine("DeePMD, HDF5", load=load_container),
    "deepmd/hdf5/mixed": Engine("DeePMD, HDF5, mixed", load=load_container),
    "deepmd/lmdb": Engine("DeePMD, LMDB", load=load_container),
    "lmdb": Engine("DeePMD, LMDB", load=load_container),
    "dftbplus": Engine("DFTB+", load=_dftb, refuse=_dftb_refuse, repair=_mermin),
    **dict.fromkeys(
        ("fhi_aims/md", "fhi_aims/output", "fhi_aims/scf"),
        Engine("FHI-aims", load=_aims, refuse=_aims_refuse, repair=_aims_repair),
    ),
    "gaussian/fchk": Engine("Gaussian, formatted checkpoint", load=_fchk),
    **dict.fromkeys(
        ("gaussian/log", "gaussian/md"),
        Engine("Gaussian", _gaussian, _gaussian_refuse, count_unconverged=_gaussian_unconverged),
    ),
    "openmx/md": Engine(
        "OpenMX", _prefix("dat", "md"), repair=_openmx_converged, count_unconverged=_openmx_unconverged
    ),
    "orca/spout": Engine("ORCA", refuse=_single_point("CARTESIAN GRADIENT", "SCF NOT CONVERGED")),
    "psi4/out": Engine("Psi4", _psi4, refuse=_single_point("Total Gradient", "Could not converge SCF")),
    **dict.fromkeys(
        ("movement", "mlmd", "pwmat/movement", "pwmat/mlmd", "pwmat/output"),
        Engine("PWmat", count_unconverged=_pwmat_unconverged),
    ),
    "qe/cp/traj": Engine("Quantum ESPRESSO, cp.x", _cp),
    **dict.fromkeys(
        ("siesta/output", "siesta/aimd_output"), Engine("SIESTA", load=_siesta, repair=_siesta_repair)
    ),
    "sqm/out": Engine(
        "AMBER sqm", refuse=lambda file: None if _count(file, "Forces on QM") else "no forces in it"
    ),
}
