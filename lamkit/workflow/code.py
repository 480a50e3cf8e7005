"""The code that decides about a stage's result: a hash of every module of LAMKit that its module imports.

Imports are followed through the sources, those inside of functions too, so nothing is loaded for it. What is
hashed is the syntax tree without docstrings: comments, layout and documentation make nothing run again.
Compiled sources (C++) count byte for byte. Other packages are not followed; their versions are in each run's
``versions.json``.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from lamkit.workflow.hashing import HashCache

PACKAGE = "lamkit"
# What runs a stage, shows or stops it has no part in its result; pages and figures only where they are all of it.
_NO_PART = ("lamkit.workflow", "lamkit.cli", "lamkit.console", "lamkit.errors", "lamkit.lock")
_PAGES, _REPORT = "lamkit.report", "lamkit.stages.report"
_COMPILED = (".c", ".cc", ".cpp", ".cu", ".h", ".hpp")
_DIGITS = 12


def of(module: str, cache: HashCache) -> dict[str, str]:
    """Module (or file of compiled code) → hash, of all that ``module`` imports, itself included.

    Worked out once for each cache, that is for each command.
    """
    if module not in cache.code:
        cache.code[module] = _of(module, cache)
    return cache.code[module]


def _of(module: str, cache: HashCache) -> dict[str, str]:
    found: dict[str, str] = {}
    no_part = _NO_PART if module == _REPORT else (*_NO_PART, _PAGES)
    todo = [module]
    while todo:
        name = todo.pop()
        if name in found or name.startswith(no_part):
            continue
        path = _source(name)
        if path is None:
            continue
        value, imports = cache.remember(path, "code", functools.partial(_read, path, name))
        found[name] = value
        todo += imports
        for extra in sorted(p for p in path.parent.iterdir() if p.suffix in _COMPILED):
            found[f"{name.rpartition('.')[0]}/{extra.name}"] = cache.file(extra)[:_DIGITS]
    return dict(sorted(found.items()))


@functools.cache
def _source(name: str) -> Path | None:
    """Source file of a module of LAMKit (or of a stage that someone else wrote); None for names that are no module."""
    parent, _, last = name.rpartition(".")
    if parent:
        folder = _source(parent)
        if folder is None or folder.name != "__init__.py":
            return None
        options = (folder.parent / f"{last}.py", folder.parent / last / "__init__.py")
        return next((path for path in options if path.is_file()), None)
    found = importlib.util.find_spec(name)
    return Path(found.origin) if found and found.origin and found.origin.endswith(".py") else None


def _read(path: Path, name: str) -> list[object]:
    """Hash of a source file, and the modules of LAMKit that it imports."""
    tree = ast.parse(path.read_bytes())
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imports = sorted(set(_imports(tree, package)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return [hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:_DIGITS], imports]


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Names of modules, and of what is imported from them, since that may be a module too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            top = ".".join(filter(None, (base, node.module or "")))
            names = [top, *(f"{top}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == PACKAGE)
