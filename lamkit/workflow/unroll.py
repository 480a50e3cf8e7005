"""Loops written out: every round's stages become stages of their own, so that one engine does for all.

The stage ``train`` of round 2 of the loop ``learn`` is the node ``learn/2/train``, and its folder has this
name. The loop itself is a node too, ``learn``, that comes last: it links the last round's stages. All
``max_rounds`` rounds are written out; those after the end of the loop are never run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lamkit.config import Place
from lamkit.errors import UserError, suggest
from lamkit.workflow import until
from lamkit.workflow.spec import PLACES, REFERENCE, ROUND, Loop, Source, references

LOOP = "loop"  # name of the pseudo-stage at a loop's end
LAST, PAST, ALL = "last", "past", "all"


@dataclass(frozen=True)
class Node:
    """A stage as it stands in the graph.

    Attributes:
        id: Its own id, or ``LOOP/ROUND/ID``.
        stage: Name of the stage, or :data:`LOOP`.
        options: Its options; every reference in them is ``${id}`` of a node or one of ``PLACES``.
        after: Nodes that it waits for without reading.
        place: Where it stands in the file.
        loop: Id of its loop, empty outside.
        round: Round from 1; 0 outside, and for the loop's own node.
    """

    id: str
    stage: str
    options: dict[str, Any]
    after: tuple[str, ...]
    place: Place
    loop: str = ""
    round: int = 0

    @property
    def name(self) -> str:
        """Its id without loop and round."""
        return self.id.rpartition("/")[2]


def node_id(loop: str, number: int, name: str) -> str:
    """Id of a stage of a round."""
    return f"{loop}/{number}/{name}"


def nodes(source: Source) -> dict[str, Node]:
    """Every stage, those of loops once for each round; in the order of the file.

    Raises:
        UserError: references inside of loops that mean nothing, a line each.
    """
    found: dict[str, Node] = {}
    problems: list[str] = []
    for name, entry in source.workflow.stages.items():
        place = ("stages", name)
        if entry.loop is None:
            problems += _inner_names_used(source, place, entry)
            found[name] = Node(name, entry.stage, entry.options, entry.after, place)
            continue
        wrong = list(_check(source, name, entry.loop))
        problems += wrong
        if not wrong:
            written = [
                n for number in range(1, entry.loop.max_rounds + 1) for n in _round(name, entry, number)
            ]
            found |= {node.id: node for node in written}
            found[name] = Node(name, LOOP, {"until": entry.loop.until}, entry.after, place, name)
    if problems:
        raise UserError("\n".join(problems))
    return found


def _inner_names_used(source: Source, place: Place, entry: Any) -> Iterator[str]:
    """A stage of a loop named from outside by its bare id."""
    loops = {n: loop for loop, e in source.workflow.stages.items() if e.loop for n in e.loop.stages}
    for inner, name in references(entry.options):
        bare = name.partition("@")[0]
        if bare in loops:
            yield (
                f"{source.where(*place, 'with', *inner)}: '{bare}' is inside of the loop '{loops[bare]}'; "
                f"from outside its last round is ${{{loops[bare]}}}/{bare}"
            )


def _check(source: Source, name: str, loop: Loop) -> Iterator[str]:
    """What is wrong with the references of a loop's stages, in its conditions and in ``first``."""
    top = ("stages", name, "loop")
    outside = [other for other in source.workflow.stages if other != name]
    known = [*loop.stages, *outside, *PLACES, ROUND]
    for inner, stage in loop.stages.items():
        for place, text in references(stage.options):
            where = source.where(*top, "stages", inner, "with", *place)
            yield from (f"{where}: {wrong}" for wrong in _wrong(text, place, loop, stage.options, known))
        for i, other in enumerate(stage.after):
            if other not in (*loop.stages, *outside):
                where = source.where(*top, "stages", inner, "after", i)
                yield f"{where}: after: no stage '{other}'.{suggest(other, known)}"
    for i, text in enumerate(loop.until):
        stage_id = until.parse(text).stage
        if stage_id not in loop.stages:
            yield (
                f"{source.where(*top, 'until', i)}: until: the loop has no stage '{stage_id}'."
                f"{suggest(stage_id, loop.stages)} Known: {', '.join(loop.stages)}"
            )
    for inner, text in loop.first.items():
        where = source.where(*top, "first", inner)
        if inner not in loop.stages:
            yield f"{where}: first: the loop has no stage '{inner}'.{suggest(inner, loop.stages)}"
        for _, other in references(text):
            if other not in (*outside, *PLACES):
                yield f"{where}: first: no stage '{other}' outside of the loop.{suggest(other, outside)}"


def _wrong(text: str, place: Place, loop: Loop, options: Any, known: list[str]) -> Iterator[str]:
    """What is wrong with one ``${text}`` in a loop."""
    name, at, which = text.partition("@")
    if at and name not in loop.stages:
        yield f"no stage '{name}' in this loop for ${{{text}}}.{suggest(name, loop.stages)}"
    elif at and which not in (LAST, PAST, ALL):
        yield f"${{{text}}}: expected @{LAST}, @{PAST} or @{ALL}.{suggest(which, (LAST, PAST, ALL))}"
    elif which == LAST and name not in loop.first:
        yield f"${{{text}}}: in round 1 there is no round before; say under 'first:' what '{name}' is then"
    elif which in (PAST, ALL) and not (place and isinstance(place[-1], int)):
        yield f"${{{text}}}: means any number of folders, so it must be an item of a list"
    elif not at and name not in known:
        yield f"no stage '{name}' for ${{{name}}}.{suggest(name, known)} Known: {', '.join(known)}"


def _round(name: str, entry: Any, number: int) -> Iterator[Node]:
    """The nodes of one round."""
    loop: Loop = entry.loop
    for inner, stage in loop.stages.items():
        after = tuple(node_id(name, number, a) if a in loop.stages else a for a in stage.after)
        place = ("stages", name, "loop", "stages", inner)
        options = _written(stage.options, name, loop, number)
        yield Node(
            node_id(name, number, inner), stage.stage, options, (*after, *entry.after), place, name, number
        )


def _written(value: Any, name: str, loop: Loop, number: int) -> Any:
    """Options as they are in one round."""
    if isinstance(value, str):
        if value == f"${{{ROUND}}}":
            return number
        return REFERENCE.sub(lambda match: _meaning(match[1], name, loop, number), value)
    if isinstance(value, Mapping):
        return {key: _written(item, name, loop, number) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_written(text, name, loop, number) for item in value for text in _spread(item, number)]
    return value


def _spread(item: Any, number: int) -> list[Any]:
    """An item of a list; one with ``@past`` or ``@all`` becomes an item for each of those rounds."""
    match = (
        next((m for m in REFERENCE.finditer(item) if m[1].endswith(_MANY)), None)
        if isinstance(item, str)
        else None
    )
    if match is None:
        return [item]
    name, _, which = match[1].partition("@")
    last = number if which == ALL else number - 1
    return [item.replace(match[0], f"${{{name}@{k}}}") for k in range(1, last + 1)]


_MANY = (f"@{PAST}", f"@{ALL}")


def _meaning(text: str, loop_name: str, loop: Loop, number: int) -> str:
    name, at, which = text.partition("@")
    if text == ROUND:
        return str(number)
    if which == LAST and number == 1:
        return loop.first[name]
    if name not in loop.stages:
        return f"${{{text}}}"
    which_round = number if not at else number - 1 if which == LAST else int(which)
    return f"${{{node_id(loop_name, which_round, name)}}}"
