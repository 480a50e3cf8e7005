"""What the user sees while LAMKit works: the log, progress with the time left, and plain tables.

Everything goes to stderr; stdout is kept for results (``--json``).
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger("lamkit")


class _Formatter(logging.Formatter):
    """Plain message for information; the level in front of anything worse."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


class _LogFile(logging.FileHandler):
    """A log file that does without its lines where the disk is full: what cannot be saved is told once, elsewhere."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the name that logging calls)
        """Nothing for a full disk; a traceback of every line would bury what is said of it."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close the file, with what has got into it."""
        with contextlib.suppress(OSError):
            super().close()


def setup(verbosity: int = 0) -> None:
    """Send the log to stderr. ``verbosity`` -1 warnings only, 0 normal, 1 debug.

    The level is that of the terminal: a run's ``train.log`` is complete however quiet the terminal is.
    """
    log.handlers.clear()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(message)s"))
    handler.setLevel({-1: logging.WARNING, 0: logging.INFO}.get(verbosity, logging.DEBUG))
    log.addHandler(handler)
    log.setLevel(min(handler.level, logging.INFO))
    log.propagate = False


def _shown() -> bool:
    """Whether information goes to the terminal."""
    return any(h.level <= logging.INFO for h in log.handlers if not isinstance(h, logging.FileHandler))


def log_to(path: str | Path) -> logging.Handler:
    """Also append the log, with times, to a file; returns the handler, to be given to :func:`log_off`."""
    handler = _LogFile(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    if log.getEffectiveLevel() > logging.INFO:  # used from Python, without the command line
        log.setLevel(logging.INFO)
    return handler


def log_off(handler: logging.Handler) -> None:
    """Stop logging to the file of :func:`log_to`."""
    log.removeHandler(handler)
    handler.close()


def duration(seconds: float) -> str:
    """``75`` → ``1:15``; ``4000`` → ``1:06:40``."""
    seconds = int(max(seconds, 0))
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """A plain table: first column to the left, numbers to the right, two blanks between."""
    cells = [[str(h) for h in headers], *[["" if c is None else str(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    right = [i > 0 and all(_numeric(row[i]) for row in cells[1:]) for i in range(len(headers))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)
        ).rstrip()

    return "\n".join([line(cells[0]), "  ".join("-" * w for w in widths), *map(line, cells[1:])])


def _numeric(text: str) -> bool:
    return text in ("", "-", "–") or text.lstrip("+-").replace(".", "", 1)[:1].isdigit()


class Progress:
    """Progress with an estimate of the time left: a bar on a terminal, a line now and then in a file.

    Use as a context manager and call ``update(done, text)``. ``total`` may be None when it is not known.
    """

    def __init__(self, total: int | None, label: str, *, every: float = 15.0) -> None:
        self.total, self.label, self.every = total, label, every
        self.start = self.last = time.monotonic()
        self.first = 0
        self._bar: Any = None  # rich is imported only on a terminal
        self._task: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and _shown():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = [
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
            ]
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self.label, total=self.total, text="")
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, text: str = "", *, left: float | None = None) -> None:
        """Report that ``done`` of ``total`` are finished; cheap to call at every step.

        Args:
            done: how many.
            text: what else to show.
            left: seconds that are left at most, where a time limit may end the work earlier.
        """
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=self._times(done, text, left))
            return
        now = time.monotonic()
        if now - self.last < self.every:
            return
        self.last = now
        of = f"/{self.total}" if self.total else ""
        log.info("%s %d%s, %s", self.label, done, of, self._times(done, text, left))

    def _times(self, done: int, text: str, limit: float | None) -> str:
        """``1:20 so far, 3:10 left  text``."""
        spent = time.monotonic() - self.start
        left = math.inf if limit is None else limit
        if self.total and done > self.first:
            left = min(left, spent / (done - self.first) * (self.total - done))
        shown = f", {duration(left)} left" if math.isfinite(left) else ""
        return f"{duration(spent)} so far{shown}{'  ' + text if text else ''}"
