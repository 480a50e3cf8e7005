"""Label: energies, forces and stresses from a checkpoint's head, any ASE calculator, or a DFT program.

A model or calculator labels here, in this process; DFT programs work in folders of their own, see
:mod:`lamkit.stages.label_dft`. Either way finished frames survive a stop, and a frame that cannot be done is
reported with the reason and left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic

from lamkit.config import InputPath, Model
from lamkit.console import Progress, log
from lamkit.data.frame import Frame, to_atoms
from lamkit.dft.cp2k import Cp2k
from lamkit.dft.vasp import Vasp
from lamkit.errors import UserError
from lamkit.stages import extra_labels, label_dft, parts
from lamkit.stages.engine import (
    FAILURES,
    Engine,
    Frames,
    Labeller,
    load_engine,
    read_frames,
    reason,
    resumable,
    write_data,
)
from lamkit.stages.extra_labels import ENERGIES, NOTHING, Extra, evaluate_all, problem

if TYPE_CHECKING:
    from lamkit.dft.pool import Runner

CHUNK, CHUNK_OF_SINGLES = 64, 8  # frames that are saved together, by batched engines and by others
# Options of a run that say how it is computed and not what; a resumed run may have others.
LOCAL = (
    "jobs", "attempts", "timeout", "max_failed", "vasp.command", "vasp.potcars",
    "cp2k.command", "cp2k.threads", "cp2k.data_dir",
)  # fmt: skip


class Options(Model):
    """Options of the stage ``label``.

    Attributes:
        data: data set or structure file to be labelled; labels it has are replaced.
        model: checkpoint that labels.
        head: head of the checkpoint.
        calculator: instead of ``model``, ``module:function`` that returns an ASE calculator.
        cp2k: instead of both, labels by CP2K with these settings (``{}`` for the defaults).
        vasp: instead of all these, labels by VASP.
        jobs: DFT tasks that run at the same time.
        attempts: how often a DFT task is started that leaves no result; one whose electronic steps do not
            converge is not started again.
        timeout: seconds that a DFT task may take; null for no limit.
        atom_energies: energies of the atoms, too; of a deeppot-se or an ASE calculator that has ``energies``.
        hessian: random directions of each frame along which forces are differentiated, too (products with the
            Hessian, for train.loss.hessian); each takes two more evaluations of the model or calculator.
        chunk: frames that a model or calculator labels and saves together.
        max_failed: stop with an error when more than this part of all frames cannot be labelled.
        device: device of the checkpoint's network.
        resume: go on with the run in the output folder.
    """

    data: InputPath
    model: InputPath | None = None
    head: str | None = None
    calculator: str | None = None
    cp2k: Cp2k | None = None
    vasp: Vasp | None = None
    jobs: int = pydantic.Field(1, ge=1)
    attempts: int = pydantic.Field(2, ge=1)
    timeout: float | None = pydantic.Field(None, gt=0)
    atom_energies: bool = False
    hessian: int = pydantic.Field(0, ge=0)
    chunk: int = pydantic.Field(CHUNK, ge=1)
    max_failed: float = pydantic.Field(0.5, ge=0, le=1)
    device: str = "CPU"
    resume: bool = False

    def extra(self) -> Extra:
        """Labels beyond energy, forces and stress."""
        return Extra(self.atom_energies, self.hessian)


def run(options: Options, out: Path, runner: Runner | None = None) -> dict[str, Any]:
    """Label every frame, and write the data set ``out/data``.

    Args:
        options: see :class:`Options`.
        out: run folder.
        runner: what runs the tasks of a DFT program; None for this machine.

    Returns:
        Counts, the reasons of failures and the path of the data set.
    """
    out = Path(out)
    finished = parts.begin(out, options, options.resume, "label", may_change=LOCAL)
    if finished is not None:
        return finished
    source = read_frames(options.data)
    program = dft_program(options)
    if program is not None:
        return _run_dft(options, source, program, out, runner)
    engine = load_engine(options.model, options.head, options.calculator, options.device)
    extra_labels.refuse_unable(engine, options.extra())
    parts.start(out, options)
    with resumable(out, "label"):
        result = label(source, engine, out, options.chunk, options.max_failed, options.extra())
    return parts.finish(out, result)


def dft_program(options: Options) -> Cp2k | Vasp | None:
    """The DFT program that labels, if one does.

    Raises:
        UserError: more than one source of labels, or settings that make no sense.
    """
    given = [name for name in ("model", "calculator", "cp2k", "vasp") if getattr(options, name) is not None]
    program = options.cp2k or options.vasp
    if program is None:
        return None
    if len(given) > 1:
        raise UserError(f"labels come from one source: choose between {' and '.join(given)}")
    if options.atom_energies or options.hessian:
        raise UserError(
            "atom_energies and hessian: by a model or an ASE calculator only, not by a DFT program"
        )
    program.check()
    return program


def _run_dft(
    options: Options, source: Frames, program: Cp2k | Vasp, out: Path, runner: Runner | None
) -> dict[str, Any]:
    """Label by a DFT program; returns as :func:`run`."""
    parts.start(out, options)
    with resumable(out, "label"):
        tasks = _tasks(options, source, program, out)
        label_dft.run(tasks, range(len(source)), options.jobs, runner)
        chunks = [tasks.part(i) for i in range(len(source))]
        labeller = label_dft.labeller(program, chunks)
        result = gather(chunks, len(source), out, labeller, options.max_failed)
    return parts.finish(out, result)


def _tasks(options: Options, source: Frames, program: Cp2k | Vasp, out: Path) -> label_dft.Tasks:
    limits = label_dft.Limits(options.attempts, options.timeout)
    return label_dft.Tasks(source, program, out / "parts", limits)


def part_names(options: Options) -> list[str]:
    """Parts that can be done independently, for :mod:`lamkit.workflow`; nothing is loaded but the structures."""
    size = options.chunk if dft_program(options) is None else 1
    return [label_dft.part_name(i) for i in range(0, len(read_frames(options.data)), size)]


def do_parts(options: Options, out: Path, names: Iterable[str]) -> None:
    """Do some of the parts, each with a file of its own in ``out/parts``; :func:`run` puts them together.

    Args:
        options: of the run.
        out: run folder.
        names: from :func:`part_names`; taken one by one.
    """
    source, program = read_frames(options.data), dft_program(options)
    starts = map(label_dft.frame_of, names)
    if program is not None:
        for i in starts:  # each is over before the next is claimed
            label_dft.run(_tasks(options, source, program, out), [i], jobs=1)
        return
    engine = load_engine(options.model, options.head, options.calculator, options.device)
    for start in starts:
        label_chunk(source, engine, out / "parts", start, options.chunk, options.extra())


def cores_per_part(options: Options) -> int:
    """Cores that one part uses by itself: a network takes all (0), a DFT program what its command says."""
    program = dft_program(options)
    if program is not None:
        ranks = re.search(r"(?:^|\s)-(?:np?|-ntasks)[ =](\d+)", program.command)
        return (int(ranks[1]) if ranks else 1) * getattr(program, "threads", 1)
    return 1 if options.calculator is not None else 0


def label(
    source: Frames,
    engine: Engine,
    out: Path,
    chunk: int | None = None,
    max_failed: float = 0.5,
    extra: Extra = NOTHING,
) -> dict[str, Any]:
    """Label all frames of ``source``, and write them as the data set ``out/data``; returns as :func:`run`.

    Args:
        source: structures.
        engine: labels them.
        out: run folder.
        chunk: frames that are labelled and saved together; None takes few where each is computed by itself, because
            a single one may take minutes there.
        max_failed: part of the frames that may fail.
        extra: labels beyond energy, forces and stress.
    """
    chunk = chunk or (CHUNK if engine.batched else CHUNK_OF_SINGLES)
    chunks = label_chunks(source, engine, out / "parts", chunk, extra)
    return gather(chunks, len(source), out, engine, max_failed)


def gather(
    chunks: Sequence[Path], n_frames: int, out: Path, labeller: Labeller, max_failed: float
) -> dict[str, Any]:
    """Put finished parts together as the data set ``out/data``; returns as :func:`run`."""
    failures = [f for path in chunks for f in parts.load_notes(path)["failed"]]
    check_failures(failures, n_frames, max_failed, labeller)
    n_labelled = write_data(frames_of(chunks), out / "data", labeller, f"labelled by {labeller.name}")
    log.info("%d frames labelled by %s, %d left out", n_labelled, labeller.name, len(failures))
    return {
        "data": str(out / "data"),
        "n_frames": n_labelled,
        "n_failed": len(failures),
        "reasons": dict(Counter(f["reason"] for f in failures)),
        "failed": failures[:100],
        "labels_by": labeller.name,
    }


def label_chunks(source: Frames, engine: Engine, folder: Path, size: int, extra: Extra) -> list[Path]:
    """Label all frames in chunks; chunks that are there already are not done again. Returns their files."""
    starts = range(0, len(source), size)
    chunks = [folder / f"{label_dft.part_name(start)}.npz" for start in starts]
    with Progress(len(source), "labels") as progress:
        for start, path in zip(starts, chunks, strict=True):
            end = min(start + size, len(source))
            if path.is_file():
                progress.first = end
                continue
            label_chunk(source, engine, folder, start, size, extra)
            progress.update(end)
    return chunks


def label_chunk(source: Frames, engine: Engine, folder: Path, start: int, size: int, extra: Extra) -> None:
    """Label one chunk and save it as a part."""
    end = min(start + size, len(source))
    labelled, failed = label_frames([source.frame(i) for i in range(start, end)], engine, extra)
    for failure in failed:
        failure["frame"] += start
        log.warning("frame %(frame)d (%(where)s) is left out: %(reason)s", failure)
    parts.save_frames(folder / f"{label_dft.part_name(start)}.npz", labelled, {"failed": failed})


def label_frames(
    frames: Sequence[Frame], engine: Engine, extra: Extra = NOTHING
) -> tuple[list[Frame], list[dict[str, Any]]]:
    """Frames with new labels, and for each that could not be labelled its index and the reason."""
    atoms = [to_atoms(f) for f in frames]
    for a in atoms:
        a.calc = None
    results: list[Any] = []
    if engine.batched:
        with suppress(*FAILURES):  # one frame spoils its batch: find out which, one by one
            results = evaluate_all(engine, atoms, extra)
    results = results or [_attempt(engine, a, extra) for a in atoms]
    labelled, failed = [], []
    for i, (frame, result) in enumerate(zip(frames, results, strict=True)):
        why = result if isinstance(result, str) else _not_finite(result) or problem(result, extra)
        if why is not None:
            failed.append({"frame": i, "where": f"{frame.source}, step {frame.step}", "reason": why})
            continue
        labels = {name: result.get(name) for name in ("energy", "forces", "stress", "hessian")}
        of_atoms = result[ENERGIES] if extra.atom_energies else None
        labelled.append(replace(frame, **labels, atom_energies=of_atoms))
    return labelled, failed


def _attempt(engine: Engine, atoms: Any, extra: Extra) -> dict[str, Any] | str:
    try:
        return evaluate_all(engine, [atoms], extra)[0]
    except FAILURES as error:
        return reason(error)


def _not_finite(result: dict[str, Any]) -> str | None:
    if np.isfinite(result["energy"]) and np.isfinite(result["forces"]).all():
        return None
    return "energy or forces are not finite"


def check_failures(failures: list[dict[str, Any]], n_frames: int, allowed: float, labeller: Labeller) -> None:
    """Refuse a data set from which too much is missing.

    Raises:
        UserError: more than the allowed part failed; with the commonest reason.
    """
    if not failures or (len(failures) <= allowed * n_frames and len(failures) < n_frames):
        return
    commonest, count = Counter(f["reason"] for f in failures).most_common(1)[0]
    raise UserError(
        f"{len(failures)} of {n_frames} frames could not be labelled by {labeller.name}; "
        f"{count} times: {commonest}. The first is frame {failures[0]['frame']} ({failures[0]['where']})"
    )


def frames_of(chunks: Sequence[Path]) -> Iterator[Frame]:
    """The labelled frames, one chunk in memory at a time."""
    for path in chunks:
        yield from parts.load_frames(path)
