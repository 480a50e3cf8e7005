"""Reading one piece of the sources: every frame is checked, and kept in a shard or entered in the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lamkit import config
from lamkit.console import log
from lamkit.data.formats import (
    Dropped,
    Format,
    ReadOptions,
    Remark,
    get_format,
    options_for,
    plain_file,
    recognise,
    why_passed_over,
)
from lamkit.data.formats.json_ranges import gc_paused
from lamkit.data.frame import Frame
from lamkit.data.heads import load_head
from lamkit.data.ledger import FileEntry, Ledger
from lamkit.data.pieces import Job, Piece
from lamkit.data.quality import Rules, examine, fingerprint, rejected, theory
from lamkit.data.shard import ShardBuilder
from lamkit.data.statistics import FrameStatistics
from lamkit.errors import UserError

SAME_RUN = "not read: the same run as vasprun.xml beside it"
SHARDS = "shards"  # folder of the shards
SHARD_ATOMS = 400_000  # atoms held in memory: some 100 MB


class Settings(config.Model):
    """What is the same for all pieces of a conversion.

    Attributes:
        work: folder of the unfinished conversion.
        format: name of the format of all sources; ``auto`` finds it out for each.
        reading: keys, units and signs.
        head: name of the head whose YAML says what is checked, if there is one.
        unlabelled: keep structures without energy or forces.
        neighbors_every: neighbours of each so-manieth frame are counted for the statistics.
    """

    work: str
    format: str = "auto"
    reading: ReadOptions = ReadOptions()
    head: str | None = None
    unlabelled: bool = False
    neighbors_every: int = 1


def shard_path(work: Path, name: str) -> Path:
    """File of a piece's shard."""
    return work / SHARDS / f"{name}.npz"


class _Sink:
    """Where the frames of one piece go: its shard, and files before it where the piece is large.

    The shard itself is written last, so that where it is there, all is there.
    """

    def __init__(self, work: Path, name: str, neighbors_every: int) -> None:
        self.work, self.name, self.every = work, name, neighbors_every
        self.ledger = Ledger()
        self.n_frames = self._n_before = 0
        self._begin()

    def _begin(self) -> None:
        self._shard, self._n_atoms = ShardBuilder(), 0
        self._statistics = FrameStatistics(neighbors_every=self.every)

    def add(self, frame: Frame, path: str) -> None:
        """Keep a frame of a file."""
        mark = fingerprint(frame)
        self._shard.add(frame, path, mark.key, mark.vector)
        self._statistics.add(frame)
        self.n_frames += 1
        self._n_atoms += len(frame)
        if self._n_atoms > SHARD_ATOMS:
            self._save(f"{self.name}-{self._n_before:04d}", Ledger())
            self._n_before += 1
            self._begin()

    def close(self) -> int:
        """Write the shard; returns the number of frames."""
        self._save(self.name, self.ledger)
        return self.n_frames

    def _save(self, name: str, ledger: Ledger) -> None:
        notes = {
            "ledger": ledger.to_json(),
            "statistics": self._statistics.to_json(),
            "n_before": self._n_before,
        }
        self._shard.save(shard_path(self.work, name), notes)


class Intake:
    """Reads pieces, one after another.

    Args:
        settings: of the conversion.

    Raises:
        UserError: an unknown format or head.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.work = settings, Path(settings.work)
        self.named = None if settings.format == "auto" else get_format(settings.format)
        self.rules = rules(settings.head, settings.unlabelled)

    def read(self, piece: Piece) -> int:
        """Write the shard of a piece; returns how many frames it holds.

        Raises:
            UserError: the options do not fit a file. What is wrong with a file itself goes into the ledger.
        """
        with gc_paused():
            return self._read(piece)

    def _read(self, piece: Piece) -> int:
        sink = _Sink(self.work, piece.name, self.settings.neighbors_every)
        for job in piece.jobs:
            entry = self._one(job, job.path, job.named, sink)
            if job.instead is None:
                continue
            if entry is not None and entry.kept:
                sink.ledger.file(job.instead).flag(SAME_RUN)
            else:
                self._one(job, job.instead, True, sink)
        return sink.close()

    def _one(self, job: Job, path: str, is_named: bool, sink: _Sink) -> FileEntry | None:
        """One file; returns its entry in the ledger, None if the file is ignored."""
        try:
            found = get_format(job.format) if job.format else self.named or recognise(Path(path))
        except UserError as error:
            entry = sink.ledger.file(path)
            entry.error = str(error)
            return entry
        if found is None and not is_named:
            sink.ledger.ignored.append(path)
            return None
        entry = sink.ledger.file(path, found.name if found else None)
        if found is None:
            what = why_passed_over(Path(path))
            entry.error = f"{path}: {what or 'not a format that is recognised; name it with --format'}"
            return entry
        reading = options_for(found, self.settings.reading, Path(path))
        for thing in _read_safely(path, job, found, reading, entry):
            if isinstance(thing, Dropped):
                entry.drop(thing.reason, thing.step, thing.count, last=thing.last)
            elif isinstance(thing, Remark):
                entry.flag(thing.text, thing.step, thing.count, last=thing.last)
            else:
                self._frame(thing, entry, sink)
        return entry

    def _frame(self, frame: Frame, entry: FileEntry, sink: _Sink) -> None:
        """Check one frame and keep it, or say why not."""
        frame, findings = examine(frame, self.rules)
        if (reason := rejected(findings)) is not None:
            entry.drop(reason, frame.step)
            return
        for finding in findings:
            entry.flag(finding.reason, frame.step)
        entry.theory(theory(frame))
        entry.keep()
        sink.add(frame, entry.path)


def rules(head: str | None, unlabelled: bool) -> Rules:
    """Checks and level of theory of a head, where its YAML gives them."""
    if head is None:
        return Rules(unlabelled=unlabelled)
    known = load_head(head)
    return Rules(checks=known.checks, level=known.level_of_theory, unlabelled=unlabelled)


def _read_safely(
    path: str, job: Job, found: Format, reading: ReadOptions, entry: FileEntry
) -> Iterator[Frame | Dropped | Remark]:
    """What a reader yields, up to its end or to the first error, which is noted in ``entry``."""
    try:
        if job.part is not None and found.read_range is not None:
            yield from found.read_range(Path(job.plain or path), job.part, path, reading)
            return
        with plain_file(Path(path)) as file:
            yield from found.read(file, path, reading)
    except UserError as error:
        entry.error = str(error)
    except MemoryError:
        raise
    except Exception as error:  # the readers of dpdata and ASE raise anything on a broken file
        log.debug("%s", path, exc_info=True)
        entry.error = f"{path}: not readable as {found.name}: {type(error).__name__}: {error}"
