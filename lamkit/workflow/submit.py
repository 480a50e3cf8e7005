"""The process that sends a stage to a cluster: ``python -m lamkit.workflow.submit FOLDER PARENT LOCK FILE KIND``.

A stage with parts of its own (frames, trajectories) becomes one job for every ``group_size`` of them, and is
put together here when all have come back; a DFT program runs without LAMKit on the cluster; any other stage
is one job. What was planned is kept in the stage's folder until everything is fetched, so that a process that
is killed is followed by one that asks for the very same jobs.
"""

from __future__ import annotations

import inspect
import json
import shlex
import shutil
import sys
import tarfile
import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from lamkit import config
from lamkit.console import log
from lamkit.errors import LamkitError, UserError
from lamkit.files import atomic_write, unpack
from lamkit.workflow import claims, code, hashing
from lamkit.workflow import folder as stage_folder
from lamkit.workflow.cluster import WORK, Place, read_cluster
from lamkit.workflow.dispatch import PACKED, Command, JobsLost, submit
from lamkit.workflow.worker import begin, finish, guarded

JOB, INPUTS, NAMES, PLAN = "job.json", "inputs.tar", "names.txt", "plan.json"
JOBS_AHEAD = 50  # jobs of DFT tasks that are made ready at a time


def main(arguments: list[str]) -> int:
    """Send the stage of a folder and wait for it; returns the exit code."""
    folder = begin(arguments)
    place = read_cluster(Path(arguments[3])).places[arguments[4]]
    return guarded(
        folder, lambda: finish(folder, lambda module, options: _run(folder, module, options, place))
    )


def _run(folder: Path, module: ModuleType, options: Any, place: Place) -> dict[str, Any]:
    if hasattr(module, "dft_program") and module.dft_program(options) is not None:
        return _run_dft(folder, module, options, place)
    base = folder / WORK
    plan = _plan(folder, module, options, place)
    if plan["shards"]:
        _send(base, plan, place)
        faults = [fault for name in plan["shards"] if (fault := _unpack(base / name, folder))]
        shutil.rmtree(base)
        for fault in faults[:1]:
            raise UserError(fault["message"]) if fault["fault"] == "user" else LamkitError(fault["message"])
    shutil.rmtree(base, ignore_errors=True)
    if plan["whole"]:
        return _home(stage_folder.read_json(folder / stage_folder.RESULT), plan["mark"], folder)
    return dict(module.run(options.model_copy(update={"resume": True}), folder))


def _send(base: Path, plan: dict[str, Any], place: Place) -> None:
    """Run the jobs of a plan.

    Raises:
        JobsLost: one of them was lost too often; what the others made is kept, the rest can be sent anew.
    """
    python = f"{shlex.quote(place.python)} -m lamkit.workflow.remote"
    command = python if plan["whole"] else f"{python} {NAMES}"
    files = () if plan["whole"] else (NAMES,)
    resources = {**place.resources, "group_size": 1}  # the shards are the groups
    shared = [JOB, INPUTS, *(Path(f).name for f in place.forward)]
    try:
        submit(
            base, [Command(n, command, files) for n in plan["shards"]], shared, _with(place, resources), base
        )
    except KeyboardInterrupt:
        log.info("the jobs go on without us; the same command fetches them later")
        raise
    except JobsLost:
        for name in plan["shards"]:
            _unpack(base / name, base.parent)
        shutil.rmtree(base)
        raise


def _with(place: Place, resources: dict[str, Any]) -> Place:
    return Place(place.machine, resources, place.python, place.poll_seconds, place.forward)


def _plan(folder: Path, module: ModuleType, options: Any, place: Place) -> dict[str, Any]:
    """What is sent: made once and kept until everything is fetched."""
    base = folder / WORK
    key = stage_folder.read_json(folder / stage_folder.STAGE)["key"]
    plan = stage_folder.read_json(base / PLAN)
    if plan.get("key") == key:
        return plan
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True)
    names = module.part_names(options) if hasattr(module, "part_names") else []
    todo, size = claims.missing(folder, names), max(1, place.resources["group_size"])
    groups = [todo[k : k + size] for k in range(0, len(todo), size)] if names else [[]]
    # A plan that failed is followed by one with other names: to dpdispatcher the same ones would have failed.
    word = uuid.uuid4().hex[:6]
    shards = [f"{word}-{k:04d}" for k in range(len(groups))]
    for name, group in zip(shards, groups, strict=True):
        atomic_write(base / name / NAMES, "".join(f"{n}\n" for n in group))
    mark = f"@{key[:16]}@"
    _pack(module, options, stage_folder.read_json(folder / stage_folder.STAGE), mark, base)
    for extra in place.forward:
        (base / Path(extra).name).symlink_to(extra)
    plan = {"key": key, "shards": shards, "whole": not names, "mark": mark}
    stage_folder.write_json(base / PLAN, plan)
    return plan


def _pack(module: ModuleType, options: Any, task: dict[str, Any], mark: str, base: Path) -> None:
    """The stage with all that it reads, in a form that can be carried elsewhere."""
    sent: dict[str, str] = {}
    with tarfile.open(base / INPUTS, "w", dereference=True) as tar:
        for k, text in enumerate(dict.fromkeys(config.input_paths(options))):
            found = hashing.locate(text)
            if len(found) != 1:
                raise UserError(f"{text}: {len(found)} files; on a cluster an input is one file or folder")
            sent[text] = f"inputs/{k}/{Path(text).name}"
            tar.add(found[0], f"{k}/{Path(text).name}", filter=_without_caches)
        heads = _own_heads(task["identity"]["heads"])
        for name, path in heads.items():
            tar.add(path, f"presets/heads/{name}.yaml")
    facts = {
        "stage": task["stage"],
        "module": task["module"],
        "options": _replaced(config.dump(options), sent),
        "code": code.of(task["module"], hashing.HashCache()),
        "mark": mark,
    }
    atomic_write(base / JOB, json.dumps(facts))


def _own_heads(names: Iterable[str]) -> dict[str, Path]:
    """YAML files of heads that do not come with LAMKit."""
    from lamkit import presets

    own = presets.builtin().resolve()
    files = presets.files("heads")
    return {n: files[n] for n in names if own not in files[n].resolve().parents}


def _without_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    hidden = any(part.startswith(".") for part in Path(entry.name).parts)
    return None if hidden or entry.name.endswith(".log") else entry


def _replaced(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, dict):
        return {key: _replaced(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, names) for item in value]
    return value


def _unpack(home: Path, folder: Path) -> dict[str, Any]:
    """Put what a job sent back into the stage's folder; returns its failure, empty for none."""
    packed = home / PACKED
    if not packed.is_file():
        return {}
    unpack(packed, folder)
    fault = stage_folder.read_json(folder / stage_folder.ERROR)
    (folder / stage_folder.ERROR).unlink(missing_ok=True)
    _append_log(folder)
    return fault


def _append_log(folder: Path) -> None:
    """The job's own output, after ours."""
    from lamkit.workflow.remote import REMOTE_LOG

    path = folder / REMOTE_LOG
    if path.is_file():
        sys.stderr.write(path.read_text(errors="replace"))
        sys.stderr.flush()
        path.unlink()


def _home(result: dict[str, Any], mark: str, folder: Path) -> dict[str, Any]:
    """A result with the folder of this machine where the cluster's stood."""
    return dict(json.loads(json.dumps(result).replace(mark, str(folder))))


def _run_dft(folder: Path, module: ModuleType, options: Any, place: Place) -> dict[str, Any]:
    """Label by a DFT program that the cluster has: only its own input and output files travel."""
    base = folder / "parts" / "tasks"
    batch = folder / WORK / "batch.json"

    def send(folders: list[str]) -> None:
        from lamkit.dft import task

        atomic_write(batch, json.dumps(folders))
        back = " ".join(shlex.quote(name) for name in task.backward(module.dft_program(options)))
        command = f"{task.COMMAND}; tar cf {PACKED} --ignore-failed-read {back} 2>/dev/null; true"
        tasks = [Command(name, command, tuple(task.forward(base / name))) for name in folders]
        submit(base, tasks, [], place, batch.parent)
        for name in folders:
            unpack(base / name / PACKED, base / name)
            (base / name / PACKED).unlink()
        batch.unlink()

    def runner(folders: Iterable[Path]) -> Iterator[Path]:
        size = JOBS_AHEAD * max(1, place.resources["group_size"])
        source = iter(folders)
        while group := list(islice(source, size)):
            send([str(path.relative_to(base)) for path in group])
            yield from group

    if batch.is_file():  # sent by a process that was killed
        log.info("fetching what was sent before")
        send(json.loads(batch.read_text()))
    assert "runner" in inspect.signature(module.run).parameters
    return dict(module.run(options.model_copy(update={"resume": True}), folder, runner=runner))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
