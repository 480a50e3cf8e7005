"""The teacher of a distillation, and what is taken where the user names no teacher, head or starting structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lamkit.console import log
from lamkit.data.dataset import View, open_dataset
from lamkit.data.frame import NUMBERS, SYMBOLS, reduced_formula, to_atoms
from lamkit.data.heads import HeadConfig
from lamkit.errors import UserError
from lamkit.stages.engine import FAILURES, Engine, Frames, dataset_folder, evaluate, load_engine, reason
from lamkit.stages.structures import SAMPLE_HEAD

if TYPE_CHECKING:
    from lamkit.calculator import LamCalculator
    from lamkit.train.checkpoint import Checkpoint

STUDENT_HEAD = "student"  # of a teacher that has no heads

DEFAULT_RUNS = ("lamkit-finetune", "lamkit-pretrain")


@dataclass(frozen=True)
class Teacher:
    """What explores and labels.

    Attributes:
        engine: gives energies and forces; its ``head`` is the name of the student's head.
        path: checkpoint, or ``module:function`` of an ASE calculator.
        checkpoint: of a LAMKit model; None for other calculators.
    """

    engine: Engine
    path: str
    checkpoint: Checkpoint | None

    @property
    def head(self) -> str:
        """Name of the head that the student gets."""
        return self.engine.head

    @property
    def features(self) -> LamCalculator | None:
        """Calculator that tells frames apart by latent features; None where the teacher has none."""
        calculator: LamCalculator = self.engine.calculator  # type: ignore[assignment]
        orb = self.checkpoint is not None and self.checkpoint.trunk.version in ("v2", "v3")
        return calculator if orb else None

    def check(self, path: str, source: Frames) -> None:
        """Refuse starts that the teacher cannot do, for their elements mostly, before any time is spent.

        An ASE calculator does not tell what it knows: it has to evaluate structures until all elements were there.

        Raises:
            UserError: which frame, and what is known.
        """
        if self.checkpoint is None:
            self._try(path, source)
            return
        known = set(self.checkpoint.elements[self.head])
        for i in range(len(source)):
            unknown = {SYMBOLS[z] for z in source.frame(i).numbers} - known
            if unknown:
                raise UserError(
                    f"{path}, frame {i}: {', '.join(sorted(unknown))}: head '{self.head}' of "
                    f"{self.path} knows {', '.join(sorted(known))}. Take another head, other "
                    "starts, or fine-tune the head on such data first"
                )

    def _try(self, path: str, source: Frames) -> None:
        seen: set[int] = set()
        for i in range(len(source)):
            frame = source.frame(i)
            if seen.issuperset(frame.numbers.tolist()):
                continue
            seen.update(frame.numbers.tolist())
            try:
                evaluate(self.engine, [to_atoms(frame)])
            except FAILURES as error:
                elements = ", ".join(sorted({SYMBOLS[z] for z in frame.numbers}))
                raise UserError(
                    f"{path}, frame {i} ({elements}): the teacher {self.engine.name} cannot do it ({reason(error)}). "
                    "Take other starts, or mend the calculator"
                ) from error

    def student_head(self, sources: Sequence[Frames]) -> HeadConfig:
        """Facts of the student's head: the teacher's references, and its labels' level.

        Args:
            sources: starting structures, whose elements count where the teacher does not tell its own.
        """
        facts = {
            "name": self.head,
            "title": f"student of {self.engine.name}",
            "labels": ["energy", "forces", "stress"],
        }
        if self.checkpoint is None:
            numbers = {int(z) for s in sources for i in range(len(s)) for z in np.unique(s.frame(i).numbers)}
            elements = [SYMBOLS[z] for z in sorted(numbers)]
            return HeadConfig(level_of_theory=self.engine.level, elements=elements, **facts)
        elements = self.checkpoint.elements[self.head]
        reference = self.checkpoint.references[self.head]
        return HeadConfig(
            level_of_theory=self.engine.level,
            elements=elements,
            reference_prior={s: float(reference[NUMBERS[s]]) for s in elements},
            citation=self.checkpoint.head_configs[self.head].citation,
            **facts,
        )


def load_teacher(path: str | None, head: str | None, calculator: str | None, device: str) -> Teacher:
    """The teacher that the user names, or the default one.

    Args:
        path: checkpoint or run folder.
        head: its head; of an ASE calculator the name that the student's head gets.
        calculator: instead, ``module:function`` that returns an ASE calculator.
        device: CPU, GPU or Ascend.

    Raises:
        UserError: nothing there, or it cannot be loaded.
    """
    from lamkit.train import checkpoint

    if calculator is not None:
        engine = replace(load_engine(None, None, calculator, device), head=head or STUDENT_HEAD)
        log.info("teacher: %s", engine.name)
        return Teacher(engine, calculator, None)
    place = path or default_teacher()
    read = checkpoint.read(place)
    engine = load_engine(str(place), head or default_head(read, given=path is not None), None, device)
    log.info("teacher: %s, %s", engine.name, ", ".join(engine.calculator.elements))  # type: ignore[attr-defined]
    return Teacher(engine, str(read.path), read)


def default_teacher() -> Path:
    """The newest default run folder that holds a checkpoint, else the sample model.

    Raises:
        UserError: neither is there.
    """
    from lamkit import presets

    places = [Path(run) for run in DEFAULT_RUNS if (Path(run) / "checkpoints" / "best").is_dir()]
    sample = presets.examples() / "model"
    places += [sample] if (sample / "model.safetensors").is_file() else []
    if not places:
        raise UserError(
            f"no teacher: give one with --teacher CKPT (looked for {', '.join(DEFAULT_RUNS)} and the sample model)"
        )
    log.info("no teacher named: using %s (--teacher CKPT --head NAME for another)", places[0])
    return places[0]


def default_head(teacher: Checkpoint, given: bool) -> str:
    """The only head; of a teacher that the user did not choose, the head it was made for or the first.

    Raises:
        UserError: the user chose a teacher with several heads and no head.
    """
    if given or len(teacher.heads) == 1:
        return teacher.head(None)
    preferred = (teacher.config.get("head"), SAMPLE_HEAD)
    head = next((h for h in preferred if h in teacher.heads), teacher.heads[0])
    log.info("using its head %s; --head NAME for another of %s", head, ", ".join(teacher.heads))
    return str(head)


def default_starts(teacher: Checkpoint, head: str, cache: Path) -> str:
    """Structures that the head was trained on: those of its run if still there, else the shipped samples.

    Raises:
        UserError: neither is there.
    """
    from lamkit.stages import sources

    recorded = teacher.config.get("data")
    path = recorded.get(head) if isinstance(recorded, dict) else recorded
    if not (isinstance(path, str) and Path(path).exists() and teacher.config.get("head", head) == head):
        try:
            path = str(sources.gather([head], {}, cache)[head][0])
        except UserError as error:
            raise UserError(f"no starting structures: give some with --starts PATH ({error})") from None
    log.info("starting structures: %s (--starts PATH for others)", path)
    return str(dataset_folder(path))


def one_system(path: str) -> View:
    """The frames of the commonest composition: a small student is made for one system, not for all.

    Args:
        path: data set.
    """
    data = open_dataset(path)
    counts, numbers = data.compositions()
    kinds, kind_of, sizes = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
    commonest = int(sizes.argmax())
    chosen = np.flatnonzero(kind_of.reshape(-1) == commonest)
    if len(kinds) > 1:
        name = reduced_formula(numbers, kinds[commonest])
        log.info(
            "of these only %s (%d of %d frames): a student is for one system", name, len(chosen), len(data)
        )
    return data.subset(chosen)
