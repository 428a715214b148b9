"""Partitions of states by the teacher's value: their edges, how many came lately, and what is told about them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from polydistill.ops.ranks import partition_edges, partition_of
from polydistill.replay.state import State


class Partitions:
    """p intervals of equal width over a range of values (Yin & Pan 2017).

    Args:
        p: Number of partitions.
        low: Smallest value.
        high: Largest value.

    Attributes:
        edges: float64 [p + 1].
    """

    def __init__(self, p: int, low: float, high: float) -> None:
        self.p = p
        self.edges = partition_edges(low, high, p)
        self.low, self.high = low, high

    def of(self, value: np.ndarray) -> np.ndarray:
        """Partition of each value, int64 [n]; a value outside the range belongs to the nearest."""
        return partition_of(value, self.edges)

    def outside(self, value: np.ndarray) -> np.ndarray | None:
        """Which values, float64 [n > 0], lie outside the range: bool [n], or None where none does."""
        if self.low <= value.item(value.argmin()) and value.item(value.argmax()) <= self.high:
            return None
        return (value < self.low) | (value > self.high)

    def around(self, value: np.ndarray) -> Partitions:
        """Partitions of a range that holds these values, float64 [n > 0], too.

        A side that gives way moves by a tenth of the range at least: a slowly drifting value causes few changes.
        """
        low, high, step = self.low, self.high, (self.high - self.low) / 10
        smallest, largest = value.item(value.argmin()), value.item(value.argmax())
        if smallest < low:
            low = min(smallest, low - step)
        if largest > high:
            high = max(largest, high + step)
        return Partitions(self.p, low, high)


class Window:
    """How many of the last ``length`` experiences put belong to each of ``p`` partitions, evicted or not.

    Attributes:
        count: int64 [p]; read only.
    """

    def __init__(self, p: int, length: int) -> None:
        self._value = np.zeros(length)
        self._next = self._held = 0
        self.count = np.zeros(p, np.int64)

    def recount(self, partitions: Partitions) -> None:
        """Count again, in other partitions."""
        self.count = self._counts(self._value[: self._held], partitions)

    def _counts(self, value: np.ndarray, partitions: Partitions) -> np.ndarray:
        return np.bincount(partitions.of(value), minlength=len(self.count))

    def push(self, value: np.ndarray, partitions: Partitions) -> None:
        """Experiences with these values, float64 [n], were put."""
        length = len(self._value)
        value = value[-length:]
        at = (self._next + np.arange(len(value))) % length
        self.count += self._counts(value, partitions) - self._counts(self._value[at[at < self._held]], partitions)
        self._value[at] = value
        self._next = (self._next + len(value)) % length
        self._held = min(self._held + len(value), length)

    @staticmethod
    def bytes_of(length: int) -> int:
        """``nbytes`` of what the constructor would make."""
        return 8 * length

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._value.nbytes

    def state(self) -> State:
        """The values and where the oldest stands."""
        return {"value": self._value.copy(), "at": np.array([self._next, self._held], np.int64)}

    def load_state(self, state: Mapping[str, np.ndarray], partitions: Partitions | None) -> None:
        """Replace what is here by a saved state that fits. Raises AssertionError if it is damaged; changes nothing."""
        value, (following, held) = state["value"], state["at"].tolist()
        if not (0 <= following < len(value) and 0 <= held <= len(value) and np.isfinite(value).all()):
            raise AssertionError("window: values or places out of range")
        self._value, self._next, self._held = value.copy(), following, held
        if partitions is not None:
            self.recount(partitions)


class Telemetry:
    """What happened in each partition since it was last asked for."""

    def __init__(self, p: int) -> None:
        self._p = p
        self._came: list[np.ndarray] = []  # counted a few hundred at a time
        self._drawn: list[np.ndarray] = []
        self._reset()

    def _reset(self) -> None:
        self._put, self._outside, self._draws, self._dropped = (np.zeros(self._p, np.int64) for _ in range(4))
        self._loss = np.zeros(self._p)

    def put(self, partition: np.ndarray, outside: np.ndarray | None) -> None:
        """Experiences were put; those with ``outside``, bool [n], had a value outside the range."""
        self._came.append(partition)
        if len(self._came) >= 256:
            self._count()
        if outside is not None:
            self._outside += np.bincount(partition[outside], minlength=self._p)

    def drop(self, partition: np.ndarray) -> None:
        """Experiences nearest to these partitions, int64 [n], were not stored: their value lay outside the range."""
        self._dropped += np.bincount(partition, minlength=self._p)

    def draw(self, partition: np.ndarray) -> None:
        """Experiences of these partitions, int64 [n], were drawn."""
        self._drawn.append(partition)
        if len(self._drawn) >= 256:
            self._count()

    def _count(self) -> None:
        for total, partitions in ((self._put, self._came), (self._draws, self._drawn)):
            if partitions:
                total += np.bincount(np.concatenate(partitions), minlength=self._p)
                partitions.clear()

    def loss(self, partition: np.ndarray, loss: np.ndarray) -> None:
        """These losses, float [n], were had in these partitions, int64 [n]."""
        self._loss += np.bincount(partition, loss, self._p)

    def take(self) -> dict[str, np.ndarray]:
        """``put``, ``draws`` and ``dropped`` int64 [p], ``outside_rate`` and ``loss_share`` float64 [p].

        Counting begins anew.
        """
        self._count()
        found = {
            "put": self._put,
            "draws": self._draws,
            "outside_rate": self._outside / np.maximum(self._put, 1),
            "loss_share": self._loss / max(self._loss.sum(), np.finfo(float).tiny),
            "dropped": self._dropped,
        }
        self._reset()
        return found
