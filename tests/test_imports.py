"""Everything that is not a network works without MindSpore, and importing it is quick and silent."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

NETWORKS = ("lamkit.model.", "lamkit.train.", "lamkit.calculator")
# Modules of those rooms that describe files and options, and must be readable on a machine without MindSpore.
LIGHT = {"lamkit.model.config", "lamkit.train.config", "lamkit.train.checkpoint"}
LIGHT_FOLDER = "lamkit.model.public"


def modules(repo: Path) -> list[str]:
    """Every module of the package that has to do without MindSpore."""
    found = []
    for path in sorted((repo / "lamkit").rglob("*.py")):
        parts = path.relative_to(repo).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name != "lamkit.__main__" and (
            name in LIGHT or name.startswith(LIGHT_FOLDER) or not name.startswith(NETWORKS)
        ):
            found.append(name)
    return found


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


def test_nothing_but_networks_imports_mindspore(repo):
    names = modules(repo)
    assert len(names) > 40
    code = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
    assert "mindspore" not in sys.modules, f"{{name}} imports mindspore"
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")


def test_light_modules_exist(repo):
    assert set(modules(repo)) >= LIGHT


def test_help_imports_nothing_heavy():
    code = """
import sys
from lamkit.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
heavy = {"mindspore", "numpy", "ase", "pydantic", "yaml", "matplotlib", "networkx", "dpdata"} & set(sys.modules)
assert not heavy, heavy
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_help_is_fast():
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "lamkit", "--help"], capture_output=True, check=True)
        return time.perf_counter() - start

    # 0.15 s on an idle machine; the best of a few, because tests share the machine with others
    assert min(seconds() for _ in range(4)) < 0.6
