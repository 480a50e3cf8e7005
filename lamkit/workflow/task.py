"""A stage made ready: options filled in and checked, and the key that decides whether it has to run.

The key of a stage is a hash over its name, its resolved options, the contents of the files it reads, the
keys of the stages whose products it reads, and LAMKit's version. Where files lie is not part of it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import networkx as nx

from lamkit import __version__, config, presets
from lamkit.errors import UserError
from lamkit.workflow import graph as graphs
from lamkit.workflow import hashing
from lamkit.workflow.spec import PLACES, Source, fill

RESUME = "resume"
# The worker says so to the stage; it changes nothing about the result, so it is not part of the key.
_NOT_IN_KEY = (RESUME,)


@dataclass(frozen=True)
class Task:
    """One stage as it is to run: what the worker needs, and what the key is made of.

    Attributes:
        id: Id of the stage, name of its folder.
        stage: Name of the stage, key of ``STAGES``.
        module: Import path of the stage's module.
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
) -> dict[str, Task]:
    """Every stage of the workflow as a task, in the order of the graph.

    Raises:
        UserError: all that is wrong with the options of all stages, a line each.
    """
    tasks: dict[str, Task] = {}
    problems = []
    names = {**source.places, **{name: str(folder / name) for name in graph}}
    for name in graphs.order(graph):
        spec = source.workflow.stages[name]
        try:
            model = options_class(spec.stage, stages[spec.stage])
            options = _with_common(model, fill(spec.options, names), common)
            checked = config.parse(model, options, origin=str(source.path), lines=_lines_below(source, name))
            upstream = {other: tasks[other].key for other in graphs.inputs(graph, name) if other in tasks}
            identity = _identity(spec.stage, checked, names, upstream, cache)
        except hashing.MissingInput as error:
            where = source.where("stages", name, "with", *_place_of(error.text, options))
            problems.append(f"{where}: {error}  (stage {name})")
            continue
        except UserError as error:
            problems += [f"{line}  (stage {name})" for line in str(error).splitlines()]
            continue
        tasks[name] = Task(
            name,
            spec.stage,
            stages[spec.stage],
            options,
            identity,
            hashing.digest(identity),
            RESUME in model.model_fields,
        )
    if problems:
        raise UserError("\n".join(problems))
    return tasks


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


def _with_common(
    model: type[config.Model], options: dict[str, Any], common: Mapping[str, Any]
) -> dict[str, Any]:
    """Options with those of the command line that this stage has; a training stage's seed is ``train.seed``."""
    fields = model.model_fields
    for name, value in common.items():
        if name in fields:
            options = {**options, name: value}
        elif name == "seed" and "train" in fields and "seed" in fields["train"].annotation.model_fields:
            train = options.get("train", fields["train"].default)  # the default is the name of a preset
            options = config.override({**options, "train": train}, [f"train.seed={value}"])
    return options


def _lines_below(source: Source, name: str) -> dict[config.Place, int]:
    """Lines of the options of a stage, places counted from its ``with``."""
    top = ("stages", name, "with")
    lines = {place[3:]: line for place, line in source.lines.items() if place[:3] == top}
    return lines or {(): source.lines.get(("stages", name), 1)}


def _identity(
    stage: str,
    options: config.Model,
    names: Mapping[str, str],
    upstream: Mapping[str, str],
    cache: hashing.HashCache,
) -> dict[str, Any]:
    """Everything that decides about the result, as plain data without any absolute place."""
    products = tuple(place for name, place in names.items() if name not in PLACES)
    outside = [text for text in dict.fromkeys(config.input_paths(options)) if not _lies_in(text, products)]
    bare = _bare_names(outside)
    plain = {key: value for key, value in config.dump(options).items() if key not in _NOT_IN_KEY}
    return {
        "stage": stage,
        "options": _without_places(plain, names, bare),
        "inputs": {bare[text]: hashing.contents(text, cache) for text in outside},
        "heads": _heads_named(plain, cache),
        "upstream": dict(upstream),
        "version": __version__,
    }


def _heads_named(options: Any, cache: hashing.HashCache) -> dict[str, str]:
    """Hash of the YAML of every head whose name stands in the options: it holds loss weights and facts."""
    words = set(_words(options))
    return {name: cache.file(path) for name, path in presets.files("heads").items() if name in words}


def _words(value: Any) -> Iterator[str]:
    """All keys and strings of nested plain data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (key, *_words(item))
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)


def _lies_in(text: str, folders: Iterable[str]) -> bool:
    return any(text == folder or text.startswith(f"{folder}/") for folder in folders)


def _bare_names(inputs: Iterable[str]) -> dict[str, str]:
    """Input → its name without the folder; inputs of one name are numbered."""
    bare: dict[str, str] = {}
    for text in inputs:
        name = Path(text).name
        twins = sum(Path(other).name == name for other in bare)
        bare[text] = f"{name} ({twins + 1})" if twins else name
    return bare


def _without_places(value: Any, names: Mapping[str, str], bare: Mapping[str, str]) -> Any:
    """Folders turned back into ``${id}`` and inputs into their bare names."""
    if isinstance(value, str):
        if value in bare:
            return bare[value]
        # of folders within one another the innermost counts
        for name in sorted(names, key=lambda name: -len(names[name])):
            value = re.sub(re.escape(names[name]) + r"(?![\w.-])", f"${{{name}}}", value)
        return value
    if isinstance(value, dict):
        return {key: _without_places(item, names, bare) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_places(item, names, bare) for item in value]
    return value
