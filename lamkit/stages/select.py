"""Select: drop frames that no physics made, then choose the most different ones.

By a model's own features: the trunk's final latents, mean and spread over the atoms of a frame, and farthest-point
selection, which covers the whole range with few frames and adds none twice. Without a model: by the entropy of
atomic surroundings, or at random. No way favours large frames, and none needs more memory than a few numbers per
frame.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from lamkit.config import InputPath, Model
from lamkit.console import Progress, log
from lamkit.data.entropy import most_surprising, surroundings
from lamkit.data.frame import Frame, to_atoms
from lamkit.data.selection import Choice, Limits, describe, farthest_points, random_points, why_not
from lamkit.errors import UserError
from lamkit.files import atomic_write
from lamkit.stages import parts
from lamkit.stages.engine import Frames, read_frames, resumable, write_data

if TYPE_CHECKING:
    from lamkit.calculator import LamCalculator

Method = Literal["farthest", "entropy", "random"]
Describe = Callable[[list[Frame]], NDArray[np.float32]]


class Options(Model):
    """Options of the stage ``select``.

    Attributes:
        data: data set to choose from.
        model: checkpoint whose features tell frames apart; only needed for ``method: farthest``.
        head: head of the checkpoint (any will do: features come from the trunk).
        n_frames: how many to choose.
        method: farthest (points in the model's feature space), entropy (atomic surroundings that surprise
            most; needs no model) or random.
        taken: data sets chosen earlier; new frames keep away from theirs.
        limits: what a frame must keep to.
        chunk: frames whose features are worked out and saved together.
        seed: of ``method: random``; the farthest points depend on the data alone.
        device: device of the checkpoint's network.
        resume: go on with the run in the output folder.
    """

    data: InputPath
    model: InputPath | None = None
    head: str | None = None
    n_frames: int = pydantic.Field(100, ge=1)
    method: Method = "farthest"
    taken: list[InputPath] = pydantic.Field(default=[])
    limits: Limits = Limits()
    chunk: int = pydantic.Field(256, ge=1)
    seed: int = pydantic.Field(0, ge=0)
    device: str = "CPU"
    resume: bool = False


def run(options: Options, out: Path) -> dict[str, Any]:
    """Choose frames, and write them as the data set ``out/data``.

    Args:
        options: see :class:`Options`.
        out: run folder.

    Returns:
        Counts, reasons of dropped frames, redundancy and the path of the data set.
    """
    out = Path(out)
    finished = parts.begin(out, options, options.resume, "select")
    if finished is not None:
        return finished
    if options.method == "farthest" and options.model is None:
        raise UserError(
            "select: method farthest needs a model for its features (--model PATH); method entropy does not "
            "(--method entropy), nor does random"
        )
    source, calculator = read_frames(options.data), _calculator(options)
    taken = [read_frames(path) for path in options.taken]
    parts.start(out, options)
    with resumable(out, "select"):
        chosen, choice, dropped = choose(
            source,
            calculator,
            options.n_frames,
            options.limits,
            taken,
            out / "parts",
            method=options.method,
            chunk=options.chunk,
            seed=options.seed,
        )
    frames = (source.frame(int(i)) for i in np.sort(chosen))
    n_frames = write_data(frames, out / "data", None, f"chosen from {options.data}")
    log.info("%s", in_words(len(source), dropped, choice))
    return parts.finish(
        out,
        {
            "data": str(out / "data"),
            "n_candidates": len(source),
            "dropped": dict(dropped),
            "n_frames": n_frames,
            "indices": [int(i) for i in chosen],
            **spread(choice),
        },
    )


def sift(source: Frames, limits: Limits) -> tuple[NDArray[np.int64], Counter[str]]:
    """Indices of the frames that keep to the limits, and how many were dropped for which reason."""
    sane: list[int] = []
    dropped: Counter[str] = Counter()
    with Progress(len(source), "checking frames") as progress:
        for i in range(len(source)):
            reason = why_not(source.frame(i), limits)
            if reason is None:
                sane.append(i)
            else:
                dropped[reason] += 1
            progress.update(i + 1)
    return np.array(sane, dtype=np.int64), dropped


def choose(
    source: Frames,
    calculator: LamCalculator | None,
    n: int,
    limits: Limits,
    taken: Sequence[Frames],
    folder: Path,
    *,
    method: Method = "farthest",
    chunk: int = 256,
    seed: int = 0,
) -> tuple[NDArray[np.int64], Choice, Counter[str]]:
    """Choose ``n`` sane frames.

    Args:
        source: candidates.
        calculator: whose features tell frames apart, for ``method`` farthest.
        n: how many.
        limits: what a frame must keep to.
        taken: frames chosen earlier; new ones keep away from these.
        folder: where features are kept in the meantime.
        method: how to choose.
        chunk: frames whose features are worked out and saved together.
        seed: of a random choice.

    Returns:
        Indices into ``source`` in the order of choice, the choice, and why frames were dropped.

    Raises:
        UserError: no frame is sane.
    """
    sane, dropped = sift(source, limits)
    if not len(sane):
        raise UserError(f"no frame keeps to the limits ({dict(dropped)}); widen 'limits'")
    if method == "random":
        picked = random_points(len(sane), n, seed)
        return sane[picked], Choice(picked, np.zeros(0), 0.0, None), dropped
    describe_all = surroundings_of if method == "entropy" else latents_of(calculator)
    features = features_of(source, sane, describe_all, folder / "features", chunk)
    old = [
        features_of(frames, np.arange(len(frames)), describe_all, folder / f"taken-{k}", chunk)
        for k, frames in enumerate(taken)
    ]
    pick = most_surprising if method == "entropy" else farthest_points
    choice = pick(features, n, taken=np.concatenate(old) if old else None)
    return sane[choice.indices], choice, dropped


def latents_of(calculator: LamCalculator | None) -> Describe:
    """Frames → mean and spread of a model's features over their atoms, ``[n_frames, 2 D]``."""
    if calculator is None:
        raise ValueError("farthest points need a calculator with latent features")

    def describe_all(frames: list[Frame]) -> NDArray[np.float32]:
        results = calculator.predict([to_atoms(f) for f in frames], latent=True)
        return np.array([describe(r["latent"]) for r in results])

    return describe_all


def surroundings_of(frames: list[Frame]) -> NDArray[np.float32]:
    """Frames → descriptors of some of their atoms, one row a frame."""
    return np.array([surroundings(f) for f in frames])


def _calculator(options: Options) -> LamCalculator | None:
    if options.method != "farthest":
        return None
    from lamkit.calculator import LamCalculator

    assert options.model is not None
    return LamCalculator(options.model, head=options.head or _any_head(options.model), device=options.device)


def _any_head(model: str) -> str:
    from lamkit.train.checkpoint import read

    return read(model).heads[0]


def features_of(
    source: Frames,
    indices: Sequence[int] | NDArray[np.int64],
    describe_all: Describe,
    folder: Path,
    size: int,
) -> NDArray[np.float32]:
    """Descriptors of frames, a row each, memory-mapped from ``folder``; finished chunks are kept."""
    files = []
    with Progress(len(indices), "features") as progress:
        for start in range(0, len(indices), size):
            path = folder / f"{start:08d}.npy"
            files.append(path)
            rows = indices[start : start + size]
            if not path.is_file():
                _save(path, describe_all([source.frame(int(i)) for i in rows]))
            else:
                progress.first = start + len(rows)
            progress.update(start + len(rows))
    return _mapped(files, folder / "all.npy")


def _mapped(files: list[Path], whole: Path) -> NDArray[np.float32]:
    """Chunks put together in one file that is read as a memory map: a million frames cost no memory."""
    lengths = [np.load(path, mmap_mode="r").shape for path in files]
    shape = (sum(n for n, _ in lengths), lengths[0][1])
    target = np.lib.format.open_memmap(whole, mode="w+", dtype=np.float32, shape=shape)
    start = 0
    for path, (n, _) in zip(files, lengths, strict=True):
        target[start : start + n] = np.load(path)
        start += n
    target.flush()
    return np.load(whole, mmap_mode="r")


def _save(path: Path, array: NDArray) -> None:
    stream = io.BytesIO()
    np.save(stream, array)
    atomic_write(path, stream.getvalue())


def spread(choice: Choice) -> dict[str, Any]:
    """How redundant what was not chosen is, as numbers."""
    if choice.redundancy is None or not len(choice.distances):
        return {"redundancy": None, "first_distance": None, "last_distance": None, "rest_distance": None}
    return {
        "redundancy": round(choice.redundancy, 4),
        "first_distance": float(choice.distances[0]),
        "last_distance": float(choice.distances[-1]),
        "rest_distance": choice.rest,
    }


def in_words(n_candidates: int, dropped: Counter[str], choice: Choice) -> str:
    """What was chosen, dropped and left, in a sentence or two."""
    text = f"{len(choice.indices)} of {n_candidates} frames chosen"
    if dropped:
        reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.most_common())
        text += f", {sum(dropped.values())} dropped ({reasons})"
    if choice.redundancy is not None and len(choice.distances):
        share = choice.distances[-1] / max(choice.distances.max(), 1e-12)
        text += f". Novelty of the last choice: {share:.0%} of the largest"
        text += f"; the rest is {choice.redundancy:.0%} redundant"
    return text
