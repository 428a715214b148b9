"""Every stored experience equally often; the oldest leaves first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from polydistill.errors import UserError
from polydistill.replay.samplers.base import Draw
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
        self._first = 0  # place of the oldest
        self._count = 0

    def _take(self, n: int) -> np.ndarray:
        out = self._ring.take(np.arange(self._first, self._first + n), mode="wrap").astype(np.int64)
        self._first = (self._first + n) % self.slots
        self._count -= n
        return out

    def put(self, slots: np.ndarray, value: np.ndarray, priority: np.ndarray | None = None) -> np.ndarray:
        """Take in free slots; value and priority play no part."""
        n = len(slots)
        if self._count + n > self.slots:
            raise ValueError(f"{n} slots put where {self.slots - self._count} are free")
        self._ring[(self._first + self._count + np.arange(n)) % self.slots] = slots
        self._count += n
        return self._take(max(0, self._count - self.capacity))

    def drop(self, n: int) -> np.ndarray:
        """Evict the ``n`` oldest."""
        return self._take(min(n, self._count))

    def draw(self, rng: np.random.Generator, n: int) -> Draw:
        """``prob`` is 1 / len(self) for each. Raises UserError when nothing is stored."""
        if not self._count:
            raise UserError("the memory is empty: collect before drawing")
        places = self._first + rng.integers(self._count, size=n)
        return Draw(self._ring.take(places, mode="wrap").astype(np.int64), np.full(n, 1.0 / self._count))

    def update(self, slots: np.ndarray, priority: np.ndarray) -> None:
        """Nothing: priorities play no part."""

    def filled(self) -> np.ndarray:
        """Filled slots, oldest first."""
        return self._ring.take(np.arange(self._first, self._first + self._count), mode="wrap").astype(np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._ring.nbytes

    def __len__(self) -> int:
        return self._count

    def state(self) -> State:
        """The ring, and where it begins and ends."""
        return {"ring": self._ring.copy(), "window": np.array([self._first, self._count, self.capacity], np.int64)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace what is here by a saved state. Raises UserError where it does not fit."""
        require(state, self.state(), "sampler uniform")
        first, count, capacity = state["window"].tolist()
        if capacity != self.capacity:
            raise UserError(f"sampler uniform: the saved memory has capacity {capacity}, this one {self.capacity}")
        self._ring, self._first, self._count = state["ring"].copy(), first, count

    def check(self) -> None:
        """Raise AssertionError if an invariant broke."""
        slots = self.filled()
        if not 0 <= self._count <= self.capacity or not 0 <= self._first < self.slots:
            raise AssertionError(f"uniform: {self._count} stored from place {self._first} in {self.capacity}")
        if len(np.unique(slots)) != len(slots) or (len(slots) and not 0 <= slots.min() <= slots.max() < self.slots):
            raise AssertionError("uniform: a slot twice or out of range")


def nbytes(capacity: int, slots: int) -> int:
    """Bytes that :func:`make` would hold."""
    return 4 * slots


make = Uniform
