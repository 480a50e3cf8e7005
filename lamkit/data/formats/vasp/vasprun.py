"""Ionic steps of a vasprun.xml, as text: each is a ``<calculation>`` element."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lamkit.data.formats.vasp import steps, theory
from lamkit.data.formats.vasp.species import true_element
from lamkit.data.formats.vasp.steps import Row, Step, numbers

DECIMALS = (8, 8, 8)
POTENTIALS = {"PAW_PBE": "PE", "PAW_GGA": "91", "PAW": "CA", "PAW_LDA": "CA"}  # title -> LEXCH


@dataclass
class Run:
    """What a vasprun.xml says of the run as a whole; filled while the file is read.

    Attributes:
        version: of VASP.
        asked: settings of the INCAR.
        used: settings that were used.
        symbols: element of each atom.
        titles: title of each pseudopotential.
        valence: electrons of all pseudopotentials together; None if unknown.
        fixed: number of atoms held fixed in some direction.
        truncated: the file ends too early; where, in the parser's words.
    """

    version: str = ""
    asked: dict[str, str] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)
    symbols: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    valence: float | None = None
    fixed: int = 0
    truncated: str = ""

    @property
    def major(self) -> int:
        """Number before the first point of the version; 0 if unknown."""
        found = re.match(r"\d+", self.version)
        return int(found[0]) if found else 0

    def integer(self, name: str) -> int | None:
        """Value of a setting as a whole number; None if absent."""
        value = self.used.get(name, self.asked.get(name, ""))
        return int(value) if re.fullmatch(r"-?\d+", value) else None

    def real(self, name: str) -> float:
        """Value of a setting as a number; 0 if absent."""
        try:
            return float(self.used.get(name, self.asked.get(name, "0")))
        except ValueError:
            return 0.0

    def flag(self, name: str) -> bool:
        """Whether a logical setting is true."""
        return self.used.get(name, self.asked.get(name, "F")).upper().startswith(("T", ".T"))


def read_steps(file: Path, run: Run, source: str) -> Iterator[Step]:
    """Ionic steps one by one; ``run`` is filled on the way.

    Raises:
        UserError: an atom is of no element.
    """
    index = n_ml = depth = opened = 0  # opened: calculations begun
    root: ET.Element | None = None
    outside = ET.Element("calculation")  # parts of an ionic step of the machine-learned force field
    for event, element in _events(file, run):
        if event == "start":
            root = element if root is None else root
            depth += 1
            opened += element.tag == "calculation"
            continue
        depth -= 1
        if element.tag == "calculation":
            yield _step(element, run, index)
            index += 1
        elif depth == 1 and element.tag in OUTSIDE and element.get("name") not in NOT_A_STEP:
            outside.append(element)
            if element.tag == "energy":
                yield _step(outside, run, n_ml)
                n_ml += 1
                outside = ET.Element("calculation")
        else:
            _run_facts(element, run, source)
        if depth == 1 and root is not None:
            root.clear()  # keeps the memory flat over a long run
    if run.truncated and opened > index:
        yield Step(index=index, fault=steps.BROKEN_END)


def _events(file: Path, run: Run) -> Iterator[tuple[str, ET.Element]]:
    """Starts and ends of elements up to the end of the file, or to where it is no XML any more."""
    try:
        yield from ET.iterparse(file, events=("start", "end"))
    except (ET.ParseError, LookupError, ValueError) as error:  # the latter two: an encoding that is none
        run.truncated = str(error)


# VASP 6 writes the steps of its machine-learned force field beside <calculation>, with these elements.
OUTSIDE = ("structure", "varray", "energy")
NOT_A_STEP = ("initialpos", "finalpos", "primitive_cell")


def _run_facts(element: ET.Element, run: Run, source: str) -> None:
    """Take what an element says of the run as a whole."""
    if element.tag == "generator":
        found = re.match(theory.VERSION, (element.findtext("i[@name='version']") or "").strip())
        run.version = found[0] if found else ""
    elif element.tag == "incar":
        run.asked |= _settings(element)
    elif element.tag == "parameters":
        run.used |= _settings(element)
    elif element.tag == "atominfo":
        _atoms(element, run, source)
    elif element.tag == "structure" and element.get("name") == "initialpos":
        run.fixed = _fixed(element)


def _settings(element: ET.Element) -> dict[str, str]:
    """Name and value of all settings below an element; the first of a name counts.

    VASP repeats names of the ground state in its section on response functions, with other values.
    """
    settings: dict[str, str] = {}
    for item in element.iter():
        if item.tag in ("i", "v"):
            settings.setdefault(item.get("name", ""), " ".join((item.text or "").split()))
    return settings


def _atoms(info: ET.Element, run: Run, source: str) -> None:
    """Elements of the atoms; symbols that are none are looked up in the pseudopotentials (trap A3)."""
    types = [[(c.text or "").strip() for c in row] for row in info.findall("array[@name='atomtypes']/set/rc")]
    titles = run.titles = [row[4] if len(row) > 4 else "" for row in types]
    run.symbols.clear()
    for row in info.findall("array[@name='atoms']/set/rc"):
        words = [(c.text or "").strip() for c in row]
        kind = int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0
        title = titles[kind - 1] if 0 < kind <= len(titles) else ""
        run.symbols.append(true_element(words[0] if words else "", title, source))
    if types and all(len(r) > 3 and r[0].strip().isdecimal() and steps.is_number(r[3]) for r in types):
        run.valence = sum(int(r[0]) * float(r[3]) for r in types)


def _fixed(structure: ET.Element) -> int:
    rows = [(v.text or "").split() for v in structure.findall("varray[@name='selective']/v")]
    return sum("F" in row for row in rows)


def _step(calculation: ET.Element, run: Run, index: int) -> Step:
    """One ionic step."""
    step = Step(index=index, fixed=run.fixed)
    energies = [(i.text or "").strip() for i in calculation.findall("energy/i[@name='e_fr_energy']")]
    scf = [(i.text or "").strip() for i in calculation.findall("scstep/energy/i[@name='e_fr_energy']")]
    n_electronic = len(calculation.findall("scstep"))
    if not energies or calculation.find("varray[@name='forces']") is None:
        step.fault = steps.NO_GROUND_STATE
        return step
    if steps.is_number(energies[-1]):  # dpdata, too, takes the last
        step.energy = energies[-1]
    else:
        step.fault = steps.OVERFLOW if "*" in energies[-1] else steps.DAMAGED
    if n_electronic == len(scf) and energies[-1] in scf:
        n_electronic = ground_state_steps(scf, energies[-1])
    step.machine_learned = run.flag("ML_LMLFF") and not scf
    step.scf = _convergence(n_electronic, run)
    step.lattice = _rows(calculation, "structure/crystal/varray[@name='basis']/v", step)
    step.positions = _rows(calculation, "structure/varray[@name='positions']/v", step)
    step.forces = _rows(calculation, "varray[@name='forces']/v", step)
    if calculation.find("varray[@name='stress']") is not None:
        step.stress = _stress(calculation, step)
    return steps.complete(step, len(run.symbols))


def ground_state_steps(energies: list[str], final: str) -> int:
    """Electronic steps up to the last one that has the final energy.

    A linear-response calculation puts its own steps into the same ionic step behind them (trap C6).
    """
    return max(k for k, energy in enumerate(energies, start=1) if energy == final)


def _convergence(n_electronic: int, run: Run) -> str:
    nelm = run.integer("NELM")
    if nelm is None or n_electronic == 0:
        return ""
    if n_electronic < nelm:
        return steps.CONVERGED
    return steps.NELM_REACHED_XML if run.major >= 6 and n_electronic == nelm else steps.NELM_REACHED


def _rows(calculation: ET.Element, path: str, step: Step) -> list[Row]:
    rows: list[Row] = []
    for element in calculation.iterfind(path):
        text = element.text or ""
        values = numbers(text, 3, DECIMALS)
        if values is None:
            step.fault = steps.OVERFLOW if "*" in text else steps.DAMAGED  # trap D5
            return rows
        rows.append(values)
    return rows


def _stress(calculation: ET.Element, step: Step) -> Row:
    """Nine numbers in kB; without them the frame is still good."""
    before = step.fault
    rows = _rows(calculation, "varray[@name='stress']/v", step)
    if step.fault != before or len(rows) != 3:
        step.fault, step.doubt = before, "stress left out: its numbers cannot be read"
        return []
    return [word for row in rows for word in row]


def facts(run: Run) -> dict[str, str | float]:
    """Level of theory and kind of run, as ``Frame.info`` holds them."""
    species = list(dict.fromkeys(run.symbols))
    metagga = run.asked.get("METAGGA", "")
    in_vain = 0 < run.major < 6 and metagga.upper() in theory.ONLY_SINCE_VASP_6  # trap A6
    u, j = (_numbers(run, name, len(species)) for name in ("LDAUU", "LDAUJ"))
    charge = None if run.valence is None or "NELECT" not in run.used else run.valence - run.real("NELECT")
    return theory.info(
        {
            "functional": theory.functional(
                gga=run.used.get("GGA", run.asked.get("GGA", "")),
                potcar=_potential_kind(run),
                metagga="" if in_vain else metagga,
                hybrid=run.flag("LHFCALC"),
                exchange=run.real("AEXX"),
                screening=run.real("HFSCREEN"),
                vdw_kernel=run.flag("LUSE_VDW"),
            )
            or None,
            "hubbard_u": theory.hubbard_u(species, run.flag("LDAU"), u, j),
            "dispersion": theory.DISPERSION.get(run.asked.get("IVDW", run.used.get("IVDW", "0")), ""),
            "code": f"VASP {run.version}" if run.version else None,
            "icharg": run.integer("ICHARG"),
            "isif": run.integer("ISIF"),
            "charge": charge if charge is not None and abs(charge) > 1e-6 else None,
            "core_hole": 1.0 if run.integer("ICORELEVEL") not in (None, 0) else None,
            "ialgo": run.integer("IALGO"),
            "asked_metagga": metagga if in_vain else None,
        }
    )


def _numbers(run: Run, name: str, n_species: int) -> list[float]:
    """A setting with a value for each type; the INCAR's, unless only the used one has them all."""
    lists = [
        [float(x) for x in words.get(name, "").split() if steps.is_number(x)]
        for words in (run.asked, run.used)
    ]
    return max(lists, key=lambda values: min(len(values), n_species))


def _potential_kind(run: Run) -> str:
    """LEXCH that the pseudopotentials stand for; empty if their titles do not say it with one voice."""
    kinds = {(title.split() or [""])[0] for title in run.titles}
    return POTENTIALS.get(kinds.pop(), "") if len(kinds) == 1 else ""
