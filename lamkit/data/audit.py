"""Audit of a data set, LAMKit's own or one that another program wrote: files, frames, and the set as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lamkit import presets
from lamkit.console import Progress
from lamkit.data import statistics_file
from lamkit.data.dataset import Dataset
from lamkit.data.frame import Frame
from lamkit.data.heads import load_head
from lamkit.data.ledger import Ledger
from lamkit.data.quality import Duplicates, Rules, SetFinding, examine, fingerprint, rejected, survey
from lamkit.data.statistics import FrameStatistics
from lamkit.errors import UserError
from lamkit.files import sha256

EXAMPLES = 10  # frames named for each fault
UNSOUND = ("work", "scales", "energy_scale")  # findings on the whole set that mean wrong labels ...
UNSURE = "the unit is another"  # ... unless no known unit explains them: frames in no order look like that
SAMPLED = 20_000  # from so many frames on, neighbours are counted on every tenth only


class Audit(NamedTuple):
    """What an audit found.

    Attributes:
        result: ``ok``, ``n_frames``, ``problems`` (what → how often), ``flags`` and ``examples`` (what → where).
        ledger: every fault and flag, with file and step.
        statistics: of the frames without fault.
        findings: about the set as a whole.
    """

    result: dict[str, Any]
    ledger: Ledger
    statistics: FrameStatistics
    findings: list[SetFinding]


class _Notes:
    """Faults and flags: how often, and the first places."""

    def __init__(self) -> None:
        self.problems: dict[str, int] = {}
        self.flags: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}

    def add(self, what: str, where: str, *, fault: bool, n: int = 1) -> None:
        counts = self.problems if fault else self.flags
        counts[what] = counts.get(what, 0) + n
        if len(places := self.examples.setdefault(what, [])) < EXAMPLES:
            places.append(where)


def audit(dataset: Dataset) -> Audit:
    """Check every file, every frame and the set as a whole, by the rules of the data set's head.

    A data set without fault that lacks valid statistics gets them.
    """
    notes, ledger = _Notes(), Ledger()
    for what, where in _bad_files(dataset):
        notes.add(what, where, fault=True)
    rules = rules_of(dataset)
    statistics = FrameStatistics(neighbors_every=10 if len(dataset) > SAMPLED else 1)
    sound = np.array(list(_sound(dataset, rules, notes, ledger, statistics)), dtype=np.int64)
    findings = _survey(dataset, sound, rules)
    for finding in findings:
        _enter(finding, dataset, notes, ledger)
    if not notes.problems and not dataset.foreign and statistics_file.load(dataset) is None:
        statistics_file.save(dataset, statistics)
    order = sorted(notes.problems.items(), key=lambda item: -item[1])
    result = {
        "ok": not notes.problems,
        "path": str(dataset.path),
        "n_frames": len(dataset),
        "problems": dict(order),
        "flags": dict(sorted(notes.flags.items(), key=lambda item: -item[1])),
        "examples": notes.examples,
    }
    return Audit(result, ledger, statistics, findings)


def rules_of(dataset: Dataset) -> Rules:
    """Rules of the data set's head, where its YAML is known; structures without labels are allowed."""
    head = dataset.facts.head
    if head in presets.files("heads"):
        known = load_head(head)
        return Rules(checks=known.checks, level=known.level_of_theory, unlabelled=True)
    return Rules(level=dataset.facts.level_of_theory, unlabelled=True)


def _sound(
    dataset: Dataset, rules: Rules, notes: _Notes, ledger: Ledger, statistics: FrameStatistics
) -> Iterator[int]:
    """Check each frame; yields those without fault."""
    seen = Duplicates()
    with Progress(len(dataset), "checking") as progress:
        for i in range(len(dataset)):
            try:
                frame = dataset.frame(i)
            except (UserError, ValueError, IndexError) as error:  # every frame of its set would say the same
                notes.add("array cannot be read", f"frame {i}: {error}", fault=True)
                return
            if _frame(i, frame, rules, seen, notes, ledger):
                statistics.add(frame)
                yield i
            progress.update(i + 1)


def _frame(i: int, frame: Frame, rules: Rules, seen: Duplicates, notes: _Notes, ledger: Ledger) -> bool:
    """Check one frame; whether it is sound."""
    entry, where = ledger.file(frame.source, "deepmd/npy"), f"frame {i} (step {frame.step} of {frame.source})"
    _, findings = examine(frame, rules)
    reason = rejected(findings) or seen.reason(fingerprint(frame))
    if reason is not None:
        entry.drop(reason, frame.step)
        notes.add(reason, where, fault=True)
        return False
    entry.keep()
    for finding in findings:
        entry.flag(finding.reason, frame.step)
        notes.add(finding.reason, where, fault=False)
    return True


def _survey(dataset: Dataset, sound: NDArray[np.int64], rules: Rules) -> list[SetFinding]:
    """What the sound frames say together; frames are numbered as in the data set."""
    if not len(sound):
        return []
    found = survey(dataset.subset(sound), rules.checks)
    return [replace(finding, frames=[int(sound[i]) for i in finding.frames]) for finding in found]


def _enter(finding: SetFinding, dataset: Dataset, notes: _Notes, ledger: Ledger) -> None:
    """Write a finding on the whole set into the notes and, where it names frames, into the ledger."""
    fault = finding.action == "reject" or (finding.check in UNSOUND and UNSURE not in finding.reason)
    notes.add(finding.reason, "the set as a whole", fault=fault, n=len(finding.frames) or 1)
    places = notes.examples[finding.reason] = []
    for i in finding.frames:
        frame = dataset.frame(i)
        ledger.file(frame.source).flag(finding.reason, frame.step)
        if len(places) < EXAMPLES:
            places.append(f"frame {i} (step {frame.step} of {frame.source})")
    if not places:
        places.append("the set as a whole")


def _bad_files(dataset: Dataset) -> Iterator[tuple[str, str]]:
    for name, digest in dataset.facts.checksums.items():
        file = dataset.path / name
        if not file.is_file():
            yield "file is missing", str(file)
        elif sha256(file) != digest:
            yield "file differs from its checksum", str(file)
