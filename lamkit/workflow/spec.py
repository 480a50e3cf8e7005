"""The workflow file: stages, their options, and the ``${id}`` references that tie them together.

.. code-block:: yaml

    name: quickstart
    description: one sentence
    stages:
      molecules:                # id of the stage; its folder in the workflow folder has this name
        stage: convert          # which stage it is (lamkit.stages.STAGES)
        with:                   # options of that stage
          sources: ["${examples}/data/gfn2_molecules.extxyz"]
      pretrain:
        stage: pretrain
        with:
          data: {gfn2_molecules: "${molecules}/data"}    # a product of another stage
        after: [other]          # only an order: wait for a stage whose products are not read

``${id}`` stands for the folder of that stage, ``${here}`` for the folder of the workflow file, and
``${examples}`` for the folder of the sample data and the sample model that come with LAMKit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from lamkit import config, presets
from lamkit.config import Place
from lamkit.errors import UserError, suggest

# ${name}s that are not stages: the folder of the workflow file, and the folder of LAMKit's sample files.
PLACES = ("here", "examples")
_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class _StageBase(config.Model):
    """One stage of a workflow file.

    Attributes:
        stage: Which stage runs (convert, pretrain, finetune, ...).
        after: Ids of stages that must be over before, although none of their products is read.
    """

    stage: str
    after: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """What stands under ``with``, references not yet filled in."""
        return getattr(self, "with")


# "with" is a word of Python's own, so the field cannot be declared in a class body.
_FIELDS: Any = {"with": (dict[str, Any], {})}
Stage = pydantic.create_model("Stage", __base__=_StageBase, **_FIELDS)


class Workflow(config.Model):
    """A chain of stages.

    Attributes:
        name: Also the default name of the folder that a run writes.
        description: One sentence for `lamkit ls workflows`.
        stages: Stage id → which stage, with which options.
    """

    name: str
    description: str = ""
    stages: dict[str, Stage]

    @pydantic.field_validator("name")
    @classmethod
    def _name_can_be_a_folder(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(
                "must be made of letters, digits, '_', '-' and '.', because a folder gets this name"
            )
        return name

    @pydantic.field_validator("stages")
    @classmethod
    def _ids_can_be_folders(cls, stages: dict[str, Any]) -> dict[str, Any]:
        if not stages:
            raise ValueError("a workflow needs at least one stage")
        for name in stages:
            if not _NAME.fullmatch(name) or name in PLACES:
                raise ValueError(
                    f"'{name}' cannot be the id of a stage: letters, digits, '_', '-' and '.' only, "
                    f"and not {' or '.join(PLACES)}, because the stage's folder gets this name"
                )
        return stages


@dataclass(frozen=True)
class Source:
    """A workflow together with where it was read, for error messages and ``${here}``."""

    workflow: Workflow
    path: Path
    lines: Mapping[Place, int]

    @property
    def places(self) -> dict[str, str]:
        """Meaning of each of :data:`PLACES`, absolute."""
        return {"here": str(self.path.resolve().parent), "examples": str(presets.examples().resolve())}

    def where(self, *place: str | int) -> str:
        """``file:line`` of the deepest part of ``place`` that stands in the file."""
        line = next(
            (self.lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in self.lines), None
        )
        return f"{self.path}:{line}" if line else str(self.path)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Source:
    """Read a workflow file; ``overrides`` are ``stages.ID.with.key=value`` strings.

    Raises:
        UserError: everything that is wrong with the file's own keys, a line each.
    """
    path = Path(path)
    data, lines = config.read_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}:1: expected 'name:' and 'stages:', found {type(data).__name__}")
    _check_overrides(data, overrides)
    workflow = config.parse(Workflow, config.override(data, overrides), origin=str(path), lines=lines)
    return Source(workflow, path, lines)


def _check_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """A ``--set`` with a misspelt stage must not make a new stage."""
    stages = data.get("stages")
    known = list(stages) if isinstance(stages, dict) else []
    for text in overrides:
        parts = text.partition("=")[0].split(".")
        if parts[0] == "stages" and len(parts) > 1 and parts[1] not in known:
            raise UserError(
                f"--set {text}: no stage '{parts[1]}'.{suggest(parts[1], known)} Known: {', '.join(known)}"
            )
        if parts[0] in known:
            raise UserError(
                f"--set {text}: write stages.{parts[0]}.with.{'.'.join(parts[1:]) or 'KEY'}=VALUE"
            )


def references(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every ``${name}`` in the strings of nested lists and mappings, with its place."""
    if isinstance(value, str):
        yield from ((place, name) for name in _REFERENCE.findall(value))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from references(item, (*place, key))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from references(item, (*place, i))


def fill(value: Any, names: Mapping[str, str]) -> Any:
    """A copy of ``value`` with every ``${name}`` replaced; names were checked when the graph was built."""
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: names[match[1]], value)
    if isinstance(value, Mapping):
        return {key: fill(item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [fill(item, names) for item in value]
    return value
