"""Downloading one large file over HTTP: resumed, checked, from the first mirror that works.

Written on the standard library: it takes proxies from the environment (``https_proxy``, ``no_proxy``) and has the
time limits and headers that are needed. Of the libraries at hand, requests has no resume either, and pooch, which
checks and unpacks, starts a broken download from the beginning: 11 GB for MPtrj.

The file grows as ``NAME.part``; ``NAME.part.json`` says which version of it the server sent (ETag or date, and size),
so that a resumed download never joins two versions.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lamkit
from lamkit.console import Progress, log
from lamkit.errors import Interrupted, UserError
from lamkit.files import atomic_write

BLOCK = 1 << 18  # bytes
SLOWEST = 1024  # bytes per second, over one time limit; below it a connection counts as dead
MARGIN = 64 << 20  # bytes left free on the disk


class Unavailable(Exception):
    """This address cannot give the file; another mirror may."""


class Broken(Exception):
    """The connection broke; the same address may go on."""


class Changed(Exception):
    """What the server has is not what the first part is of."""


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Attributes:
        timeout: seconds without data after which a connection counts as dead.
        tries: attempts in a row without a byte of progress, per address.
        pause: seconds before the second attempt; doubled each time.
    """

    timeout: float = 30.0
    tries: int = 5
    pause: float = 1.0


def download(
    urls: Sequence[str], target: Path, *, size: int | None = None, patience: Patience | None = None
) -> Path:
    """Fetch one file from the first address that gives it; goes on with what an earlier call left.

    Args:
        urls: addresses of the same file, the preferred one first.
        target: where to put it; appears only when complete.
        size: its size in bytes, if known beforehand.
        patience: time limits.

    Raises:
        UserError: no address gave the file, with what each one answered; or the disk is too small.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    answers = []
    for url in urls:
        try:
            _from_one(url, _Part(target), size, patience or Patience())
        except Unavailable as error:
            answers.append(f"  {url}: {error}")
            log.warning("%s: %s%s", url, error, "; next mirror" if url != urls[-1] else "")
            continue
        except KeyboardInterrupt:
            raise Interrupted(
                f"What there is of {target.name} is kept; the same command goes on with it"
            ) from None
        return target
    raise UserError(
        f"{target.name}: no address gave the file\n" + "\n".join(answers) + "\nIs there a connection? "
        "Behind a proxy, set https_proxy. What was fetched so far is kept, and the same command goes on with it."
    )


class _Part:
    """The unfinished file and what is known of the version that it is of."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.file = target.with_name(target.name + ".part")
        self.stamp_file = target.with_name(target.name + ".part.json")

    def have(self) -> int:
        """Bytes so far."""
        return self.file.stat().st_size if self.file.is_file() and self.stamp_file.is_file() else 0

    def stamp(self) -> dict[str, Any]:
        """ETag, date and size of the version; empty if there is nothing to go on with."""
        try:
            stamp = json.loads(self.stamp_file.read_text())
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}

    def begin(self, stamp: dict[str, Any]) -> None:
        """Start from the first byte."""
        self.file.write_bytes(b"")
        atomic_write(self.stamp_file, json.dumps(stamp) + "\n")

    def forget(self) -> None:
        """Throw away what there is."""
        self.file.unlink(missing_ok=True)
        self.stamp_file.unlink(missing_ok=True)

    def finish(self) -> None:
        """The file is complete."""
        self.file.replace(self.target)
        self.stamp_file.unlink(missing_ok=True)


def _from_one(url: str, part: _Part, size: int | None, patience: Patience) -> None:
    """Fetch from one address, trying again as long as something comes.

    Raises:
        Unavailable: it does not work from here.
    """
    failures, pause, reason = 0, patience.pause, ""
    while True:
        before = part.have()
        try:
            _attempt(url, part, size, patience)
            return
        except Changed as error:
            log.warning("%s: %s; from the beginning", url, error)
            part.forget()
            failures, reason = failures + 1, str(error)
        except Broken as error:
            progressed, reason = part.have() > before, str(error)
            failures, pause = (0, patience.pause) if progressed else (failures + 1, pause)
            log.warning("%s: %s after %s; going on", url, error, _bytes(part.have()))
        if failures >= patience.tries:
            raise Unavailable(f"gave nothing new in {failures} attempts ({reason})")
        time.sleep(pause)
        pause = min(2 * pause, 60.0)


def _attempt(url: str, part: _Part, size: int | None, patience: Patience) -> None:
    """One request, from where the part ends to the end of the file.

    Raises:
        Broken, Changed, Unavailable: it did not get to the end.
    """
    start, stamp = part.have(), part.stamp()
    request = urllib.request.Request(url, headers=_headers(start, stamp))
    try:
        # a new opener each time: it takes the proxies of the environment when it is made
        response = urllib.request.build_opener().open(request, timeout=patience.timeout)
    except urllib.error.HTTPError as error:
        with error:
            _refused(error, part, start)
        return
    except (OSError, http.client.HTTPException) as error:  # URLError and time limits are OSErrors
        raise Broken(_reason(error)) from None
    except ValueError as error:
        raise Unavailable(f"no address ({error})") from None
    with response:
        total = _begin(response, part, start, stamp, size)
        _require_space(part.target, total, part.have())
        _receive(response, part, total, patience)
    if total is not None and part.have() != total:
        raise Broken(f"sent {part.have()} of {total} bytes")
    part.finish()


def _headers(start: int, stamp: dict[str, Any]) -> dict[str, str]:
    headers = {"User-Agent": f"lamkit/{lamkit.__version__}", "Accept-Encoding": "identity"}
    version = stamp.get("etag") or stamp.get("date")
    if start:
        headers["Range"] = f"bytes={start}-"
        if version:  # sends the whole file where it is another version by now
            headers["If-Range"] = version
    return headers


def _refused(error: urllib.error.HTTPError, part: _Part, start: int) -> None:
    """What an answer that is an error means.

    Raises:
        Broken, Changed, Unavailable: unless the part is complete already.
    """
    if error.code == 416 and start:  # nothing behind the part
        found = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if found and int(found[1]) == start:
            part.finish()
            return
        raise Changed("the file is shorter now")
    if error.code in (408, 425, 429, 500, 502, 503, 504):
        raise Broken(f"answers {error.code} {error.reason}")
    raise Unavailable(f"answers {error.code} {error.reason}")


def _begin(
    response: http.client.HTTPResponse, part: _Part, start: int, stamp: dict[str, Any], size: int | None
) -> int | None:
    """Check that the answer is the file, prepare the part, and return the size of the whole, if known.

    Raises:
        Changed, Unavailable: it is not what is wanted.
    """
    head = response.headers
    if (head.get("Content-Encoding") or "identity") != "identity":
        raise Unavailable(
            f"sends the file as {head['Content-Encoding']} only, which cannot be resumed or checked"
        )
    if head.get_content_type() == "text/html" and part.target.suffix not in (".html", ".htm"):
        raise Unavailable("sends a web page and not the file")
    length = int(head["Content-Length"]) if (head.get("Content-Length") or "").isdigit() else None
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", head.get("Content-Range", ""))
        if not found or int(found[1]) != start:
            raise Changed("the server sent another part than it was asked for")
        total = int(found[2]) if found[2] != "*" else None
        if stamp.get("size") not in (None, total):
            raise Changed(f"the file has {total} bytes now, it had {stamp['size']}")
        if _version(head) != {key: stamp.get(key) for key in ("etag", "date")}:
            raise Changed("the file changed at the server")
    else:
        total = length
        if start:
            log.warning("the server starts from the beginning (the file changed, or it cannot resume)")
        if size is None or total in (None, size):
            part.begin({**_version(head), "size": total})
    if size is not None and total is not None and total != size:
        raise Unavailable(f"has a file of {total} bytes; the head's YAML says {size}")
    return total if total is not None else size


def _version(head: Any) -> dict[str, str | None]:
    """What tells one version of a file from the next; weak ETags do not."""
    etag = head.get("ETag")
    return {"etag": etag if etag and not etag.startswith("W/") else None, "date": head.get("Last-Modified")}


def _receive(response: http.client.HTTPResponse, part: _Part, total: int | None, patience: Patience) -> None:
    """Append what comes to the part.

    Raises:
        Broken: it stopped, or comes too slowly to be waited for.
    """
    mebi = 1 << 20
    window, window_bytes = time.monotonic(), 0
    have = part.have()
    with open(part.file, "ab") as out, Progress(None if total is None else total // mebi, "MiB") as progress:
        progress.first = have // mebi
        while True:
            try:
                block = response.read1(BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise Broken(_reason(error)) from None
            if not block:
                return
            out.write(block)
            have += len(block)
            window_bytes += len(block)
            progress.update(have // mebi, part.target.name)
            now = time.monotonic()
            if now - window > patience.timeout:
                if window_bytes < SLOWEST * (now - window) and (total is None or have < total):
                    raise Broken(f"only {_bytes(window_bytes)} in {now - window:.0f} s")
                window, window_bytes = now, 0


def _require_space(target: Path, total: int | None, have: int) -> None:
    """Stop before the disk is full.

    Raises:
        UserError: it would be.
    """
    free = shutil.disk_usage(target.parent).free
    if total is not None and total - have + MARGIN > free:
        raise UserError(
            f"{target}: needs {_bytes(total - have)} more, and {target.parent} has {_bytes(free)} left; "
            "choose another --out, or free some space and call again"
        )


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError) or "timed out" in str(inner):
        return "no data within the time limit"
    return str(inner) or type(inner).__name__


def _bytes(n: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= scale:
            return f"{n / scale:.3g} {unit}"
    return f"{n} bytes"
