"""In which of several queues each experience stands, in the order in which they came: to find the oldest of all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from polydistill.errors import UserError
from polydistill.replay.state import State, require


class Arrivals:
    """The queues of at most ``capacity`` experiences, oldest first.

    A queue gives away its own oldest first, so how many of the oldest of all stand in each queue says which they are.
    """

    def __init__(self, capacity: int, queues: int) -> None:
        self.capacity, self.queues = capacity, queues
        self._ring = np.zeros(capacity, np.int32)
        self._first = self._held = 0

    def __len__(self) -> int:
        return self._held

    def push(self, queue: np.ndarray) -> None:
        """Experiences came into these queues, int64 [n], oldest first; there must be room for them."""
        self._ring[(self._first + self._held + np.arange(len(queue))) % self.capacity] = queue
        self._held += len(queue)

    def pop(self, n: int) -> np.ndarray:
        """Forget the ``n`` oldest, or all: how many of them stand in each queue, int64 [queues]."""
        n = min(n, self._held)
        gone = self._ring[(self._first + np.arange(n)) % self.capacity]
        self._first, self._held = (self._first + n) % self.capacity, self._held - n
        return np.bincount(gone, minlength=self.queues)

    def replace(self, queue: np.ndarray) -> None:
        """The same experiences, oldest first, stand in other queues, int64 [len(self)]."""
        self._first = self._held = 0
        self.push(queue)

    def count(self) -> np.ndarray:
        """Experiences in each queue, int64 [queues]."""
        held = self._ring[(self._first + np.arange(self._held)) % self.capacity]
        return np.bincount(held, minlength=self.queues)

    @staticmethod
    def bytes_of(capacity: int) -> int:
        """``nbytes`` of what the constructor would make."""
        return 4 * capacity

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._ring.nbytes

    def state(self) -> State:
        """Everything, as raw arrays."""
        return {"ring": self._ring.copy(), "at": np.array([self._first, self._held], np.int64)}

    def load_state(self, state: Mapping[str, np.ndarray], where: str) -> None:
        """Replace what is here by a saved state. Raises UserError where it does not fit or is damaged."""
        require(state, self.state(), where)
        first, held = state["at"].tolist()
        ring = state["ring"]
        sane = 0 <= first < self.capacity and 0 <= held <= self.capacity
        if not (sane and (ring >= 0).all() and (ring < self.queues).all()):
            raise UserError(f"{where}: the saved order of arrival is damaged")
        self._ring, self._first, self._held = ring.copy(), first, held
