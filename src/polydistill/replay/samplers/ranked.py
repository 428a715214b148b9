"""Rank-based prioritised replay (Schaul et al. 2016): the r-th largest priority is drawn in proportion to r^-alpha."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from polydistill.errors import UserError
from polydistill.replay.priorities import Insertion, uniform
from polydistill.replay.ranked_queues import RankedQueues
from polydistill.replay.samplers.base import Draw
from polydistill.replay.slots import as_slots, as_values, whole
from polydistill.replay.state import State
from polydistill.settings import Settings


class RankedSettings(Settings):
    """What :func:`make` takes.

    Attributes:
        alpha: Exponent of the law; 0 is uniform.
        draws: ``independent``; or ``stratified``: one from each of n parts of equal probability, so that minibatches
            vary less. With both, an experience's expected share of the minibatch is exactly its ``prob``.
        insertion: First priority of an experience (``polydistill.replay.priorities.Insertion``).
        staleness: How much may be drawn at once (``polydistill.replay.ranked_queues.RankedQueues``), as a share of what
            is stored: below 64,000 experiences and 32 draws a minibatch, nothing is late with 0.001. 0: nothing ever.
    """

    alpha: float = Field(ge=0)
    draws: Literal["independent", "stratified"]
    insertion: Insertion
    staleness: float = Field(ge=0, lt=1)


_WHOLE = np.ones(1)  # the one queue is drawn with probability 1


class Ranked:
    """Draws by exact rank. The oldest leaves first.

    Args:
        capacity: Experiences kept at most.
        slots: Slot numbers are 0 .. slots - 1.
        settings: The law.
    """

    def __init__(self, capacity: int, slots: int, settings: RankedSettings) -> None:
        self.capacity, self.slots, self.settings = capacity, slots, settings
        self._queues = RankedQueues(1, capacity, slots, settings.alpha, settings.insertion, settings.staleness)

    def put(self, slots: np.ndarray, value: np.ndarray, priority: np.ndarray | None = None) -> np.ndarray:
        """Take in free slots; the value plays no part. Raises UserError for bad ones; nothing is changed then."""
        slots = as_slots(slots)
        as_values(value, len(slots))
        first = self._queues.first(slots, priority)
        return self._queues.put(slots, np.zeros(len(slots), np.int64), first)

    def drop(self, n: int) -> np.ndarray:
        """Evict the ``n`` oldest."""
        return self._queues.drop(whole(n))

    def draw(self, rng: np.random.Generator, n: int) -> Draw:
        """Draw ``n`` slots with replacement. Raises UserError when nothing is stored."""
        if not len(self):
            raise UserError("the memory is empty: collect before drawing")

        slots, prob, _ = self._queues.draw(rng, whole(n), _WHOLE, self._choose)
        return Draw(slots, prob)

    def _choose(self, rng: np.random.Generator, k: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(k * n, np.int64), uniform(rng, k, n, self.settings.draws)

    def update(self, slots: np.ndarray, priority: np.ndarray) -> None:
        """New priorities. Raises UserError for bad priorities and for slots that are not stored; nothing is changed."""
        self._queues.update(slots, priority)

    def filled(self) -> np.ndarray:
        """Filled slots, oldest first."""
        return self._queues.filled()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._queues.nbytes

    def __len__(self) -> int:
        return len(self._queues)

    def state(self) -> State:
        """The queue, a priority per slot, the largest priority seen."""
        return self._queues.state()

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace what is here by a saved state. Raises UserError where it does not fit or is damaged."""
        self._queues.load_state(state, "sampler ranked")

    def check(self) -> None:
        """Raise AssertionError if an invariant broke."""
        self._queues.check()


def nbytes(capacity: int, slots: int, **settings: Any) -> int:
    """Bytes that :func:`make` would hold. Raises UserError for a bad setting."""
    RankedSettings.parse(settings, "sampler ranked")
    return RankedQueues.bytes_of(1, capacity, slots)


def make(
    capacity: int,
    slots: int,
    alpha: float = 0.7,  # Schaul et al. 2016, table 3, rank-based
    draws: str = "independent",
    insertion: str = "exact",
    staleness: float = 0.001,
) -> Ranked:
    """A :class:`Ranked`; the settings are explained at :class:`RankedSettings`. Raises UserError for a bad one."""
    given = {"alpha": alpha, "draws": draws, "insertion": insertion, "staleness": staleness}
    return Ranked(capacity, slots, RankedSettings.parse(given, "sampler ranked"))
