"""What is told of a multi-task DQN while it trains: lines of ``metrics.jsonl``, and lines for a person."""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from polydistill.algorithms.multi_dqn import MultiDQN, Update
from polydistill.training.callbacks import Record
from polydistill.training.learner import NotFiniteError
from polydistill.training.progress import Display, duration


class Meter:
    """Sums on the device between two records, so that no update waits for a number to be printed."""

    def __init__(self, learner: MultiDQN):
        self._learner = learner
        self.restart()

    def restart(self) -> None:
        """Forget; count rates from now on."""
        learner = self._learner
        self.since = time.monotonic()
        self._from = learner.updates, learner.control_steps
        self._sums = torch.zeros(2, len(learner.players), device=learner.device)  # [loss | q_mean, G]
        self._n = np.zeros(len(learner.players), np.int64)

    @property
    def filled(self) -> bool:
        """Whether there is an update to report."""
        return bool(self._n.any())

    def add(self, update: Update) -> None:
        """Take in one update."""
        rows = list(update.tasks)
        self._sums[:, rows] += torch.stack([update.loss, update.q_mean])
        self._n[rows] += 1

    def record(self, now: float, when: Record) -> Record:
        """The ``train`` record of what was added since the last one; None for a game without an update.

        Args:
            now: The clock, in seconds.
            when: What every record begins with.

        Raises:
            NotFiniteError: a loss is NaN or infinite.
        """
        learner = self._learner
        loss, q_mean = self._sums.cpu().numpy() / np.maximum(self._n, 1)
        if not np.isfinite(loss).all():
            raise NotFiniteError(
                f"the loss is NaN or infinite after {learner.updates:,} updates: start again with a smaller "
                "dqn.learning_rate"
            )
        elapsed = max(now - self.since, 1e-9)
        tasks = {
            task.name: {
                "loss": float(loss[g]) if self._n[g] else None,
                "q_mean": float(q_mean[g]) if self._n[g] else None,
                "return": float(np.mean(learner.finished[g])) if learner.finished[g] else None,
                "memory": len(learner.players[g].memory),
                "memory_bytes": learner.players[g].memory.nbytes,
                "epsilon": learner.epsilon(g),
                "control_steps": learner.task_steps[g],
                "updates": learner.task_updates[g],
            }
            for g, task in enumerate(learner.suite.tasks)
        }
        record = {
            "kind": "train",
            **when,
            "loss": float(np.mean(loss[self._n > 0])),
            "lr": learner.optimizer.param_groups[0]["lr"],
            "updates_per_s": (learner.updates - self._from[0]) / elapsed,
            "control_steps_per_s": (learner.control_steps - self._from[1]) / elapsed,
            "tasks": tasks,
        }
        self.restart()
        return record


class Lines(Display):
    """Plain lines: returns instead of the agreement with a teacher, control steps instead of updates."""

    def __init__(self, total_steps: int, every: float = 15.0):
        super().__init__(every=every)
        self._total_steps = total_steps

    def on_start(self, total_updates: int, tasks: list[str]) -> None:
        self._print(f"{' '.join(tasks)}: {self._total_steps:,} control steps, about {total_updates:,} updates")

    def on_log(self, record: Record) -> None:
        if time.monotonic() - self._last < self._every:
            return
        self._last = time.monotonic()
        returns = {n: t["return"] for n, t in record["tasks"].items() if t["return"] is not None}
        rate = record["control_steps_per_s"]
        left = (self._total_steps - record["control_steps"]) / rate if rate > 0 else math.inf
        parts = [
            f"{record['control_steps']:,}/{self._total_steps:,} control steps",
            f"{rate:,.0f}/s",
            f"{record['updates_per_s']:,.1f} updates/s",
            f"loss {record['loss']:.4f}",
            *(["return " + " ".join(f"{name} {x:.1f}" for name, x in returns.items())] if returns else []),
            f"{duration(left)} left",
        ]
        self._print(" | ".join(parts))

    def on_evaluation(self, record: Record) -> None:
        scores = ", ".join(
            f"{name} {t['score']:.1f}" + ("" if t["teacher"] is None else f" (teacher {t['teacher']:.1f})")
            for name, t in record["tasks"].items()
        )
        self._print(f"evaluation after {record['updates']:,} updates: {scores}")
