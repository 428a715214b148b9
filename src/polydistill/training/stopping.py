"""A stop that is asked for: by a signal, or by whoever holds it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass
class Stop:
    """Set by a signal; the loop stops at its next step.

    Attributes:
        at_once: While true the signal raises KeyboardInterrupt instead of waiting: for work that may be thrown away.
    """

    asked: bool = False
    at_once: bool = False

    @contextmanager
    def cutting(self) -> Iterator[None]:
        """Work that a signal cuts short: its block is left at once, and ``asked`` is true after it."""
        self.at_once = True
        try:
            yield
        except KeyboardInterrupt:
            self.asked = True
        finally:
            self.at_once = False


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """The first SIGINT or SIGTERM asks for a stop, the second kills as usual. No effect outside the main thread."""
    stop = Stop()
    old: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        stop.asked = True
        signal.signal(number, old[number])
        if stop.at_once:
            raise KeyboardInterrupt

    try:
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            old[number] = signal.signal(number, handle)
    except ValueError:
        pass  # not the main thread
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
