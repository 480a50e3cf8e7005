"""A stage made ready: its options filled in and checked, and the key that decides whether it has to run."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import networkx as nx

from lamkit import config, presets
from lamkit.errors import UserError
from lamkit.workflow import folder as stage_folder
from lamkit.workflow import graph as graphs
from lamkit.workflow import hashing
from lamkit.workflow import identity as identities
from lamkit.workflow.identity import RESUME
from lamkit.workflow.spec import Source, fill
from lamkit.workflow.unroll import LOOP, Node


@dataclass(frozen=True)
class Task:
    """One stage as it is to run: what the worker needs, and what the key is made of.

    Attributes:
        id: Id of the stage, name of its folder.
        stage: Name of the stage, key of ``STAGES``.
        module: Import path of the stage's module; empty for the end of a loop.
        options: Options with every reference filled in.
        identity: What decides about the result; ``key`` is its hash.
        can_resume: Whether the stage can go on with an unfinished folder.
    """

    id: str
    stage: str
    module: str
    options: dict[str, Any]
    identity: dict[str, Any]
    key: str
    can_resume: bool


def make_all(
    graph: nx.DiGraph,
    source: Source,
    folder: Path,
    stages: Mapping[str, str],
    common: Mapping[str, Any],
    cache: hashing.HashCache,
    *,
    trust_code: bool = False,
) -> dict[str, Task]:
    """Every stage of the workflow as a task, in the order of the graph.

    ``trust_code``: what differs from the last run in its code alone counts as the same.

    Raises:
        UserError: all that is wrong with the options of all stages, a line each.
    """
    tasks: dict[str, Task] = {}
    problems: list[str] = []
    lines, heads = _lines_by_stage(graph, source), presets.files("heads")
    for name in graphs.order(graph):
        node, inputs = graph.nodes[name]["node"], graphs.inputs(graph, name)
        if node.stage == LOOP:
            tasks[name] = _loop_end(node, tasks)
            continue
        places = {**source.places, **{other: str(folder / other) for other in inputs}}
        try:
            model = options_class(node.stage, stages[node.stage])
            options = _with_common(model, fill(node.options, places), common)
            checked = config.parse(model, options, origin=str(source.path), lines=lines[node.place])
            upstream = {other: tasks[other].key for other in inputs if other in tasks}
            module = stages[node.stage]
            identity = identities.of(node.stage, module, checked, places, upstream, heads, cache)
            if trust_code:
                identity = _with_code_of(identity, folder / name)
        except hashing.MissingInput as error:
            where = source.where(*node.place, "with", *_place_of(error.text, options))
            problems.append(f"{where}: {error}  (stage {node.name})")
            continue
        except UserError as error:
            problems += [f"{line}  (stage {node.name})" for line in str(error).splitlines()]
            continue
        tasks[name] = Task(
            name,
            node.stage,
            stages[node.stage],
            options,
            identity,
            hashing.digest(identity),
            RESUME in model.model_fields,
        )
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return tasks


def _with_code_of(identity: dict[str, Any], folder: Path) -> dict[str, Any]:
    """An identity with the code of the last run, when nothing else differs from it."""
    old = stage_folder.read_json(folder / stage_folder.STAGE).get("identity") or {}
    same = {key: value for key, value in old.items() if key != "code"}
    return old if same == {key: value for key, value in identity.items() if key != "code"} else identity


def _loop_end(node: Node, tasks: Mapping[str, Task]) -> Task:
    """The end of a loop: its key follows from its conditions and from what its first round is.

    How many rounds there were is not part of it: when there are more, the loop ends anew, and what reads it
    runs again because of that.
    """
    first = {name: task.key for name, task in tasks.items() if name.startswith(f"{node.id}/1/")}
    identity = {
        "stage": node.stage,
        "options": node.options,
        "inputs": {},
        "heads": {},
        "upstream": first,
        "code": {},
    }
    return Task(node.id, node.stage, "", node.options, identity, hashing.digest(identity), True)


def load_stage(name: str, module: str) -> ModuleType:
    """The module of a stage."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise UserError(
            f"stage '{name}' is not part of this version of LAMKit (no module {module})"
        ) from None


def options_class(name: str, module: str) -> type[config.Model]:
    """The typed options of a stage."""
    return load_stage(name, module).Options


def _place_of(text: str, value: Any, place: config.Place = ()) -> config.Place:
    """Where ``text`` stands in nested options; the top when it stands nowhere (a default)."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        found = (*place, key) if item == text else _place_of(text, item, (*place, key))
        if found:
            return found
    return ()


def _annotation(fields: Mapping[str, Any], name: str) -> Any:
    return fields[name].annotation if name in fields else None


def _with_common(
    model: type[config.Model], options: dict[str, Any], common: Mapping[str, Any]
) -> dict[str, Any]:
    """Options with those of the command line that this stage has; a training stage's seed is ``train.seed``."""
    fields = model.model_fields
    for name, value in common.items():
        if name in fields:
            options = {**options, name: value}
        elif name == "seed" and "seed" in getattr(_annotation(fields, "train"), "model_fields", ()):
            train = options.get("train", fields["train"].default)  # the default is the name of a preset
            options = config.override({**options, "train": train}, [f"train.seed={value}"])
    return options


def _lines_by_stage(graph: nx.DiGraph, source: Source) -> dict[config.Place, dict[config.Place, int]]:
    """For every stage of the file the lines of its options, places counted from its ``with``."""
    tops = {data["node"].place for _, data in graph.nodes(data=True)}
    found: dict[config.Place, dict[config.Place, int]] = {top: {(): source.lines.get(top, 1)} for top in tops}
    for place, line in source.lines.items():
        cut = next((n for n in (2, 5) if place[n : n + 1] == ("with",) and place[:n] in found), None)
        if cut is not None:
            found[place[:cut]][place[cut + 1 :]] = line
    return found
