"""``lamkit data fetch HEAD``: the download that a head's YAML describes, checked, unpacked, and what to do next."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import Any

from lamkit.console import Progress, log
from lamkit.data.fetch.archives import is_archive, unpack
from lamkit.data.fetch.download import Patience, download
from lamkit.data.heads import HeadConfig, Source, how_to_get
from lamkit.errors import UserError
from lamkit.lock import Lock


def fetch(head: HeadConfig, folder: Path, patience: Patience | None = None) -> dict[str, Any]:
    """Fetch the data of a head into ``folder``.

    Returns:
        ``head``, ``path``, ``bytes``, ``sha256``, ``verified`` and ``next`` (the command to convert it).

    Raises:
        UserError: the YAML gives no address, no mirror works, or the file is not the one that was meant.
    """
    source = head.source
    urls = [url for url in (source.url, *source.mirrors) if url]
    if not urls:
        raise UserError(
            f"{head.name}: no address to download from in the head's YAML (source.url). {how_to_get(head)}"
        )
    name = source.filename or urls[0].rstrip("/").rpartition("/")[2].partition("?")[0]
    if not name or name in (".", "..") or "/" in name:
        raise UserError(
            f"{head.name}: the head's YAML has no source.filename, and {urls[0]} does not end in one"
        )
    target = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with Lock(folder):
        digests = _fetch_checked(urls, target, source, patience)
    path = target
    if source.unpack:
        path = folder / name.partition(".")[0]
        if not path.is_dir():
            if not is_archive(target):
                raise UserError(f"{target}: no archive, though the head's YAML says 'unpack: true'")
            unpack(target, path)
    command = _next(head, path)
    log.info("%s is here. Next:\n  %s", path, command)
    return {"head": head.name, "path": str(path), "bytes": target.stat().st_size, **digests, "next": command}


def _fetch_checked(
    urls: list[str], target: Path, source: Source, patience: Patience | None
) -> dict[str, Any]:
    """Download, unless it is here already, and check; a file that was joined from parts gets a second chance."""
    resumed = target.with_name(target.name + ".part").exists()
    if target.is_file():
        log.info("%s is here already", target)
    else:
        download(urls, target, size=source.size_bytes, patience=patience)
    digests = _digests(target)
    wrong = _mismatch(digests, target, source)
    if wrong and resumed:
        log.warning("%s: %s; fetched again from the beginning", target, wrong)
        target.unlink()
        return _fetch_checked(urls, target, source, patience)
    if wrong:
        bad = target.with_name(target.name + ".bad")
        target.replace(bad)
        raise UserError(
            f"{target}: {wrong}. It is now {bad.name}. Either the address gives another file or the head's YAML "
            "is out of date; look at the publisher's page, and correct source.sha256 or source.md5"
        )
    verified = source.sha256 is not None or source.md5 is not None
    if not verified:
        log.warning(
            "%s: not verified, as the head's YAML has no checksum; its SHA-256 is %s",
            target.name,
            digests["sha256"],
        )
    return {"sha256": digests["sha256"], "verified": verified}


def _digests(file: Path) -> dict[str, str]:
    """SHA-256 and MD5, read once."""
    sums = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with open(file, "rb") as stream, Progress(file.stat().st_size >> 20, "MiB checked") as progress:
        done = 0
        while block := stream.read(1 << 20):
            for digest in sums.values():
                digest.update(block)
            done += 1
            progress.update(done)
    return {name: digest.hexdigest() for name, digest in sums.items()}


def _mismatch(digests: dict[str, str], file: Path, source: Source) -> str | None:
    """What of the file is not as the YAML says."""
    size = file.stat().st_size
    if source.size_bytes is not None and size != source.size_bytes:
        return f"has {size} bytes, the head's YAML says {source.size_bytes}"
    for name in ("sha256", "md5"):
        expected = getattr(source, name)
        if expected is not None and digests[name] != expected.lower():
            return f"{name} is {digests[name]}, the head's YAML says {expected}"
    return None


def _next(head: HeadConfig, path: Path) -> str:
    fmt = f" --format {head.source.format}" if head.source.format else ""
    return f"lamkit data convert {shlex.quote(str(path))}{fmt} --head {head.name} --out data/{head.name}"
