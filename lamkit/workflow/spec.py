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

      learn:
        loop:                   # stages that are repeated (lamkit.workflow.unroll tells how)
          first: {train: "${pretrain}"}                  # what ${train@last} is in round 1
          until: "${test}.mine.forces_rmse < 0.05"       # a value of a stage's result.json
          max_rounds: 5
          stages:
            explore: {stage: explore, with: {model: "${train@last}", seed: "${round}"}}
            ...

``${id}`` stands for the folder of that stage, ``${here}`` for the folder of the workflow file, and
``${examples}`` for the folder of the sample data and the sample model that come with LAMKit. Inside of a
loop ``${id@last}`` is the stage of the round before, and in a list ``${id@past}`` and ``${id@all}`` are those
of all earlier rounds, without and with this one. From outside, ``${learn}/train`` is that of the last round.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from lamkit import config, presets
from lamkit.config import Place
from lamkit.errors import UserError, suggest
from lamkit.workflow import until as conditions

# ${name}s that are not stages: the folder of the workflow file, and the folder of LAMKit's sample files.
PLACES = ("here", "examples")
ROUND = "round"  # ${round}, inside of a loop only
MAX_ROUNDS = 100
REFERENCE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class _InnerBase(config.Model):
    """One stage of a loop.

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
InnerStage = pydantic.create_model("InnerStage", __base__=_InnerBase, **_FIELDS)


class Loop(config.Model):
    """Stages that are repeated until a criterion is met or a budget is spent.

    Attributes:
        stages: Id → stage of a round.
        max_rounds: Most rounds.
        max_minutes: No round is begun after the loop's stages took this long together; None: no limit.
        until: Conditions that end the loop when all hold (:mod:`lamkit.workflow.until`).
        first: Id → what ``${id@last}`` means in the first round.
    """

    stages: dict[str, InnerStage] = pydantic.Field(min_length=1)
    max_rounds: int = pydantic.Field(ge=1, le=MAX_ROUNDS)
    max_minutes: float | None = pydantic.Field(None, gt=0)
    until: list[str] = []
    first: dict[str, str] = {}

    @pydantic.field_validator("until", mode="before")
    @classmethod
    def _one_or_many(cls, until: Any) -> Any:
        return [until] if isinstance(until, str) else until

    @pydantic.field_validator("until")
    @classmethod
    def _can_be_read(cls, until: list[str]) -> list[str]:
        for text in until:
            conditions.parse(text)
        return until


class _EntryBase(config.Model):
    """One stage or one loop of a workflow file.

    Attributes:
        stage: Which stage runs.
        loop: Instead of a stage, stages that are repeated.
        after: Ids of stages that must be over before, although none of their products is read.
    """

    stage: str = ""
    loop: Loop | None = None
    after: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """What stands under ``with``, references not yet filled in."""
        return getattr(self, "with")

    @pydantic.model_validator(mode="after")
    def _stage_or_loop(self) -> _EntryBase:
        if bool(self.stage) == (self.loop is not None):
            raise ValueError("give either 'stage:' (with 'with:') or 'loop:', one of them")
        if self.loop is not None and self.options:
            raise ValueError("a loop has no 'with:'; options belong to the stages inside")
        return self


Stage = pydantic.create_model("Stage", __base__=_EntryBase, **_FIELDS)


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
        inner = [name for entry in stages.values() if entry.loop for name in entry.loop.stages]
        for name in (*stages, *inner):
            if not _NAME.fullmatch(name) or name in (*PLACES, ROUND):
                raise ValueError(
                    f"'{name}' cannot be the id of a stage: letters, digits, '_', '-' and '.' only, "
                    f"and not {', '.join(PLACES)} or {ROUND}, because the stage's folder gets this name"
                )
        for name in inner:
            if name.isdigit() or name in stages or inner.count(name) > 1:
                raise ValueError(
                    f"'{name}' cannot be the id of a stage of a loop: it must not be a number, "
                    "and unique in the whole file"
                )
        return stages


@dataclass(frozen=True)
class Source:
    """A workflow together with where it was read, for error messages and ``${here}``."""

    workflow: Workflow
    path: Path
    lines: Mapping[Place, int]

    @functools.cached_property
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
        if parts[0] == "stages" and parts[2:4] == ["loop", "stages"] and len(parts) > 4:
            inner = list(_at(stages, parts[1:4]))
            if parts[4] not in inner:
                raise UserError(
                    f"--set {text}: the loop '{parts[1]}' has no stage '{parts[4]}'.{suggest(parts[4], inner)}"
                )


def _at(value: Any, keys: Sequence[str]) -> Any:
    """What stands under ``keys``, one within the other; an empty mapping where nothing does."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def references(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every ``${name}`` in the strings of nested lists and mappings, with its place."""
    if isinstance(value, str):
        yield from ((place, name) for name in REFERENCE.findall(value))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from references(item, (*place, key))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from references(item, (*place, i))


def fill(value: Any, names: Mapping[str, str]) -> Any:
    """A copy of ``value`` with every ``${name}`` replaced; names were checked when the graph was built."""
    if isinstance(value, str):
        return REFERENCE.sub(lambda match: names[match[1]], value)
    if isinstance(value, Mapping):
        return {key: fill(item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [fill(item, names) for item in value]
    return value
