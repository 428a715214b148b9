"""Driving the loop: when to log, evaluate, save and stop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from polydistill.errors import UserError
from polydistill.optim import flatten_optimizer, restore_optimizer
from polydistill.training import checkpoint
from polydistill.training.collect import Actor
from polydistill.training.distil import Progress, Rectangle, Schedule, distil, refill_steps
from polydistill.training.learner import Learner
from polydistill.training.records import Meter
from polydistill.training.stopping import stop_on_signal
from polydistill.training.watched import CHECKPOINTS, METRICS, Watched


@dataclass(kw_only=True)
class Run(Watched):
    """One distillation: its parts, its counters, and when what happens."""

    actors: Sequence[Actor]
    learner: Learner
    rectangle: Rectangle
    schedule: Schedule
    rng: np.random.Generator
    _progress: Progress = field(default_factory=Progress, init=False)

    @property
    def names(self) -> list[str]:
        return [a.env.task.name for a in self.actors]

    @property
    def updates(self) -> int:
        return self.learner.updates

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
        if self.updates >= total:
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
                    if self._wants_stop():
                        stop.asked = True
                    if stop.asked or self.updates >= total:
                        break
                    if now - meter.since > self.log_seconds:
                        self._record("on_log", meter.record(now))
                    if self._due():
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
        return self.updates >= total

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
        path = checkpoint.save(self.folder.path / CHECKPOINTS, self.updates, tensors, state)
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
