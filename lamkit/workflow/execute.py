"""The whole of ``lamkit run`` (``run``) and of its ``--dry-run`` (``preview``)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamkit import __version__, config
from lamkit.errors import UserError
from lamkit.lock import Lock
from lamkit.workflow import folder as stage_folder
from lamkit.workflow import hashing, journal, plan
from lamkit.workflow.bell import Bell
from lamkit.workflow.cluster import Cluster, ClusterWorker, read_cluster
from lamkit.workflow.journal import Journal
from lamkit.workflow.local import LocalWorker
from lamkit.workflow.plan import NOT_NEEDED, Choice, Plan
from lamkit.workflow.running import REDRAW_SECONDS, LoopEnd, Outcome, Run, Worker, resting
from lamkit.workflow.screen import Screen
from lamkit.workflow.spec import Source, fill
from lamkit.workflow.task import Task
from lamkit.workflow.unroll import LOOP

WORKFLOW, HASHES = "workflow.yaml", ".hashes.json"
LOCAL = "local"
# Starts a stage on this machine: (its folder, descriptor of the lock, cores) -> worker
START: Callable[[Path, int, list[int]], Worker] = LocalWorker


@dataclass(frozen=True)
class Settings:
    """How to run.

    Attributes:
        choice: Chosen stages.
        jobs: How many at once; 0: as the cores suffice.
        on: Where: ``local``, or a cluster file.
        common: Options common to all stages.
    """

    choice: Choice = field(default_factory=Choice)
    jobs: int = 0
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
    cluster_of(settings)  # mistakes in it are told now
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
        log = Journal(folder)
        try:
            todo = preview(source, folder, stages, settings, cache=cache)
            stage_folder.sweep(folder / name for name in todo.tasks)
            _claim_loops(todo, folder)
            for name in todo.to_run:
                stage_folder.refuse_foreign(folder / name)
            cache.save()
            _copy_workflow(source, folder)
            _adopt(todo, folder, log)
            if not todo.to_run:
                return {name: resting(decision) for name, decision in todo.decisions.items()}
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
    cluster = cluster_of(settings)

    def start(task: Task, home: Path, cores: list[int]) -> Worker:
        if cluster is not None and (kind := cluster.kind_of(task.stage)):
            return ClusterWorker(home, lock, cluster.path, kind)
        return START(home, lock, cores)

    def elsewhere(task: Task) -> bool:
        return cluster is not None and cluster.kind_of(task.stage) is not None

    with Screen() as screen, Bell() as bell:
        n_all = sum(d.why != NOT_NEEDED and not todo.only_perhaps(n) for n, d in todo.decisions.items())
        n_run = sum(not todo.only_perhaps(name) for name in todo.to_run)
        screen.say(
            f"{n_run} of {n_all} stages to run in {folder}; all output is in <stage>/{stage_folder.LOG}"
        )
        run = Run(todo, folder, settings.jobs, log, screen, start, elsewhere)
        try:
            while run.active:
                run.start_ready()
                log.sync()
                bell.wait(
                    0.0 if any(isinstance(w, LoopEnd) for w in run.running.values()) else REDRAW_SECONDS
                )
                run.settle()
                if bell.stops:
                    run.stop(bell)
        finally:  # an error of our own (disk full) must not leave stages at work
            run.kill()
        return {name: run.outcomes[name] for name in todo.tasks}


def cluster_of(settings: Settings) -> Cluster | None:
    """Where stages are sent, None for this machine.

    Raises:
        UserError: mistakes in the cluster file.
    """
    return None if settings.on == LOCAL else read_cluster(Path(settings.on))


def _claim_loops(todo: Plan, folder: Path) -> None:
    """Make the folders of loops known as ours before a stage inside of them is run."""
    for name in (n for n in todo.to_run if todo.tasks[n].stage == LOOP):
        note = stage_folder.read_json(folder / name / stage_folder.STAGE)
        if note and note.get("stage") != LOOP:  # once a stage had this name
            stage_folder.clear(folder / name)
        if not (folder / name).exists():
            stage_folder.write_json(folder / name / stage_folder.STAGE, {"id": name, "stage": LOOP})


def _copy_workflow(source: Source, folder: Path) -> None:
    """The workflow as it was run, overrides included, for ``status`` and ``report``."""
    config.write_yaml(folder / WORKFLOW, fill(config.dump(source.workflow), _Places(source.places)))


class _Places(dict[str, str]):
    """Meanings of the places; every other reference stays as it is."""

    def __missing__(self, name: str) -> str:
        return f"${{{name}}}"


def _adopt(todo: Plan, folder: Path, log: Journal) -> None:
    """Note stages that came to their end while nobody was left to write it down."""
    for name, decision in todo.decisions.items():
        if decision.adopt:
            seconds = stage_folder.read_json(folder / name / stage_folder.PRODUCTS)["seconds"]
            log.write("done", stage=name, key=todo.tasks[name].key, seconds=seconds)


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """0 all good, 130 stopped, 2 when every failure is the user's input, 1 otherwise."""
    if any(outcome.state == "interrupted" for outcome in outcomes):
        return 130
    faults = {outcome.fault for outcome in outcomes if outcome.state == "failed"}
    return 0 if not faults else 2 if faults == {"user"} else 1
