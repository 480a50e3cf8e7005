"""The graph of a workflow with the time that each stage took, drawn as SVG from what the stages left.

A loop's stages are drawn once, with the times of all rounds together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import networkx as nx

from lamkit.console import duration
from lamkit.report.runs import read_json

JOURNAL, LOOP = "journal.jsonl", "loop"
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 168, 58, 22, 40, 8  # px
PER_ROW = 5  # boxes beside each other; more of one depth go into further rows
COLORS = {"done": "#009e73", "failed": "#d55e00", "not over": "#8a92a3", "this page": "#8a92a3"}
LETTER = 6.4  # px, of the label's font


@dataclass
class Box:
    """A stage in the picture.

    Attributes:
        name: Id of the stage without loop and round.
        kind: Which stage it is.
        state: A key of :data:`COLORS`.
        seconds: Time of all rounds.
        rounds: How many rounds there were; 0 outside of loops.
        loop: Id of its loop.
        reads: Keys of the boxes whose products it reads.
    """

    name: str
    kind: str
    state: str
    seconds: float = 0.0
    rounds: int = 0
    loop: str = ""
    reads: set[str] = field(default_factory=set)


def read(root: Path, own: Path | None = None) -> dict[str, Box]:
    """Every stage of a workflow folder; empty for any other folder. ``own`` is the stage that writes this."""
    if not (root / JOURNAL).is_file():
        return {}
    found: dict[str, Box] = {}
    loops: list[str] = []
    for note in notes(root):
        facts, folder = read_json(note), note.parent
        place = folder.relative_to(root).parts
        if facts.get("stage") == LOOP:
            loops.append(place[0])
            continue
        proof, failed = read_json(folder / "products.json"), (folder / "error.json").is_file()
        loop = place[0] if len(place) == 3 else ""
        key = f"{loop}/{place[-1]}" if loop else place[0]
        box = found.setdefault(key, Box(place[-1], str(facts.get("stage")), "done", loop=loop))
        box.seconds += float(proof.get("seconds") or 0.0)
        box.rounds += bool(loop)
        if not proof:
            box.state = "this page" if folder == own else "failed" if failed else "not over"
        box.reads |= {_key(other) for other in (facts.get("identity") or {}).get("upstream", {})}
    for loop in loops:
        _take_over(found, loop)
    for key, box in found.items():
        box.reads = {other for other in box.reads if other in found and other != key}
    return found


def notes(root: Path) -> list[Path]:
    """``stage.json`` of every stage and every round of a loop; not of rounds that the loop has taken back."""
    inside = (path for path in root.glob("*/*/*/stage.json") if path.parent.parent.name.isdigit())
    ended = {path.parent: read_json(path).get("n_rounds") for path in root.glob("*/result.json")}
    rounds = [
        path
        for path in inside
        if int(path.parent.parent.name)
        <= (ended.get(path.parent.parent.parent) or int(path.parent.parent.name))
    ]
    return sorted([*root.glob("*/stage.json"), *rounds])


def _key(node: str) -> str:
    """Key of the box of a node of the workflow: ``learn/2/train`` → ``learn/train``."""
    parts = node.split("/")
    return f"{parts[0]}/{parts[2]}" if len(parts) == 3 else node


def _take_over(boxes: dict[str, Box], loop: str) -> None:
    """What reads a loop reads the stages at its end."""
    inside = {key for key, box in boxes.items() if box.loop == loop}
    ends = inside - {other for key in inside for other in boxes[key].reads if other != key}
    for box in boxes.values():
        if loop in box.reads:
            box.reads = (box.reads - {loop}) | (ends or inside)


def svg(boxes: dict[str, Box]) -> str:
    """The picture, which needs nothing from elsewhere."""
    graph = _without_circles(boxes)
    places = _places(graph, boxes)
    longest = max((box.seconds for box in boxes.values()), default=0.0) or 1.0
    width = (
        max(x for x, _ in places.values()) + WIDTH + GAP_X + MARGIN
    )  # arrows may take the gap on the right
    height = max(y for _, y in places.values()) + HEIGHT + MARGIN
    # an arrow that only shortens a way that is drawn already tells nothing
    lines = [_arrow(places[a], places[b]) for a, b in sorted(nx.transitive_reduction(graph).edges)]
    drawn = [_box(box, places[key], longest) for key, box in boxes.items()]
    return (
        f'<div class="scroll"><svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" aria-label="graph of the workflow" '
        'font-family="sans-serif" font-size="12">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="#5b6478"/></marker></defs>'
        f"{''.join(lines)}{''.join(drawn)}</svg></div>"
    )


def _without_circles(boxes: dict[str, Box]) -> nx.DiGraph:
    """Arrows from what is read to what reads it; what a round takes from the one before is left out."""
    graph = nx.DiGraph()
    graph.add_nodes_from(boxes)
    graph.add_edges_from((other, key) for key, box in boxes.items() for other in sorted(box.reads))
    while not nx.is_directed_acyclic_graph(graph):
        graph.remove_edge(*nx.find_cycle(graph)[-1])
    return graph


def _places(graph: nx.DiGraph, boxes: dict[str, Box]) -> dict[str, tuple[float, float]]:
    """Upper left corner of each box: a row for each depth, beside each other as what they read."""
    places: dict[str, tuple[float, float]] = {}
    row = 0
    for layer in nx.topological_generations(graph):
        before = {key: [places[other][0] for other in graph.predecessors(key)] for key in layer}
        order = sorted(
            layer, key=lambda key: (sum(before[key]) / max(len(before[key]), 1), boxes[key].loop, key)
        )
        for start in range(0, len(order), PER_ROW):
            for column, key in enumerate(order[start : start + PER_ROW]):
                places[key] = (MARGIN + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
            row += 1
    return places


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    """An arrow to the next row; one that goes further down takes the gap between two columns."""
    x1, y1, x2, y2 = start[0] + WIDTH / 2, start[1] + HEIGHT, end[0] + WIDTH / 2, end[1] - 1
    half = GAP_Y / 2
    if y2 - y1 < HEIGHT:
        path = f"M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + half:.0f} {x2:.0f} {y2 - half:.0f} {x2:.0f} {y2:.0f}"
    else:
        gap = start[0] + WIDTH + GAP_X / 2 if end[0] >= start[0] else start[0] - GAP_X / 2
        path = (
            f"M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + half:.0f} {gap:.0f} {y1:.0f} {gap:.0f} {y1 + GAP_Y:.0f}"
            f"L{gap:.0f} {y2 - GAP_Y:.0f}C{gap:.0f} {y2:.0f} {x2:.0f} {y2 - half:.0f} {x2:.0f} {y2:.0f}"
        )
    return f'<path d="{path}" fill="none" stroke="#aab1bf" marker-end="url(#tip)"/>'


def _box(box: Box, place: tuple[float, float], longest: float) -> str:
    x, y = place
    dash = ' stroke-dasharray="5 3"' if box.loop else ""
    kind = f"{box.kind}, {box.rounds} × in {box.loop}" if box.loop else box.kind
    time = duration(box.seconds) if box.state == "done" else box.state
    bar = max(2.0, (WIDTH - 16) * box.seconds / longest)
    title: Any = f"{box.name} ({kind}): {time}"
    return (
        f"<g><title>{escape(title)}</title>"
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#fff" '
        f'stroke="{COLORS[box.state]}" stroke-width="1.5"{dash}/>'
        f'<text x="{x + 8}" y="{y + 18}" font-weight="600">{escape(_cut(box.name))}</text>'
        f'<text x="{x + 8}" y="{y + 34}" fill="#5b6478" font-size="11">{escape(_cut(kind, 1.1))}</text>'
        f'<text x="{x + 8}" y="{y + 48}" font-size="11">{escape(time)}</text>'
        f'<rect x="{x + 8}" y="{y + HEIGHT - 6}" width="{bar:.0f}" height="3" fill="{COLORS[box.state]}"/></g>'
    )


def _cut(text: str, narrow: float = 1.0) -> str:
    """Text as long as a box is wide."""
    most = int((WIDTH - 12) / LETTER * narrow)
    return text if len(text) <= most else f"{text[: most - 1]}…"
