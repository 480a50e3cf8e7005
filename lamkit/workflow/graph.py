"""The graph of a workflow: its edges, its order, and the checks on both."""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx

from lamkit.errors import UserError, suggest
from lamkit.workflow import unroll
from lamkit.workflow.spec import PLACES, Source, references
from lamkit.workflow.unroll import LOOP, Node


def build(source: Source, stages: Mapping[str, str]) -> nx.DiGraph:
    """Directed graph, an edge from each stage to the stages that wait for it.

    A graph node carries ``node`` (:class:`lamkit.workflow.unroll.Node`) and ``stage`` (name); an edge carries
    ``reads`` (True: products are read, False: only an order, asked for by ``after`` or by a loop).

    Raises:
        UserError: unknown stage name, unknown id in ``${...}`` or ``after``, or a cycle.
    """
    nodes = unroll.nodes(source)
    graph = nx.DiGraph()
    for name, node in nodes.items():
        graph.add_node(name, node=node, stage=node.stage)
    problems = [*_unknown_stages(source, nodes, stages), *_add_edges(graph, source, nodes)]
    if problems:
        raise UserError("\n".join(problems))
    _check_cycles(graph, source)
    _order_rounds(graph, source)
    return graph


def _unknown_stages(source: Source, nodes: Mapping[str, Node], stages: Mapping[str, str]) -> list[str]:
    return [
        f"{source.where(*node.place, 'stage')}: no stage '{node.stage}'.{suggest(node.stage, stages)} "
        f"Known: {', '.join(stages)}"
        for node in nodes.values()
        if node.stage not in stages and node.stage != LOOP and node.round <= 1
    ]


def _add_edges(graph: nx.DiGraph, source: Source, nodes: Mapping[str, Node]) -> list[str]:
    known = [*source.workflow.stages, *PLACES]
    problems = []
    for name, node in nodes.items():
        for i, other in enumerate(node.after):
            if other not in nodes:
                where = source.where(*node.place, "after", i)
                problems.append(f"{where}: after: no stage '{other}'.{suggest(other, known)}")
            else:
                graph.add_edge(other, name, reads=False)
        for place, other in references(node.options):
            if other in PLACES or node.stage == LOOP:
                continue
            if other not in nodes:
                where = source.where(*node.place, "with", *place)
                problems.append(
                    f"{where}: no stage '{other}' for ${{{other}}}.{suggest(other, known)} "
                    f"Known: {', '.join(known)}"
                )
            else:
                graph.add_edge(other, name, reads=True)
    return problems


def _order_rounds(graph: nx.DiGraph, source: Source) -> None:
    """A round waits for the whole of the one before, and a loop's own node for all rounds."""
    for name, entry in source.workflow.stages.items():
        if entry.loop is None:
            continue
        before: list[str] = []
        for number in range(1, entry.loop.max_rounds + 1):
            now = [unroll.node_id(name, number, inner) for inner in entry.loop.stages]
            inside = graph.subgraph(now)
            firsts = [n for n in now if not inside.in_degree(n)]
            for edge in ((a, b) for a in before for b in firsts):
                if edge not in graph.edges:
                    graph.add_edge(*edge, reads=False)
            before = [n for n in now if not inside.out_degree(n)]
            graph.add_edges_from(((n, name) for n in before), reads=False)


def _check_cycles(graph: nx.DiGraph, source: Source) -> None:
    if nx.is_directed_acyclic_graph(graph):
        return
    chain = [edge[0] for edge in nx.find_cycle(graph)]
    raise UserError(
        f"{source.where(*graph.nodes[chain[0]]['node'].place)}: the stages wait for each other in a circle:\n"
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
