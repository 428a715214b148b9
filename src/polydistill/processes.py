"""``polydistill`` commands as processes of their own, to which signals are passed on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType
from typing import IO, Any


class Children:
    """Processes in process groups of their own: SIGINT and SIGTERM reach them through this one, once each.

    Attributes:
        stopped: A signal came; nothing is started any more.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._running: list[subprocess.Popen[str]] = []  # a signal to one that ended does nothing
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Children:
        try:
            for number in (int(signal.SIGINT), int(signal.SIGTERM)):
                self._old[number] = signal.signal(number, self._pass_on)
        except ValueError:
            pass  # not the main thread
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def start(
        self, arguments: Sequence[str], cores: Sequence[int] = (), stdout: int | IO[str] | None = None
    ) -> subprocess.Popen[str]:
        """Start ``polydistill`` with these arguments.

        Args:
            cores: It runs on these alone, with one thread of arithmetic for each; all, if empty.
            stdout: As in :class:`subprocess.Popen`; with it, errors go there too.
        """
        environment = dict(os.environ)
        if cores:
            environment["OMP_NUM_THREADS"] = str(len(cores))
        process = subprocess.Popen(
            [sys.executable, "-m", "polydistill.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT if stdout is not None else None,
            text=True,
            env=environment,
            process_group=0,
        )
        if cores:
            os.sched_setaffinity(process.pid, cores)
        self._running.append(process)
        if self.stopped:  # the signal may have come while the process was being started
            process.send_signal(signal.SIGTERM)
        return process

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        for process in self._running:
            process.send_signal(number)
