"""A web server that misbehaves on request, for the tests of downloads."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server has and how it behaves.

    Attributes:
        content: bytes of the one file; every path gives it.
        etag: version tag; None sends none.
        break_after: bytes after which a connection is cut, for so many requests.
        breaks: how many requests are cut.
        ranges: whether it can resume.
        announce: Content-Length that it states, if not the true one.
        status: answer to everything, if not a file.
        hang: seconds of silence before each answer.
        kind: Content-Type.
        requests: Range header of each request, or None.
    """

    content: bytes
    etag: str | None = '"v1"'
    break_after: int | None = None
    breaks: int = 0
    ranges: bool = True
    announce: int | None = None
    status: int = 200
    hang: float = 0.0
    kind: str = "application/octet-stream"
    requests: list[str | None] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def log_message(self, *words: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        site = self.site
        wanted = self.headers.get("Range")
        site.requests.append(wanted)
        time.sleep(site.hang)
        if site.status != 200:
            self.send_error(site.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.ranges else 0
        if start and self.headers.get("If-Range") not in (None, site.etag):
            start = 0
        if start >= len(site.content) and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(site.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = site.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
        if site.etag:
            self.send_header("ETag", site.etag)
        self.send_header("Content-Type", site.kind)
        self.send_header("Content-Length", str(site.announce or len(body)))
        self.end_headers()
        if site.break_after is not None and site.breaks > 0:
            site.breaks -= 1
            body = body[: site.break_after]
            self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.write(body)


@contextlib.contextmanager
def serve(site: Site):
    """Address of a running server of ``site``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": site}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/data.bin"
    finally:
        server.shutdown()
        server.server_close()
