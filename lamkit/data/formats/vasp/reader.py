"""Readers of ``OUTCAR`` and ``vasprun.xml``: every ionic step becomes a frame, or is dropped with a reason."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lamkit.data.formats.reading import Dropped, ReadOptions, Remark, plain_file
from lamkit.data.formats.vasp import outcar, steps, vasprun
from lamkit.data.formats.vasp.outcar_header import (
    Header,
    complete_counts,
    facts,
    read_header,
    symbols_of_types,
)
from lamkit.data.formats.vasp.steps import Step
from lamkit.data.formats.vasp.theory import NOT_SET, UNPROVEN
from lamkit.data.formats.vasp.through_dpdata import BATCH_ATOMS, frames
from lamkit.data.frame import Frame
from lamkit.errors import UserError

CUT_SHORT = "run did not come to its end; complete ionic steps are kept"
COUNTS_FOUND = (
    "atoms per type cut off in the file; found from the counts of atoms and electrons and from EATOM"
)
SELECTIVE = "selective dynamics: some atoms may be held fixed; their raw forces are kept"
_OUTCAR_BESIDE = ("OUTCAR", "OUTCAR.gz", "OUTCAR.bz2", "OUTCAR.xz")

Thing = Frame | Dropped | Remark


def read_outcar(file: Path, source: str, options: ReadOptions) -> Iterator[Thing]:
    """Frames of an OUTCAR."""
    with open(file, errors="replace") as stream:
        header, first_line = read_header(iter(stream.readline, ""))
        if not first_line:
            raise UserError(
                f"{source}: no finished ionic step in it: it ends before the first electronic step"
            )
        types = symbols_of_types(header, source)
        counts, were_cut = complete_counts(header, file, source)
        symbols = [symbol for symbol, n in zip(types, counts, strict=True) for _ in range(n)]
        state = {"finished": False, "steps": 0}

        def ionic_steps() -> Iterator[Step]:
            for thing in outcar.read_steps(stream, header, first_line, len(symbols)):
                if isinstance(thing, Step):
                    state["steps"] += not thing.fault.startswith(steps.BROKEN_END)
                    yield thing
                else:
                    state["finished"] = thing

        yield from _things(
            ionic_steps(), symbols, "vasp/outcar", source, lambda: facts(header, types, counts)
        )
    if not state["steps"]:
        raise UserError(f"{source}: no finished ionic step in it")
    if were_cut:
        yield Remark(COUNTS_FOUND)
    if header.selective:
        yield Remark(SELECTIVE)
    if not state["finished"]:
        yield Remark(CUT_SHORT)


def read_vasprun(file: Path, source: str, options: ReadOptions) -> Iterator[Thing]:
    """Frames of a vasprun.xml."""
    run = vasprun.Run()
    beside = _Beside(source)
    found = {"ground state": 0}

    def ionic_steps() -> Iterator[Step]:
        for step in vasprun.read_steps(file, run, source):
            found["ground state"] += step.fault not in (steps.NO_GROUND_STATE, steps.BROKEN_END)
            if step.scf == steps.NELM_REACHED_XML:
                step.scf = beside.convergence(step.energy) or step.scf
            yield step

    yield from _things(
        ionic_steps(), run.symbols, "vasp/xml", source, lambda: beside.functional(vasprun.facts(run), run)
    )
    if not found["ground state"]:
        raise UserError(f"{source}: no finished ionic step in it{_why_none(run)}")
    if run.truncated:
        yield Remark(f"{CUT_SHORT} (XML ends with: {run.truncated})")


def _why_none(run: vasprun.Run) -> str:
    algorithm = run.asked.get("ALGO", "").upper()
    if algorithm.startswith(("GW", "G0W", "EVGW", "QPGW", "BSE", "TDHF", "CHI", "RPA", "ACFDT", "TIMEEV")):
        return f": not a ground-state run (ALGO = {algorithm}), so it has no energy and forces to learn from"
    if "mismatched tag" in run.truncated or "not well-formed" in run.truncated:
        return (
            f": its XML is broken ({run.truncated}). The images of an NEB write into one vasprun.xml; "
            "use the OUTCAR of each image"
        )
    return f": it is cut off ({run.truncated})" if run.truncated else ""


def _things(
    ionic_steps: Iterable[Step],
    symbols: list[str],
    fmt: str,
    source: str,
    info: Callable[[], dict[str, str | float]],
) -> Iterator[Thing]:
    """Frames of the complete steps and a line for each of the others, in their order."""
    remaining = iter(ionic_steps)
    known: dict[str, str | float] | None = None
    while True:
        first = next(remaining, None)  # symbols are known once the first step is
        if first is None:
            return
        size = max(1, BATCH_ATOMS // max(1, len(symbols)))
        batch = [first, *itertools.islice(remaining, size - 1)]
        if known is None:
            known = info()
        good = frames([step for step in batch if not step.fault], symbols, fmt, source, known)
        for step in batch:
            if step.fault:
                what = f" of the machine-learned force field: {step.fault}" if step.machine_learned else ""
                yield Dropped(what.strip() or step.fault, step=step.index)
            else:
                yield next(good)


@dataclass
class _Beside:
    """The OUTCAR of the same run, read only when vasprun.xml does not tell something that it tells."""

    source: str
    _read: tuple[Header, dict[str, str]] | None = None
    _looked: bool = False

    def _open(self) -> tuple[Header, dict[str, str]] | None:
        if not self._looked:
            self._looked = True
            self._read = _scan_beside(Path(self.source))
        return self._read

    def convergence(self, energy: str) -> str:
        """Whether the ionic step with this energy converged (trap C4); empty if unknown."""
        found = self._open()
        return found[1].get(energy, "") if found else ""

    def functional(self, known: dict[str, str | float], run: vasprun.Run) -> dict[str, str | float]:
        """``known`` with the meta-GGA that ran: vasprun.xml gives only the one asked for (trap A6)."""
        if run.asked.get("METAGGA", "--").upper() in NOT_SET or "asked_metagga" in known:
            return known
        found = self._open()
        if found is None:
            return {**known, "asked_metagga": UNPROVEN}
        header = found[0]
        own = facts(header, header.titles, header.counts)
        return {**known, **{k: own[k] for k in ("functional", "asked_metagga") if k in own}}


def _scan_beside(source: Path) -> tuple[Header, dict[str, str]] | None:
    """Header and convergence by energy of the OUTCAR in the same folder; None without."""
    if not source.name.startswith("vasprun.xml"):
        return None
    path = next((source.parent / n for n in _OUTCAR_BESIDE if (source.parent / n).is_file()), None)
    if path is None:
        return None
    with plain_file(path) as file, open(file, errors="replace") as stream:
        header, first_line = read_header(iter(stream.readline, ""))
        things = outcar.read_steps(stream, header, first_line, sum(header.counts))
        scf = {step.energy: step.scf for step in things if isinstance(step, Step)}
    return header, scf
