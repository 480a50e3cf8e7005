"""One run: who waits for whom, who is at work, how they ended.

Start what is ready, note how it ends, let only the descendants of a failure wait.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import networkx as nx

from lamkit.console import duration
from lamkit.errors import UserError
from lamkit.workflow import folder as stage_folder
from lamkit.workflow import journal
from lamkit.workflow.bell import Bell
from lamkit.workflow.cores import Cores
from lamkit.workflow.journal import Journal
from lamkit.workflow.local import STOPPED, Ending
from lamkit.workflow.plan import NOT_NEEDED, Decision, Plan
from lamkit.workflow.screen import Screen, last_line
from lamkit.workflow.task import Task
from lamkit.workflow.unroll import LOOP

# After Ctrl-C a stage has this long to save itself, and after SIGTERM this long to end.
GRACE_SECONDS, TERM_SECONDS = 30.0, 5.0
REDRAW_SECONDS = 0.5


class Worker(Protocol):
    """A stage at work."""

    folder: Path
    cores: list[int]

    @property
    def seconds(self) -> float:
        """Time since the start."""
        ...

    def ended(self) -> Ending | None:
        """How it ended, or None while it is at work."""
        ...

    def signal(self, number: signal.Signals) -> None:
        """Ask it to stop."""
        ...

    def wait(self) -> None:
        """Wait for its end."""
        ...

    def news(self) -> dict[str, Any] | None:
        """A fact to be noted in the journal, once; None mostly."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of a stage.

    Attributes:
        state: ``up to date``, ``done``, ``failed``, ``skipped``, ``interrupted``, ``not needed`` or ``not chosen``.
        seconds: Time it took in this run.
        reason: Why it failed, or why it was not run.
        fault: Of a failure: ``user`` (the input is wrong), ``error`` or ``signal``.
    """

    state: str
    seconds: float | None = None
    reason: str = ""
    fault: str = ""

    @property
    def good(self) -> bool:
        """Whether the stage's products are there."""
        return self.state in ("done", "up to date")


def resting(decision: Decision) -> Outcome:
    """Outcome of a stage that is not to run."""
    if decision.why == NOT_NEEDED:
        return Outcome("not needed", reason=NOT_NEEDED)
    return Outcome(decision.why if decision.why == "up to date" else "not chosen", reason=decision.why)


class LoopEnd:
    """The end of a loop, which is done at once and in this process."""

    cores: list[int] = []
    seconds = 0.0

    def __init__(self, folder: Path, work: Callable[[], Any]) -> None:
        self.folder = folder
        self._work = work

    def ended(self) -> Ending:
        """Do it."""
        try:
            self._work()
        except UserError as error:
            return Ending("user", str(error), 0.0)
        return Ending("", "", 0.0)

    def signal(self, number: signal.Signals) -> None:
        """There is nobody to ask."""

    def wait(self) -> None:
        """There is nothing to wait for."""

    def news(self) -> None:
        """Nothing."""


class Run:
    """State of one run.

    Args:
        todo: The plan.
        folder: The workflow folder.
        jobs: How many stages at once; 0: as the cores suffice.
        log: The journal.
        screen: What the user sees.
        start: Starts a stage: task, its folder, cores.
        elsewhere: Whether a stage does not need cores of this machine.
    """

    def __init__(
        self,
        todo: Plan,
        folder: Path,
        jobs: int,
        log: Journal,
        screen: Screen,
        start: Callable[[Task, Path, list[int]], Worker],
        elsewhere: Callable[[Task], bool],
    ) -> None:
        self.todo, self.folder, self.log, self.screen = todo, folder, log, screen
        self._start, self._elsewhere = start, elsewhere
        self.cores = Cores(jobs)
        self.running: dict[str, Worker] = {}
        self.outcomes = {name: resting(d) for name, d in todo.decisions.items() if not d.runs}
        self.waiting = todo.graph.subgraph(todo.to_run)
        self.blocked = {name: self.waiting.in_degree(name) for name in todo.to_run}
        self._place = {name: i for i, name in enumerate(todo.to_run)}
        self.ready = [name for name in todo.to_run if not self.blocked[name]]

    @property
    def active(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.running or self.ready)

    def start_ready(self) -> None:
        """Start every stage whose inputs are there, as far as there are cores for it."""
        waiting = len(self.ready)
        for name in list(self.ready):
            task = self.todo.tasks[name]
            cores: list[int] = []
            if task.stage != LOOP and not self._elsewhere(task):
                cores = self.cores.grant(task.stage, waiting)
                if not cores:
                    continue
            waiting -= 1
            self.ready.remove(name)
            self._begin(task, cores)

    def _begin(self, task: Task, cores: list[int]) -> None:
        name, folder = task.id, self.folder / task.id
        decision = self.todo.decisions[name]
        prepare(task, folder, decision.resume)
        self.log.write("start", stage=name, key=task.key, resume=decision.resume, reason=decision.why)
        if task.stage == LOOP:
            self.running[name] = LoopEnd(folder, lambda: self._finish_loop(task))
            return
        self.screen.say(f"{name}: {'goes on' if decision.resume else 'starts'} ({decision.why})")
        self.running[name] = self._start(task, folder, cores)

    def settle(self) -> None:
        """Look at the running stages and note those that ended."""
        for name, worker in list(self.running.items()):
            self._note_news(name, worker)
            ending = worker.ended()
            if ending is not None:
                self._retire(name)
                self._end(name, ending)
        self.screen.show({name: (w.seconds, w.folder) for name, w in self.running.items()})

    def _note_news(self, name: str, worker: Worker) -> None:
        facts = worker.news()
        if facts is not None:
            self.log.write("submitted", stage=name, **facts)

    def _retire(self, name: str) -> None:
        worker = self.running.pop(name)
        if worker.cores:
            self.cores.give_back(worker.cores)

    def _end(self, name: str, ending: Ending) -> None:
        if not ending.fault:
            self.log.write("done", stage=name, key=self.todo.tasks[name].key, seconds=ending.seconds)
            self.outcomes[name] = Outcome("done", ending.seconds)
            if self.todo.tasks[name].stage != LOOP:
                said = f"{name}: done in {duration(ending.seconds)}  {last_line(self.folder / name)}"
                self.screen.say(said.rstrip())
            self._settle_loop(name)
            self._release(name)
            return
        state = "interrupted" if ending.fault == STOPPED else "failed"
        self.log.write(state, stage=name, seconds=ending.seconds, reason=ending.message, fault=ending.fault)
        self.outcomes[name] = Outcome(state, ending.seconds, ending.message, ending.fault)
        more = "" if ending.fault == "user" else f" (output: {self.folder / name / stage_folder.LOG})"
        self.screen.say(f"{name}: {state}: {ending.message}{more}", level=40 if state == "failed" else 20)
        self._skip_descendants(name)

    def _settle_loop(self, name: str) -> None:
        """After a stage of a loop: when its round is complete, see whether the loop is over."""
        node = self.todo.graph.nodes[name]["node"]
        if not node.round:
            return
        loops, number = self.todo.loops, node.round
        loops.forget(node.loop, number)
        while all((o := self.outcomes.get(n)) and o.good for n in loops.names(node.loop, number)):
            verdict = loops.verdict(node.loop, number, self._loop_seconds(node.loop, number))
            self.screen.say(f"{node.loop}: {'ends: ' if verdict.stop else ''}{verdict.reason}")
            number += 1
            if not verdict.stop:
                continue
            rest = range(number, loops.loops[node.loop].max_rounds + 1)
            unneeded = [n for k in rest for n in loops.names(node.loop, k) if n not in self.outcomes]
            self.outcomes |= dict.fromkeys(unneeded, Outcome("not needed", reason=NOT_NEEDED))
            for other in unneeded:
                self._release(other)
            return

    def _loop_seconds(self, loop: str, number: int) -> float:
        return self.todo.loops.seconds(loop, number, journal.fold(self.log.events))

    def _finish_loop(self, task: Task) -> None:
        """Wind up a loop after the last round whose stages are all there."""
        loops, number = self.todo.loops, 0
        most = loops.loops[task.id].max_rounds
        while number < most and all(self.outcomes[n].good for n in loops.names(task.id, number + 1)):
            number += 1
        seconds = self._loop_seconds(task.id, number)
        verdict = loops.verdict(task.id, number, seconds)
        loops.finish(task.id, number, verdict, task.key, seconds)

    def _release(self, name: str) -> None:
        for other in self.waiting.successors(name):
            self.blocked[other] -= 1
            if not self.blocked[other] and other not in self.outcomes:
                self.ready.append(other)
        self.ready.sort(key=self._place.__getitem__)

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
                bell.wait(REDRAW_SECONDS)
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
            self._note_news(name, worker)
            ending = worker.ended()
            if ending is not None:
                self._retire(name)
                if ending.fault:  # whatever it says now, it was we who stopped it
                    ending = Ending(STOPPED, "stopped", ending.seconds)
                self._end(name, ending)
        self.ready.clear()


def prepare(task: Task, folder: Path, resume: bool) -> None:
    """Make the folder ready; done before the start is journalled, so that a crash leaves no mixture."""
    if not resume and task.stage != LOOP:  # a loop's folder holds its rounds
        stage_folder.clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (stage_folder.ERROR, stage_folder.PRODUCTS):
        (folder / old).unlink(missing_ok=True)
    facts: Mapping[str, Any] = {
        "id": task.id, "stage": task.stage, "module": task.module, "key": task.key, "resume": resume,
        "options": task.options, "identity": task.identity,
    }  # fmt: skip
    # not awaited: the worker has it on disk before it says that the stage is done
    stage_folder.write_json(folder / stage_folder.STAGE, facts, durable=False)
