"""From the shards of a conversion to its data set: in the order of the sources, whoever read them when.

Everything that depends on more than one piece is decided here: which frame came first of those that are alike,
and what the checks of the whole set leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lamkit.data.dataset import Dataset
from lamkit.data.ledger import FileEntry, Ledger
from lamkit.data.quality import Duplicates, Fingerprint
from lamkit.data.quality.survey import SetFinding
from lamkit.data.quality_settings import Action
from lamkit.data.shard import FILE, NAMES, Shard
from lamkit.data.statistics import FrameStatistics
from lamkit.data.storage import FRAME_RECORD
from lamkit.data.write import Block, DatasetWriter, Names, SystemKey, folder_name

Told = Callable[[int], None]


@dataclass
class Merged:
    """What was put together.

    Attributes:
        ledger: what became of every file and frame.
        statistics: of the frames that were kept.
        serials: system -> for each of its frames, in order, its number among all frames of all shards.
        files: what was read.
        of_file: which of ``files`` each frame of all shards comes from, by serial number.
    """

    ledger: Ledger = field(default_factory=Ledger)
    statistics: FrameStatistics = field(default_factory=FrameStatistics)
    serials: dict[SystemKey, list[NDArray[np.int64]]] = field(default_factory=dict)
    files: Names = field(default_factory=Names)
    of_file: list[NDArray[np.int32]] = field(default_factory=list)

    def in_order_of(self, dataset: Dataset) -> NDArray[np.int64]:
        """Serial number of each frame of the written data set."""
        by_folder = {folder_name(key): key for key in self.serials}
        return np.concatenate(
            [part for folder in dataset.folders for part in self.serials[by_folder[folder.name]]]
        )


def merge(
    shards: Sequence[Path],
    writer: DatasetWriter,
    seen: Duplicates,
    left_out: dict[int, str],
    told: Told,
    on_duplicate: Action = "reject",
) -> Merged:
    """Write the frames of all shards, each once unless duplicates are to be kept.

    Args:
        shards: files, in the order of the sources.
        writer: of the data set.
        seen: frames that count as duplicates from the start.
        left_out: serial number -> reason, frames that are not wanted.
        told: called with the number of shards done.
        on_duplicate: what happens to a frame that was seen before: left out, kept with a line in the ledger
            (``flag``), or not even looked for (``off``).
    """
    result, serial = Merged(), 0
    for n_done, shard in _in_order(shards):
        ledger = Ledger.from_json(shard.notes["ledger"])
        kept = np.ones(len(shard), dtype=bool)
        for i in range(len(shard)):
            reason = left_out.get(serial + i)
            if reason is None and on_duplicate != "off":
                again = seen.reason(Fingerprint(int(shard.keys[i]), shard.vectors[i]))
                if again is not None and on_duplicate == "flag":
                    _entry(shard, i, ledger).flag(again, int(shard.records["step"][i]))
                else:
                    reason = again
            if reason is not None:
                kept[i] = False
                _drop(shard, i, reason, ledger)
        rows = np.flatnonzero(kept)
        for members, block in _named(shard, rows, writer):
            result.serials.setdefault(block.key, []).append(serial + members)
            writer.add_block(block)
        numbers = np.array([result.files(name) for name in shard.names[FILE]], dtype=np.int32)
        result.of_file.append(numbers[shard.files])
        result.ledger.merge(ledger)
        result.statistics.merge(_statistics(shard, rows))
        serial += len(shard)
        told(n_done + 1)
    return result


def _in_order(paths: Sequence[Path]) -> Iterator[tuple[int, Shard]]:
    """Every shard with the number of pieces before it; those that a large piece wrote first come first."""
    for n_done, path in enumerate(paths):
        last = Shard(path)
        for k in range(last.notes["n_before"]):
            yield n_done, Shard(path.with_name(f"{path.stem}-{k:04d}.npz"))
        yield n_done, last


def _entry(shard: Shard, i: int, ledger: Ledger) -> FileEntry:
    return ledger.file(shard.names[FILE][shard.files[i]])


def _drop(shard: Shard, i: int, reason: str, ledger: Ledger) -> None:
    entry = _entry(shard, i, ledger)
    entry.keep(-1)
    entry.drop(reason, int(shard.records["step"][i]))


def _named(
    shard: Shard, rows: NDArray[np.int64], writer: DatasetWriter
) -> list[tuple[NDArray[np.int64], Block]]:
    """Blocks of some frames, the numbers in their records turned into those of the data set."""
    writers: dict[str, Names] = {
        "source": writer.sources, "group": writer.groups, "material": writer.materials,
    }  # fmt: skip
    records = np.empty(len(shard), dtype=FRAME_RECORD)
    records[rows] = shard.records[rows]
    for name in NAMES:
        used = np.unique(shard.records[name][rows])  # in the order of first use
        number = np.full(len(shard.names[name]) + 1, -1, dtype=np.int32)
        for k in used[used >= 0]:
            number[k] = writers[name](shard.names[name][k])
        records[name][rows] = number[shard.records[name][rows]]  # -1, not known, is the last entry
    return [(members, block._replace(records=records[members])) for members, block in shard.blocks(rows)]


def _statistics(shard: Shard, rows: NDArray[np.int64]) -> FrameStatistics:
    """Statistics of the frames that were kept: those counted while reading, or anew if some were dropped."""
    found = FrameStatistics.from_json(shard.notes["statistics"])
    if len(rows) == len(shard):
        return found
    counted = FrameStatistics(neighbors_every=found.neighbors.every)
    for i in rows:
        counted.add(shard.frame(int(i)))
    return counted


def enter(findings: Sequence[SetFinding], dataset: Dataset, merged: Merged) -> list[str]:
    """Write what the checks of the whole set flag into the ledger; returns sentences about the set itself."""
    names, of_file = list(merged.files.index), np.concatenate(merged.of_file)
    serial, sentences = merged.in_order_of(dataset), []
    for finding in findings:
        for i in finding.frames:
            merged.ledger.file(names[of_file[serial[i]]]).flag(finding.reason, int(dataset.steps[i]))
        if not finding.frames:
            sentences.append(finding.reason)
    return sentences
