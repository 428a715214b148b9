"""Every stored experience equally often; the oldest leaves first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from polydistill.errors import UserError
from polydistill.replay.priorities import Priorities
from polydistill.replay.samplers.base import Draw
from polydistill.replay.slots import (
    as_numbers,
    as_slots,
    as_values,
    require_free,
    require_stored,
    whole,
)
from polydistill.replay.state import State, require


class Uniform:
    """Uniform draws with replacement over a first-in first-out ring (Mnih et al. 2015, Methods).

    Args:
        capacity: Experiences kept at most.
        slots: Slot numbers are 0 .. slots - 1.
    """

    def __init__(self, capacity: int, slots: int) -> None:
        self.capacity, self.slots = capacity, slots
        self._ring = np.zeros(slots, np.int32)  # slot numbers in order of arrival
        self._stored = np.zeros(slots, bool)  # of each slot, whether it is in the ring
        self._first = 0  # place of the oldest
        self._count = 0

    def _take(self, n: int) -> np.ndarray:
        out = self._ring.take(np.arange(self._first, self._first + n), mode="wrap").astype(np.int64)
        self._first = (self._first + n) % self.slots
        self._count -= n
        self._stored[out] = False
        return out

    def _is_stored(self, slots: np.ndarray) -> np.ndarray:
        return self._stored[slots]

    def put(self, slots: np.ndarray, value: np.ndarray, priority: np.ndarray | None = None) -> np.ndarray:
        """Take in free slots; value and priority play no part. Raises UserError for bad ones, changing nothing."""
        slots = as_slots(slots)
        n = len(slots)
        require_free(slots, self._count, self.slots, self._is_stored)
        as_values(value, n)
        if priority is not None:
            _check(priority, n)
        self._stored[slots] = True
        self._ring[(self._first + self._count + np.arange(n)) % self.slots] = slots
        self._count += n
        return self._take(max(0, self._count - self.capacity))

    def drop(self, n: int) -> np.ndarray:
        """Evict the ``n`` oldest."""
        return self._take(min(whole(n), self._count))

    def draw(self, rng: np.random.Generator, n: int) -> Draw:
        """``prob`` is 1 / len(self) for each. Raises UserError when nothing is stored."""
        if not self._count:
            raise UserError("the memory is empty: collect before drawing")
        places = self._first + rng.integers(self._count, size=whole(n))
        return Draw(self._ring.take(places, mode="wrap").astype(np.int64), np.full(n, 1.0 / self._count))

    def update(self, slots: np.ndarray, priority: np.ndarray) -> None:
        """Nothing: priorities play no part. Raises UserError for bad ones and for slots that are not stored."""
        slots = as_slots(slots)
        require_stored(slots, self.slots, self._is_stored)
        _check(priority, len(slots))

    def filled(self) -> np.ndarray:
        """Filled slots, oldest first."""
        return self._ring.take(np.arange(self._first, self._first + self._count), mode="wrap").astype(np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._ring.nbytes + self._stored.nbytes

    def __len__(self) -> int:
        return self._count

    def state(self) -> State:
        """The ring, and where it begins and ends."""
        return {"ring": self._ring.copy(), "window": np.array([self._first, self._count, self.capacity], np.int64)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace what is here by a saved state. Raises UserError where it does not fit or is damaged."""
        require(state, self.state(), "sampler uniform")
        first, count, capacity = state["window"].tolist()
        if capacity != self.capacity:
            raise UserError(f"sampler uniform: the saved memory has capacity {capacity}, this one {self.capacity}")
        saved = Uniform(self.capacity, self.slots)
        saved._ring, saved._first, saved._count = state["ring"].copy(), first, count
        try:
            saved._check_ring()
        except AssertionError as broken:
            raise UserError(f"sampler uniform: the saved state is damaged ({broken})") from None
        saved._stored[saved.filled()] = True
        self._ring, self._first, self._count, self._stored = saved._ring, first, count, saved._stored

    def check(self) -> None:
        """Raise AssertionError if an invariant broke."""
        self._check_ring()
        if not np.array_equal(np.sort(self.filled()), np.flatnonzero(self._stored)):
            raise AssertionError("uniform: the slots in the ring are not those marked as stored")

    def _check_ring(self) -> None:
        if not 0 <= self._count <= self.capacity or not 0 <= self._first < self.slots:
            raise AssertionError(f"uniform: {self._count} stored from place {self._first} in {self.capacity}")
        slots = self.filled()
        if len(np.unique(slots)) != len(slots) or (len(slots) and not 0 <= slots.min() <= slots.max() < self.slots):
            raise AssertionError("uniform: a slot twice or out of range")


def nbytes(capacity: int, slots: int) -> int:
    """Bytes that :func:`make` would hold."""
    return (4 + 1) * slots


def _check(priority: np.ndarray, n: int) -> None:
    """Raise UserError unless these are ``n`` priorities."""
    Priorities("exact").checked(as_numbers(priority, n, "priorities"))


make = Uniform
