"""The doing: start what is ready, note how it ends, let only the descendants of a failure wait.

``run`` is the whole of ``lamkit run``; ``preview`` is its ``--dry-run``.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networkx as nx

from lamkit import __version__, config
from lamkit.console import duration
from lamkit.errors import UserError, suggest
from lamkit.lock import Lock
from lamkit.workflow import folder as stage_folder
from lamkit.workflow import hashing, journal, plan
from lamkit.workflow.bell import Bell
from lamkit.workflow.journal import Journal
from lamkit.workflow.local import STOPPED, Ending, LocalWorker
from lamkit.workflow.plan import Choice, Plan, Task
from lamkit.workflow.screen import Screen, last_line
from lamkit.workflow.spec import Source, fill

WORKFLOW, HASHES = "workflow.yaml", ".hashes.json"
# Where stages can run: name of `--on` → (folder of the stage, descriptor of the lock) -> worker
LOCATIONS: dict[str, Callable[[Path, int], LocalWorker]] = {"local": LocalWorker}
# After Ctrl-C a stage has this long to save itself, and after SIGTERM this long to end.
GRACE_SECONDS, TERM_SECONDS = 30.0, 5.0
_REDRAW_SECONDS = 0.5


@dataclass(frozen=True)
class Outcome:
    """What became of a stage.

    Attributes:
        state: ``up to date``, ``done``, ``failed``, ``skipped``, ``interrupted`` or ``not chosen``.
        seconds: Time it took in this run.
        reason: Why it failed, or why it was not run.
        fault: Of a failure: ``user`` (the input is wrong), ``error`` or ``signal``.
    """

    state: str
    seconds: float | None = None
    reason: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Settings:
    """How to run: chosen stages, how many at once, where, and options common to all stages."""

    choice: Choice = field(default_factory=Choice)
    jobs: int = 1
    on: str = "local"
    common: Mapping[str, Any] = field(default_factory=dict)


def preview(
    source: Source,
    folder: Path,
    stages: Mapping[str, str],
    settings: Settings,
    *,
    cache: hashing.HashCache | None = None,
) -> Plan:
    """The plan, with nothing run and nothing written."""
    _check_location(settings.on)
    records = journal.fold(journal.read(folder / journal.NAME))
    cache = cache or hashing.HashCache(folder / HASHES)
    return plan.make(
        source,
        folder,
        stages=stages,
        records=records,
        choice=settings.choice,
        common=settings.common,
        cache=cache,
    )


def run(source: Source, folder: Path, stages: Mapping[str, str], settings: Settings) -> dict[str, Outcome]:
    """Run what has to run; returns the outcome of every stage, in the order of the graph.

    Raises:
        UserError: before anything runs: a mistake in the workflow, or another run in this folder.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; --out names a folder")
    cache = hashing.HashCache(folder / HASHES)
    if not folder.exists():  # mistakes are told before a folder is made
        preview(source, folder, stages, settings, cache=cache)
        folder.mkdir(parents=True)
    with Lock(folder) as lock:
        stage_folder.sweep(folder)
        log = Journal(folder)
        try:
            todo = preview(source, folder, stages, settings, cache=cache)
            for name in todo.to_run:
                stage_folder.refuse_foreign(folder / name)
            cache.save()
            _copy_workflow(source, folder)
            _adopt(todo, folder, log)
            if not todo.to_run:
                return {name: _resting(decision) for name, decision in todo.decisions.items()}
            command = ["lamkit", *sys.argv[1:]]
            log.write(
                "run",
                workflow=str(source.path.resolve()),
                command=command,
                version=__version__,
                stages=todo.to_run,
            )
            return _carry_out(todo, folder, settings, log, lock.descriptor)
        finally:
            log.close()


def _carry_out(todo: Plan, folder: Path, settings: Settings, log: Journal, lock: int) -> dict[str, Outcome]:
    with Screen() as screen, Bell() as bell:
        n_all, n_run = len(todo.tasks), len(todo.to_run)
        screen.say(
            f"{n_run} of {n_all} stages to run in {folder}; all output is in <stage>/{stage_folder.LOG}"
        )
        run = _Run(todo, folder, settings, log, lock, screen)
        try:
            while run.active:
                run.start_ready()
                bell.wait(_REDRAW_SECONDS)
                run.settle()
                if bell.stops:
                    run.stop(bell)
        finally:  # an error of our own (disk full) must not leave stages at work
            run.kill()
        return {name: run.outcomes[name] for name in todo.tasks}


def _check_location(name: str) -> None:
    if name not in LOCATIONS:
        raise UserError(
            f"--on {name}: stages run on this machine only (--on local); clusters come later."
            f"{suggest(name, LOCATIONS)}"
        )


def _copy_workflow(source: Source, folder: Path) -> None:
    """The workflow as it was run, overrides included, for ``status`` and ``report``."""
    names = {**source.places, **{name: f"${{{name}}}" for name in source.workflow.stages}}
    config.write_yaml(folder / WORKFLOW, fill(config.dump(source.workflow), names))


def _adopt(todo: Plan, folder: Path, log: Journal) -> None:
    """Note stages that came to their end while nobody was left to write it down."""
    for name, decision in todo.decisions.items():
        if decision.adopt:
            seconds = stage_folder.read_json(folder / name / stage_folder.PRODUCTS)["seconds"]
            log.write("done", stage=name, key=todo.tasks[name].key, seconds=seconds)


def _resting(decision: plan.Decision) -> Outcome:
    return Outcome(decision.why if decision.why == "up to date" else "not chosen", reason=decision.why)


class _Run:
    """State of one run: who waits for whom, who runs, how they ended."""

    def __init__(
        self, todo: Plan, folder: Path, settings: Settings, log: Journal, lock: int, screen: Screen
    ) -> None:
        self.todo, self.folder, self.settings = todo, folder, settings
        self.log, self.lock, self.screen = log, lock, screen
        self.running: dict[str, LocalWorker] = {}
        self.outcomes = {name: _resting(d) for name, d in todo.decisions.items() if not d.runs}
        waiting = todo.graph.subgraph(todo.to_run)
        self.blocked = {name: waiting.in_degree(name) for name in todo.to_run}
        self.waiting = waiting
        self.ready = [name for name in todo.to_run if not self.blocked[name]]

    @property
    def active(self) -> bool:
        return bool(self.running or self.ready)

    def start_ready(self) -> None:
        """Start stages as long as there are places and stages whose inputs are there."""
        while self.ready and len(self.running) < self.settings.jobs:
            name = self.ready.pop(0)
            task, decision = self.todo.tasks[name], self.todo.decisions[name]
            _prepare(task, self.folder / name, decision.resume)
            self.log.write("start", stage=name, key=task.key, resume=decision.resume, reason=decision.why)
            self.screen.say(f"{name}: {'goes on' if decision.resume else 'starts'} ({decision.why})")
            self.running[name] = LOCATIONS[self.settings.on](self.folder / name, self.lock)

    def settle(self) -> None:
        """Look at the running stages and note those that ended."""
        for name, worker in list(self.running.items()):
            ending = worker.ended()
            if ending is not None:
                del self.running[name]
                self._end(name, ending)
        self.screen.show({name: (w.seconds, w.folder) for name, w in self.running.items()})

    def _end(self, name: str, ending: Ending) -> None:
        if not ending.fault:
            self.log.write("done", stage=name, key=self.todo.tasks[name].key, seconds=ending.seconds)
            self.outcomes[name] = Outcome("done", ending.seconds)
            self.screen.say(
                f"{name}: done in {duration(ending.seconds)}  {last_line(self.folder / name)}".rstrip()
            )
            self._release(name)
            return
        state = "interrupted" if ending.fault == STOPPED else "failed"
        self.log.write(state, stage=name, seconds=ending.seconds, reason=ending.message, fault=ending.fault)
        self.outcomes[name] = Outcome(state, ending.seconds, ending.message, ending.fault)
        more = "" if ending.fault == "user" else f" (output: {self.folder / name / stage_folder.LOG})"
        self.screen.say(f"{name}: {state}: {ending.message}{more}", level=40 if state == "failed" else 20)
        self._skip_descendants(name)

    def _release(self, name: str) -> None:
        for other in self.waiting.successors(name):
            self.blocked[other] -= 1
            if not self.blocked[other] and other not in self.outcomes:
                self.ready.append(other)
        self.ready.sort(key=self.todo.to_run.index)

    def _skip_descendants(self, name: str) -> None:
        for other in nx.descendants(self.waiting, name):
            if other not in self.outcomes:
                reason = f"{name} {self.outcomes[name].state}"
                self.outcomes[other] = Outcome("skipped", reason=reason)
                self.log.write("skipped", stage=other, reason=reason)

    def stop(self, bell: Bell) -> None:
        """End all workers: SIGINT and time to save, SIGTERM, SIGKILL; a second Ctrl-C kills at once."""
        stops = bell.stops
        self.ready.clear()
        if self.running:
            names = ", ".join(self.running)
            self.screen.say(f"stopping {names}: up to {GRACE_SECONDS:.0f} s to save (Ctrl-C again: at once)")
        for number, seconds in ((signal.SIGINT, GRACE_SECONDS), (signal.SIGTERM, TERM_SECONDS)):
            for worker in self.running.values():
                worker.signal(number)
            deadline = time.monotonic() + seconds
            while self.running and bell.stops == stops and time.monotonic() < deadline:
                bell.wait(_REDRAW_SECONDS)
                self._settle_stopped()
        self.kill()
        self._settle_stopped()
        for name in self.todo.to_run:
            self.outcomes.setdefault(name, Outcome("interrupted", reason="not started: the run was stopped"))

    def kill(self) -> None:
        """End all workers now and wait until they are gone."""
        for worker in self.running.values():
            worker.signal(signal.SIGKILL)
        for worker in self.running.values():
            worker.wait()

    def _settle_stopped(self) -> None:
        for name, worker in list(self.running.items()):
            ending = worker.ended()
            if ending is not None:
                del self.running[name]
                if ending.fault:  # whatever it says now, it was we who stopped it
                    ending = Ending(STOPPED, "stopped", ending.seconds)
                self._end(name, ending)
        self.ready.clear()


def _prepare(task: Task, folder: Path, resume: bool) -> None:
    """Make the folder ready; done before the start is journalled, so that a crash leaves no mixture."""
    if not resume:
        stage_folder.clear(folder)
    folder.mkdir(exist_ok=True)
    for old in (stage_folder.ERROR, stage_folder.PRODUCTS):
        (folder / old).unlink(missing_ok=True)
    stage_folder.write_json(
        folder / stage_folder.STAGE,
        {
            "id": task.id, "stage": task.stage, "module": task.module, "key": task.key, "resume": resume,
            "options": task.options, "identity": task.identity,
        },
    )  # fmt: skip


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """0 all good, 130 stopped, 2 when every failure is the user's input, 1 otherwise."""
    if any(outcome.state == "interrupted" for outcome in outcomes):
        return 130
    faults = {outcome.fault for outcome in outcomes if outcome.state == "failed"}
    return 0 if not faults else 2 if faults == {"user"} else 1
