"""Compiling the C++ operators, once for each machine, and saying why where that cannot be done."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from lamkit.console import log

SOURCES = Path(__file__).parent
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-pthread")
REALS = {"float32": "float", "float64": "double"}


class Library(NamedTuple):
    """Where the compiled operators are, or why there are none."""

    path: Path | None
    reason: str


@functools.cache
def library(version: str, real: str) -> Library:
    """Operators for Orb ``version`` (v2, v3) in ``real`` (float32, float64), compiled if they are not yet.

    The environment variable ``LAMKIT_NATIVE=0`` switches them off, ``CXX`` names the compiler and
    ``LAMKIT_CACHE`` the folder for the result (default: ``lamkit`` in the user's cache folder).
    """
    if os.environ.get("LAMKIT_NATIVE", "1") == "0":
        return Library(None, "LAMKIT_NATIVE=0")
    if sys.platform != "linux":
        return Library(None, f"not tried on {sys.platform}")
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return _without("no C++ compiler found; on Debian: apt-get install g++")
    target = _cache() / f"native-{version}-{real}-{_identity(compiler)}.so"
    if target.exists():
        return Library(target, "")
    log.info("compiling the C++ operators for this machine, once (about 10 s)")
    return _compile(compiler, version, real, target)


def _compile(compiler: str, version: str, real: str, target: Path) -> Library:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            result = Path(folder) / target.name
            command = [compiler, *FLAGS, f"-DLAMKIT_VERSION={version[1:]}", f"-DLAMKIT_REAL={REALS[real]}"]
            command += ["-o", str(result), *(str(p) for p in sorted(SOURCES.glob("*.cpp")))]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
                return _without(f"{compiler} failed: {lines[0]}")
            os.replace(result, target)
    except OSError as error:
        return _without(
            f"{target.parent} cannot be written ({error.strerror}); set LAMKIT_CACHE to a folder that can"
        )
    return Library(target, "")


def _without(reason: str) -> Library:
    log.warning("running without the C++ operators, two to three times slower: %s", reason)
    return Library(None, reason)


def _cache() -> Path:
    given = os.environ.get("LAMKIT_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lamkit"


def _identity(compiler: str) -> str:
    """Hash of sources, flags, compiler and processor: a home folder may be shared by different machines."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sorted(SOURCES.glob("*.h")) + sorted(SOURCES.glob("*.cpp")):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(subprocess.run([compiler, "--version"], capture_output=True).stdout)
    digest.update(_processor().encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    chosen = {line for line in lines if line.startswith(("flags", "Features", "CPU part", "model name"))}
    return "\n".join(sorted(chosen))
