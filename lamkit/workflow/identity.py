"""What decides about the result of a stage, as plain data without any place: its hash is the stage's key.

That is its name, its resolved options, the contents of the files it reads, the heads it names, the keys of
the stages whose products it reads, and the code that does it (:mod:`lamkit.workflow.code`). Where files lie
is not part of it, nor is LAMKit's version number: code that has not changed gives the same result.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lamkit import config
from lamkit.workflow import code, hashing
from lamkit.workflow.spec import PLACES

RESUME = "resume"
# The worker says so to the stage; it changes nothing about the result, so it is not part of the key. The same
# holds for options that a stage's module names in LOCAL (how many at once, how long to wait).
_NOT_IN_KEY = (RESUME,)


def of(
    stage: str,
    module: str,
    options: config.Model,
    places: Mapping[str, str],
    upstream: Mapping[str, str],
    heads: Mapping[str, Path],
    cache: hashing.HashCache,
) -> dict[str, Any]:
    """Everything that decides about the result of a stage.

    Args:
        stage: Name of the stage.
        module: Its module.
        options: Its options, references filled in.
        places: Meaning of every ``${name}`` that may stand in them.
        upstream: Stage id → key, of the stages whose products are read.
        heads: Every known head with its YAML file.
        cache: Remembers hashes of files.

    Raises:
        MissingInput: an input is not there.
    """
    products = tuple(place for name, place in places.items() if name not in PLACES)
    outside = [text for text in dict.fromkeys(config.input_paths(options)) if not _lies_in(text, products)]
    bare = _bare_names(outside)
    local = (*_NOT_IN_KEY, *getattr(importlib.import_module(module), "LOCAL", ()))
    plain = {key: value for key, value in config.dump(options).items() if key not in local}
    return {
        "stage": stage,
        "options": _without_places(plain, places, bare),
        "inputs": {bare[text]: hashing.contents(text, cache) for text in outside},
        "heads": _heads_named(plain, heads, cache),
        "upstream": dict(upstream),
        "code": code.of(module, cache),
    }


def _heads_named(options: Any, heads: Mapping[str, Path], cache: hashing.HashCache) -> dict[str, str]:
    """Hash of the YAML of every head whose name stands in the options: it holds loss weights and facts."""
    words = set(_words(options))
    return {name: cache.file(path) for name, path in heads.items() if name in words}


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


def _without_places(value: Any, places: Mapping[str, str], bare: Mapping[str, str]) -> Any:
    """Folders turned back into ``${id}`` and inputs into their bare names."""
    if isinstance(value, str):
        if value in bare:
            return bare[value]
        # of folders within one another the innermost counts
        for name in sorted(places, key=lambda name: -len(places[name])):
            value = re.sub(re.escape(places[name]) + r"(?![\w.-])", f"${{{name}}}", value)
        return value
    if isinstance(value, dict):
        return {key: _without_places(item, places, bare) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_places(item, places, bare) for item in value]
    return value
