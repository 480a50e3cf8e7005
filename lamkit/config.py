"""YAML files become frozen typed objects in one strict step, with errors that name file, line and key.

``load(Model, path)`` reads a file, ``parse(Model, mapping)`` checks a mapping that is already in memory.
Unknown, missing and mistyped keys are reported together; a key given twice is refused.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic
import yaml

from lamkit.errors import UserError, suggest
from lamkit.files import atomic_write

Place = tuple[str | int, ...]


class Model(pydantic.BaseModel):
    """Base of every configuration object: frozen, and no key that is not declared."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


M = TypeVar("M", bound=Model)


class _PathMark:
    """Marks an option that names a file or folder that a stage reads (see :data:`InputPath`)."""


# A path that a stage reads; the workflow engine hashes what it points to.
InputPath = Annotated[str, _PathMark()]


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads ``1e-3`` as a number, as people mean it (YAML 1.1 wants ``1.0e-3``)."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def read_yaml(path: str | Path) -> tuple[Any, dict[Place, int]]:
    """Contents of a YAML file and the line (from 1) at which each key or list item stands.

    Raises:
        UserError: no such file, not YAML, or a key given twice; with file and line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[Place, int] = {}
        data = _construct(loader, node, (), lines, path) if node is not None else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    return data, lines


def _construct(
    loader: yaml.SafeLoader, node: yaml.Node, place: Place, lines: dict[Place, int], path: Path
) -> Any:
    """Build plain Python from a YAML node, noting lines and refusing duplicate keys."""
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if key in result:
                raise UserError(f"{path}:{line}: key '{key}' is given twice; keep one")
            lines[(*place, key)] = line
            result[key] = _construct(loader, value_node, (*place, key), lines, path)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, n, (*place, i), lines, path) for i, n in enumerate(node.value)]
    return loader.construct_object(node, deep=True)


def load(cls: type[M], path: str | Path, overrides: Sequence[str] = ()) -> M:
    """Read a YAML file into ``cls``; ``overrides`` are ``key.sub=value`` strings (the ``--set`` flag).

    Raises:
        UserError: everything that is wrong with the file, a line each.
    """
    data, lines = read_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}:1: expected 'key: value' lines, found {type(data).__name__}")
    return parse(cls, override(data, overrides), origin=str(path), lines=lines)


def override(data: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of ``data`` with ``key.sub=value`` assignments applied; values are read as YAML."""
    result = _copy(data)
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--set {text}: expected key.sub=value, for example train.max_steps=100")
        *parents, last = name.strip().split(".")
        target = result
        for parent in parents:
            inner = target.get(parent)
            if isinstance(inner, str):
                inner = {"preset": inner}
            if inner is None:
                inner = {}
            if not isinstance(inner, dict):
                raise UserError(f"--set {text}: '{parent}' holds {inner!r}, not a group of keys")
            target[parent] = inner
            target = inner
        try:
            target[last] = yaml.load(value, Loader=_Loader)
        except yaml.YAMLError as error:
            raise UserError(f"--set {text}: the value is not YAML: {error}") from None
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copy(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(v) for v in value]
    return value


def parse(
    cls: type[M], data: Mapping[str, Any], origin: str = "options", lines: Mapping[Place, int] | None = None
) -> M:
    """Check a mapping against ``cls``; every problem becomes one line of one :class:`UserError`."""
    try:
        return cls.model_validate(dict(data))
    except pydantic.ValidationError as error:
        problems = [_problem(cls, e, origin, lines or {}) for e in error.errors()]
        raise UserError("\n".join(dict.fromkeys(problems))) from None


def _problem(cls: type[Model], error: Any, origin: str, lines: Mapping[Place, int]) -> str:
    place: Place = tuple(error["loc"])
    line = next((lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in lines), None)
    where = f"{origin}:{line}" if line else origin
    # Of a key that holds one of several models, pydantic puts the class into the place.
    name = ".".join(str(p) for p in place if not str(p).endswith("Config")) or "file"
    if error["type"] == "extra_forbidden":
        known = _fields_at(cls, place[:-1])
        hint = suggest(str(place[-1]), known) or (f" Known: {', '.join(sorted(known))}." if known else "")
        return f"{where}: {name}: unknown key.{hint}"
    if error["type"] == "missing":
        return f"{where}: {name}: this key is missing"
    found = f" (found {error['input']!r})" if not isinstance(error["input"], dict) else ""
    return f"{where}: {name}: {error['msg'].removeprefix('Value error, ')}{found}"


def _fields_at(cls: type[Model], place: Place) -> list[str]:
    """Declared keys of the model reached by following ``place``; empty where that cannot be told."""
    candidates: list[Any] = [cls]
    for step in place:
        inner: list[Any] = []
        for kind in candidates:
            if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
                field = kind.model_fields.get(str(step))
                if field is not None:
                    inner += _alternatives(field.annotation)
                elif kind.__name__ == str(step):  # pydantic puts the union member's name into the place
                    inner.append(kind)
            elif typing.get_origin(kind) in (dict, Mapping):
                inner += _alternatives(typing.get_args(kind)[1])
            elif typing.get_origin(kind) in (list, tuple):
                inner += _alternatives(typing.get_args(kind)[0])
        candidates = inner or candidates
    models = [k for k in candidates if isinstance(k, type) and issubclass(k, pydantic.BaseModel)]
    return [name for kind in models for name in kind.model_fields]


def _alternatives(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [kind for arg in typing.get_args(annotation) for kind in _alternatives(arg)]
    return [annotation]


def input_paths(model: Model) -> list[str]:
    """Every path in ``model`` that is marked :data:`InputPath`, at any depth, in order."""
    found: list[str] = []
    for name, field in type(model).model_fields.items():
        _collect(getattr(model, name), field.annotation, field.metadata, found)
    return found


def _collect(value: Any, annotation: Any, metadata: Sequence[Any], found: list[str]) -> None:
    if value is None:
        return
    if typing.get_origin(annotation) is Annotated:
        inner, *marks = typing.get_args(annotation)
        _collect(value, inner, [*metadata, *marks], found)
    elif isinstance(value, Model):
        found.extend(input_paths(value))
    elif isinstance(value, dict):
        for item in value.values():
            _collect(item, _inner(annotation, dict, 1), metadata, found)
    elif isinstance(value, list | tuple):
        for item in value:
            _collect(item, _inner(annotation, (list, tuple), 0), metadata, found)
    elif isinstance(value, str):
        inner = any(_marked(a) for a in _annotated_alternatives(annotation))
        if inner or any(isinstance(m, _PathMark) for m in metadata):
            found.append(value)


def _inner(annotation: Any, origin: Any, place: int) -> Any:
    """Annotation of the items of a container; in a union, of the alternative that is such a container."""
    kinds = origin if isinstance(origin, tuple) else (origin,)
    for kind in _annotated_alternatives(annotation):
        if typing.get_origin(kind) in kinds:
            return typing.get_args(kind)[place]
    return None


def _annotated_alternatives(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [a for arg in typing.get_args(annotation) for a in _annotated_alternatives(arg)]
    return [annotation]


def _marked(annotation: Any) -> bool:
    return typing.get_origin(annotation) is Annotated and any(
        isinstance(m, _PathMark) for m in typing.get_args(annotation)[1:]
    )


def dump(model: Model) -> dict[str, Any]:
    """``model`` as plain Python (for YAML and JSON)."""
    return model.model_dump(mode="json")


def write_yaml(path: str | Path, data: Model | Mapping[str, Any]) -> None:
    """Write ``data`` as YAML, keys in their declared order, atomically."""
    plain = dump(data) if isinstance(data, Model) else dict(data)
    atomic_write(path, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100))
