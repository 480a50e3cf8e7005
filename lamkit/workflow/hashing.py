"""Content hashes: of the files a stage reads, and of everything that decides about its result."""

from __future__ import annotations

import glob
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lamkit.errors import UserError
from lamkit.files import atomic_write, sha256

# Time stamps of file systems are coarse: a file changed twice within this time may keep its stamp,
# so the hash of such a young file is not remembered.
_SETTLED_NS = 2_000_000_000


class MissingInput(UserError):
    """An input that an option names is not there; ``text`` is that option's value."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"input {text} does not exist (looked in {Path.cwd()})")


class HashCache:
    """SHA-256 of files, remembered by path, size, modification time and inode."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._known: dict[str, list[Any]] = {}
        self._changed = False
        self.code: dict[str, dict[str, str]] = {}  # of each module, see lamkit.workflow.code
        if path is not None and path.is_file():
            try:
                self._known = json.loads(path.read_text())
            except ValueError:
                self._changed = True  # only a memory: made anew

    def file(self, path: Path) -> str:
        """Hexadecimal SHA-256 of a file's contents."""
        facts = path.stat()
        stamp = [facts.st_size, facts.st_mtime_ns, facts.st_ino]
        known = self._known.get(str(path))
        if known is not None and known[:3] == stamp:
            return known[3]
        value = sha256(path)
        if time.time_ns() - facts.st_mtime_ns > _SETTLED_NS:
            self._known[str(path)] = [*stamp, value]
            self._changed = True
        return value

    def remember(self, path: Path, what: str, compute: Callable[[], Any]) -> Any:
        """Something else that follows from a file's contents alone, computed again when the file changes.

        Args:
            path: The file.
            what: Name of it.
            compute: Returns it, as plain data.
        """
        facts = path.stat()
        stamp = [facts.st_size, facts.st_mtime_ns, facts.st_ino]
        name = f"{path}#{what}"
        known = self._known.get(name)
        if known is not None and known[:3] == stamp:
            return known[3]
        value = compute()
        self._known[name] = [*stamp, value]
        self._changed = True
        return value

    def save(self) -> None:
        """Write what is new to disk."""
        if self.path is not None and self._changed:
            atomic_write(self.path, json.dumps(self._known))
            self._changed = False


def locate(text: str) -> list[Path]:
    """Files and folders that an input option means: a path or a glob; empty if none exist."""
    path = Path(text).expanduser()
    if path.exists():
        return [path.resolve()]
    return [Path(p).resolve() for p in sorted(glob.glob(str(path), recursive=True))]


def contents(text: str, cache: HashCache) -> str:
    """Hash of what an input option points to: names (below that point) and bytes of all files.

    The place of the input is left out, so that a project may be moved to another folder or machine.

    Raises:
        MissingInput: nothing is there.
    """
    found = locate(text)
    if not found:
        raise MissingInput(text)
    digest = hashlib.sha256()
    for top in found:
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file():
                name = path.relative_to(top.parent).as_posix()
                digest.update(f"{name}\0{cache.file(path)}\n".encode())
    return digest.hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of plain data (through JSON with sorted keys)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
