"""Evaluate: errors of a model on labelled data, head by head, with parity plots and detail files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from lamkit import config
from lamkit.config import InputPath
from lamkit.console import Progress, log
from lamkit.data import split_file
from lamkit.data.dataset import Dataset, View, open_dataset
from lamkit.data.frame import NUMBERS, SYMBOLS, Frame, to_atoms
from lamkit.errors import LamkitError, UserError
from lamkit.files import atomic_write
from lamkit.report import dp_test, parity
from lamkit.report.detail import DetailFiles
from lamkit.stages import extra_labels
from lamkit.stages.measures import Measures

if TYPE_CHECKING:
    from lamkit.calculator import LamCalculator
    from lamkit.train.checkpoint import Checkpoint

ANY_HEAD = ""  # key of a data set for which no head was named
PARTS = ("test", "valid")  # parts of a split that are fit for evaluation, best first
FRAMES_AT_ONCE = 64


def _by_head(value: Any) -> Any:
    return {ANY_HEAD: value} if isinstance(value, str) else value


class Options(config.Model):
    """Options of the stage ``evaluate``.

    Attributes:
        model: checkpoint or run folder.
        data: one data set, or head → data set. A folder with test/ or valid/ stands for that part, and so does
            a data set in which a split is recorded.
        part: of a recorded split; null takes ``test``, or ``valid`` where there is no test part.
        split: name of the recorded split.
        head: head for a data set that is given without one; needed only where it cannot be told from
            ``dataset.yaml`` or from a model with a single head.
        detail: write dp-test detail files whose names begin with this.
        max_frames: at most this many frames per data set, evenly spaced.
        batch_atoms: atoms per batch.
        device: where the network runs.
    """

    model: InputPath
    data: Annotated[dict[str, InputPath], pydantic.BeforeValidator(_by_head)]
    part: Literal["test", "valid", "train", "all"] | None = None
    split: str = split_file.DEFAULT
    head: str | None = None
    detail: str | None = None
    max_frames: int | None = pydantic.Field(None, ge=1)
    batch_atoms: int = pydantic.Field(512, ge=1)
    device: Literal["CPU", "GPU", "Ascend"] = "CPU"


def run(options: Options, out: Path | None) -> dict[str, dict[str, Any]]:
    """Evaluate every data set with its head.

    Args:
        options: see :class:`Options`.
        out: folder for result.json, parity.npz and parity.png; None writes none of them.

    Returns:
        Head → errors as in :meth:`lamkit.metrics.ErrorSums.result`; ``intervals``
        (:meth:`lamkit.bootstrap.Resampled.result`); ``by_element`` and ``by_force``
        (:class:`lamkit.breakdown.Breakdown`); ``orb`` and ``dp``, the same in the words of orb-models and of
        ``dp test``, whose printed lines are ``dp_test``; and ``data``, the folder evaluated.
    """
    if not options.data:
        raise UserError("data: name at least one data set")
    if out is not None:
        _refuse_other_runs(Path(out))
    sets = {key: evaluation_frames(Path(path), options) for key, path in options.data.items()}
    from lamkit.train import checkpoint

    known = checkpoint.read(options.model)
    jobs = {_head_for(key, data, options.head, known): data for key, data in sets.items()}
    if len(jobs) < len(sets):
        raise UserError(
            f"two of the data sets {', '.join(map(str, options.data.values()))} mean the same head"
        )
    for head, data in jobs.items():
        _check_fit(head, data, known)
    result: dict[str, dict[str, Any]] = {}
    samples: dict[str, parity.Pairs] = {}
    with ExitStack() as stack:
        detail = stack.enter_context(DetailFiles(options.detail)) if options.detail else None
        for head, data in jobs.items():
            view = _thinned(data, options.max_frames)
            measures = Measures(view.n_atoms, known.references[head])
            if detail is not None:
                detail.begin(str(data.path))
            for i, frame, predicted in _predicted(_calculator(options, head), view, options.batch_atoms):
                measures.add(i, frame, predicted)
                if detail is not None:
                    detail.add(frame, predicted)
            lines = dp_test.block({str(data.path): measures.dp})
            found = measures.result(known.trunk.conservative)
            result[head] = {**found, "dp_test": lines, "data": str(data.path)}
            samples[head] = measures.parity.pairs()
    if detail is not None:
        log.info("detail files: %s", ", ".join(str(p) for p in detail.written))
    if out is not None:
        _write(Path(out), options, result, samples)
    return result


def evaluation_frames(path: Path, options: Options) -> Dataset | View:
    """The frames to evaluate that ``path`` means: all, or a part of the split that is recorded there; said aloud.

    Raises:
        UserError: the part that is asked for is not there.
    """
    data = open_dataset(evaluation_part(path))
    recorded = None if options.part == "all" else split_file.load(data, options.split)
    if recorded is None:
        if options.part not in (None, "all"):
            raise UserError(
                f"{path}: no split is recorded in it, so it has no part '{options.part}'; make one with "
                f"lamkit data split {path} --test 0.1"
            )
        return data
    facts, parts = recorded
    wanted: str = options.part or next((part for part in PARTS if part in parts), "test")
    if wanted not in parts:
        raise UserError(
            f"{path}: its split '{facts.name}' has the parts {', '.join(parts)} and no '{wanted}'; "
            "name one with --part, or all"
        )
    log.info(
        "%s: evaluating the part '%s' of its split '%s' (by %s): %d of %d frames; --part for another",
        path, wanted, facts.name, facts.method, len(parts[wanted]), len(data),
    )  # fmt: skip
    return parts[wanted]


def evaluation_part(path: Path) -> Path:
    """The data set to evaluate that ``path`` means: itself, or test/ or valid/ in it or in its data/."""
    for folder in (path, path / "data"):
        if (folder / "dataset.yaml").is_file():
            return folder
        for part in PARTS:
            if (folder / part / "dataset.yaml").is_file():
                log.info("%s is split: evaluating its part '%s'", folder, part)
                return folder / part
        if (folder / "train" / "dataset.yaml").is_file():
            raise UserError(f"{folder}: has a part for training only; name {folder}/train if that is meant")
    return path


def _refuse_other_runs(out: Path) -> None:
    """Refuse a folder whose config.yaml and result.json belong to something else."""
    for name in ("checkpoints", "metrics.csv", "dataset.yaml", "model.safetensors"):
        if (out / name).exists():
            raise UserError(f"{out}: holds a model or data ({name}); --out must name another folder")


def _head_for(key: str, data: Dataset | View, asked: str | None, known: Checkpoint) -> str:
    """Head that a data set is evaluated with: named with it, by ``head``, by the data, or the only one."""
    if key != ANY_HEAD:
        if asked not in (None, key):
            raise UserError(
                f"head '{asked}' is asked for, but {data.path} is given for head '{key}'; give one"
            )
        return known.head(key)
    if asked is None and data.facts.head in known.heads:
        if len(known.heads) > 1:
            log.info("%s says that it belongs to head '%s': using that one", data.path, data.facts.head)
        return data.facts.head
    return known.head(asked)


def _check_fit(head: str, data: Dataset | View, known: Checkpoint) -> None:
    """Refuse elements that the head never saw; warn where the levels of theory differ.

    Raises:
        UserError: the data hold such elements.
    """
    seen = {NUMBERS[s] for s in known.elements[head]}
    strange = [SYMBOLS[z] for z in data.elements if z not in seen]
    if strange:
        raise UserError(
            f"{data.path}: holds {', '.join(strange)}, which head '{head}' of {known.path} was never "
            f"trained on (it knows {', '.join(known.elements[head])}); fine-tune the head on data with "
            "these elements first"
        )
    theirs, ours = data.facts.level_of_theory, known.head_configs[head].level_of_theory
    if theirs is not None and theirs.functional != ours.functional:
        log.warning(
            "%s holds %s labels, head '%s' was trained on %s: energies are not comparable",
            data.path, theirs.functional, head, ours.functional,
        )  # fmt: skip


def _thinned(data: Dataset | View, max_frames: int | None) -> View:
    """At most ``max_frames`` frames, evenly spaced over the data set."""
    n = len(data) if max_frames is None else min(max_frames, len(data))
    return data.subset(np.linspace(0, len(data) - 1, n).round().astype(np.int64))


def _calculator(options: Options, head: str) -> LamCalculator:
    from lamkit.calculator import LamCalculator

    return LamCalculator(options.model, head=head, device=options.device)


def _predicted(
    calculator: LamCalculator, view: View, batch_atoms: int
) -> Iterator[tuple[int, Frame, dict[str, Any]]]:
    """Each frame of ``view`` with its place and what the model predicts for it.

    Raises:
        LamkitError: a prediction that is not a number.
    """
    with Progress(len(view), f"evaluating {calculator.head}") as progress:
        for batch in batches(view.n_atoms, batch_atoms):
            frames = [view.frame(int(i)) for i in batch]
            predictions = calculator.predict([to_atoms(frame) for frame in frames])
            _add_products(calculator, frames, predictions)
            for i, frame, predicted in zip(batch, frames, predictions, strict=True):
                if not np.isfinite(predicted["energy"]) or not np.isfinite(predicted["forces"]).all():
                    raise LamkitError(
                        f"head '{calculator.head}' predicts a number that is not finite for frame {frame.step} "
                        f"of {frame.source}: atoms may be too close there, or the training of the model diverged"
                    )
                yield int(i), frame, predicted
            progress.update(int(batch[-1]) + 1)


def _add_products(
    calculator: LamCalculator, frames: Sequence[Frame], predictions: Sequence[dict[str, Any]]
) -> None:
    """Products with the Hessian as ``hessian`` [K, n_atoms, 3], of frames that are labelled with such."""
    labelled = [k for k, frame in enumerate(frames) if frame.hessian is not None]
    if not labelled:
        return
    along = [hessian[:, 0] for k in labelled if (hessian := frames[k].hessian) is not None]
    found = extra_labels.products(calculator.predict, [to_atoms(frames[k]) for k in labelled], along)
    for k, products in zip(labelled, found, strict=True):
        predictions[k]["hessian"] = products


def batches(n_atoms: NDArray[np.integer], batch_atoms: int) -> Iterator[NDArray[np.int64]]:
    """Places of frames, in their order, a batch holding ``batch_atoms`` atoms and 64 frames at most."""
    start, atoms = 0, 0
    for i, n in enumerate(n_atoms):
        if i > start and (atoms + n > batch_atoms or i - start >= FRAMES_AT_ONCE):
            yield np.arange(start, i)
            start, atoms = i, 0
        atoms += int(n)
    if start < len(n_atoms):
        yield np.arange(start, len(n_atoms))


def _write(
    out: Path, options: Options, result: Mapping[str, Any], samples: Mapping[str, parity.Pairs]
) -> None:
    """Write config.yaml, parity.npz, parity.png and, last, result.json."""
    from lamkit.report import plots

    config.write_yaml(out / "config.yaml", options)
    parity.save(out / "parity.npz", samples)
    atomic_write(out / "parity.png", plots.png(plots.parity(samples)))
    atomic_write(out / "result.json", json.dumps(result, indent=1) + "\n")
    log.info("written to %s: result.json, parity.png, parity.npz", out)
