"""What has to run, and why: every stage's key compared with what the journal and the folders say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networkx as nx

from lamkit.errors import UserError, suggest
from lamkit.workflow import folder as stage_folder
from lamkit.workflow import graph as graphs
from lamkit.workflow import hashing
from lamkit.workflow.journal import Record
from lamkit.workflow.loops import Loops
from lamkit.workflow.spec import Source
from lamkit.workflow.task import Task, make_all
from lamkit.workflow.unroll import LOOP, Node

NOT_NEEDED = "not needed: the loop was over before"


@dataclass(frozen=True)
class Choice:
    """Which stages the user asked for.

    Attributes:
        only: Run these and no others; empty for all.
        start: Run these and all that depends on them, up to date or not.
        force: Run every chosen stage, up to date or not.
        trust_code: Changes of LAMKit's own code are no reason to run a stage again.
    """

    only: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    force: bool = False
    trust_code: bool = False


@dataclass(frozen=True)
class Decision:
    """Whether a task runs, and why.

    ``resume``: it goes on in its folder; ``adopt``: it is complete, and only the journal missed that.
    """

    runs: bool
    why: str
    resume: bool = False
    adopt: bool = False


@dataclass(frozen=True)
class Plan:
    """Tasks and decisions by stage id, in the order of the graph."""

    graph: nx.DiGraph
    tasks: dict[str, Task]
    decisions: dict[str, Decision]
    loops: Loops

    @property
    def to_run(self) -> list[str]:
        """Ids of the stages that run."""
        return [name for name, decision in self.decisions.items() if decision.runs]

    def only_perhaps(self, name: str) -> bool:
        """Whether a stage belongs to a round of which it is not yet known that it comes."""
        node = self.graph.nodes[name]["node"]
        before = self.loops.names(node.loop, node.round - 1) if node.round > 1 else []
        return self.decisions[name].runs and any(self.decisions[other].runs for other in before)


def make(
    source: Source,
    folder: Path,
    *,
    stages: Mapping[str, str],
    records: Mapping[str, Record],
    choice: Choice,
    common: Mapping[str, Any],
    cache: hashing.HashCache,
) -> Plan:
    """Check the whole workflow and decide about each stage, before anything runs.

    Args:
        source: The workflow file.
        folder: The workflow folder; need not exist.
        stages: Stage name → module.
        records: The folded journal.
        choice: Which stages the user asked for.
        common: Options given on the command line (device, seed), for every stage that has them.
        cache: Remembers hashes of input files.

    Raises:
        UserError: everything that is wrong with the graph or with any stage's options.
    """
    graph = graphs.build(source, stages)
    choice = _spelt_out(choice, source, graph)
    tasks = make_all(graph, source, folder.resolve(), stages, common, cache, trust_code=choice.trust_code)
    loops = Loops(source, folder)
    decisions: dict[str, Decision] = {}
    forced = _forced(graph, choice)
    for name, task in tasks.items():
        node, inputs = graph.nodes[name]["node"], graphs.inputs(graph, name)
        if node.round > 1 and _over(node, loops, decisions, records):
            decisions[name] = Decision(False, NOT_NEEDED)
        elif task.stage == LOOP:
            decisions[name] = _decide_loop(task, folder / name, records, decisions, name in forced)
        else:
            decisions[name] = _decide(task, folder / name, records, inputs, decisions, forced)
    return Plan(graph, tasks, _narrow(graph, decisions, choice.only), loops)


def _over(node: Node, loops: Loops, decisions: Mapping[str, Decision], records: Mapping[str, Record]) -> bool:
    """Whether a loop is known to be over before the round of ``node``."""
    before = loops.names(node.loop, node.round - 1)
    if any(decisions[name].why == NOT_NEEDED for name in before):
        return True
    if any(decisions[name].runs for name in before):
        return False
    return loops.verdict(node.loop, node.round - 1, loops.seconds(node.loop, node.round - 1, records)).stop


def _decide_loop(
    task: Task, folder: Path, records: Mapping[str, Record], decisions: Mapping[str, Decision], forced: bool
) -> Decision:
    """The end of a loop is made again whenever a stage of it runs, or another round is the last."""
    running = [name for name, d in decisions.items() if d.runs and name.startswith(f"{task.id}/")]
    record = records.get(task.id)
    if forced:
        return Decision(True, "asked for")
    if record is None or record.began < 0:
        return Decision(True, "never run")
    if running:
        return Decision(True, f"upstream {running[0]} will run")
    last = max(
        (name for name, d in decisions.items() if name.startswith(f"{task.id}/") and d.why != NOT_NEEDED),
        key=lambda name: int(name.split("/")[1]),
    ).split("/")[1]
    rounds = stage_folder.read_json(folder / stage_folder.RESULT).get("n_rounds")
    if record.key != task.key or rounds != int(last) or record.finished is None:
        return Decision(True, f"round {last} is the last now")
    damage = stage_folder.damage(folder, task.key)
    return Decision(True, damage) if damage else Decision(False, "up to date")


def _spelt_out(choice: Choice, source: Source, graph: nx.DiGraph) -> Choice:
    """The choice with all stages of a loop in place of the loop.

    Raises:
        UserError: a name that is no stage.
    """
    known = source.workflow.stages
    for name in (*choice.only, *choice.start):
        if name not in graph:
            raise UserError(
                f"{source.path}: no stage '{name}'.{suggest(name, known)} Known: {', '.join(known)}"
            )

    def inside(names: tuple[str, ...]) -> tuple[str, ...]:
        loops = [name for name in names if name in known and known[name].loop]
        return (*names, *(n for loop in loops for n in graph if n.startswith(f"{loop}/")))

    return replace(choice, only=inside(choice.only), start=inside(choice.start))


def _forced(graph: nx.DiGraph, choice: Choice) -> set[str]:
    forced = set(choice.only or graph) if choice.force else set()
    for name in choice.start:
        forced |= {name, *nx.descendants(graph, name)}
    return forced


def _decide(
    task: Task,
    folder: Path,
    records: Mapping[str, Record],
    inputs: list[str],
    decisions: Mapping[str, Decision],
    forced: set[str],
) -> Decision:
    record = records.get(task.id)
    if task.id in forced:
        return Decision(True, "asked for")
    if record is None or record.began < 0:
        return Decision(True, "never run")
    for other in inputs:
        if decisions[other].runs:
            return Decision(True, f"upstream {other} will run")
    if record.key != task.key:
        old = stage_folder.read_json(folder / stage_folder.STAGE)
        return Decision(True, difference(old.get("identity", {}), task.identity))
    for other in inputs:
        if (records[other].finished or 0) > record.began:
            return Decision(True, f"upstream {other} ran again")
    if record.finished is None:
        return _decide_unfinished(task, folder, record)
    damage = stage_folder.damage(folder, task.key)
    return Decision(True, damage) if damage else Decision(False, "up to date")


def _decide_unfinished(task: Task, folder: Path, record: Record) -> Decision:
    """A stage with the same key that did not come to its end: goes on in its folder if that is its own."""
    if not stage_folder.damage(folder, task.key):
        return Decision(False, "up to date", adopt=True)
    old = stage_folder.read_json(folder / stage_folder.STAGE)
    # The options say where files lie, the key does not: a stage goes on only with the very same files.
    resume = task.can_resume and old.get("key") == task.key and old.get("options") == task.options
    if record.state == "failed":
        return Decision(True, "failed last time: tries again", resume=resume)
    return Decision(True, f"interrupted: {'continues' if resume else 'starts again'}", resume=resume)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first reason why two identities differ, in the user's words."""
    if not old:
        return "its folder is missing"
    if old["stage"] != new["stage"]:
        return f"stage changed {old['stage']} → {new['stage']}"
    before, after = _flat(old["options"]), _flat(new["options"])
    for name in dict.fromkeys([*after, *before]):
        if before.get(name, _UNSET) != after.get(name, _UNSET):
            return f"option {name} changed {_show(before, name)} → {_show(after, name)}"
    for name, value in new["inputs"].items():
        if old["inputs"].get(name) != value:
            return f"input {name} changed"
    for name, value in new["heads"].items():
        if old["heads"].get(name) != value:
            return f"head {name} changed"
    for name, key in new["upstream"].items():
        if old["upstream"].get(name) != key:
            return f"upstream {name} changed"
    for name, value in new["code"].items():
        if old.get("code", {}).get(name) != value:
            return (
                f"the code of {name} changed (--trust-code keeps what there is)"
                if "code" in old
                else "made by a LAMKit that kept no code hashes"
            )
    return "what it depends on changed"


_UNSET = object()


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        pairs: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list) and value:
        pairs = enumerate(value)
    else:
        return {name: value}
    return {
        k: v for key, item in pairs for k, v in _flat(item, f"{name}.{key}" if name else str(key)).items()
    }


def _show(values: Mapping[str, Any], name: str) -> str:
    return str(values[name]) if name in values else "(not there)"


def _narrow(
    graph: nx.DiGraph, decisions: Mapping[str, Decision], only: tuple[str, ...]
) -> dict[str, Decision]:
    """Apply ``--only``: the others rest, and what the chosen ones read must be up to date."""
    if not only:
        return dict(decisions)
    for name in only:
        for other in graphs.inputs(graph, name):
            if decisions[other].runs and other not in only:
                raise UserError(
                    f"--only {name}: it reads {other}, which is not up to date ({decisions[other].why}). "
                    f"Add --only {other}, or run without --only."
                )
    return {
        name: decision
        if name in only or not decision.runs
        else Decision(False, f"not chosen ({decision.why})")
        for name, decision in decisions.items()
    }
