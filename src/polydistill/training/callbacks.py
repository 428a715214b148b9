"""Who watches a run: anything with some of these methods."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Callback:
    """Base with methods that do nothing; override what you need. Records are the lines of ``metrics.jsonl``."""

    def on_start(self, total_updates: int, tasks: list[str]) -> None:
        """The run begins (or goes on)."""

    def on_step(self, updates: int) -> bool | None:
        """After every update. Return False to stop the run, with a checkpoint."""

    def on_log(self, record: Record) -> None:
        """Every few seconds: ``kind == "train"``."""

    def on_evaluation(self, record: Record) -> None:
        """After every evaluation: ``kind == "eval"``."""

    def on_checkpoint(self, path: Path) -> None:
        """A checkpoint is complete at ``path``."""

    def on_message(self, text: str) -> None:
        """Something the user should read once."""

    def on_end(self) -> None:
        """The run is over, for whatever reason."""


def tell(callbacks: Iterable[Callback], text: str) -> None:
    """Say something to every one of them."""
    for callback in callbacks:
        callback.on_message(text)
