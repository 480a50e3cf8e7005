"""Files that ASE reads: databases (SQLite, and LMDB as OMat24 is published), trajectories, Quantum ESPRESSO.

Stored results are read without ASE's constraints, which would set the forces of fixed atoms to zero.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lamkit.data.formats.containers import require_whole_lmdb
from lamkit.data.formats.labels import labelled_frame
from lamkit.data.formats.reading import Dropped, ReadOptions, Remark
from lamkit.data.frame import Frame, from_atoms
from lamkit.errors import UserError

PAGE = 500  # rows of a database in memory at once
UNCONVERGED = "electronic steps did not converge"
_NOT_CONVERGED = "convergence NOT achieved"
_PW_POSITIONS = "ATOMIC_POSITIONS"


def read_db(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of an ASE database in SQLite."""
    import ase.db

    def pages() -> Iterator[Any]:
        database, last = ase.db.connect(file, type="db"), 0
        # One select over everything would hold all rows in memory at once.
        while rows := list(database.select(f"id>{last}", limit=PAGE)):
            yield from rows
            last = rows[-1].id

    yield from _rows(pages(), source, options)


def read_aselmdb(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of an ASE database in LMDB: compressed JSON, no pickles, so nothing in it can run.

    Raises:
        UserError: ``ase-db-backends`` is not installed.
    """
    try:
        from ase_db_backends.aselmdb import LMDBDatabase
    except ImportError:
        raise UserError(
            f"{source}: an ASE database in LMDB, which needs a reader: pip install 'lamkit[aselmdb]'"
        ) from None
    require_whole_lmdb(file, source)

    # ase.db.connect opens for writing, which fails on read-only folders and leaves a lock file behind.
    def rows() -> Iterator[Any]:
        yield from LMDBDatabase(file, readonly=True, use_lock_file=False).select()

    yield from _rows(rows(), source, options)


def _rows(rows: Iterator[Any], source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    step = -1
    try:
        for step, row in enumerate(rows):
            known = {**(row.data or {}), **row.key_value_pairs}
            for name in ("energy", "free_energy", "forces", "stress"):
                if row.get(name) is not None:
                    known[name] = row[name]
            yield labelled_frame(row.numbers, row.positions, row.cell, row.pbc, known, source, step, options)
    except UserError:
        raise
    except Exception as error:  # sqlite3, lmdb, zlib and json each raise their own on a broken file
        raise UserError(
            f"{source}: row {step + 1}: not readable as an ASE database: {type(error).__name__}: {error}"
        ) from None


def read_traj(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of an ASE trajectory; frames may differ in their atoms."""
    from ase.io import Trajectory

    with Trajectory(str(file)) as trajectory:
        for step, atoms in enumerate(trajectory):
            yield from_atoms(atoms, source=source, step=step, group=source)


def read_poscar(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """The one structure of a POSCAR; it has no labels, so ``--unlabelled`` is needed to keep it."""
    from ase.io.vasp import read_vasp

    with open(file) as stream:
        yield from_atoms(read_vasp(stream), source=source, group=source)


def read_pw(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Ionic steps of an output of pw.x: scf, relax, vc-relax, md.

    dpdata's ``qe/pw/scf`` joins the last energy of the output with its first forces and the positions of the
    input, which is right for a single point only; ASE takes each step as a whole. The line with ``!`` is the
    free energy, which the forces belong to, and is printed only when the step has converged.
    """
    from ase.io.espresso import read_espresso_out

    text = file.read_text(errors="replace")
    if _NOT_CONVERGED in text:  # pw.x stops here, and ASE cannot read past it
        text = _before_last_step(text)
        yield Dropped(UNCONVERGED)
    if "!    total energy" not in text:
        if _NOT_CONVERGED not in file.read_text(errors="replace"):
            raise UserError(
                f"{source}: no converged total energy in it (a line with '!'); is it a bands run?"
            )
        return
    for step, atoms in enumerate(read_espresso_out(io.StringIO(text))):
        yield from_atoms(atoms, source=source, step=step, group=source)


def _before_last_step(text: str) -> str:
    """The output up to the structure of the step that did not converge."""
    before = text[: text.index(_NOT_CONVERGED)]
    cut = before.rfind(_PW_POSITIONS)
    return before[:cut] if cut >= 0 else ""
