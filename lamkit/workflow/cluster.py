"""The cluster file of ``lamkit run --on cluster.yaml``: which stages run where, in dpdispatcher's own words.

.. code-block:: yaml

    machine: {batch_type: Slurm, context_type: SSHContext, remote_root: /scratch/me, remote_profile: {...}}
    resources: {number_node: 1, cpu_per_node: 8, gpu_per_node: 0, queue_name: main, group_size: 20}
    python: /home/me/venv/bin/python      # on the cluster; the same LAMKit is installed there
    stages:                               # kinds of stages that are sent; all others stay on this machine
      label: {resources: {cpu_per_node: 32, group_size: 50}}     # keys here replace those above
      explore:
      train: {resources: {gpu_per_node: 1}}                      # pretrain, finetune, distill

``machine`` and ``resources`` may also be the name of a JSON or YAML file, ``machine.json`` as it is.
``group_size`` is the number of frames or trajectories in a job; ``retry_count`` of the machine says how often a
job that the scheduler lost is sent again. ``local_root`` is set by LAMKit.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from lamkit import config
from lamkit.errors import UserError, suggest
from lamkit.stages import STAGES
from lamkit.workflow.local import LocalWorker

KINDS = {"train": ("pretrain", "finetune", "distill")}
DEFAULT_KINDS = ("label", "explore", "train")
WORK = ".cluster"  # folder inside of a stage's, with all that is sent and fetched
SUBMITTED = "submitted.json"


class Kind(config.Model):
    """What differs for one kind of stage.

    Attributes:
        machine: keys of dpdispatcher's machine, in place of those of the whole file.
        resources: keys of dpdispatcher's resources, in place of those of the whole file.
    """

    machine: dict[str, Any] | str = {}
    resources: dict[str, Any] | str = {}


class File(config.Model):
    """A cluster file.

    Attributes:
        machine: dpdispatcher's machine, or a file that holds it.
        resources: dpdispatcher's resources, or a file that holds them.
        python: Python on the cluster in which this LAMKit is installed; the one that runs now by default.
        poll_seconds: time between two looks at the scheduler.
        forward: further files and folders that jobs need in their working folder.
        stages: kinds of stages that are sent (label, explore, train, or the name of a stage).
    """

    machine: dict[str, Any] | str
    resources: dict[str, Any] | str = {}
    python: str = sys.executable
    poll_seconds: float = pydantic.Field(15.0, gt=0)
    forward: list[str] = []
    stages: dict[str, Kind | None] = dict.fromkeys(DEFAULT_KINDS)


@dataclass(frozen=True)
class Place:
    """Where one kind of stage runs: checked input of dpdispatcher.

    Attributes:
        machine: dpdispatcher's machine without ``local_root``.
        resources: dpdispatcher's resources; ``group_size`` counts parts of a stage.
        python: Python on the cluster.
        poll_seconds: time between two looks at the scheduler.
        forward: further files for the working folder of jobs, absolute.
    """

    machine: dict[str, Any]
    resources: dict[str, Any]
    python: str
    poll_seconds: float
    forward: list[str]


@dataclass(frozen=True)
class Cluster:
    """A cluster file that was read: kind of stage → place."""

    path: Path
    places: Mapping[str, Place]

    def kind_of(self, stage: str) -> str | None:
        """The kind under which a stage is sent away; None when it stays here."""
        if stage in self.places:
            return stage
        return next((kind for kind in self.places if stage in KINDS.get(kind, ())), None)


def read_cluster(path: Path) -> Cluster:
    """Read and check a cluster file.

    Raises:
        UserError: no such file, or all that is wrong with it.
    """
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise UserError(
            f"--on {path}: expected 'local' or a cluster file (YAML with 'machine:' and 'resources:' of "
            "dpdispatcher; `lamkit schema cluster` lists its keys)"
        )
    file = config.load(File, path)
    known = sorted({*KINDS, *STAGES})
    for kind in file.stages:
        if kind not in known:
            raise UserError(
                f"{path}: stages: no kind of stage '{kind}'.{suggest(kind, known)} Known: {', '.join(known)}"
            )
    places = {kind: _place(path, file, kind, changes or Kind()) for kind, changes in file.stages.items()}
    return Cluster(path.resolve(), places)


def _place(path: Path, file: File, kind: str, changes: Kind) -> Place:
    machine = {
        **_keys(path, file.machine, "machine"),
        **_keys(path, changes.machine, "machine"),
        "local_root": ".",
    }
    resources = {
        "group_size": 1,
        **_keys(path, file.resources, "resources"),
        **_keys(path, changes.resources, "resources"),
    }
    _check(path, kind, machine, resources)
    missing = [f for f in file.forward if not (path.parent / f).exists()]
    if missing:
        raise UserError(
            f"{path}: forward: {', '.join(missing)}: no such file (looked in {path.parent.resolve()})"
        )
    forward = [str((path.parent / f).resolve()) for f in file.forward]
    return Place(machine, resources, file.python, file.poll_seconds, forward)


def _keys(path: Path, given: dict[str, Any] | str, what: str) -> dict[str, Any]:
    """Keys as they are, or from the file that is named; that may hold them under ``what``."""
    if isinstance(given, dict):
        return given
    found, _ = config.read_yaml(path.parent / given)  # JSON is YAML
    if not isinstance(found, dict):
        raise UserError(f"{path.parent / given}: expected the keys of dpdispatcher's {what}")
    return dict(found.get(what, found))


def dispatcher() -> Any:
    """The package dpdispatcher, kept from writing to the screen and to files of the working folder.

    Raises:
        UserError: it is not installed.
    """
    before = logging.root.manager.disable
    try:
        logging.disable(logging.CRITICAL)  # its first message would make a log file in the working folder
        with contextlib.redirect_stdout(io.StringIO()):
            import dpdispatcher
            from dpdispatcher.dlog import dlog
    except ModuleNotFoundError as error:
        if error.name != "dpdispatcher":
            raise
        raise UserError("clusters need the package dpdispatcher: pip install 'lamkit[cluster]'") from None
    finally:
        logging.disable(before)
    for handler in list(dlog.handlers):
        dlog.removeHandler(handler)
    return dpdispatcher


def _check(path: Path, kind: str, machine: dict[str, Any], resources: dict[str, Any]) -> None:
    """Let dpdispatcher check its own keys, strictly."""
    package = dispatcher()
    batch = machine.get("batch_type")
    known = sorted(package.Machine.options)
    if batch not in package.Machine.subclasses_dict:
        raise UserError(
            f"{path}: machine.batch_type of {kind}: {batch!r} is no scheduler of dpdispatcher."
            f"{suggest(str(batch), known)} Known: {', '.join(known)}"
        )
    for name, schema, keys in (
        ("machine", package.Machine.arginfo(), machine),
        ("resources", package.Resources.arginfo(detail_kwargs=False), resources),
    ):
        try:
            schema.check_value(schema.normalize_value(keys, trim_pattern="_*"), strict=True)
        except Exception as error:  # dargs has several kinds, all of them mistakes in the file
            raise UserError(f"{path}: {name} of {kind}: {' '.join(str(error).split())}") from None


class ClusterWorker(LocalWorker):
    """A process of this machine that sends a stage to a cluster, waits for it and fetches what it made.

    Args:
        folder: The stage's folder.
        lock: Descriptor of the workflow folder's lock.
        path: The cluster file.
        kind: Kind of stage in it.
    """

    module = "lamkit.workflow.submit"

    def __init__(self, folder: Path, lock: int, path: Path, kind: str) -> None:
        self._arguments = [str(path), kind]
        self._told = ""
        super().__init__(folder, lock, [])

    def more(self) -> list[str]:
        """Further arguments of the process."""
        return self._arguments

    def news(self) -> dict[str, Any] | None:
        """The submission, when there is a new one."""
        try:
            text = (self.folder / WORK / SUBMITTED).read_text()
        except FileNotFoundError:
            return None
        if text == self._told:
            return None
        self._told = text
        return dict(json.loads(text))
