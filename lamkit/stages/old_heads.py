"""Structures for the heads of a checkpoint that a fine-tuning run does not train: what is still there of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lamkit.console import log
from lamkit.data import split_file
from lamkit.data.dataset import Dataset, View, open_dataset
from lamkit.data.frame import NUMBERS
from lamkit.data.heads import load_head, open_or_convert_head
from lamkit.errors import UserError

if TYPE_CHECKING:
    from lamkit.train.checkpoint import Checkpoint

SEED = 0  # of splits: the same frames are held out in every run


class Kept(NamedTuple):
    """Labelled data of an old head.

    Attributes:
        path: data set, or a folder with ``train/`` and ``valid/``.
        words: where they are from.
    """

    path: Path
    words: str


def labelled(start: Checkpoint, head: str, given: Mapping[str, str], cache: Path) -> Kept | None:
    """The data of an old head: those given, those it was trained on if still there, or the shipped sample.

    Args:
        start: checkpoint.
        head: one of its heads.
        given: head → data set of the user.
        cache: where shipped sample data are converted to.

    Raises:
        UserError: the data that are given are not there.
    """
    if head in given:
        if not Path(given[head]).is_dir():
            raise UserError(f"replay.data: {given[head]}: no such data set (for head '{head}')")
        return Kept(Path(given[head]), "given")
    recorded = _recorded(start.config, head)
    if recorded is not None:
        return Kept(recorded, "trained on")
    try:
        facts = load_head(head)
        with _hushed():  # a page on each conversion would bury what the run is about
            return Kept(open_or_convert_head(facts, cache), "shipped sample")
    except UserError:  # a head without YAML, or one whose data are not shipped: most heads
        return None


@contextmanager
def _hushed() -> Iterator[None]:
    """Warnings only."""
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)


def _recorded(config: Mapping[str, Any], head: str) -> Path | None:
    """What the run that made a checkpoint trained the head on, if that folder is still there."""
    data: Any = config.get("data")
    if isinstance(data, Mapping):
        data = data.get(head)
    elif config.get("head") not in (head, [head]):
        data = None
    return Path(data) if isinstance(data, str) and Path(data).is_dir() else None


def held_out(kept: Kept, split: str) -> View:
    """The validation part of an old head's data, as a folder or recorded; all where there is none.

    None is dealt anew: the question is what changes on frames, whichever they are.
    """
    if (kept.path / "valid").is_dir():
        return everything(open_dataset(kept.path / "valid"))
    data = structures(kept.path)
    recorded = split_file.load(data, split)
    return recorded[1]["valid"] if recorded is not None and "valid" in recorded[1] else everything(data)


def everything(data: Dataset) -> View:
    """All frames of a data set, as a view."""
    return data.subset(np.arange(len(data)))


def within(view: View | Dataset, elements: Iterable[str]) -> View:
    """Those frames that hold none but the given elements."""
    counts, numbers = view.compositions()
    strange = [z not in {NUMBERS[s] for s in elements} for z in numbers]
    chosen = (counts[:, strange].sum(axis=1) == 0).nonzero()[0]
    return view.subset(chosen)


def structures(path: str | Path) -> Dataset:
    """A data set, or the data in a stage's folder.

    Raises:
        UserError: no data set there.
    """
    from lamkit.stages.engine import dataset_folder

    return open_dataset(dataset_folder(path))
