"""Splits recorded in the data set itself: ``splits/NAME.yaml`` (the rule) and ``splits/NAME.npy`` (part of each frame).

Training takes the part ``train``, validates on ``valid``, and evaluation takes ``test``: nobody splits by hand
twice, and nobody tests on what was trained on.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lamkit import config
from lamkit.data.dataset import Dataset, View
from lamkit.data.statistics_file import fingerprint
from lamkit.data.twins import TOLERANCE
from lamkit.errors import UserError, suggest
from lamkit.files import atomic_write

FOLDER = "splits"
DEFAULT = "default"


class SplitFacts(config.Model):
    """Contents of ``splits/NAME.yaml``.

    Attributes:
        name: of the split.
        by: what stays together: group, mp-id, composition, temperature, or nothing (random).
        stratify: quantities that all parts have the same mixture of.
        shares: fraction that each part was to get.
        seed: of the choice.
        method: how the frames were dealt: as in ``by``, or ``blocks``.
        tolerance: Å, within which two structures are alike.
        frames: frames of each part.
        left_out: frames in no part.
        alike: those of them that show a structure of another part.
        notes: what the user should know.
        n_frames: frames of the data set.
        dataset: fingerprint of the data set that was split.
    """

    name: str
    by: str
    stratify: list[str] = []
    shares: dict[str, float]
    seed: int
    method: str
    tolerance: float = TOLERANCE
    frames: dict[str, int]
    left_out: int
    alike: int
    notes: list[str]
    n_frames: int
    dataset: str


def names(path: Path) -> list[str]:
    """Splits that are recorded in the data set folder ``path``."""
    return sorted(file.stem for file in (path / FOLDER).glob("*.yaml"))


def save(dataset: Dataset, facts: SplitFacts, parts: Mapping[str, NDArray[np.int64]]) -> Path:
    """Record a split; one of the same name is replaced.

    Raises:
        UserError: the folder of the data cannot be written to.
    """
    part_of = np.full(len(dataset), -1, dtype=np.int8)
    for k, part in enumerate(facts.frames):
        part_of[parts[part]] = k
    stream = io.BytesIO()
    np.save(stream, part_of)
    folder = dataset.path / FOLDER
    try:
        atomic_write(folder / f"{facts.name}.npy", stream.getvalue())
        config.write_yaml(folder / f"{facts.name}.yaml", facts)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); with --out DIR the parts become data sets of their own"
        ) from None
    return folder / f"{facts.name}.yaml"


def make_facts(dataset: Dataset, **known: object) -> SplitFacts:
    """Facts of a split of this data set."""
    return config.parse(
        SplitFacts, {**known, "n_frames": len(dataset), "dataset": fingerprint(dataset)}, origin="split"
    )


def load(dataset: Dataset, name: str = DEFAULT) -> tuple[SplitFacts, dict[str, View]] | None:
    """A recorded split with its parts; None if no split is recorded at all and the usual one is asked for.

    Raises:
        UserError: no such split, or it belongs to other data.
    """
    known = names(dataset.path)
    if name not in known:
        if name == DEFAULT and not known:
            return None
        raise UserError(
            f"{dataset.path}: no split '{name}' is recorded.{suggest(name, known)} Recorded: "
            f"{', '.join(known) or 'none'}; lamkit data split {dataset.path} --name {name} makes one"
        )
    file = dataset.path / FOLDER / f"{name}.yaml"
    facts = config.load(SplitFacts, file)
    try:
        part_of = np.load(file.with_suffix(".npy"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file.with_suffix('.npy')}: not readable ({error}); split again") from None
    if facts.dataset != fingerprint(dataset) or len(part_of) != len(dataset):
        raise UserError(f"{file}: belongs to other data than those in {dataset.path}; split again")
    parts = {part: dataset.subset(np.flatnonzero(part_of == k)) for k, part in enumerate(facts.frames)}
    return facts, parts
