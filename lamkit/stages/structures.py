"""The structures that md and relax work on: read from files, each with its place, and checked before any runs."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamkit import presets
from lamkit.console import log
from lamkit.data.structure import check_all
from lamkit.errors import UserError
from lamkit.stages.engine import Engine, dataset_folder, load_engine, read_images

if TYPE_CHECKING:
    from ase import Atoms

SHOWN = 5  # structures that are named where many are wrong
SAMPLE_HEAD = "pbe_oxides"  # of the sample model: crystals, so that cells move too


@dataclass(frozen=True)
class Structure:
    """One structure and where it came from.

    Attributes:
        atoms: with constraints and velocities, if the file has them; without calculator.
        source: file.
        index: place in that file, from 0.
        name: for files and tables, unique in a run.
    """

    atoms: Atoms
    source: str
    index: int
    name: str

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.source}, structure {self.index}"


def read_structures(paths: Sequence[str]) -> list[Structure]:
    """Every structure of the given files, globs and data sets, in order.

    Raises:
        UserError: nothing there, or nothing that can be read.
    """
    found = [(str(path), i, atoms) for path in _files(paths) for i, atoms in enumerate(_images(path))]
    digits = max(3, len(str(len(found))))
    return [
        Structure(
            atoms, source, i, f"{k:0{digits}d}-{atoms.get_chemical_formula(mode='reduce') or 'empty'}"[:60]
        )
        for k, (source, i, atoms) in enumerate(found)
    ]


def _files(paths: Sequence[str]) -> list[Path]:
    files = []
    for text in paths:
        matches = [text] if Path(text).exists() else sorted(glob.glob(text, recursive=True))
        if not matches:
            wild = any(c in text for c in "*?[")
            raise UserError(f"{text}: {'no file matches' if wild else 'no such file or folder'}")
        files += [Path(m) for m in matches]
    return files


def _images(path: Path) -> list[Any]:
    if path.is_dir():
        from lamkit.data.dataset import open_dataset
        from lamkit.data.frame import to_atoms

        data = open_dataset(dataset_folder(path))
        images = [to_atoms(data.frame(i)) for i in range(len(data))]
    else:
        images = read_images(path)
    for atoms in images:
        atoms.calc = None
    return images


def prepare(
    paths: Sequence[str], model: str | None, head: str | None, calculator: str | None, device: str
) -> tuple[Engine, list[Structure]]:
    """The engine and the structures of a run; with none given the shipped samples, and a word about it.

    Raises:
        UserError: something given cannot be read or loaded.
    """
    if not paths and model is None and calculator is None:
        model = str(presets.examples() / "model")
        head = head or SAMPLE_HEAD
        log.info("no model given: using the sample model %s, head %s (--model CKPT --head NAME)", model, head)
    engine = load_engine(model, head, calculator, device)
    if paths:
        return engine, read_structures(paths)
    sample = _sample(engine)
    log.info("no structure given: using %s (name any files that ASE reads)", sample.where)
    return engine, [sample]


def _sample(engine: Engine) -> Structure:
    """The first shipped structure of elements that the engine knows, periodic ones first."""
    known = set(getattr(engine.calculator, "elements", None) or ["H", "O", "C", "N"])
    found = read_structures([str(presets.examples() / "data" / "*.extxyz")])
    fitting = [s for s in found if set(s.atoms.get_chemical_symbols()) <= known]
    if not fitting:
        raise UserError(
            f"no structure given, and no sample structure is of elements that {engine.name} knows "
            f"({', '.join(sorted(known))}); name a structure file"
        )
    best = max(fitting, key=lambda s: bool(s.atoms.pbc.all()))
    return Structure(
        best.atoms, best.source, best.index, f"000-{best.atoms.get_chemical_formula(mode='reduce')}"
    )


def check(engine: Engine, structures: Sequence[Structure], skip_bad: bool = False) -> list[Structure]:
    """The structures that the engine can evaluate.

    Args:
        engine: what will evaluate them.
        structures: all of the run.
        skip_bad: leave the others out, with a warning each, instead of refusing.

    Raises:
        UserError: some cannot be evaluated (all of them, with ``skip_bad``); the first are named.
    """
    good, problems = [], []
    for structure in structures:
        try:
            _check_one(engine, structure)
            good.append(structure)
        except UserError as error:
            problems.append(str(error))
    if problems and (not skip_bad or not good):
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        if len(problems) == 1:
            raise UserError(problems[0])
        raise UserError(
            f"{len(problems)} of {len(structures)} structures cannot be used:\n  "
            + "\n  ".join(problems[:SHOWN])
            + more
        )
    complain([f"left out: {problem}" for problem in problems])
    return good


def complain(messages: Sequence[str]) -> None:
    """Warn of the first few; the table of the run names all."""
    for message in messages[:SHOWN]:
        log.warning("%s", message)
    if len(messages) > SHOWN:
        log.warning("and %d more", len(messages) - SHOWN)


def _check_one(engine: Engine, structure: Structure) -> None:
    if engine.batched:
        engine.calculator.check(structure.atoms, structure.where)  # type: ignore[attr-defined]
    else:
        check_all(structure.atoms, structure.where)
