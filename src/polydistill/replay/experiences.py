"""A table of experiences in slots: ids of frames and some columns of numbers. What the memories have in common."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from polydistill.errors import UserError
from polydistill.replay.samplers.base import Sampler
from polydistill.replay.stacks import Stacks
from polydistill.replay.state import State, nest, require, unnest

#: name -> (dtype, shape of one entry)
Columns = Mapping[str, tuple[np.typing.DTypeLike, tuple[int, ...]]]


class Experiences:
    """Slots, their columns and their frames' references; what leaves is the sampler's choice.

    Args:
        stacks: Where observations are stored.
        sampler: Says which slot leaves. It has ``sampler.slots`` slots: its capacity and the largest batch put at once.
        ids: Frame ids per experience.
        columns: What else an experience holds.
        budget_bytes: When more is held than this, experiences leave until it fits; None: no limit but the capacity.

    Raises:
        UserError: the budget cannot hold even the empty table.
    """

    def __init__(
        self, stacks: Stacks, sampler: Sampler, ids: int, columns: Columns, budget_bytes: int | None = None
    ) -> None:
        self.stacks, self.sampler, self.budget_bytes = stacks, sampler, budget_bytes
        n = sampler.slots
        own = n * (4 * (ids + 1) + sum(np.dtype(d).itemsize * int(np.prod(s)) for d, s in columns.values()))
        need = own + sampler.nbytes + stacks.nbytes
        if budget_bytes is not None and budget_bytes <= need:
            raise UserError(
                f"a memory of {sampler.capacity:,} experiences needs {need:,} bytes before its first frame, but is "
                f"allowed {budget_bytes:,}: give a larger --memory or a smaller capacity"
            )
        self.ids = np.zeros((n, ids), np.int32)
        self.columns = {name: np.zeros((n, *shape), dtype) for name, (dtype, shape) in columns.items()}
        self._free = np.arange(n, dtype=np.int32)  # ring of free slots: the one free longest is used first
        self._head, self._n_free = 0, n
        self._own_bytes = own

    def __len__(self) -> int:
        return len(self.sampler)

    @property
    def nbytes(self) -> int:
        """Bytes held: frames, index, columns, sampler. Costs nothing to ask."""
        return self._own_bytes + self.stacks.nbytes + self.sampler.nbytes

    def put(
        self, ids: np.ndarray, columns: Mapping[str, np.ndarray], value: np.ndarray, priority: np.ndarray | None = None
    ) -> np.ndarray:
        """Store ``n`` experiences, oldest first, taking one reference per frame id.

        Args:
            ids: int64 [n, ids per experience].
            columns: name -> [n, ...].
            value: float [n], the sampler's key.
            priority: float [n] or None.

        Returns:
            Their slots, int64 [n]; of a batch larger than the capacity, some have left already.
        """
        n = len(ids)
        if n > self._n_free:
            raise ValueError(
                f"{n} experiences at once into {self._n_free} free slots: build the sampler with more slots"
            )
        slots = self._free.take(np.arange(self._head, self._head + n), mode="wrap").astype(np.int64)
        gone = self.sampler.put(slots, value, priority)  # first: if it refuses them, nothing was taken
        self._head, self._n_free = (self._head + n) % len(self._free), self._n_free - n
        self.stacks.frames.incref(ids.reshape(-1))
        self.ids[slots] = ids
        for name, entries in columns.items():
            self.columns[name][slots] = entries
        self._release(gone)
        if self.budget_bytes is not None:
            while self.nbytes > self.budget_bytes and len(self) > n:
                self._release(self.sampler.drop(min(len(self) - n, max(n, 8))))
        return slots

    def _release(self, slots: np.ndarray) -> None:
        n = len(slots)
        if not n:
            return
        self.stacks.frames.decref(self.ids[slots].reshape(-1).astype(np.int64))
        self._free[(self._head + self._n_free + np.arange(n)) % len(self._free)] = slots
        self._n_free += n

    def observations(self, slots: np.ndarray, first: int = 0, out: np.ndarray | None = None) -> np.ndarray:
        """The observation whose ids stand from column ``first`` on, [n, *obs_shape]."""
        ids = self.ids.take(slots, axis=0)
        return self.stacks.read(ids[:, first : first + self.stacks.stack], out)

    def state(self) -> State:
        """Everything, sampler and frames included, as raw arrays."""
        own: State = {
            "ids": self.ids.copy(),
            "free": self._free.copy(),
            "window": np.array([self._head, self._n_free], np.int64),
        }
        columns = {name: column.copy() for name, column in self.columns.items()}
        parts = nest("stacks", self.stacks.state()) | nest("sampler", self.sampler.state())
        return own | nest("column", columns) | parts

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace what is here by a saved state. Raises UserError where it does not fit."""
        window = np.zeros(2, np.int64)
        require(
            state, {"ids": self.ids, "free": self._free, "window": window, **nest("column", self.columns)}, "memory"
        )
        self.sampler.load_state(unnest("sampler", state))
        self.stacks.load_state(unnest("stacks", state))
        self.ids, self._free = state["ids"].copy(), state["free"].copy()
        self._head, self._n_free = state["window"].tolist()
        self.columns = {name: state[f"column.{name}"].copy() for name in self.columns}

    def check(self, also: np.ndarray | None = None) -> None:
        """Raise AssertionError if an invariant broke: every reference is counted again.

        Args:
            also: ids of further references held by the caller.
        """
        self.sampler.check()
        self.stacks.frames.check()
        filled = self.sampler.filled()
        free = self._free.take(np.arange(self._head, self._head + self._n_free), mode="wrap")
        both = np.sort(np.concatenate([filled, free]))
        if not np.array_equal(both, np.arange(len(self._free))):
            raise AssertionError("memory: a slot is both free and filled, or neither")
        held = [self.ids[filled].reshape(-1), self.stacks.held(), *([] if also is None else [also])]
        references = self.stacks.frames.references
        counted = np.bincount(np.concatenate(held).astype(np.int64), minlength=len(references))
        if not np.array_equal(counted, references):
            raise AssertionError("memory: references held are not the references counted")
