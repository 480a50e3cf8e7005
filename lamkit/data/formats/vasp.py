"""VASP: ``OUTCAR`` and ``vasprun.xml``, read by dpdata.

dpdata gives the labels (energy: TOTEN; cells rotated to lower triangular, forces and virials with them) and
drops frames without saying which. So the file is also scanned here for its ionic steps: each is kept, or
counted with the reason. VASP 5 prints "EDIFF is reached" even when it gave up, so there only the count of
electronic steps tells whether a step converged; VASP 6 prints the truth.
"""

from __future__ import annotations

import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lamkit.data.formats.reading import Dropped, ReadOptions, Remark
from lamkit.data.frame import Frame, make_frame, numbers_of, to_voigt
from lamkit.errors import UserError

NON_SELF_CONSISTENT = 10  # ICHARG from here on keeps the density fixed
UNCONVERGED = "electronic steps did not converge (NELM reached)"
INCOMPLETE = "ionic step without complete labels"
BROKEN_END = "file ends in the middle of an ionic step"


@dataclass
class Scan:
    """What a file says of its ionic steps.

    Attributes:
        steps: energy (TOTEN, eV; NaN if unreadable) and convergence of each ionic step.
        icharg: VASP's ICHARG.
        isif: VASP's ISIF.
        truncated: the run did not come to its end.
    """

    steps: list[tuple[float, bool]] = field(default_factory=list)
    icharg: int | None = None
    isif: int | None = None
    truncated: bool = False


def read_outcar(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of an OUTCAR."""
    return _read(file, source, "vasp/outcar", scan_outcar(file))


def read_vasprun(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of a vasprun.xml."""
    return _read(file, source, "vasp/xml", scan_vasprun(file))


def _read(file: Path, source: str, fmt: str, scan: Scan) -> Iterator[Frame | Dropped | Remark]:
    if not scan.steps:
        raise UserError(f"{source}: no finished ionic step in it")
    if scan.icharg is not None and scan.icharg >= NON_SELF_CONSISTENT:
        reason = f"not self-consistent (ICHARG = {scan.icharg}): its energies are no ground-state energies"
        yield Dropped(reason, len(scan.steps))
        return
    data = load(file, fmt)
    step_of = match_steps(data["energies"], [energy for energy, _ in scan.steps])
    yield from _frames(data, scan, step_of, source)
    missing = len(scan.steps) - len(step_of)
    if missing:
        yield Dropped(INCOMPLETE, missing)
    if scan.truncated:
        yield Remark("run did not come to its end; complete ionic steps are kept")


def load(file: Path, fmt: str) -> dict[str, Any]:
    """All complete ionic steps of a file as dpdata's arrays, converged or not."""
    import dpdata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what dpdata warns of is counted and reported here
        return dpdata.LabeledSystem(str(file), fmt=fmt, convergence_check=False).data


def match_steps(energies: Any, all_energies: list[float]) -> list[int]:
    """Ionic step of each frame that dpdata returned, found by its energy; frames keep their order."""
    steps, start = [], 0
    for energy in np.asarray(energies, dtype=np.float64).ravel():
        while start < len(all_energies) and not abs(all_energies[start] - energy) < 1e-7:
            start += 1
        steps.append(min(start, len(all_energies) - 1))
        start += 1
    return steps


def _frames(
    data: dict[str, Any], scan: Scan, step_of: list[int], source: str
) -> Iterator[Frame | Dropped | Remark]:
    numbers = numbers_of(np.array(data["atom_names"])[data["atom_types"]], source)
    virials = data.get("virials")
    if virials is not None and len(virials) != len(step_of):
        yield Remark("stress left out: it is not given for every ionic step", len(step_of))
        virials = None
    if virials is not None and scan.isif == 1:
        yield Remark("stress left out: with ISIF = 1 only the pressure is computed", len(step_of))
        virials = None
    for k, step in enumerate(step_of):
        if not scan.steps[step][1]:
            yield Dropped(UNCONVERGED)
            continue
        cell = data["cells"][k]
        stress = None if virials is None else -to_voigt(virials[k]) / abs(np.linalg.det(cell))
        yield make_frame(
            numbers,
            data["coords"][k],
            cell,
            True,
            energy=data["energies"][k],
            forces=data["forces"][k],
            stress=stress,
            source=source,
            step=step,
            group=source,
        )


def scan_outcar(file: Path) -> Scan:
    """Ionic steps of an OUTCAR: each ends with the line of its free energy."""
    scan = Scan(truncated=True)
    version, nelm, n_electronic, reached = 0, None, 0, False
    with open(file, errors="replace") as stream:
        for line in stream:
            if "Iteration" in line and (found := re.search(r"Iteration\s+\d+\(\s*(\d+)\)", line)):
                n_electronic, reached = int(found[1]), False
            elif "EDIFF is reached" in line:
                reached = True
            elif "free  energy   TOTEN" in line:
                converged = nelm is None or n_electronic < nelm or (version >= 6 and reached)
                scan.steps.append((_energy(line), converged))
                n_electronic, reached = 0, False
            elif "General timing" in line:
                scan.truncated = False
            elif version == 0 and (found := re.match(r"\s*vasp\.(\d+)", line)):
                version = int(found[1])
            elif nelm is None and (found := re.search(r"\bNELM\s*=\s*(\d+)", line)):
                nelm = int(found[1])
            elif scan.icharg is None and (found := re.match(r"\s*ICHARG\s*=\s*(\d+)", line)):
                scan.icharg = int(found[1])
            elif scan.isif is None and (found := re.match(r"\s*ISIF\s*=\s*(\d+)", line)):
                scan.isif = int(found[1])
    return scan


def _energy(line: str) -> float:
    found = re.search(r"=\s*(-?[\d.]+)", line)
    return float(found[1]) if found else float("nan")


def scan_vasprun(file: Path) -> Scan:
    """Ionic steps of a vasprun.xml: each is a ``<calculation>`` element."""
    scan, nelm = Scan(), None
    try:
        for _, element in ET.iterparse(file):
            if element.tag == "parameters":
                nelm = _integer(element, "NELM")
                scan.icharg, scan.isif = _integer(element, "ICHARG"), _integer(element, "ISIF")
            elif element.tag == "calculation":
                converged = nelm is None or len(element.findall("scstep")) < nelm
                scan.steps.append((_free_energy(element), converged))
                element.clear()
    except ET.ParseError:
        scan.truncated = True
    return scan


def _integer(parameters: ET.Element, name: str) -> int | None:
    found = parameters.find(f".//i[@name='{name}']")
    return int(found.text) if found is not None and found.text and found.text.strip().isdigit() else None


def _free_energy(calculation: ET.Element) -> float:
    """``e_fr_energy`` of one ionic step, the last entry if there are several, as dpdata takes it."""
    found = calculation.findall("energy/i[@name='e_fr_energy']")
    try:
        return float(found[-1].text or "nan") if found else float("nan")
    except ValueError:  # VASP prints stars where a number does not fit
        return float("nan")
