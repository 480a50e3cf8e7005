"""The graph of a workflow: its edges, its order, the checks on both, and pictures of it."""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx

from lamkit.errors import UserError, suggest
from lamkit.workflow.spec import PLACES, Source, references


def build(source: Source, stages: Mapping[str, str]) -> nx.DiGraph:
    """Directed graph, an edge from each stage to the stages that wait for it.

    A node carries ``stage`` (name); an edge carries ``reads`` (True: products are read, False: only
    an order asked for by ``after``).

    Raises:
        UserError: unknown stage name, unknown id in ``${...}`` or ``after``, or a cycle.
    """
    graph = nx.DiGraph()
    for name, spec in source.workflow.stages.items():
        graph.add_node(name, stage=spec.stage)
    problems = [*_unknown_stages(source, stages), *_add_edges(graph, source)]
    if problems:
        raise UserError("\n".join(problems))
    _check_cycles(graph, source)
    return graph


def _unknown_stages(source: Source, stages: Mapping[str, str]) -> list[str]:
    return [
        f"{source.where('stages', name, 'stage')}: no stage '{spec.stage}'.{suggest(spec.stage, stages)} "
        f"Known: {', '.join(stages)}"
        for name, spec in source.workflow.stages.items()
        if spec.stage not in stages
    ]


def _add_edges(graph: nx.DiGraph, source: Source) -> list[str]:
    known = list(source.workflow.stages)
    problems = []
    for name, spec in source.workflow.stages.items():
        for i, other in enumerate(spec.after):
            if other not in known:
                where = source.where("stages", name, "after", i)
                problems.append(f"{where}: after: no stage '{other}'.{suggest(other, known)}")
            else:
                graph.add_edge(other, name, reads=False)
        for place, other in references(spec.options):
            if other in PLACES:
                continue
            if other not in known:
                where = source.where("stages", name, "with", *place)
                problems.append(
                    f"{where}: no stage '{other}' for ${{{other}}}.{suggest(other, [*known, *PLACES])} "
                    f"Known: {', '.join([*known, *PLACES])}"
                )
            else:
                graph.add_edge(other, name, reads=True)
    return problems


def _check_cycles(graph: nx.DiGraph, source: Source) -> None:
    if nx.is_directed_acyclic_graph(graph):
        return
    chain = [edge[0] for edge in nx.find_cycle(graph)]
    raise UserError(
        f"{source.where('stages', chain[0])}: the stages wait for each other in a circle:\n"
        f"  {' → '.join([*chain, chain[0]])}\n"
        "Take one of the references out."
    )


def order(graph: nx.DiGraph) -> list[str]:
    """Stages so that each comes after all that it waits for; otherwise in the order of the file."""
    position = {name: i for i, name in enumerate(graph)}
    return list(nx.lexicographical_topological_sort(graph, key=position.__getitem__))


def inputs(graph: nx.DiGraph, name: str) -> list[str]:
    """Stages whose products ``name`` reads (``after`` is only an order)."""
    return [other for other in graph.predecessors(name) if graph.edges[other, name]["reads"]]


def mermaid(graph: nx.DiGraph) -> str:
    """The graph in Mermaid's words, which GitHub and many editors draw."""
    numbers = {name: f"s{i}" for i, name in enumerate(order(graph))}
    lines = ["flowchart TD"]
    for name, number in numbers.items():
        kind = graph.nodes[name]["stage"]
        label = name if name == kind else f"{name}<br/><i>{kind}</i>"
        lines.append(f'    {number}["{label}"]')
    for name, number in numbers.items():
        for other in graph.successors(name):
            arrow = "-->" if graph.edges[name, other]["reads"] else "-.->"
            lines.append(f"    {number} {arrow} {numbers[other]}")
    return "\n".join(lines)


def text(graph: nx.DiGraph) -> str:
    """The graph as lines in the order of the run; the further in, the more stages must be over before."""
    depth = {name: d for d, layer in enumerate(nx.topological_generations(graph)) for name in layer}
    lines = []
    for name in order(graph):
        kind = graph.nodes[name]["stage"]
        label = name if name == kind else f"{name} ({kind})"
        waits = ", ".join(graph.predecessors(name))
        lines.append(f"{'  ' * depth[name]}{label}{f'  ← {waits}' if waits else ''}")
    return "\n".join(lines)
