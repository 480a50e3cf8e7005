"""Files that are either whole or not there: atomic writes, folder replacement, checksums."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import uuid
from pathlib import Path

from lamkit.errors import UserError


def flush(path: Path) -> None:
    """Have a file or a folder on disk, so that not even a power cut loses it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: str | Path, data: bytes | str, *, durable: bool = True) -> None:
    """Write ``data`` so that a reader sees the old file or the new one, never half of one.

    Without ``durable`` that holds when this process is killed, not when the power fails; it saves a wait for the
    disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
            stream.flush()
            if durable:
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


def replace_folder(temporary: str | Path, final: str | Path, previous: str | Path | None = None) -> None:
    """Flush ``temporary`` to disk and rename it to ``final``; a folder already there is removed after.

    A rename cannot replace a folder that is not empty, so the old one is moved aside first. A crash in
    between leaves ``final`` missing and both others complete; :func:`recover` puts that right.

    Args:
        temporary: from :func:`temporary_folder`.
        final: its name from now on.
        previous: the folder that was ``final`` is kept under this name, in place of what was there.
    """
    temporary, final = Path(temporary), Path(final)
    for path in sorted(temporary.rglob("*")):
        if path.is_file():
            flush(path)
    flush(temporary)
    old = None
    if final.exists():
        if previous is None:
            old = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.old")
            os.replace(final, old)
        else:
            shutil.rmtree(previous, ignore_errors=True)  # ``final`` is whole meanwhile
            os.replace(final, previous)
    os.replace(temporary, final)
    flush(final.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def recover(folder: str | Path) -> None:
    """Clear up in ``folder`` after a process that died in :func:`replace_folder`.

    A folder that was moved aside gets its name back where nothing has taken its place; what was being
    written is removed.
    """
    for path in sorted(Path(folder).glob(".*.*.old")):
        name = path.with_name(path.name[1:].rsplit(".", 2)[0])
        if name.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.replace(path, name)
    for path in Path(folder).glob(".*.*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def require_writable(folder: str | Path) -> None:
    """Make ``folder`` and try to write in it.

    Raises:
        UserError: it cannot be made or written, with the system's reason.
    """
    folder = Path(folder)
    probe = folder / f".{uuid.uuid4().hex[:8]}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); choose another folder, or free space"
        ) from None


def sha256(path: str | Path) -> str:
    """SHA-256 of a file as hexadecimal digits, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def unpack(archive: str | Path, folder: str | Path) -> None:
    """Unpack a tar file; nothing of it may lie outside of ``folder``.

    Raises:
        UserError: something of it would.
    """
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4; Debian 12 has 3.11.2
            try:
                tar.extractall(folder, filter="data")
            except tarfile.FilterError as error:
                raise UserError(f"{archive}: {error}") from None
            return
        inside = Path(folder).resolve()
        for member in tar.getmembers():
            ends = [inside / member.name]
            if (
                member.islnk() or member.issym()
            ):  # a hard link counts from the folder, a symbolic one from where it is
                ends.append((inside if member.islnk() else ends[0].parent) / member.linkname)
            special = member.isdev() or member.isfifo()
            if special or not all(end.resolve().is_relative_to(inside) for end in ends):
                raise UserError(f"{archive}: {member.name} lies outside of the folder that it is unpacked to")
        tar.extractall(folder)
