"""What a run shows: a live line per running stage on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from lamkit.console import duration, log
from lamkit.workflow import folder as stage_folder

_TAIL_BYTES = 4096
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f]")


def last_line(folder: Path) -> str:
    """Last line of a stage's log that says something; empty when there is none."""
    try:
        with open(folder / stage_folder.LOG, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    lines = [_CONTROL.sub("", line).strip() for line in re.split(r"[\r\n]", text)]
    return next((line for line in reversed(lines) if line), "")


class Screen:
    """Context manager for the time of a run; everything goes to stderr."""

    def __init__(self) -> None:
        self._live: Any = None

    def __enter__(self) -> Screen:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(stderr=True), transient=True, refresh_per_second=4, auto_refresh=False
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str, *, level: int = 20) -> None:
        """One lasting line (``level`` as in logging: 20 information, 40 error)."""
        if self._live is None:
            log.log(level, "%s", text)
        elif log.isEnabledFor(level):
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, running: Mapping[str, tuple[float, Path]]) -> None:
        """Redraw the live lines: stage id → seconds so far and folder."""
        if self._live is None:
            return
        from rich.text import Text

        lines = [
            f"  {name}  {duration(seconds)}  {last_line(folder)}"
            for name, (seconds, folder) in running.items()
        ]
        width = self._live.console.width
        self._live.update(Text("\n".join(line[: width - 1] for line in lines), no_wrap=True), refresh=True)
