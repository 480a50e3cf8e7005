"""The retention table of a fine-tuning run on its page: what became of the heads that it was not about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamkit.report import html
from lamkit.report.text import number


def retention(result: Mapping[str, Any]) -> str:
    """Errors of old heads before and after; empty where the run has none.

    Args:
        result: contents of the run's result.json.
    """
    found = result.get("retention") or {}
    if not found:
        return ""
    rows = [
        [
            head, r["n_frames"], f"{r['labels']} ({r['frames_from']})",
            *(_milli(r[f"{label}_rmse_{when}"]) for label in ("forces", "energy") for when in ("before", "after")),
            _milli(r["forces_rms"]),
        ]
        for head, r in found.items()
    ]  # fmt: skip
    headers = [
        "old head",
        "frames",
        "labels",
        "F before",
        "F after",
        "E before",
        "E after",
        "F of zero forces",
    ]
    note = (
        "What fine-tuning did to the other heads. F: force RMSE, meV/Å. E: energy RMSE, meV/atom. Labels 'own' are "
        "those of the starting model, whose error is 0 by that; the error afterwards is how far the head has moved."
    )
    return html.heading("Retention") + html.table(headers, rows) + html.paragraph(note, note=True)


def _milli(value: float | None) -> str:
    return number(None if value is None else 1000 * value)
