"""The section of a report about the workflow itself: graph with times, loops, every stage with its outcome."""

from __future__ import annotations

from pathlib import Path

from lamkit.console import duration
from lamkit.report import graph, html
from lamkit.report.runs import read_json
from lamkit.report.text import number


def section(root: Path, own: Path) -> str:
    """HTML of a workflow folder; empty for any other folder.

    Args:
        root: The folder.
        own: Folder of the page, which may be a stage of that workflow.
    """
    boxes = graph.read(root, own)
    if not boxes:
        return ""
    note = (
        "Each box is a stage with its wall time, the bar compares it with the longest one; arrows go to the stages "
        "that read its products (not where a longer way leads there too). Boxes with a broken frame are the stages "
        "of a loop, all rounds together."
    )
    total = sum(box.seconds for box in boxes.values())
    parts = [graph.svg(boxes), html.paragraph(f"{note} All stages together: {duration(total)}.", note=True)]
    parts += [_loop(folder) for folder in sorted(root.iterdir()) if _stage(folder) == graph.LOOP]
    return "".join([*parts, html.folded("every stage", _stages(root, own))])


def _stage(folder: Path) -> str:
    return str(read_json(folder / "stage.json").get("stage")) if folder.is_dir() else ""


def _loop(folder: Path) -> str:
    """How a loop went: the values of its criterion after each round, and why it ended."""
    result = read_json(folder / "result.json")
    if not result:
        return html.paragraph(f"The loop {folder.name} is not over.")
    rounds = result.get("rounds") or []
    criteria = [key for key in (rounds[0] if rounds else {}) if key != "round"]
    rows = [[r["round"], *(number(r[c]) for c in criteria)] for r in rounds]
    said = f"The loop {folder.name} took {duration(result['seconds'])} in {result['n_rounds']} rounds. It ended: "
    body = html.heading(f"Loop {folder.name}") + html.paragraph(f"{said}{result['ended']}.")
    return body + (html.table(["round", *criteria], rows) if criteria else "")


def _stages(root: Path, own: Path) -> str:
    """Every stage, every round of loops: time, and the reason of a failure."""
    rows = []
    for note in sorted(graph.notes(root), key=_began):
        folder = note.parent
        kind = str(read_json(note).get("stage"))
        if kind == graph.LOOP or folder == own:
            continue
        proof, error = read_json(folder / "products.json"), read_json(folder / "error.json")
        state = "done" if proof else f"failed: {error['message']}" if error else "not over"
        seconds = proof.get("seconds")
        time = "" if seconds is None else duration(seconds)
        rows.append([folder.relative_to(root).as_posix(), kind, time, state])
    return html.table(["stage", "kind", "wall time", "outcome"], rows)


def _began(note: Path) -> float:
    return note.stat().st_mtime
