"""What a run writes down as it goes: the ``train`` records of ``metrics.jsonl``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from polydistill.algorithms.policy_distillation import Loss
from polydistill.replay.samplers import Sampler
from polydistill.training.callbacks import Record

if TYPE_CHECKING:
    from polydistill.training.run import Run


class Meter:
    """Sums on the device between two records, so that no update waits for a number to be printed."""

    def __init__(self, run: Run):
        self._run = run
        self.restart()

    def restart(self) -> None:
        """Forget; count rates from now on."""
        self.since = time.monotonic()
        self._from = self._run.learner.updates, self._run.control_steps
        self._sums: dict[str, Tensor] = {}  # [G]
        self._n = [0] * len(self._run.actors)

    @property
    def filled(self) -> bool:
        """Whether there is an update to report."""
        return any(self._n)

    def add(self, loss: Loss) -> None:
        """Take in one update."""
        rows = list(range(len(self._n)) if loss.tasks is None else loss.tasks)
        for name, mean in {"loss": loss.per_example.detach().mean(-1), **loss.metrics}.items():
            if name not in self._sums:
                self._sums[name] = torch.zeros(len(self._n), dtype=mean.dtype, device=mean.device)
            self._sums[name][rows] += mean
        for g in rows:
            self._n[g] += 1

    def record(self, now: float) -> Record:
        """The ``train`` record of what was added since the last one; None for a task without an update."""
        run = self._run
        seen = [g for g, n in enumerate(self._n) if n]
        mean = {
            k: [x / n if n else None for x, n in zip(v.tolist(), self._n, strict=True)] for k, v in self._sums.items()
        }
        elapsed = max(now - self.since, 1e-9)
        tasks = {}
        for g, actor in enumerate(run.actors):
            tasks[run.names[g]] = {k: v[g] for k, v in mean.items()} | {
                "return": actor.mean_return,
                "memory": len(actor.memory),
                "memory_bytes": actor.memory.nbytes,
                "epsilon": actor.behaviour.epsilon(actor.control_steps),
            }
            if (told := telemetry(actor.memory.sampler)) is not None:
                tasks[run.names[g]]["partitions"] = told
        record = {
            "kind": "train",
            **run.when(),
            "loss": float(np.mean([mean["loss"][g] for g in seen])),
            "lr": run.learner.optimizer.param_groups[0]["lr"],
            "skipped": run.learner.skipped,
            "updates_per_s": (run.learner.updates - self._from[0]) / elapsed,
            "control_steps_per_s": (run.control_steps - self._from[1]) / elapsed,
            "tasks": tasks,
        }
        self.restart()
        return record


def histogram(values: np.ndarray, bins: int = 40) -> Record:
    """Counts of ``values`` in equal bins from their lowest to their highest, JSON-ready (Yin & Pan 2017, Fig. 2)."""
    counts, edges = np.histogram(values, bins)
    return {"low": float(edges[0]), "high": float(edges[-1]), "counts": counts.tolist()}


def telemetry(sampler: Sampler) -> Record | None:
    """What a sampler tells of its partitions since it was last asked, JSON-ready; None if it tells nothing."""
    tell = getattr(sampler, "telemetry", None)
    if tell is None:
        return None
    arrays: dict[str, np.ndarray] = tell()
    return {k: [x if np.isfinite(x) else None for x in np.atleast_1d(v).tolist()] for k, v in arrays.items()}
