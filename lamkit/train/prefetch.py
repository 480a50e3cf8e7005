"""Batches made ahead in a thread while the network computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator

from lamkit.data.sampler import Draw

AHEAD = 3


def prefetch(make: Callable[[int], Draw], first: int, last: int) -> Generator[Draw, None, None]:
    """Draws ``make(first)`` … ``make(last − 1)`` in order; an error in ``make`` is raised here.

    Closing the iterator stops the thread.
    """
    items: queue.Queue[Draw | BaseException | None] = queue.Queue(maxsize=AHEAD)
    stopped = threading.Event()

    def put(item: Draw | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                items.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for step in range(first, last):
                if not put(make(step)):
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, which raises it
            put(error)

    thread = threading.Thread(target=work, name="lamkit-batches", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join(timeout=5)
