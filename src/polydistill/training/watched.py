"""What a training of a student has around its loop: records, evaluations, checkpoints, and those who watch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polydistill.errors import UserError
from polydistill.training.callbacks import Callback, Record
from polydistill.training.folder import RunFolder
from polydistill.training.stopping import Stop

METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"

#: Updates done -> per-task evaluation entries of ``metrics.jsonl``.
Evaluate = Callable[[int], dict[str, Record]]


@dataclass(kw_only=True)
class Watched(ABC):
    """A training whose loop its subclass drives.

    Attributes:
        log_seconds: Seconds between records in ``metrics.jsonl``.
        evaluate_every: Updates between evaluations; 0: none while training.
        checkpoint_seconds: Seconds between checkpoints.
        seconds: Seconds of all sittings together.
    """

    folder: RunFolder
    evaluate: Evaluate
    callbacks: Sequence[Callback] = ()
    log_seconds: float = 5.0
    evaluate_every: int = 0
    checkpoint_seconds: float = 180.0
    seconds: float = 0.0
    _evaluated: int = field(default=0, init=False)

    @property
    @abstractmethod
    def updates(self) -> int:
        """Updates done."""

    @property
    @abstractmethod
    def control_steps(self) -> int:
        """Control steps of all tasks together."""

    @abstractmethod
    def save(self) -> Path:
        """Write a checkpoint.

        Raises:
            UserError: it cannot be written; the earlier ones are untouched.
        """

    def when(self) -> Record:
        """Seconds of all sittings, updates, control steps of all tasks: what every record begins with."""
        return {"seconds": round(self.seconds, 2), "updates": self.updates, "control_steps": self.control_steps}

    def _wants_stop(self) -> bool:
        """Every callback is asked after every update."""
        return False in [c.on_step(self.updates) for c in self.callbacks]

    def _due(self) -> bool:
        """Whether it is time for an evaluation."""
        return bool(self.evaluate_every) and self.updates - self._evaluated >= self.evaluate_every

    def _evaluate(self, stop: Stop) -> None:
        """An evaluation; a signal cuts it short, and it counts as not done."""
        with stop.cutting():
            entries = self.evaluate(self.updates)
        if stop.asked:
            return
        self._evaluated = self.updates
        self._record("on_evaluation", {"kind": "eval", **self.when(), "tasks": entries})

    def _save_or_say(self) -> None:
        try:
            self.save()
        except UserError as error:
            self._tell("on_message", f"{error}; trying again in {self.checkpoint_seconds:.0f} seconds")

    def _record(self, event: str, record: Record) -> None:
        self.folder.append(METRICS, record)
        self._tell(event, record)

    def _tell(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*arguments)
