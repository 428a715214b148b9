"""Driving a multi-task DQN: when to log, evaluate, save and stop. Its run's files are those of a distillation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from polydistill.algorithms.multi_dqn import MultiDQN
from polydistill.training import checkpoint
from polydistill.training.multi_records import Meter
from polydistill.training.stopping import stop_on_signal
from polydistill.training.watched import CHECKPOINTS, METRICS, Watched


@dataclass(kw_only=True)
class MultitaskRun(Watched):
    """One training: the learner, its clock, and when what happens.

    Attributes:
        total_steps: Control steps of all games together at which it ends.
    """

    learner: MultiDQN
    total_steps: int

    @property
    def names(self) -> list[str]:
        return [task.name for task in self.learner.suite.tasks]

    @property
    def updates(self) -> int:
        return self.learner.updates

    @property
    def control_steps(self) -> int:
        return self.learner.control_steps

    @property
    def over(self) -> bool:
        """Whether all control steps have been played."""
        return self.control_steps >= self.total_steps

    def drive(self) -> bool:
        """Train to the last control step, or to a stop asked for by a signal or a callback. True if it came to the end.

        Raises:
            NotFiniteError: the loss is NaN or infinite.
        """
        if self.over:
            return True
        learner, before = self.learner, self.seconds
        began = saved = time.monotonic()
        meter = Meter(learner)
        self._tell("on_start", self.planned_updates(), self.names)
        try:
            with stop_on_signal() as stop:
                for update in learner.run(lambda: stop.asked or self.over):
                    meter.add(update)
                    now = time.monotonic()
                    self.seconds = before + now - began
                    if self._wants_stop():
                        stop.asked = True
                    if stop.asked or self.over:
                        continue  # what is owed for the last control step is still learnt
                    evaluating = self._due()
                    saving = now - saved > self.checkpoint_seconds
                    if evaluating or saving or now - meter.since > self.log_seconds:  # no NaN is evaluated or saved
                        self._record("on_log", meter.record(now, self.when()))
                    if evaluating:
                        self._evaluate(stop)
                        meter.restart()
                    if saving:
                        self._save_or_say()
                        saved = time.monotonic()
                self.seconds = before + time.monotonic() - began
                if meter.filled:
                    self._record("on_log", meter.record(time.monotonic(), self.when()))
                self.save()
        finally:
            self._tell("on_end")
        return self.over

    def planned_updates(self) -> int:
        """Updates of the whole run, as near as can be told: games that take turns end their warm-ups at odd times."""
        s, games = self.learner.s, len(self.names)
        each = max(self.total_steps // games - s.learning_starts, 0) // s.update_period
        return each if self.learner.switch == "lockstep" else each * games

    def save(self) -> Path:
        """Write a checkpoint: both networks, optimiser, counters. The memories are filled again on resume.

        Raises:
            UserError: it cannot be written; the earlier ones are untouched.
        """
        tensors, counters = self.learner.state()
        state = {
            **self.when(), **counters, "evaluated": self._evaluated, "metrics_bytes": self.folder.size(METRICS),
        }  # fmt: skip
        parts = {"student": self.learner.student.state_dict(), **tensors}
        path = checkpoint.save(self.folder.path / CHECKPOINTS, self.updates, parts, state)
        self._tell("on_checkpoint", path)
        return path

    def resume(self) -> bool:
        """Go back to the newest checkpoint. False: there is none, start afresh.

        Raises:
            UserError: every checkpoint is damaged.
        """
        found = checkpoint.latest(self.folder.path / CHECKPOINTS)
        if found is None:
            self.folder.truncate(METRICS, 0)
            return False
        tensors, state = dict(found.tensors), found.state
        self.learner.student.load_state_dict(tensors.pop("student"))
        self.learner.load_state(tensors, state)
        self.seconds, self._evaluated = state["seconds"], state["evaluated"]
        self.folder.truncate(METRICS, state["metrics_bytes"])
        return True
