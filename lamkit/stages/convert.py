"""Convert any number of files, folders or globs into one data set, with a report of every frame.

First the sources are read in pieces, by a process for each core if that pays (:mod:`lamkit.data.intake`); then
the data set is put together from the pieces in their order (:mod:`lamkit.data.merge`), so that it does not
depend on how many have worked. A conversion that was stopped or killed goes on when it is called again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from lamkit import config, presets
from lamkit.console import Progress, log
from lamkit.data import unfinished, workers
from lamkit.data.dataset import open_dataset
from lamkit.data.facts import DatasetFacts
from lamkit.data.formats import Format, ReadOptions, get_format, words_on_passed_over
from lamkit.data.heads import load_head
from lamkit.data.intake import Settings, rules, shard_path
from lamkit.data.ledger import Ledger
from lamkit.data.merge import Merged, enter, merge
from lamkit.data.pieces import Piece, plan, size_of
from lamkit.data.quality import Checks, Duplicates, SetFinding, survey
from lamkit.data.sources import Item, expand
from lamkit.data.write import DatasetWriter, completed_facts, require_free
from lamkit.errors import Interrupted, UserError, suggest
from lamkit.files import replace_folder
from lamkit.lock import Lock
from lamkit.report.dataset import finish_report
from lamkit.report.dataset_words import conversion

MEGABYTE = 1 << 20
WORTH_WORKERS = 32 * MEGABYTE  # below, starting other processes takes longer than reading
SAMPLED = 64 * MEGABYTE  # from this size on, neighbours are counted on every tenth frame only


class Options(config.Model):
    """What to convert, and how.

    Attributes:
        sources: files, folders or globs.
        format: name of a format; ``auto`` finds it out for each file.
        head: head that the data belong to; its YAML gives level of theory, citation and licence.
        reading: keys, units and signs of files that do not state them.
        unlabelled: keep structures without energy or forces.
        against: data sets whose frames count as duplicates, for example one that has been trained on.
        workers: processes that read; null takes one for each core where the sources are large.
    """

    sources: list[config.InputPath]
    format: str = "auto"
    head: str | None = None
    reading: ReadOptions = ReadOptions()
    unlabelled: bool = False
    against: list[config.InputPath] = []
    workers: int | None = Field(None, ge=1)


def run(options: Options, out: Path) -> dict[str, Any]:
    """Stage of a workflow: the data set is ``out/data``."""
    return convert(options, out / "data")


def convert(options: Options, out: Path) -> dict[str, Any]:
    """Read all sources and write the data set ``out``, whole or not at all.

    Returns:
        What ``report.json`` holds, among it ``kept``, ``dropped`` and ``remarks`` (reason -> frames),
        ``files``, ``ignored``, ``path``.

    Raises:
        UserError: nothing could be read, ``out`` is taken, or the options do not fit the files.
        Interrupted: Ctrl-C; what was read is kept.
    """
    unfinished.tidy(out)
    require_free(out)
    named = None if options.format == "auto" else get_format(options.format)
    for path in options.against:
        open_dataset(path)  # that there is such a data set should be known before hours of reading
    items = expand(options.sources, folders=named is not None and named.folder)
    facts = head_facts(options.head)
    n_bytes = sum(size_of(item.path) for item in items)
    work = unfinished.work_folder(out)
    settings = Settings(
        work=str(work),
        format=options.format,
        reading=options.reading.over(head_reading(options.head)),
        head=options.head if is_known(options.head) else None,
        unlabelled=options.unlabelled,
        neighbors_every=10 if n_bytes > SAMPLED else 1,
    )
    work.mkdir(parents=True, exist_ok=True)
    with Lock(work):  # outside of what clears the folder: it may be another run's
        try:
            unfinished.prepare(work, items, settings)
            pieces = _read(items, named, settings, n_bytes, _n_workers(options, n_bytes))
            shards = [shard_path(work, name) for name in pieces]
            result = _assemble(shards, work, settings, facts, options.against, out)
            replace_folder(work / "data", out)
        except KeyboardInterrupt:
            raise Interrupted("what was read is kept: the same command goes on from here") from None
        except UserError:
            shutil.rmtree(work, ignore_errors=True)
            raise
    shutil.rmtree(work, ignore_errors=True)
    return result


def _n_workers(options: Options, n_bytes: int) -> int:
    """Processes that read; 0: this one."""
    n = options.workers or (workers.cores() if n_bytes > WORTH_WORKERS else 1)
    return n if n > 1 else 0


def _seen(against: Sequence[str]) -> Duplicates:
    """Frames that count as seen from the start."""
    seen = Duplicates()
    for path in against:
        seen.remember(open_dataset(path))
    return seen


def _read(
    items: Sequence[Item], named: Format | None, settings: Settings, n_bytes: int, n_workers: int
) -> list[str]:
    """Make the shards that are not there yet; returns the names of all pieces, in order."""
    work, names = Path(settings.work), []
    n_frames = skipped = done = 0
    with Progress(max(n_bytes // MEGABYTE, 1), "reading MB") as progress:

        def missing() -> Iterator[Piece]:
            nonlocal skipped
            for piece in plan(items, named, work):
                names.append(piece.name)
                if shard_path(work, piece.name).exists():
                    skipped += piece.n_bytes
                    progress.first = skipped // MEGABYTE
                else:
                    yield piece

        if n_workers:
            finished = workers.read_by_workers(missing(), settings, n_workers)
        else:
            finished = workers.read_here(missing(), settings)
        for piece, n in finished:
            done += piece.n_bytes
            n_frames += n
            progress.update((skipped + done) // MEGABYTE, f"{n_frames} frames")
    return names


def _assemble(
    shards: list[Path],
    work: Path,
    settings: Settings,
    facts: DatasetFacts,
    against: Sequence[str],
    out: Path,
) -> dict[str, Any]:
    """Put the data set together in ``work/data``, with its report, and show the report.

    Raises:
        UserError: no frame was kept.
    """
    checks = rules(settings.head, settings.unlabelled).checks
    merged, findings = _merge(shards, work / "data", facts, against, checks, {})
    rejected = {
        int(serial): finding.reason
        for finding in findings
        if finding.action == "reject"
        for serial in merged.in_order_of(open_dataset(work / "data"))[finding.frames]
    }
    if rejected:
        merged, findings = _merge(shards, work / "data", facts, against, checks, rejected)
    enter(findings, open_dataset(work / "data"), merged)
    result = finish_report(work / "data", merged.ledger, merged.statistics, name=str(out), findings=findings)
    log.info("\n%s", conversion(result))
    return result


def _merge(
    shards: list[Path],
    folder: Path,
    facts: DatasetFacts,
    against: Sequence[str],
    checks: Checks,
    left_out: dict[int, str],
) -> tuple[Merged, list[SetFinding]]:
    """Write the data set of all frames but ``left_out`` into ``folder``, and look at it as a whole."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    writer = DatasetWriter(folder)
    with Progress(len(shards), "writing piece") as progress:
        merged = merge(shards, writer, _seen(against), left_out, progress.update, checks.duplicate)
    if writer.n_frames == 0:
        raise UserError(_nothing(merged.ledger))
    writer.close()
    notes = facts.notes + _notes(merged.ledger)
    known = completed_facts(facts.model_copy(update={"notes": notes}), folder, writer)
    config.write_yaml(folder / "dataset.yaml", known)
    return merged, survey(open_dataset(folder), checks)


def head_facts(head: str | None) -> DatasetFacts:
    """What a head's YAML says of its data; only the name, with a warning, if there is no such file."""
    if head is None:
        return DatasetFacts()
    if not is_known(head):
        log.warning(
            "no heads/%s.yaml.%s The data set will carry the name only; its level of theory stays unknown",
            head,
            suggest(head, presets.files("heads")),
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


def is_known(head: str | None) -> bool:
    """Whether there is a YAML file of this head."""
    return head is not None and (head in presets.files("heads") or Path(head).suffix in (".yaml", ".yml"))


def head_reading(head: str | None) -> ReadOptions:
    """How a head's YAML says that its files are to be read; nothing, if there is no such file."""
    return load_head(str(head)).source.reading if is_known(head) else ReadOptions()


def _notes(ledger: Ledger) -> list[str]:
    """Remarks and drops as sentences for ``dataset.yaml``."""
    remarks = [f"{text} ({n})" for text, n in ledger.total("remarks").items()]
    return remarks + [f"dropped: {text} ({n})" for text, n in ledger.total("dropped").items()]


def _nothing(ledger: Ledger) -> str:
    lines = [entry.error for entry in ledger.files.values() if entry.error]
    lines += [f"{n} frames dropped: {reason}" for reason, n in ledger.total("dropped").items()]
    more = f"\n… and {len(lines) - 12} more" if len(lines) > 12 else ""
    if not lines:
        n = len(ledger.files) + len(ledger.ignored)
        lines = [
            f"none of {n} files is of a known format with labels; where that is wrong, name it with --format"
        ]
        lines += words_on_passed_over(ledger.ignored)
    hint = ""
    if any(reason.startswith("no energy") for reason in ledger.total("dropped")):
        hint = "\nTo keep structures without labels, add --unlabelled; for labels under other names, --energy-key."
    return "no frame could be converted.\n" + "\n".join(lines[:12]) + more + hint
