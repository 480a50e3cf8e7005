"""What an OUTCAR says before its first electronic step: version, types of atoms, settings that were used."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lamkit.data.formats.vasp import theory
from lamkit.data.formats.vasp.species import cut_off_counts, element_in
from lamkit.errors import UserError

# NAME = value; one line may hold several, set apart by semicolons.
_TAG = re.compile(r"([A-Z][A-Z0-9_]+)\s*=\s*([^\s;,]+)")
_END = re.compile(r"Iteration\s+\d+\(|TOTAL-FORCE|FORCE on cell|VOLUME and BASIS-vectors are now")
MOST_LINES = 2_000_000  # before the first electronic step; k-points take a line each


@dataclass
class Header:
    """The beginning of an OUTCAR.

    Attributes:
        version: such as ``5.4.4``; empty if it is not there.
        titles: title of each pseudopotential.
        counts: atoms per type.
        tags: value that each setting was used with.
        asked: settings of the INCAR, where VASP repeats it.
        rows: settings with a value for each type.
        atom_energies: energy of a free atom of each type, kinetic energy error taken off, eV.
    """

    version: str = ""
    titles: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    rows: dict[str, list[float]] = field(default_factory=dict)
    valences: list[float] = field(default_factory=list)
    atom_energies: list[float] = field(default_factory=list)
    potcar_lines: list[str] = field(default_factory=list)
    selective: bool = False
    core_hole: bool = False

    @property
    def major(self) -> int:
        """Number before the first point of the version; 0 if unknown."""
        return int(self.version.split(".")[0]) if self.version else 0

    def integer(self, name: str) -> int | None:
        """Value of a setting as a whole number; None if absent."""
        value = self.tags.get(name, "")
        return int(value) if re.fullmatch(r"-?\d+", value) else None

    def real(self, name: str) -> float:
        """Value of a setting as a number; 0 if absent."""
        try:
            return float(self.tags.get(name, "0"))
        except ValueError:
            return 0.0


def read_header(lines: Iterable[str]) -> tuple[Header, str]:
    """The header, and the first line after it (empty at the end of the file)."""
    header, in_incar, continued = Header(), False, False
    errors: list[float] = []
    for n, line in enumerate(lines):
        if _END.search(line) or n > MOST_LINES:
            _finish(header, errors)
            return header, line
        stripped = line.strip()
        if continued and re.fullmatch(r"[\d\s]+", stripped or "x"):  # counts wrapped into a second line
            header.counts += [int(word) for word in stripped.split()]
            continue
        continued = False
        if stripped == "INCAR:":
            in_incar = True
        elif stripped.startswith("POTCAR:"):
            in_incar = False
            header.potcar_lines.append(stripped.removeprefix("POTCAR:").strip())
        elif in_incar:
            header.asked |= dict(_TAG.findall(line.upper()))
        elif "ions per type" in line:
            words = line.split("=")[-1].split()
            header.counts = [int(word) for word in words if word.isdecimal()]
            continued = True
        elif not header.version and (found := re.match(rf"\s*vasp\.({theory.VERSION})", line)):
            header.version = found[1]
        elif "kinetic energy error for atom" in line:
            errors += [float(x) for x in re.findall(r"=\s*(-?\d+\.\d+)", line)]
        elif "=" in line:
            _settings(header, line)
        elif "using selective dynamics" in line:
            header.selective = True
        elif "Core level calculations are selected" in line:
            header.core_hole = True
    _finish(header, errors)
    return header, ""


def _settings(header: Header, line: str) -> None:
    """Take the settings of one line into the header."""
    if "TITEL" in line:
        header.titles.append(line.split("=", 1)[1].strip())
    elif "Core level calculations are selected" in line:
        header.core_hole = True
    elif found := re.match(r"\s*EATOM\s*=\s*(-?\d+\.\d+) eV", line):
        header.atom_energies.append(float(found[1]))
    elif found := re.search(r"\b(LDAU[UJ])\s*=(.*)", line):
        header.rows[found[1]] = [float(x) for x in re.findall(r"-?\d+\.?\d*", found[2])]
    elif found := re.match(r"\s*POMASS\s*=.*ZVAL\s*=\s*(-?\d+\.\d+)\s+mass", line):
        header.valences.append(float(found[1]))
    elif "non-selfconsistent MetaGGA" in line or re.match(r"\s*LEXCH\s+=\s+[A-Z0-9]{2}\s*$", line):
        if "LEXCH" in line:  # of a POTCAR
            header.tags.setdefault("POTCAR_LEXCH", line.split("=")[1].strip())
    else:
        header.tags |= dict(_TAG.findall(line))


def _finish(header: Header, errors: list[float]) -> None:
    if not header.titles:  # a stripped POTCAR: VASP lists all titles once, then each again
        half = len(header.potcar_lines) // 2
        twice = half and header.potcar_lines[:half] == header.potcar_lines[half : 2 * half]
        header.titles = header.potcar_lines[:half] if twice else list(header.potcar_lines)
    if len(errors) == len(header.atom_energies):
        header.atom_energies = [e - d for e, d in zip(header.atom_energies, errors, strict=True)]


def symbols_of_types(header: Header, source: str) -> list[str]:
    """Element of each type of atoms.

    Raises:
        UserError: no title of a pseudopotential, or one that names no element.
    """
    if not header.titles:
        raise UserError(f"{source}: no pseudopotential is named in it, so its elements are unknown")
    symbols = []
    for title in header.titles:
        symbol = element_in(title)
        if symbol is None:
            raise UserError(
                f"{source}: the pseudopotential '{title}' names no element of the periodic table; "
                "correct its TITEL line, or use vasprun.xml"
            )
        symbols.append(symbol)
    return symbols


def complete_counts(header: Header, file: Path, source: str) -> tuple[list[int], bool]:
    """Atoms of each type, and whether those that VASP cut off had to be found again (trap D11).

    Raises:
        UserError: the counts do not fit the types, and cannot be found from the rest of the file.
    """
    counts, n_types, n_atoms = header.counts, len(header.titles), header.integer("NIONS")
    if counts and len(counts) == n_types and n_atoms in (None, sum(counts)):
        return counts, False
    n_atoms = _largest_nions(file)
    total = _free_atoms(file)
    found = None
    if counts and n_atoms and total is not None and len(header.valences) == n_types:
        found = cut_off_counts(
            counts, header.valences, header.atom_energies, n_atoms, header.real("NELECT"), total
        )
    if found is None:
        raise UserError(
            f"{source}: it gives atoms per type for {len(counts)} of {n_types} types of atoms; "
            "the others cannot be told. Use the vasprun.xml of this run"
        )
    return found, True


def _largest_nions(file: Path) -> int | None:
    """NIONS; VASP prints it twice, the second time for the primitive cell."""
    with open(file, errors="replace") as stream:
        for n, line in enumerate(stream):
            if found := re.search(r"NIONS\s*=\s*(\d+)", line):
                return int(found[1])
            if n > MOST_LINES:
                break
    return None


def _free_atoms(file: Path) -> float | None:
    """Energy of all free atoms together as printed in the first electronic step, eV."""
    with open(file, errors="replace") as stream:
        for line in stream:
            if found := re.match(r"\s*atomic energy\s+EATOM\s*=\s*(-?\d+\.\d+)", line):
                return float(found[1])
    return None


def facts(header: Header, symbols: list[str], counts: list[int]) -> dict[str, str | float]:
    """Level of theory and kind of run, as ``Frame.info`` holds them."""
    tags = header.tags
    charge = None
    if len(header.valences) == len(counts) and "NELECT" in tags:
        charge = sum(n * z for n, z in zip(counts, header.valences, strict=True)) - header.real("NELECT")
    icharg, isif = header.integer("ICHARG"), header.integer("ISIF")
    return theory.info(
        {
            "functional": theory.functional(
                gga=tags.get("GGA", ""),
                potcar=tags.get("POTCAR_LEXCH", ""),
                code=tags.get("LEXCH", ""),
                metagga=tags.get("METAGGA", ""),
                hybrid=tags.get("LHFCALC", "F") == "T",
                exchange=header.real("AEXX"),
                screening=header.real("HFSCREEN"),
                vdw_kernel=tags.get("LUSE_VDW", "F") == "T",
            )
            or None,
            "hubbard_u": theory.hubbard_u(
                symbols, "LDAUU" in header.rows, header.rows.get("LDAUU", []), header.rows.get("LDAUJ", [])
            ),
            "dispersion": theory.DISPERSION.get(tags.get("IVDW", header.asked.get("IVDW", "0")), ""),
            "code": f"VASP {header.version}" if header.version else None,
            "icharg": icharg,
            "isif": isif,
            "charge": charge if charge is not None and abs(charge) > 1e-6 else None,
            "core_hole": 1.0 if header.core_hole else None,
            "ialgo": header.integer("IALGO"),
            "asked_metagga": _asked_in_vain(header),
        }
    )


def _asked_in_vain(header: Header) -> str | None:
    """A METAGGA that the INCAR asks for and that did not run (trap A6); None if there is none."""
    asked = header.asked.get("METAGGA", "")
    ran = header.tags.get("METAGGA", "")
    return asked if asked not in theory.NOT_SET and ran in theory.NOT_SET else None
