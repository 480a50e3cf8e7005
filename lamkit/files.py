"""Files that are either whole or not there: atomic writes, folder replacement, checksums."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from pathlib import Path


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Write ``data`` so that a reader sees the old file or the new one, never half of one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_folder(final: str | Path) -> Path:
    """A new empty folder beside ``final``, on the same file system, to be given to :func:`replace_folder`."""
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    folder = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.tmp")
    folder.mkdir()
    return folder


def replace_folder(temporary: str | Path, final: str | Path) -> None:
    """Flush ``temporary`` to disk and rename it to ``final``; a folder already there is removed after.

    A rename cannot replace a folder that is not empty, so the old one is moved aside first. A crash in
    between leaves ``final`` missing and both others complete; readers of checkpoints know the next name.
    """
    temporary, final = Path(temporary), Path(final)
    for path in sorted(temporary.rglob("*")):
        if path.is_file():
            _fsync(path)
    _fsync(temporary)
    old = None
    if final.exists():
        old = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.old")
        os.replace(final, old)
    os.replace(temporary, final)
    _fsync(final.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file as hexadecimal digits, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
