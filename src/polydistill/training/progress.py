"""What a person sees while a run goes on: a live bar in a terminal, plain lines anywhere else."""

from __future__ import annotations

import math
import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from polydistill.training.callbacks import Callback, Record


def duration(seconds: float) -> str:
    """``1h 02m``, ``3m 20s`` or ``12s``."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s" if minutes else f"{rest}s"


def describe(record: Record, percent: dict[str, float], left: float) -> str:
    """One line: rates, loss, agreement per task, last evaluation in % of teacher, time left."""
    seen = {name: task["agreement"] for name, task in record["tasks"].items() if task["agreement"] is not None}
    agreement = " ".join(f"{name} {100 * share:.0f}%" for name, share in seen.items())
    parts = [
        f"{record['control_steps_per_s']:,.0f} control steps/s",
        f"{record['updates_per_s']:,.1f} updates/s",
        f"loss {record['loss']:.4f}",
        f"agreement {agreement}",
    ]
    if percent:
        parts.append("of teacher " + " ".join(f"{name} {p:.0f}%" for name, p in percent.items()))
    return " | ".join([*parts, f"{duration(left)} left"])


class Display(Callback):
    """Progress of a run on ``stream``.

    Args:
        every: Seconds between plain lines when the stream is not a terminal.
    """

    def __init__(self, stream: TextIO | None = None, every: float = 15.0):
        self._stream = stream or sys.stderr
        self._every = every
        self._percent: dict[str, float] = {}
        self._total = 1
        self._last = -math.inf
        self._bar: Progress | None = None

    def on_start(self, total_updates: int, tasks: list[str]) -> None:
        self._total = total_updates
        if self._stream.isatty():
            columns = (
                TextColumn("{task.completed:,}/{task.total:,} updates"),
                BarColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, console=Console(file=self._stream))
            self._task = self._bar.add_task("filling the memories", total=total_updates)
            self._bar.start()

    def on_log(self, record: Record) -> None:
        begun = record["updates"] > 1  # the first update comes after the memories were filled: no rate yet
        left = (self._total - record["updates"]) / max(record["updates_per_s"], 1e-9) if begun else math.inf
        text = describe(record, self._percent, left)
        if self._bar is not None:
            self._bar.update(self._task, completed=record["updates"], description=text.replace(" | ", "\n"))
        elif time.monotonic() - self._last > self._every:
            self._last = time.monotonic()
            self._print(f"{record['updates']:,}/{self._total:,} updates | {text}")

    def on_evaluation(self, record: Record) -> None:
        self._percent = {n: t["percent"] for n, t in record["tasks"].items() if t.get("percent") is not None}
        scores = ", ".join(f"{n} {t['score']:.1f} (teacher {t['teacher']:.1f})" for n, t in record["tasks"].items())
        self._print(f"evaluation after {record['updates']:,} updates: {scores}")

    def on_message(self, text: str) -> None:
        self._print(text)

    def on_end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        else:
            print(text, file=self._stream, flush=True)


class Live:
    """A bar that renews itself in a terminal, plain lines anywhere else; use it in a ``with``.

    Args:
        unit: What is counted.
    """

    def __init__(self, unit: str, stream: TextIO | None = None):
        self._unit, self._stream = unit, stream or sys.stdout
        columns = (
            TextColumn(f"{{task.completed:,}}/{{task.total:,}} {unit}"),
            BarColumn(),
            TextColumn("{task.description}"),
        )
        self._bar = Progress(*columns, console=Console(file=self._stream)) if self._stream.isatty() else None
        self._task: TaskID | None = None

    def __enter__(self) -> Live:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, completed: int, total: int, text: str) -> None:
        """How far it is; ``text`` holds facts between ``|``."""
        if self._bar is None:
            self.say(f"{completed:,}/{total:,} {self._unit} | {text}")
            return
        if self._task is None:
            self._task = self._bar.add_task("", total=total)
        self._bar.update(self._task, completed=completed, total=total, description=text.replace(" | ", "\n"))

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
