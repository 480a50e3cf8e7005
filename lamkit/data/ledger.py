"""The ledger of a conversion or an audit: what became of every file and of every frame, and why.

Steps are kept as ranges, 16 bytes each, so that a million frames stay small; ledgers of several workers
merge, and are stored as JSON in between.
"""

from __future__ import annotations

import csv
import os
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

DROPPED, FLAGGED = "dropped", "remarks"  # names in JSON; a remark is about a frame that was kept
Outcome = Literal["dropped", "remarks"]
SHOWN_RANGES = 20  # ranges of steps that JSON spells out for each reason and file; the rest is in the CSV


@dataclass
class Lines:
    """Frames of one file with one reason.

    Attributes:
        count: frames.
        ranges: first and last step of each range, in turn.
    """

    count: int = 0
    ranges: array[int] = field(default_factory=lambda: array("q"))

    def add(self, step: int | None, last: int | None, count: int) -> None:
        """Add ``count`` frames, at the steps from ``step`` to ``last`` where these are known."""
        self.count += count
        if step is None:
            return
        if self.ranges and self.ranges[-1] + 1 == step:
            self.ranges[-1] = step if last is None else last
        else:
            self.ranges.extend((step, step if last is None else last))

    def pairs(self) -> Iterator[tuple[int, int]]:
        """First and last step of each range."""
        return zip(self.ranges[::2], self.ranges[1::2], strict=True)

    def words(self, limit: int = SHOWN_RANGES) -> str:
        """``0-3, 7, 9-12``; at most ``limit`` ranges."""
        n = len(self.ranges) // 2
        shown = [
            f"{a}" if a == b else f"{a}-{b}" for (a, b), _ in zip(self.pairs(), range(limit), strict=False)
        ]
        return ", ".join(shown) + (f", … ({n - limit} more)" if n > limit else "")


class FileEntry:
    """What became of one file.

    Args:
        path: where it is, as found from what the user named.
        format: reader that was used; None if none fits.

    Attributes:
        kept: frames kept.
        lines: (outcome, reason) → frames and their steps.
        found: level of theory as the file states it, key → value; several where frames differ.
        error: why the file, or the rest of it, could not be read.
    """

    def __init__(self, path: str, format: str | None = None) -> None:
        self.path, self.format = path, format
        self.kept = 0
        self.lines: dict[tuple[str, str], Lines] = {}
        self.found: Counter[tuple[tuple[str, str], ...]] = Counter()
        self.error: str | None = None

    def keep(self, n: int = 1) -> None:
        """Count frames that are kept."""
        self.kept += n

    def drop(self, reason: str, step: int | None = None, count: int = 1, *, last: int | None = None) -> None:
        """Count frames left out, with their steps (``step`` to ``last``) where known."""
        self.lines.setdefault((DROPPED, reason), Lines()).add(step, last, count)

    def flag(self, text: str, step: int | None = None, count: int = 1, *, last: int | None = None) -> None:
        """Count frames that are kept and that one should know something about."""
        self.lines.setdefault((FLAGGED, text), Lines()).add(step, last, count)

    def theory(self, found: dict[str, str], count: int = 1) -> None:
        """Note the level of theory that the file states for ``count`` frames."""
        if found:
            self.found[tuple(sorted(found.items()))] += count

    def of(self, outcome: Outcome) -> Counter[str]:
        """Reason → frames."""
        return Counter(
            {reason: line.count for (which, reason), line in self.lines.items() if which == outcome}
        )

    @property
    def dropped(self) -> Counter[str]:
        """Reason → frames left out."""
        return self.of("dropped")

    @property
    def remarks(self) -> Counter[str]:
        """What to know → frames kept."""
        return self.of("remarks")

    def merge(self, other: FileEntry) -> None:
        """Add what ``other`` says of a later part of the same file."""
        self.kept += other.kept
        self.format = self.format or other.format
        self.error = self.error or other.error
        self.found.update(other.found)
        for key, theirs in other.lines.items():
            mine = self.lines.setdefault(key, Lines())
            without = theirs.count
            for first, last in theirs.pairs():
                mine.add(first, last, 0)
            mine.count += without

    def as_dict(self) -> dict[str, Any]:
        """For people and for the report."""
        steps: dict[str, dict[str, str]] = {}
        for (outcome, reason), line in self.lines.items():
            if line.ranges:
                steps.setdefault(outcome, {})[reason] = line.words()
        found = [{**dict(theory), "frames": n} for theory, n in self.found.most_common()]
        return {
            "path": self.path,
            "format": self.format,
            "kept": self.kept,
            "dropped": dict(self.dropped),
            "remarks": dict(self.remarks),
            "error": self.error,
            **({"steps": steps} if steps else {}),
            **({"level_of_theory": found} if found else {}),
        }

    def to_json(self) -> list[Any]:
        """Everything, compactly."""
        lines = [[*key, line.count, line.ranges.tolist()] for key, line in self.lines.items()]
        found = [[dict(theory), n] for theory, n in self.found.items()]
        return [self.path, self.format, self.kept, lines, found, self.error]

    @classmethod
    def from_json(cls, data: list[Any]) -> FileEntry:
        """The inverse of :meth:`to_json`."""
        path, fmt, kept, lines, found, error = data
        self = cls(path, fmt)
        self.kept, self.error = kept, error
        for outcome, reason, count, ranges in lines:
            self.lines[outcome, reason] = Lines(count, array("q", ranges))
        for theory, n in found:
            self.theory(theory, n)
        return self


class Ledger:
    """What became of all files.

    Attributes:
        files: path → its entry, in the order in which they were read.
        ignored: files in folders that are not of any known format.
    """

    def __init__(self) -> None:
        self.files: dict[str, FileEntry] = {}
        self.ignored: list[str] = []

    def file(self, path: str, format: str | None = None) -> FileEntry:
        """The entry of a file, made if there is none."""
        entry = self.files.setdefault(path, FileEntry(path))
        entry.format = entry.format or format
        return entry

    @property
    def kept(self) -> int:
        """Frames kept."""
        return sum(entry.kept for entry in self.files.values())

    def total(self, outcome: Outcome) -> dict[str, int]:
        """Reason → frames over all files, largest first."""
        total: Counter[str] = Counter()
        for entry in self.files.values():
            total.update(entry.of(outcome))
        return dict(total.most_common())

    def theories(self) -> list[dict[str, Any]]:
        """Each level of theory that files state, with ``frames``, ``files`` and an example; most frames first."""
        frames: Counter[tuple[tuple[str, str], ...]] = Counter()
        files: Counter[tuple[tuple[str, str], ...]] = Counter()
        example: dict[tuple[tuple[str, str], ...], str] = {}
        for entry in self.files.values():
            for theory, n in entry.found.items():
                frames[theory] += n
                files[theory] += 1
                example.setdefault(theory, entry.path)
        return [
            {**dict(theory), "frames": n, "files": files[theory], "example": example[theory]}
            for theory, n in frames.most_common()
        ]

    def merge(self, other: Ledger) -> None:
        """Add the ledger of later pieces; parts of one file come together."""
        for path, entry in other.files.items():
            self.file(path).merge(entry)
        self.ignored += other.ignored

    def as_dict(self) -> dict[str, Any]:
        """For people: ``kept``, ``dropped``, ``remarks``, ``files``, ``ignored``."""
        return {
            "kept": self.kept,
            "dropped": self.total("dropped"),
            "remarks": self.total("remarks"),
            "files": [entry.as_dict() for entry in self.files.values()],
            "ignored": self.ignored,
        }

    def write_csv(self, file: Path) -> None:
        """Every frame that was dropped or flagged: outcome, file, reason, first and last step, frames.

        Frames whose steps the reader could not tell stand in a line without steps.
        """
        temporary = file.with_name(f".{file.name}.tmp")
        with open(temporary, "w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["outcome", "file", "reason", "first_step", "last_step", "frames"])
            for entry in self.files.values():
                writer.writerows(_csv_rows(entry))
        os.replace(temporary, file)

    def to_json(self) -> dict[str, Any]:
        """Everything, compactly."""
        return {"files": [entry.to_json() for entry in self.files.values()], "ignored": self.ignored}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Ledger:
        """The inverse of :meth:`to_json`."""
        self = cls()
        entries = [FileEntry.from_json(entry) for entry in data["files"]]
        self.files = {entry.path: entry for entry in entries}
        self.ignored = list(data["ignored"])
        return self


def _csv_rows(entry: FileEntry) -> Iterator[list[object]]:
    for (outcome, reason), line in entry.lines.items():
        word, told = ("dropped" if outcome == DROPPED else "flagged"), 0
        for first, last in line.pairs():
            yield [word, entry.path, reason, first, last, last - first + 1]
            told += last - first + 1
        if line.count > told:
            yield [word, entry.path, reason, "", "", line.count - told]
    if entry.error:
        yield ["not read", entry.path, entry.error, "", "", ""]
