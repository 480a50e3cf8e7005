"""Ctrl-C and SIGTERM (Slurm's warning) end a run at the next safe place instead of in the middle of a step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from lamkit.console import log


class StopSignal:
    """Context manager: ``received`` becomes true at the first signal; a second one stops at once."""

    def __init__(self) -> None:
        self.received = False
        self._old: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        log.warning("stopping after this step and saving; once more to stop at once")
