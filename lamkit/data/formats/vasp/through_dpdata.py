"""Complete ionic steps, as text, into frames: dpdata reads them from a short file with nothing else in it.

dpdata gives the numbers, the units and the orientation (cell turned to lower triangular, forces and virial
with it). As it sees only complete steps, in an order that it knows, it cannot lose one.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from lamkit.data.formats.vasp.steps import Row, Step, determinant
from lamkit.data.frame import Frame, make_frame, numbers_of, to_voigt

BATCH_ATOMS = 20_000  # atoms in one short file: a few MB, so that a run of any length takes no memory

Writer = Callable[[Sequence[str], Sequence[Step]], str]


def frames(
    batch: Sequence[Step], symbols: Sequence[str], fmt: str, source: str, info: dict[str, str | float]
) -> Iterator[Frame]:
    """Frames of complete ionic steps, in their order.

    Args:
        batch: the steps.
        symbols: element of each atom.
        fmt: ``vasp/outcar`` or ``vasp/xml``.
        source: file that they come from.
        info: what is known of the run.
    """
    with_stress = [step for step in batch if step.stress]
    without = [step for step in batch if not step.stress]
    data = {id(step): row for part in (with_stress, without) for step, row in _load(part, symbols, fmt)}
    for step in batch:
        yield _frame(step, *data[id(step)], source=source, info=info)


def _load(
    batch: Sequence[Step], symbols: Sequence[str], fmt: str
) -> Iterator[tuple[Step, tuple[dict[str, Any], int]]]:
    """Arrays of dpdata for each step; all steps have a stress or none has."""
    import dpdata

    if not batch:
        return
    for step in batch:
        _right_handed(step)
    with tempfile.TemporaryDirectory(prefix="lamkit-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        short = Path(folder) / "run"
        short.write_text(WRITERS[fmt](symbols, batch), encoding="utf-8")
        data = dpdata.LabeledSystem(str(short), fmt=fmt, convergence_check=False).data
    if len(data["coords"]) != len(batch):
        raise RuntimeError(f"dpdata returned {len(data['coords'])} of {len(batch)} complete ionic steps")
    data["numbers"] = numbers_of(np.array(data["atom_names"])[data["atom_types"]])
    for k, step in enumerate(batch):
        yield step, (data, k)


def _right_handed(step: Step) -> None:
    """Turn all lattice vectors round where they are left-handed: the same lattice, and dpdata takes it."""
    if determinant(step.lattice) < 0:
        step.lattice = [[_negative(x) for x in row] for row in step.lattice]
        if len(step.stress) == 9:  # fractional coordinates of a vasprun.xml turn with the vectors
            step.positions = [[_negative(x) for x in row] for row in step.positions]


def _negative(word: str) -> str:
    return word.removeprefix("-") if word.startswith("-") else f"-{word.removeprefix('+')}"


def _frame(step: Step, data: dict[str, Any], k: int, *, source: str, info: dict[str, str | float]) -> Frame:
    cell = data["cells"][k]
    virials = data.get("virials")
    more: dict[str, str | float] = {}
    if step.scf:
        more["scf"] = step.scf
    if step.machine_learned:
        more["labels_from"] = "machine learning"
    if step.doubt:
        more["doubt"] = step.doubt
    if step.fixed:
        more["fixed_atoms"] = float(step.fixed)
    return make_frame(
        data["numbers"],
        data["coords"][k],
        cell,
        True,
        energy=data["energies"][k],
        forces=data["forces"][k],
        stress=None if virials is None else -to_voigt(virials[k]) / abs(np.linalg.det(cell)),
        source=source,
        step=step.index,
        group=source,
        info={**info, **more},
    )


def as_outcar(symbols: Sequence[str], batch: Sequence[Step]) -> str:
    """An OUTCAR with what dpdata looks for."""
    types: list[str] = []
    counts: list[int] = []
    for symbol in symbols:
        if not types or types[-1] != symbol:
            types.append(symbol)
            counts.append(0)
        counts[-1] += 1
    lines = [f" TITEL  = PAW {symbol} 2000" for symbol in types]
    lines += [" ions per type = " + " ".join(map(str, counts)), " NELM = 1000000000;", " NWRITE = 2"]
    for step in batch:
        lines += _outcar_step(step)
    return "\n".join(lines) + "\n"


def _outcar_step(step: Step) -> list[str]:
    lines = []
    if step.stress:
        lines += ["  FORCE on cell =-STRESS in cart. coord.  units (eV):", *[""] * 13]
        lines.append("  in kB " + " ".join(step.stress))
    lines += [" VOLUME and BASIS-vectors are now :", *[""] * 4, *map(" ".join, step.lattice)]
    lines += [" POSITION       TOTAL-FORCE (eV/Angst)", " ---"]
    lines += [" ".join(r + f) for r, f in zip(step.positions, step.forces, strict=True)]
    return [*lines, f"  free  energy   TOTEN  =  {step.energy} eV"]


def as_vasprun(symbols: Sequence[str], batch: Sequence[Step]) -> str:
    """A vasprun.xml with what dpdata looks for."""
    number = {symbol: k for k, symbol in enumerate(dict.fromkeys(symbols), start=1)}
    atoms = "".join(f"<rc><c>{escape(s)}</c><c>{number[s]}</c></rc>" for s in symbols)
    parts = [f'<modeling><atominfo><array name="atoms"><set>{atoms}</set></array></atominfo>']
    for step in batch:
        parts += [
            "<calculation><structure><crystal>",
            _varray("basis", step.lattice),
            "</crystal>",
            _varray("positions", step.positions),
            "</structure>",
            _varray("forces", step.forces),
            _varray("stress", [step.stress[i : i + 3] for i in (0, 3, 6)]) if step.stress else "",
            f'<energy><i name="e_fr_energy">{step.energy}</i></energy></calculation>',
        ]
    return "".join(parts) + "</modeling>"


def _varray(name: str, rows: Sequence[Row]) -> str:
    return f'<varray name="{name}">' + "".join(f"<v>{' '.join(row)}</v>" for row in rows) + "</varray>"


WRITERS: dict[str, Writer] = {"vasp/outcar": as_outcar, "vasp/xml": as_vasprun}
