"""``lamkit doctor``: does this installation work, and on what machine does it run?"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import lamkit
from lamkit import console, presets
from lamkit.cli import shared_flags
from lamkit.errors import LamkitError

PYTHON = (3, 10)
MEMORY_GB = 4.0  # training the sample models needs about 3 GB
DISK_GB = 2.0

# Runs a layer of MindSpore's own in graph mode (its source is on disk, which graph mode needs).
GRAPH = """
import json, sys
import mindspore
mindspore.set_context(mode=mindspore.GRAPH_MODE)
mindspore.set_device("CPU")
net = mindspore.nn.Dense(2, 3)
shape = list(net(mindspore.ops.ones((4, 2), mindspore.float32)).shape)
devices = {}
for name in ("GPU", "Ascend"):
    try:
        devices[name] = bool(mindspore.hal.is_available(name)) and mindspore.hal.device_count(name) or 0
    except Exception:
        devices[name] = 0
print(json.dumps({"shape": shape, "devices": devices}))
"""


class Check(NamedTuple):
    """One finding.

    Attributes:
        name: what was looked at.
        ok: False makes the verb fail; None is information only.
        found: what is there.
        cure: what to do where ``ok`` is False.
    """

    name: str
    ok: bool | None
    found: str
    cure: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("--fast", action="store_true", help="leave out the run of MindSpore (some seconds)")
    shared_flags(parser, out=False)


def run(args: argparse.Namespace) -> int:
    """Print what was found; 0 if all is well, 1 if something is not."""
    checks = [python(), *packages(), *folders(), *machine()]
    if not args.fast:
        checks += mindspore()
    failed = [c for c in checks if c.ok is False]
    if args.json:
        print(json.dumps({"ok": not failed, "checks": [c._asdict() for c in checks]}))
        return int(bool(failed))
    word = {True: "ok", False: "FAILED", None: ""}
    print(console.table([[c.name, word[c.ok], c.found] for c in checks], ["check", "", "found"]))
    for check in failed:
        print(f"\n{check.name}: {check.cure}")
    print("\nall is well" if not failed else f"\n{len(failed)} of {len(checks)} checks failed")
    return int(bool(failed))


def python() -> Check:
    """Version of Python."""
    ok = sys.version_info[:2] >= PYTHON
    floor = ".".join(map(str, PYTHON))
    found = f"{platform.python_version()} ({sys.executable})"
    return Check("python", ok, found, f"use Python {floor} or newer")


def requirements() -> list[tuple[str, str]]:
    """Packages that LAMKit needs with their version bounds, from the installed metadata or pyproject.toml."""
    try:
        lines = importlib.metadata.requires("lamkit") or []
    except importlib.metadata.PackageNotFoundError:  # a bare checkout
        project = Path(lamkit.__file__).resolve().parent.parent / "pyproject.toml"
        block = re.search(r"^dependencies = \[(.*?)^\]", project.read_text(), re.M | re.S)
        lines = re.findall(r'^\s*"([^"]+)"', block.group(1), re.M) if block else []
    pairs = [re.match(r"([A-Za-z0-9_.-]+)\s*\(?([^);]*)", line) for line in lines if "extra ==" not in line]
    return [(match[1], match[2].strip()) for match in pairs if match]


def packages() -> list[Check]:
    """Version of each required package against its bounds."""
    checks = [Check("lamkit", True, f"{lamkit.__version__} ({Path(lamkit.__file__).parent})")]
    for name, bounds in requirements():
        cure = f"pip install '{name}{bounds}'"
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            checks.append(Check(name, False, "not installed", cure))
            continue
        ok = satisfies(found, bounds)
        checks.append(Check(name, ok, found if ok else f"{found}, needed {bounds}", cure))
    return checks


def satisfies(version: str, bounds: str) -> bool:
    """Whether ``version`` lies within bounds like ``>=1.26.4,<2``."""
    compare = {
        ">=": lambda a, b: a >= b,
        "<=": lambda a, b: a <= b,
        "==": lambda a, b: a == b,
        "!=": lambda a, b: a != b,
        ">": lambda a, b: a > b,
        "<": lambda a, b: a < b,
    }
    for operator, bound in re.findall(r"(>=|<=|==|!=|>|<)\s*([0-9.]+)", bounds):
        left, right = _release(version), _release(bound)
        size = max(len(left), len(right))
        padded = [part + (0,) * (size - len(part)) for part in (left, right)]
        if not compare[operator](*padded):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else (0,)


def folders() -> list[Check]:
    """The shipped YAML files, write access and disk space here."""
    try:
        place = presets.builtin()
        counts = ", ".join(f"{sum(1 for _ in (place / k).rglob('*.yaml'))} {k}" for k in presets.KINDS)
        shipped = Check("built-in files", True, f"{counts} ({place})")
    except LamkitError as error:
        shipped = Check("built-in files", False, str(error), "reinstall lamkit")
    here = Path.cwd()
    try:
        with tempfile.TemporaryFile(dir=here):
            writable = Check("write access", True, str(here))
    except OSError as error:
        writable = Check("write access", False, f"{here}: {error.strerror}", "change to a folder of yours")
    free = shutil.disk_usage(here).free / 1e9
    disk = Check("disk", free > DISK_GB, f"{free:.1f} GB free in {here}", f"make {DISK_GB:.0f} GB free")
    return [shipped, writable, disk]


def machine() -> list[Check]:
    """Cores and memory that this process may use."""
    memory = available_memory()
    found = "unknown" if memory is None else f"{memory / 1e9:.1f} GB"
    enough = None if memory is None else memory > MEMORY_GB * 1e9
    return [
        Check("machine", None, f"{platform.system()} {platform.machine()}"),
        Check("cores", None, str(cores())),
        Check("memory", enough, found, f"{MEMORY_GB:.0f} GB are needed to train the sample models"),
    ]


def cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> int | None:
    """Bytes of memory of the machine, or of the container where that is less; None if it cannot be told."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return total


def mindspore() -> list[Check]:
    """MindSpore runs a small graph, in a process of its own: a broken build may take the process with it."""
    cure = "pip install 'mindspore>=2.10,<2.11' 'numpy>=1.26.4,<2' into a fresh environment"
    environment = {**os.environ, "GLOG_v": "3"}
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", GRAPH],
            env=environment, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return [Check("mindspore graph", False, "no answer within 180 s", cure)]
    last = done.stdout.strip().splitlines()[-1:] or [""]
    if done.returncode or not last[0].startswith("{"):
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return [Check("mindspore graph", False, why[:200], cure)]
    answer = json.loads(last[0])
    devices = ["CPU", *(f"{n} {name}" for name, n in answer["devices"].items() if n)]
    ok = answer["shape"] == [4, 3]
    return [
        Check("mindspore graph", ok, "runs" if ok else f"wrong shape {answer['shape']}", cure),
        Check("devices", None, ", ".join(devices)),
    ]
