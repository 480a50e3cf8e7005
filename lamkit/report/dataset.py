"""The report of a data set: ``report.json``, ``report.csv``, ``report.html`` and ``statistics.json``.

Written at the end of a conversion and by an audit, from what was counted on the way: the ledger of files and
frames, and the statistics of the frames that are in the data set.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lamkit import __version__, config
from lamkit.data import statistics_file
from lamkit.data.audit import Audit
from lamkit.data.dataset import Dataset, open_dataset
from lamkit.data.frame import NUMBERS
from lamkit.data.ledger import Ledger
from lamkit.data.reference import residuals
from lamkit.data.statistics import FrameStatistics
from lamkit.data.summary import prior_of
from lamkit.files import atomic_write

OUTLIER = 8.0  # robust standard deviations from which a frame's energy is listed as far from the others
LISTED = 20


class Account(NamedTuple):
    """Everything that a report is made of.

    Attributes:
        content: what ``report.json`` holds.
        statistics: of the frames in the data set.
        residual: energy after the composition fit, of each frame, eV/atom; NaN without energy.
    """

    content: dict[str, Any]
    statistics: FrameStatistics
    residual: NDArray[np.float64]


def finish_report(
    folder: Path,
    ledger: Ledger,
    statistics: FrameStatistics,
    *,
    name: str | None = None,
    findings: Sequence[Any] = (),
) -> dict[str, Any]:
    """Write the four files of a conversion into the finished data set ``folder``.

    Args:
        folder: the data set.
        ledger: what became of all files and frames.
        statistics: of the frames kept.
        name: path to show, where the folder is renamed afterwards.
        findings: about the set as a whole (``check``, ``action``, ``reason``, ``frames``, ``value``).

    Returns:
        What ``report.json`` holds.
    """
    dataset = open_dataset(folder)
    account = take_account(dataset, ledger, statistics, findings)
    account.content["path"] = name or str(folder)
    statistics_file.save(dataset, statistics)
    write(folder, account, ledger, "Conversion")
    return account.content


def take_account(
    dataset: Dataset, ledger: Ledger, statistics: FrameStatistics, findings: Sequence[Any] = ()
) -> Account:
    """Put together what a report says of a data set; reads its energies and compositions once."""
    facts = dataset.facts
    result = statistics.result(prior_of(dataset))
    content: dict[str, Any] = {
        "path": str(dataset.path),
        **ledger.as_dict(),
        "head": facts.head,
        "level_of_theory": {
            "head": config.dump(facts.level_of_theory) if facts.level_of_theory else None,
            "found": ledger.theories(),
        },
        "findings": [describe_finding(f, dataset) for f in findings],
        "statistics": result,
        "lamkit": __version__,
    }
    rest = np.full(len(dataset), np.nan)
    if "reference" in result:
        energies = result["reference"]["energies"]
        reference = np.zeros(119)
        reference[[NUMBERS[s] for s in energies]] = list(energies.values())
        rest = residuals(dataset, reference)
        content["energy_residual"] = describe_residual(dataset, rest)
    return Account(content, statistics, rest)


def describe_finding(finding: Any, dataset: Dataset) -> dict[str, Any]:
    """One finding about the set as a whole, with the first frames it is about."""
    return {
        "check": finding.check,
        "action": finding.action,
        "reason": finding.reason,
        "frames": len(finding.frames),
        "value": finding.value,
        "examples": [where(dataset, i) for i in finding.frames[:LISTED]],
    }


def where(dataset: Dataset, i: int) -> str:
    """File and step of a frame."""
    return f"{dataset.sources[dataset.source_ids[i]]}, step {dataset.steps[i]}"


def describe_residual(dataset: Dataset, rest: NDArray[np.float64]) -> dict[str, Any]:
    """Robust location and scatter of the energies after the composition fit, and the frames far out.

    The scatter is 1.4826 times the median absolute deviation, the standard deviation of a normal distribution.
    """
    known = np.flatnonzero(np.isfinite(rest))
    values = rest[known]
    median = float(np.median(values))
    scatter = 1.4826 * float(np.median(np.abs(values - median)))
    result: dict[str, Any] = {
        "median": median,
        "robust_std": scatter,
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
    }
    if scatter > 0:
        away = np.abs(values - median) / scatter
        far = np.argsort(-away, kind="stable")[: int((away > OUTLIER).sum())]
        result["n_far"] = len(far)
        result["far"] = [
            {
                "where": where(dataset, int(known[k])),
                "residual": float(values[k]),
                "deviations": float(away[k]),
            }
            for k in far[:LISTED]
        ]
    return result


def audit_report(folder: Path, dataset: Dataset, found: Audit) -> dict[str, Any]:
    """Write the report of an audit into ``folder``; returns what its ``report.json`` holds."""
    account = take_account(dataset, found.ledger, found.statistics, found.findings)
    account.content.update(found.result)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, account, found.ledger, "Audit")
    return account.content


def write(folder: Path, account: Account, ledger: Ledger, title: str) -> None:
    """Write ``report.json``, ``report.csv`` and ``report.html`` into a folder."""
    from lamkit.report.dataset_page import page

    atomic_write(folder / "report.json", json.dumps(account.content, indent=1) + "\n")
    ledger.write_csv(folder / "report.csv")
    atomic_write(folder / "report.html", page(account, title))
