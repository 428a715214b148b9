"""Driving the loop: when to log, evaluate, save and stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polydistill.errors import UserError
from polydistill.optim import flatten_optimizer, restore_optimizer
from polydistill.training import checkpoint
from polydistill.training.callbacks import Callback, Record
from polydistill.training.collect import Actor
from polydistill.training.distil import Progress, Rectangle, Schedule, distil, refill_steps
from polydistill.training.folder import RunFolder
from polydistill.training.learner import Learner
from polydistill.training.records import Meter
from polydistill.training.stopping import Stop, stop_on_signal

METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"

#: Updates done, seed offset -> per-task evaluation entries of ``metrics.jsonl``.
Evaluate = Callable[[int], dict[str, Record]]


@dataclass
class Run:
    """One distillation: its parts, its counters, and when what happens.

    Attributes:
        log_seconds: Seconds between records in ``metrics.jsonl``.
        evaluate_every: Updates between evaluations; 0: none while training.
        checkpoint_seconds: Seconds between checkpoints.
    """

    folder: RunFolder
    actors: Sequence[Actor]
    learner: Learner
    rectangle: Rectangle
    schedule: Schedule
    rng: np.random.Generator
    evaluate: Evaluate
    callbacks: Sequence[Callback] = ()
    log_seconds: float = 5.0
    evaluate_every: int = 0
    checkpoint_seconds: float = 180.0
    seconds: float = 0.0  # of all sittings together
    _evaluated: int = field(default=0, init=False)
    _progress: Progress = field(default_factory=Progress, init=False)

    @property
    def names(self) -> list[str]:
        return [a.env.task.name for a in self.actors]

    @property
    def control_steps(self) -> int:
        """Control steps of all tasks together, without those that filled the memories again after a cut."""
        return sum(a.control_steps for a in self.actors)

    @property
    def refilled(self) -> int:
        """Control steps of all tasks together that filled the memories again after a cut."""
        return sum(a.refilled for a in self.actors)

    def drive(self) -> bool:
        """Run to the last update, or to a stop asked for by a signal or a callback. True if it came to the end."""
        total = self.schedule.total_updates
        if self.learner.updates >= total:
            return True
        began = saved = time.monotonic()
        before = self.seconds
        meter = Meter(self)
        self._tell("on_start", total, self.names)
        try:
            with stop_on_signal() as stop:
                parts = (self.actors, self.learner, self.rectangle, self.schedule, self.rng)
                for loss in distil(*parts, lambda: stop.asked, self._progress):
                    meter.add(loss)
                    now = time.monotonic()
                    self.seconds = before + now - began
                    if False in [c.on_step(self.learner.updates) for c in self.callbacks]:
                        stop.asked = True
                    if stop.asked or self.learner.updates >= total:
                        break
                    if now - meter.since > self.log_seconds:
                        self._record("on_log", meter.record(now))
                    if self.evaluate_every and self.learner.updates - self._evaluated >= self.evaluate_every:
                        self._evaluate(stop)
                        meter.restart()
                    if now - saved > self.checkpoint_seconds:
                        self._save_or_say()
                        saved = time.monotonic()
                self.seconds = before + time.monotonic() - began
                if meter.filled:
                    self._record("on_log", meter.record(time.monotonic()))
                self.save()
        finally:
            self._tell("on_end")
        return self.learner.updates >= total

    def _save_or_say(self) -> None:
        try:
            self.save()
        except UserError as error:
            self._tell("on_message", f"{error}; trying again in {self.checkpoint_seconds:.0f} seconds")

    def _evaluate(self, stop: Stop) -> None:
        """An evaluation; a signal cuts it short, and it counts as not done."""
        with stop.cutting():
            entries = self.evaluate(self.learner.updates)
        if stop.asked:
            return
        self._evaluated = self.learner.updates
        self._record("on_evaluation", {"kind": "eval", **self.when(), "tasks": entries})

    def when(self) -> Record:
        """Seconds of all sittings, updates, control steps of all tasks: what every record begins with."""
        return {"seconds": round(self.seconds, 2), "updates": self.learner.updates, "control_steps": self.control_steps}

    def _record(self, event: str, record: Record) -> None:
        self.folder.append(METRICS, record)
        self._tell(event, record)

    def _tell(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*arguments)

    def save(self) -> Path:
        """Write a checkpoint: weights, optimiser, counters and generators. The memories are filled again on resume.

        What is played for that is counted apart (``refilled``): the schedule goes on where it was.

        Raises:
            UserError: it cannot be written; the earlier ones are untouched.
        """
        optimizer = flatten_optimizer(self.learner.optimizer)
        state = {
            **self.when(),
            "evaluated": self._evaluated,
            "skipped": self.learner.skipped,
            "task_steps": [a.control_steps for a in self.actors],
            "task_refilled": [a.refilled for a in self.actors],
            "progress": {k: v for k, v in asdict(self._progress).items() if k != "refill"},
            "rng": checkpoint.generator_state(self.rng),
            "actor_rng": [checkpoint.generator_state(a.rng) for a in self.actors],
            "metrics_bytes": self.folder.size(METRICS),
        }
        tensors = {"student": self.learner.student.state_dict(), "optimizer": optimizer}
        if self.learner.beside is not None:
            tensors["beside"] = self.learner.beside.state_dict()
        path = checkpoint.save(self.folder.path / CHECKPOINTS, self.learner.updates, tensors, state)
        self._tell("on_checkpoint", path)
        return path

    def resume(self) -> bool:
        """Go back to the newest checkpoint. False: there is none, start afresh.

        Raises:
            UserError: every checkpoint is damaged, or the student's frozen layers (its teachers') are not these.
        """
        found = checkpoint.latest(self.folder.path / CHECKPOINTS)
        if found is None:
            self.folder.truncate(METRICS, 0)
            return False
        for name, own in self.learner.student.named_parameters():
            if not own.requires_grad and not torch.equal(own.cpu(), found.tensors["student"][name]):
                raise UserError(
                    f"{self.folder.path}: a teacher has changed since this run began ({name}); start a new run"
                )
        self.learner.student.load_state_dict(found.tensors["student"])
        if self.learner.beside is not None:
            self.learner.beside.load_state_dict(found.tensors["beside"])
        restore_optimizer(self.learner.optimizer, found.tensors.get("optimizer", {}))
        state = found.state
        self.learner.updates, self.learner.skipped = state["updates"], state["skipped"]
        self.seconds, self._evaluated = state["seconds"], state["evaluated"]
        checkpoint.restore_generator(self.rng, state["rng"])
        played = state["task_steps"]
        refilled = state.get("task_refilled", [0] * len(played))  # an older checkpoint has neither this ...
        for actor, steps, more, rng in zip(self.actors, played, refilled, state["actor_rng"], strict=True):
            actor.control_steps, actor.refilled = steps, more
            checkpoint.restore_generator(actor.rng, rng)
        self._progress = Progress(**state.get("progress", {"warmed": min(played)}))  # ... nor this: a new round begins
        self._progress.refill = [refill_steps(self.schedule, a.memory.capacity, a.control_steps) for a in self.actors]
        self.folder.truncate(METRICS, state["metrics_bytes"])
        return True
