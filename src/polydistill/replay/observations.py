"""What was seen of one task and nothing else: for whoever asks a teacher anew each time."""

from __future__ import annotations

import numpy as np

from polydistill.errors import UserError
from polydistill.replay import samplers
from polydistill.replay.experiences import Experiences
from polydistill.replay.sizing import frame_bytes, index_bytes, parse_size, plan_capacity
from polydistill.replay.stacks import Stacks
from polydistill.tasks import Task


class Observations:
    """First in, first out, drawn uniformly. No output of a teacher is kept, so none can grow stale.

    Args:
        task: What is seen.
        streams: Copies of the task.
        capacity: Observations kept at most.
        size: Bytes kept at most, e.g. ``1GB``.

    Attributes:
        shown: Observations appended since it was empty; those that have left are counted.

    Raises:
        UserError: more than this machine has free, or it cannot hold one observation of each copy.
    """

    def __init__(self, task: Task, streams: int, capacity: int, size: str):
        self.task, self.streams = task, streams
        plan = plan_capacity(parse_size(size), 1, frame_bytes(task) + index_bytes(task.stack, 0), capacity)
        if plan.capacity < streams:
            raise UserError(
                f"a memory of {plan.capacity:,} observations cannot hold one of each of {streams} copies of "
                f"{task.name}: give a larger capacity"
            )
        self.capacity, self._budget = plan.capacity, plan.budget_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        stacks = Stacks(self.task.obs_shape, self.task.stack, np.dtype(self.task.obs_dtype), self.streams)
        uniform = samplers.make("uniform", self.capacity, self.capacity + self.streams)
        self._table, self.shown = Experiences(stacks, uniform, self.task.stack, {}, self._budget), 0

    def append(self, obs: np.ndarray, start: np.ndarray | None = None) -> None:
        """Store one observation of each copy, ``[streams, *obs_shape]``; ``start`` as in :meth:`Stacks.write`.

        Raises:
            UserError: wrong dtype or shape; nothing is stored.
        """
        ids = self._table.stacks.write(obs, start)
        self._table.put(ids, {}, np.zeros(len(ids)))
        self.shown += len(ids)

    def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw ``[n, *obs_shape]`` with replacement. Raises UserError when nothing is stored."""
        return self._table.observations(self._table.sampler.draw(rng, n).slots)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def nbytes(self) -> int:
        """Bytes held, everything included."""
        return self._table.nbytes

    def check(self) -> None:
        """Raise AssertionError if an invariant broke. Slow."""
        self._table.check()
