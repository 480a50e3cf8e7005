"""Where a stage gets its structures and its labels from: data sets, files, checkpoints, ASE calculators."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from ase.calculators.calculator import CalculatorError

from lamkit.data.frame import Frame, from_atoms, to_atoms, without_labels
from lamkit.data.heads import LevelOfTheory
from lamkit.errors import Interrupted, UserError, suggest

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from lamkit.calculator import LamCalculator


# What calculators raise for a structure that they cannot do: external codes fail in every one of these ways.
FAILURES = (
    UserError,
    CalculatorError,
    ArithmeticError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    LookupError,
    OSError,
    np.linalg.LinAlgError,
)


def reason(error: Exception) -> str:
    """One of :data:`FAILURES` in words: our own message, or the kind of error and what it says."""
    text = str(error).strip() or "no reason given"
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


class Frames(Protocol):
    """Anything that gives frames by index: a data set, a view of one, or :class:`FrameList`."""

    def __len__(self) -> int: ...

    def frame(self, i: int) -> Frame:
        """Frame ``i``, from 0."""
        ...


class FrameList:
    """Frames in memory behind the same two methods as a data set."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = list(frames)

    def __len__(self) -> int:
        return len(self.frames)

    def frame(self, i: int) -> Frame:
        """Frame ``i``."""
        return self.frames[i]


def read_frames(path: str | Path) -> Frames:
    """A data set (folder), or every structure of a file that ASE reads.

    Raises:
        UserError: nothing there, or nothing that can be read.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_dir():
        from lamkit.data.dataset import open_dataset

        return open_dataset(dataset_folder(path))
    images = read_images(path)
    return FrameList([from_atoms(a, source=str(path), step=i, group=path.stem) for i, a in enumerate(images)])


def read_images(path: Path) -> list[Atoms]:
    """Every structure of a file that ASE reads.

    Raises:
        UserError: ASE cannot, or there is none.
    """
    import ase.io

    try:
        images = ase.io.read(path, index=":")
    except Exception as error:  # ASE's readers raise anything; all mean that this file is not readable
        reason = str(error) or type(error).__name__
        raise UserError(f"{path}: ASE cannot read structures from it ({reason})") from None
    images = images if isinstance(images, list) else [images]
    if not images:
        raise UserError(f"{path}: holds no structure")
    return images


def dataset_folder(path: str | Path) -> Path:
    """The data set that ``path`` means: itself, ``data`` of a stage's folder, or ``train`` of a split."""
    path = Path(path)
    inside = [path / part for part in ("", "data", "train", "data/train")]
    return next((p for p in inside if (p / "dataset.yaml").is_file()), path)


def elements_of(source: Frames) -> set[int]:
    """Atomic numbers that occur; of a data set without reading its frames."""
    known = getattr(source, "elements", None)
    return (
        set(known)
        if known is not None
        else {int(z) for i in range(len(source)) for z in source.frame(i).numbers}
    )


def frames_at(sources: Sequence[Frames], indices: Iterable[int]) -> list[Frame]:
    """Structures by their index over all sources, one after the other."""
    lengths = [len(s) for s in sources]
    ends = np.cumsum(lengths)
    places = [(int(np.searchsorted(ends, i, side="right")), i) for i in indices]
    return [sources[k].frame(int(i - (ends[k] - lengths[k]))) for k, i in places]


def enlarge(frame: Frame, min_atoms: int) -> Frame:
    """Repeat a periodic frame, its shortest periodic axis first, until it has ``min_atoms``; no labels."""
    atoms = to_atoms(frame)
    atoms.calc = None
    if not frame.pbc.any():
        return without_labels(frame)
    while len(atoms) < min_atoms:
        lengths = np.where(frame.pbc, atoms.cell.lengths(), np.inf)
        repeat = [1, 1, 1]
        repeat[int(lengths.argmin())] = 2
        atoms = atoms.repeat(repeat)
    return from_atoms(atoms, source=frame.source, step=frame.step, group=frame.group, info=frame.info)


class Labeller(Protocol):
    """Where labels come from, as far as a data set says it."""

    @property
    def name(self) -> str:
        """What it is, for people."""
        ...

    @property
    def head(self) -> str:
        """Head of the checkpoint; empty for all else."""
        ...

    @property
    def level(self) -> LevelOfTheory:
        """Level of theory of the labels."""
        ...


@dataclass(frozen=True)
class Engine:
    """What gives energies and forces.

    Attributes:
        calculator: the ASE calculator.
        name: what it is, for people.
        head: head of the checkpoint; empty for other calculators.
        level: level of theory, for the facts of the data set that it labels.
        batched: it has ``predict(list of atoms)``.
    """

    calculator: Calculator
    name: str
    head: str
    level: LevelOfTheory
    batched: bool


def load_engine(model: str | None, head: str | None, calculator: str | None, device: str = "CPU") -> Engine:
    """A checkpoint with its head, or any ASE calculator.

    Args:
        model: checkpoint folder, run folder or None.
        head: head of the checkpoint; None is enough where there is only one.
        calculator: ``module:function`` that returns an ASE calculator, or None.
        device: device of the checkpoint's network.

    Raises:
        UserError: none or both given, or what is given cannot be loaded.
    """
    if (model is None) == (calculator is None):
        raise UserError(
            "give either a checkpoint (model: PATH) or an ASE calculator "
            "(calculator: MODULE:FUNCTION, for example ase.calculators.emt:EMT), not both and not none"
        )
    if model is not None:
        from lamkit.calculator import LamCalculator

        lam = LamCalculator(model, head=head, device=device)
        return Engine(lam, f"head {lam.head} of {lam.path}", lam.head, _taught_by(lam), True)
    assert calculator is not None
    return engine_of(_ase_calculator(calculator), calculator)


def engine_of(calculator: Any, name: str = "") -> Engine:
    """Any ASE calculator as an engine, one structure after the other."""
    name = name or type(calculator).__name__
    return Engine(calculator, name, "", LevelOfTheory(method="ASE calculator", functional=name), False)


def _taught_by(lam: LamCalculator) -> LevelOfTheory:
    """Labels of a model are not labels of the theory it was trained on, and say so."""
    changes = {
        "method": f"teacher: LAMKit model of {lam.level_of_theory.method}",
        "code": f"lamkit {lam.path}",
    }
    return lam.level_of_theory.model_copy(update=changes)


def _ase_calculator(name: str) -> Any:
    module_name, colon, function_name = name.partition(":")
    if not colon or not module_name or not function_name:
        raise UserError(f"calculator '{name}': expected MODULE:FUNCTION, for example ase.calculators.emt:EMT")
    if os.getcwd() not in sys.path:
        sys.path.append(
            os.getcwd()
        )  # where users keep their modules; 'python -m' looks there, a command does not
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's own module may raise anything; its own traceback tells the line
        raise UserError(
            f"calculator '{name}': module '{module_name}' cannot be imported ({type(error).__name__}: {error})"
        ) from error
    if not hasattr(module, function_name):
        known = [n for n in dir(module) if not n.startswith("_")]
        raise UserError(
            f"calculator '{name}': '{module_name}' has no '{function_name}'.{suggest(function_name, known)}"
        )
    try:
        found = getattr(module, function_name)()
    except TypeError as error:
        raise UserError(
            f"calculator '{name}': cannot be called without arguments ({error}); "
            "write a function of no arguments that returns the calculator"
        ) from None
    except FAILURES as error:
        raise UserError(f"calculator '{name}': cannot be made ({reason(error)})") from error
    if not hasattr(found, "get_potential_energy"):
        raise UserError(f"calculator '{name}': returned a {type(found).__name__}, not an ASE calculator")
    return found


def evaluate(engine: Engine, atoms: Sequence[Atoms], atom_energies: bool = False) -> list[dict[str, Any]]:
    """Energy, forces and (periodic cells) stress of each structure; batched where the engine can.

    Args:
        engine: what gives them.
        atoms: the structures.
        atom_energies: ``energies`` of the atoms, too, [n_atoms] eV; models that have them give them anyway.

    Raises:
        Exception: whatever the calculator raises; the caller knows what a failure means.
    """
    if engine.batched:
        return engine.calculator.predict(list(atoms))  # type: ignore[attr-defined]
    return [_single(engine.calculator, a, atom_energies) for a in atoms]


def _single(calculator: Any, atoms: Atoms, atom_energies: bool) -> dict[str, Any]:
    from ase.calculators.calculator import PropertyNotImplementedError

    atoms = atoms.copy()
    atoms.set_constraint()
    atoms.calc = calculator
    result: dict[str, Any] = {}
    try:
        result["energy"] = float(atoms.get_potential_energy(force_consistent=True))
    except PropertyNotImplementedError:
        result["energy"] = float(atoms.get_potential_energy())
    result["forces"] = np.array(atoms.get_forces())
    if atom_energies:
        result["energies"] = np.array(atoms.get_potential_energies())
    if atoms.pbc.all():
        with suppress(PropertyNotImplementedError):
            result["stress"] = np.array(atoms.get_stress())
    return result


@contextmanager
def resumable(out: Path, verb: str) -> Iterator[None]:
    """Turn Ctrl-C into a message that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"Finished parts are kept in {out}; go on with 'lamkit {verb} … --out {out} --resume'"
        ) from None


def write_data(frames: Iterable[Frame], folder: Path, engine: Labeller | None, title: str) -> int:
    """Write a data set, unless a run that was stopped right after has written it; returns its frames."""
    from lamkit.data.dataset import DatasetFacts, open_dataset, write_dataset

    if (folder / "dataset.yaml").is_file():
        return len(open_dataset(folder))
    facts = DatasetFacts(
        head=engine.head if engine else "", title=title, level_of_theory=engine.level if engine else None
    )
    return len(write_dataset(frames, folder, facts))
