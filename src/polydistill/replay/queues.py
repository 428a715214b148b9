"""First-in first-out queues of slots, several side by side, vectorised over a batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from polydistill.errors import UserError
from polydistill.replay.state import State, require


class Queues:
    """``queues`` rings of ``capacity`` slots each; who enters a full one pushes out its oldest.

    Attributes:
        count: int64 [queues], slots in each; read only.
    """

    def __init__(self, queues: int, capacity: int) -> None:
        self.queues, self.capacity = queues, capacity
        self._ring = np.zeros((queues, capacity), np.int32)
        self._flat = self._ring.reshape(-1)
        self._pushed = np.zeros(queues, np.int64)  # slots ever put into each queue: the next goes to _pushed % capacity
        self.count = np.zeros(queues, np.int64)

    def __len__(self) -> int:
        return int(self.count.sum())

    def push(self, slots: np.ndarray, queue: np.ndarray) -> np.ndarray:
        """Append slots, int64 [n] with n <= capacity, oldest first, each to its queue, int64 [n].

        Returns:
            Slots pushed out, int64 [m], oldest first in each queue.
        """
        order = queue.argsort(kind="stable")
        slots, queue = slots[order], queue[order]
        nth = np.arange(len(slots)) - queue.searchsorted(queue)  # 0, 1, .. of those for one queue
        pushed, count = self._pushed[queue] + nth, self.count[queue] + nth + 1
        at = pushed % self.capacity + queue * self.capacity
        gone = self._flat[at[count > self.capacity]].astype(np.int64)
        self._flat[at] = slots
        self._pushed[queue] = pushed + 1  # the last of each queue stands, and it counts them all
        self.count[queue] = np.minimum(count, self.capacity)
        return gone

    def drop(self, n: int) -> np.ndarray:
        """Take out ``n`` slots, or all: each time the oldest of the fullest queue, the first among equals."""
        counts = self.count.tolist()
        n = min(n, sum(counts))
        ordered, above = sorted(counts, reverse=True), 0
        for k, c in enumerate([*ordered[1:], 0], start=1):
            above += ordered[k - 1]
            if above - k * c >= n:  # the k fullest, lowered to the next one, give enough
                break
        level, stay = divmod(above - n, k)
        left = [min(c, level) for c in counts]
        higher = [j for j, c in enumerate(counts) if c > level]
        for j in higher[len(higher) - stay :]:
            left[j] += 1
        gone = [self._oldest(j, c - rest) for j, (c, rest) in enumerate(zip(counts, left, strict=True))]
        self.count[:] = left
        return np.concatenate(gone)

    def take(self, each: np.ndarray) -> np.ndarray:
        """Take the oldest ``each[j]`` slots out of queue j, int64 [queues]; no more than it holds."""
        gone = [self._oldest(j, n) for j, n in enumerate(each.tolist())]
        self.count -= each
        return np.concatenate(gone)

    def _oldest(self, queue: int, n: int) -> np.ndarray:
        first = int(self._pushed[queue] - self.count[queue])
        places = np.arange(first, first + n) % self.capacity  # take's own "wrap" subtracts again and again
        return self._ring[queue].take(places).astype(np.int64)

    def filled(self) -> tuple[np.ndarray, np.ndarray]:
        """Slots, oldest first in each queue, and their queues: int64 [len(self)] both."""
        slots = np.concatenate([self._oldest(j, int(n)) for j, n in enumerate(self.count)])
        return slots, np.repeat(np.arange(self.queues), self.count)

    def clear(self) -> None:
        """Take out everything."""
        self.count[:] = 0

    @staticmethod
    def bytes_of(queues: int, capacity: int) -> int:
        """``nbytes`` of what the constructor would make."""
        return 4 * queues * capacity + 2 * 8 * queues

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._ring.nbytes + self._pushed.nbytes + self.count.nbytes

    def state(self) -> State:
        """Everything, as raw arrays."""
        return {"ring": self._ring.copy(), "pushed": self._pushed.copy(), "count": self.count.copy()}

    def load_state(self, state: Mapping[str, np.ndarray], slots: int, where: str) -> None:
        """Replace what is here by a saved state. Raises UserError where it does not fit or is damaged."""
        require(state, self.state(), where)
        saved = Queues(self.queues, self.capacity)
        saved._ring[:], saved._pushed[:], saved.count[:] = state["ring"], state["pushed"], state["count"]
        try:
            saved.check(slots)
        except AssertionError as broken:
            raise UserError(f"{where}: the saved state is damaged ({broken})") from None
        self._ring[:], self._pushed[:], self.count[:] = saved._ring, saved._pushed, saved.count

    def check(self, slots: int) -> None:
        """Raise AssertionError if an invariant broke."""
        sane = (self.count >= 0) & (self.count <= self.capacity) & (self.count <= self._pushed)
        if not sane.all():
            raise AssertionError("queues: more in a queue than it holds")
        filled, _ = self.filled()
        if len(np.unique(filled)) != len(filled) or (len(filled) and not 0 <= filled.min() <= filled.max() < slots):
            raise AssertionError("queues: a slot twice or out of range")
