"""``lamkit schema``: which keys a YAML file may hold, for people and for editors."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import textwrap
from typing import Any

from lamkit.cli import shared_flags
from lamkit.config import Model
from lamkit.errors import UserError, suggest
from lamkit.stages import STAGES

# kind of file -> where its model stands. Stages are added below by their own names.
MODELS: dict[str, str] = {
    "head": "lamkit.data.heads:HeadConfig",
    "trunk": "lamkit.model.config:TrunkConfig",
    "student": "lamkit.model.config:TrunkConfig",
    "deeppot": "lamkit.model.config:DeepPotConfig",
    "train": "lamkit.train.config:TrainConfig",
    "workflow": "lamkit.workflow.spec:Workflow",
    "cluster": "lamkit.workflow.cluster:File",
}

EPILOG = """examples:
  lamkit schema                 the kinds there are
  lamkit schema head            keys of heads/*.yaml with their meaning
  lamkit schema head --json > head.schema.json      for editors that check YAML
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("kind", nargs="?", metavar="KIND", help=f"one of: {', '.join(kinds())}")
    shared_flags(parser, out=False)


def kinds() -> dict[str, str]:
    """Every kind with the place of its model, ``module:class``."""
    return {**MODELS, **{stage: f"{module}:Options" for stage, module in STAGES.items()}}


def model(kind: str) -> type[Model]:
    """The model that files of ``kind`` (or the options of a stage of that name) are read into."""
    if kind not in kinds():
        raise UserError(f"no kind '{kind}'.{suggest(kind, kinds())} Known: {', '.join(kinds())}")
    module, _, name = kinds()[kind].partition(":")
    return getattr(importlib.import_module(module), name)


def run(args: argparse.Namespace) -> int:
    """Print the schema, as lines of text or as JSON."""
    if args.kind is None:
        print(json.dumps(list(kinds())) if args.json else "\n".join(kinds()))
        return 0
    schema = described(model(args.kind).model_json_schema())
    if args.json:
        print(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2))
    else:
        print(_text(schema))
    return 0


def described(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` with the words that stand under ``Attributes:`` in each docstring moved to their keys."""
    result = {**schema, "$defs": {name: described(inner) for name, inner in schema.get("$defs", {}).items()}}
    if not result["$defs"]:
        del result["$defs"]
    text, _, attributes = inspect.cleandoc(schema.get("description", "")).partition("\nAttributes:\n")
    result["description"] = text.strip()
    words = dict(re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", attributes, re.M))
    result["properties"] = {
        name: {**field, "description": " ".join(words[name].split())} if name in words else field
        for name, field in schema.get("properties", {}).items()
    }
    return result


def _text(schema: dict[str, Any]) -> str:
    """The schema as people read it: the description of each model, then its keys, kinds and defaults."""
    parts = [_one(schema)]
    parts += [f"{name}:\n{_one(inner)}" for name, inner in schema.get("$defs", {}).items()]
    return "\n\n".join(parts)


def _one(schema: dict[str, Any]) -> str:
    lines = [schema["description"], ""] if schema.get("description") else []
    required = set(schema.get("required", ()))
    for name, field in schema["properties"].items():
        default = "required" if name in required else f"default {json.dumps(field.get('default'))}"
        lines.append(f"  {name}: {_kind(field)} ({default})")
        lines += textwrap.wrap(
            field.get("description", ""), 96, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    return "\n".join(lines)


def _kind(field: dict[str, Any]) -> str:
    """The type of one key in words."""
    if "enum" in field:
        return " | ".join(str(v) for v in field["enum"])
    if "const" in field:
        return str(field["const"])
    if "anyOf" in field:
        return " | ".join(_kind(f) for f in field["anyOf"])
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {}))}"
    if field.get("type") == "object":
        inner = field.get("additionalProperties")
        return f"mapping of name to {_kind(inner)}" if isinstance(inner, dict) else "mapping"
    kind = field.get("type", "any")
    return {"null": "nothing", "integer": "whole number"}.get(kind, kind)
