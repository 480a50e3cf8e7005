"""Convert any number of files, folders or globs into one data set, with a report of every frame."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamkit import config, presets
from lamkit.console import Progress, log, table
from lamkit.data.dataset import write_dataset
from lamkit.data.facts import DatasetFacts
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
from lamkit.data.frame import Frame
from lamkit.data.heads import load_head
from lamkit.data.quality import Duplicates, first_fault
from lamkit.data.sources import Item, expand
from lamkit.data.write import require_free
from lamkit.errors import UserError, suggest
from lamkit.files import atomic_write

DUPLICATE = "duplicate of an earlier frame"
TABLE_ROWS = 40


class Options(config.Model):
    """What to convert, and how.

    Attributes:
        sources: files, folders or globs.
        format: name of a format; ``auto`` finds it out for each file.
        head: head that the data belong to; its YAML gives level of theory, citation and licence.
        reading: keys, units and signs of files that do not state them.
        unlabelled: keep structures without energy or forces.
    """

    sources: list[config.InputPath]
    format: str = "auto"
    head: str | None = None
    reading: ReadOptions = ReadOptions()
    unlabelled: bool = False


@dataclass
class FileReport:
    """What became of one file.

    Attributes:
        path: where it is, as found from what the user named.
        format: reader that was used; None if none fits.
        kept: frames kept.
        dropped: reason -> frames left out.
        remarks: what to know about frames that were kept -> how many.
        error: why the file, or the rest of it, could not be read.
    """

    path: str
    format: str | None = None
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": self.path,
            "format": self.format,
            "kept": self.kept,
            "dropped": dict(self.dropped),
            "remarks": dict(self.remarks),
            "error": self.error,
        }


@dataclass
class Report:
    """What became of all files.

    Attributes:
        files: one entry for each file that was read or tried.
        ignored: files in folders that are not of any known format.
    """

    files: list[FileReport] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """Frames kept."""
        return sum(entry.kept for entry in self.files)

    def total(self, name: str) -> dict[str, int]:
        """Sum of ``dropped`` or ``remarks`` over all files, largest first."""
        return dict(sum((getattr(entry, name) for entry in self.files), Counter()).most_common())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kept": self.kept,
            "dropped": self.total("dropped"),
            "remarks": self.total("remarks"),
            "files": [entry.as_dict() for entry in self.files],
            "ignored": self.ignored,
        }


def run(options: Options, out: Path) -> dict[str, Any]:
    """Stage of a workflow: the data set is ``out/data``."""
    return convert(options, out / "data")


def convert(options: Options, out: Path) -> dict[str, Any]:
    """Read all sources and write the data set ``out``, whole or not at all.

    Returns:
        ``kept``, ``dropped`` and ``remarks`` (reason -> frames), ``files``, ``ignored``, ``path``.

    Raises:
        UserError: nothing could be read, ``out`` is taken, or the options do not fit the files.
    """
    require_free(out)
    named = None if options.format == "auto" else get_format(options.format)
    items = expand(options.sources, folders=named is not None and named.folder)
    facts = head_facts(options.head)
    options = options.model_copy(update={"reading": options.reading.over(head_reading(options.head))})
    report = Report()
    with Progress(len(items) if len(items) > 1 else None, "converting") as progress:
        frames = _frames(items, named, options, report, progress)
        first = next(frames, None)
        if first is None:
            raise UserError(_nothing(report, items))
        write_dataset(
            itertools.chain([first], frames),
            out,
            lambda: facts.model_copy(update={"notes": facts.notes + _notes(report)}),
        )
    result = {**report.as_dict(), "path": str(out)}
    atomic_write(out / "report.json", json.dumps(result, indent=1) + "\n")
    _show(report, out)
    return result


def head_facts(head: str | None) -> DatasetFacts:
    """What a head's YAML says of its data; only the name, with a warning, if there is no such file."""
    if head is None:
        return DatasetFacts()
    known = presets.files("heads")
    if head not in known and Path(head).suffix not in (".yaml", ".yml"):
        log.warning(
            "no heads/%s.yaml.%s The data set will carry the name only; its level of theory stays unknown",
            head,
            suggest(head, known),
        )
        return DatasetFacts(head=head)
    found = load_head(head)
    notes = [found.notes] if isinstance(found.notes, str) else list(found.notes or [])
    return DatasetFacts(
        head=found.name,
        title=found.title,
        level_of_theory=found.level_of_theory,
        energy_kind=found.energy_kind,
        reference_prior=found.reference_prior,
        licence=found.source.licence,
        citation=found.citation,
        notes=notes,
    )


def head_reading(head: str | None) -> ReadOptions:
    """How a head's YAML says that its files are to be read; nothing, if there is no such file."""
    known = head is not None and (head in presets.files("heads") or Path(head).suffix in (".yaml", ".yml"))
    return load_head(str(head)).source.reading if known else ReadOptions()


def _frames(
    items: list[Item], named: Format | None, options: Options, report: Report, progress: Progress
) -> Iterator[Frame]:
    """All frames worth keeping; what happens on the way goes into ``report``."""
    repeated = Duplicates()
    for k, item in enumerate(items):
        entry = yield from _one_file(item.path, item.named, named, options, report, repeated, progress, k)
        if item.instead is not None:
            if entry is not None and entry.kept:
                report.files.append(FileReport(str(item.instead), remarks=Counter({_SAME_RUN: 1})))
            else:
                yield from _one_file(item.instead, True, named, options, report, repeated, progress, k)


_SAME_RUN = "not read: the same run as vasprun.xml beside it"


def _one_file(
    path: Path,
    is_named: bool,
    named: Format | None,
    options: Options,
    report: Report,
    repeated: Duplicates,
    progress: Progress,
    n_done: int,
) -> Generator[Frame, None, FileReport | None]:
    """Frames of one file; returns its entry in the report, None if the file is ignored."""
    entry = FileReport(str(path))
    try:
        fmt = named or recognise(path)
    except UserError as error:
        report.files.append(entry)
        entry.error = str(error)
        return entry
    if fmt is None and not is_named:
        report.ignored.append(str(path))
        return None
    report.files.append(entry)
    if fmt is None:
        what = why_passed_over(path)
        entry.error = f"{path}: {what or 'not a format that is recognised; name it with --format'}"
        return entry
    entry.format = fmt.name
    reading = options_for(fmt, options.reading, path)
    skip = ("labelled",) if options.unlabelled else ()
    things = _read_safely(path, fmt, reading, entry)
    for frame in things:
        fault = first_fault(frame, skip=skip) or (DUPLICATE if repeated(frame) else None)
        if fault is not None:
            entry.dropped[fault] += 1
            continue
        entry.kept += 1
        progress.update(n_done if progress.total else report.kept, f"{report.kept} frames, {path.name}")
        yield frame
    return entry


def _read_safely(path: Path, fmt: Format, reading: ReadOptions, entry: FileReport) -> Iterator[Frame]:
    """Frames of a file up to its end or to the first error, which is noted in ``entry``."""
    try:
        with plain_file(path) as file:
            for thing in fmt.read(file, str(path), reading):
                if isinstance(thing, Dropped):
                    entry.dropped[thing.reason] += thing.count
                elif isinstance(thing, Remark):
                    entry.remarks[thing.text] += thing.count
                else:
                    yield thing
    except UserError as error:
        entry.error = str(error)
    except MemoryError:
        raise
    except Exception as error:  # the readers of dpdata and ASE raise anything on a broken file
        log.debug("%s", path, exc_info=True)
        entry.error = f"{path}: not readable as {fmt.name}: {type(error).__name__}: {error}"


def _notes(report: Report) -> list[str]:
    """Remarks and drops as sentences for ``dataset.yaml``."""
    remarks = [f"{text} ({n})" for text, n in report.total("remarks").items()]
    return remarks + [f"dropped: {text} ({n})" for text, n in report.total("dropped").items()]


def _nothing(report: Report, items: list[Item]) -> str:
    lines = [entry.error for entry in report.files if entry.error]
    lines += [f"{n} frames dropped: {reason}" for reason, n in report.total("dropped").items()]
    more = f"\n… and {len(lines) - 12} more" if len(lines) > 12 else ""
    if not lines:
        lines = [f"none of {len(items)} files is of a known format; name it with --format"]
    hint = ""
    if any(reason.startswith("no energy") for reason in report.total("dropped")):
        hint = "\nTo keep structures without labels, add --unlabelled; for labels under other names, --energy-key."
    return "no frame could be converted.\n" + "\n".join(lines[:12]) + more + hint


def _show(report: Report, out: Path) -> None:
    """The report as tables in the log."""
    rows = [
        (entry.path, entry.format or "-", entry.kept, sum(entry.dropped.values()) or "", _short(entry.error))
        for entry in sorted(report.files, key=lambda e: e.error is None and not e.dropped)[:TABLE_ROWS]
    ]
    log.info("%s", table(rows, ("file", "format", "kept", "dropped", "error")))
    if len(report.files) > TABLE_ROWS:
        log.info("… and %d more files, all in %s", len(report.files) - TABLE_ROWS, out / "report.json")
    for name, title in (("dropped", "frames dropped, and why"), ("remarks", "remarks")):
        if counts := report.total(name):
            log.info("\n%s", table([(n, reason) for reason, n in counts.items()], ("frames", title)))
    if report.ignored:
        log.info("\n%d other files ignored: %s", len(report.ignored), ", ".join(report.ignored[:5]))
    log.info("\n%s: %d frames", out, report.kept)


def _short(text: str | None) -> str:
    return "" if text is None else text.splitlines()[0][:100]
