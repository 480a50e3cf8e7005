"""Pictures of a workflow's graph: Mermaid, which GitHub and many editors draw, and lines of text.

A loop is drawn once, as a box around its stages; what a round takes from the one before is a dashed arrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import networkx as nx

from lamkit.workflow import graph as graphs
from lamkit.workflow.spec import Source
from lamkit.workflow.unroll import LOOP, Node

READS, ORDER, NEXT = "reads", "order", "next round"


class Arrow(NamedTuple):
    """An arrow of the picture.

    Attributes:
        start: Node it comes from; the id of a loop for all that leaves a loop.
        end: Node it goes to.
        kind: :data:`READS`, :data:`ORDER` (waits without reading) or :data:`NEXT` (to the next round).
    """

    start: str
    end: str
    kind: str


def shown(graph: nx.DiGraph) -> list[Node]:
    """The nodes of a picture: of loops the first round only."""
    found = (graph.nodes[name]["node"] for name in graphs.order(graph))
    return [node for node in found if node.round <= 1]


def arrows(graph: nx.DiGraph) -> Iterator[Arrow]:
    """The arrows of a picture, between the nodes that :func:`shown` gives."""
    for a, b, facts in graph.edges(data=True):
        start, end = graph.nodes[a]["node"], graph.nodes[b]["node"]
        if end.stage == LOOP and start.loop == end.id:
            continue  # the box says it
        if start.loop and start.loop == end.loop and (start.round, end.round) == (1, 2):
            if facts["reads"]:
                yield Arrow(a, f"{end.loop}/1/{end.name}", NEXT)
        elif start.round <= 1 and end.round <= 1:
            yield Arrow(a, b, READS if facts["reads"] else ORDER)


def loop_words(source: Source, name: str) -> str:
    """What a loop does, in a line."""
    loop = source.workflow.stages[name].loop
    assert loop is not None
    words = [f"at most {loop.max_rounds} rounds"]
    words += [f"{loop.max_minutes:g} minutes"] if loop.max_minutes else []
    words += [f"until {' and '.join(loop.until)}"] if loop.until else []
    return f"{name}: {', '.join(words)}"


def mermaid(graph: nx.DiGraph, source: Source) -> str:
    """The graph in Mermaid's words."""
    found = shown(graph)
    numbers = {node.id: f"s{i}" for i, node in enumerate(found)}
    lines = ["flowchart TD"]
    for node in found:
        if node.stage == LOOP:
            title = _quoted(loop_words(source, node.id))
            lines.append(f'    subgraph {numbers[node.id]}["{title}"]')
            lines += [f"        {_box(n, numbers)}" for n in found if n.loop == node.id and n.round]
            lines.append("    end")
        elif not node.loop:
            lines.append(f"    {_box(node, numbers)}")
    signs = {READS: "-->", ORDER: "-.->", NEXT: '-.->|"next round"|'}
    lines += [f"    {numbers[a.start]} {signs[a.kind]} {numbers[a.end]}" for a in arrows(graph)]
    return "\n".join(lines)


def _box(node: Node, numbers: dict[str, str]) -> str:
    label = node.name if node.name == node.stage else f"{node.name}<br/><i>{node.stage}</i>"
    return f'{numbers[node.id]}["{label}"]'


def _quoted(text: str) -> str:
    """Text for a Mermaid label: its own signs as entities."""
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")


def text(graph: nx.DiGraph, source: Source) -> str:
    """The graph as lines in the order of the run; the further in, the more stages must be over before."""
    found, every = shown(graph), list(arrows(graph))
    drawn = nx.DiGraph()
    drawn.add_nodes_from(node.id for node in found)
    drawn.add_edges_from((a.start, a.end) for a in every if a.kind != NEXT)
    inner = {node.id: node.loop for node in found if node.round}
    drawn.add_edges_from((loop, name) for name, loop in inner.items())
    for arrow in every:  # in this picture a loop comes before what is in it, and after what that reads
        loop = inner.get(arrow.end)
        if loop and not _inside(arrow.start, loop):
            drawn.add_edge(arrow.start, loop)
    depth = {name: d for d, layer in enumerate(nx.topological_generations(drawn)) for name in layer}
    place = {node.id: float(i) for i, node in enumerate(found)}
    place |= {
        loop: min(place[n] for n, other in inner.items() if other == loop) - 0.5 for loop in inner.values()
    }
    lines = []
    for name in nx.lexicographical_topological_sort(drawn, key=place.__getitem__):
        node = graph.nodes[name]["node"]
        label = loop_words(source, name) if node.stage == LOOP else _label(node)
        waits = ", ".join(_short(a) for a in every if a.end == name)
        lines.append("  " * depth[name] + label + (f"  ← {waits}" if waits else ""))
    return "\n".join(lines)


def _inside(name: str, loop: str) -> bool:
    return name == loop or name.startswith(f"{loop}/")


def _label(node: Node) -> str:
    return node.name if node.name == node.stage else f"{node.name} ({node.stage})"


def _short(arrow: Arrow) -> str:
    name = arrow.start.rpartition("/")[2]
    return f"{name} of the round before" if arrow.kind == NEXT else name
