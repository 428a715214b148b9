"""Proportional prioritised replay (Schaul et al. 2016): drawn in proportion to (priority + epsilon)^alpha."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from polydistill.errors import UserError
from polydistill.replay.priorities import Insertion, Priorities, sane_largest, uniform
from polydistill.replay.queues import Queues
from polydistill.replay.samplers.base import Draw
from polydistill.replay.slots import (
    as_numbers,
    as_slots,
    as_values,
    require_free,
    require_stored,
    whole,
)
from polydistill.replay.state import State, nest, require, unnest
from polydistill.replay.sum_tree import SumTree
from polydistill.settings import Settings


class ProportionalSettings(Settings):
    """What :func:`make` takes.

    Attributes:
        alpha: Exponent of the law; 0 is uniform.
        epsilon: Added to every priority, so that a priority of 0 is drawn now and then.
        draws: ``independent``; or ``stratified``: one from each of n parts of equal probability, so that minibatches
            vary less. With both, an experience's expected share of the minibatch is exactly its ``prob``.
        insertion: First priority of an experience (``polydistill.replay.priorities.Insertion``).
    """

    alpha: float = Field(ge=0, le=10)
    epsilon: float = Field(ge=1e-12)
    draws: Literal["independent", "stratified"]
    insertion: Insertion


class Proportional:
    """Draws by a sum tree; a new priority counts from the next draw on. The oldest leaves first.

    Args:
        capacity: Experiences kept at most.
        slots: Slot numbers are 0 .. slots - 1.
        settings: The law.
    """

    def __init__(self, capacity: int, slots: int, settings: ProportionalSettings) -> None:
        self.capacity, self.slots, self.settings = capacity, slots, settings
        self._queue = Queues(1, capacity)
        self._tree = SumTree(slots)
        self._priorities = Priorities(settings.insertion)

    def _mass(self, priority: np.ndarray) -> np.ndarray:
        return np.asarray((priority.astype(np.float64) + self.settings.epsilon) ** self.settings.alpha)

    def put(self, slots: np.ndarray, value: np.ndarray, priority: np.ndarray | None = None) -> np.ndarray:
        """Take in free slots; the value plays no part. Raises UserError for bad ones; nothing is changed then."""
        slots = as_slots(slots)
        n = len(slots)
        require_free(slots, len(self), self.slots, self._is_stored)
        as_values(value, n)
        first = self._priorities.first(n, None if priority is None else as_numbers(priority, n, "priorities"))
        gone = []
        for part in (slice(i, i + self.capacity) for i in range(0, n, self.capacity)):
            gone.append(self._queue.push(slots[part], np.zeros(len(slots[part]), np.int64)))
        self._tree.set(slots, self._mass(first))
        return self._leave(np.concatenate([np.zeros(0, np.int64), *gone]))

    def _is_stored(self, slots: np.ndarray) -> np.ndarray:
        return self._tree.get(slots) > 0

    def _leave(self, gone: np.ndarray) -> np.ndarray:
        if len(gone):
            self._tree.set(gone, np.zeros(len(gone)))
        return gone

    def drop(self, n: int) -> np.ndarray:
        """Evict the ``n`` oldest."""
        return self._leave(self._queue.drop(whole(n)))

    def draw(self, rng: np.random.Generator, n: int) -> Draw:
        """Draw ``n`` slots with replacement. Raises UserError when nothing is stored."""
        if not len(self):
            raise UserError("the memory is empty: collect before drawing")
        total = self._tree.total
        slots = self._tree.find(uniform(rng, 1, whole(n), self.settings.draws) * total)
        return Draw(slots, self._tree.get(slots) / total)

    def update(self, slots: np.ndarray, priority: np.ndarray) -> None:
        """New priorities. Raises UserError for bad priorities and for slots that are not stored; nothing is changed."""
        slots = as_slots(slots)
        priority = as_numbers(priority, len(slots), "priorities")
        require_stored(slots, self.slots, self._is_stored)
        self._tree.set(slots, self._mass(self._priorities.checked(priority)))

    def filled(self) -> np.ndarray:
        """Filled slots, oldest first."""
        return self._queue.filled()[0]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._queue.nbytes + self._tree.nbytes

    def __len__(self) -> int:
        return len(self._queue)

    def state(self) -> State:
        """The queue, a mass per slot, the largest priority seen."""
        own: State = {"mass": np.zeros(self.slots), "largest": np.array(self._priorities.largest)}
        own["mass"][self.filled()] = self._tree.get(self.filled())
        return own | nest("queue", self._queue.state())

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace what is here by a saved state. Raises UserError where it does not fit or is damaged."""
        where = "sampler proportional"
        require(state, {"mass": np.zeros(self.slots), "largest": np.zeros(())}, where)
        mass, saved = state["mass"], Queues(1, self.capacity)
        saved.load_state(unnest("queue", state), self.slots, where)
        slots, _ = saved.filled()
        if not (np.isfinite(mass) & (mass >= 0)).all() or not (mass[slots] > 0).all():
            raise UserError(f"{where}: the saved state is damaged (a mass is NaN, infinite, negative or missing)")
        self._priorities.largest = sane_largest(state["largest"], where)
        self._queue = saved
        self._tree.clear()
        self._tree.set(slots, mass[slots])

    def check(self) -> None:
        """Raise AssertionError if an invariant broke."""
        self._queue.check(self.slots)
        self._tree.check()
        if not np.array_equal(np.sort(self.filled()), np.flatnonzero(self._is_stored(np.arange(self.slots)))):
            raise AssertionError("proportional: the slots in the queue are not those with a mass")


def nbytes(capacity: int, slots: int, **settings: Any) -> int:
    """Bytes that :func:`make` would hold. Raises UserError for a bad setting."""
    ProportionalSettings.parse(settings, "sampler proportional")
    return Queues.bytes_of(1, capacity) + SumTree.bytes_of(slots)


def make(
    capacity: int,
    slots: int,
    alpha: float = 0.6,  # Schaul et al. 2016, table 3, proportional
    epsilon: float = 1e-6,
    draws: str = "independent",
    insertion: str = "exact",
) -> Proportional:
    """A :class:`Proportional`; :class:`ProportionalSettings` explains the settings. Raises UserError for a bad one."""
    given = {"alpha": alpha, "epsilon": epsilon, "draws": draws, "insertion": insertion}
    return Proportional(capacity, slots, ProportionalSettings.parse(given, "sampler proportional"))
