"""Unpacking archives from elsewhere: nothing is written outside of the folder, and the disk is not filled up."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from lamkit.errors import UserError
from lamkit.files import replace_folder, temporary_folder


def is_archive(file: Path) -> bool:
    """Whether a file can be unpacked here (tar, also compressed, or zip)."""
    return tarfile.is_tarfile(file) or zipfile.is_zipfile(file)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack ``archive`` as the new folder ``folder``, whole or not at all.

    Raises:
        UserError: a member would be written elsewhere or is no plain file; too large; or broken.
    """
    if folder.exists():
        raise UserError(f"{folder}: already exists; remove it to unpack {archive.name} again")
    temporary = temporary_folder(folder)
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, temporary)
        else:
            _unpack_tar(archive, temporary)
        replace_folder(temporary, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(
            f"{archive}: cannot be unpacked, broken? ({error}); remove it and fetch again"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        written, room = 0, shutil.disk_usage(folder).free
        for member in tar:
            if member.isdir():
                require_inside(member.name, archive)
                continue
            require_inside(member.name, archive)
            if not member.isreg():
                raise UserError(
                    f"{archive}: '{member.name}' is a link or device; only plain files are unpacked"
                )
            written += member.size
            _require_room(archive, written, room)
            source = tar.extractfile(member)
            if source is not None:
                with source:
                    _write(source, folder / member.name)


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as pack:
        _require_room(
            archive, sum(info.file_size for info in pack.infolist()), shutil.disk_usage(folder).free
        )
        for info in pack.infolist():
            require_inside(info.filename, archive)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise UserError(f"{archive}: '{info.filename}' is a link; only plain files are unpacked")
            if not info.is_dir():
                with pack.open(info) as source:
                    _write(source, folder / info.filename)


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)


def require_inside(name: str, archive: Path) -> None:
    """Refuse names that lead out of the folder.

    Raises:
        UserError: absolute, with ``..``, or with a drive letter or backslash.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name.split("/")[0]:
        raise UserError(f"{archive}: '{name}' would be written outside of the folder; nothing was unpacked")


def _require_room(archive: Path, n_bytes: int, free: int) -> None:
    if n_bytes > free:
        raise UserError(
            f"{archive}: holds at least {n_bytes} bytes, the disk has {free} left; nothing was unpacked"
        )
