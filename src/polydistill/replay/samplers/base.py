"""What a sampler is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from polydistill.replay.state import State


@dataclass(frozen=True)
class Draw:
    """Slots drawn, and with what probability.

    Attributes:
        slots: int64 [n].
        prob: float64 [n], the probability of drawing exactly that slot in one draw; over the filled slots it sums to 1.
    """

    slots: np.ndarray
    prob: np.ndarray


@runtime_checkable
class Sampler(Protocol):
    """Which experience is drawn, and which one leaves.

    **Who owns what.** The memory owns the data and hands out free slots; the sampler owns slots and priorities only
    and *decides what is evicted*, because only it knows what a place is worth: the oldest of all (``uniform``), or the
    oldest of the partition that overflows (``hierarchical``). So ``put`` and ``drop`` return the slots that left, and
    the memory frees them; nothing else frees a slot. A slot that left may come back in a later ``put``: a memory has
    ``capacity`` slots plus one batch, ``slots`` in all, and no slot number says anything about age.

    A file ``samplers/x.py`` makes ``x`` a name that a user types; it defines
    ``make(capacity, slots, **settings) -> Sampler``. It may define ``nbytes``, which gets the same
    arguments, every one, and says how many bytes such a sampler would hold; otherwise a small one is measured.

    Attributes:
        capacity: Experiences kept at most.
        slots: Slot numbers are 0 .. slots - 1.
    """

    capacity: int
    slots: int

    def put(self, slots: np.ndarray, value: np.ndarray, priority: np.ndarray | None = None) -> np.ndarray:
        """Take in free slots, oldest first.

        Args:
            slots: int64 [n], free, each once, n <= slots - len(self).
            value: float [n], finite: max_a Q_teacher(s, a), the partition key of Yin & Pan.
            priority: float [n], finite and >= 0; None leaves the first priority to the sampler.

        Returns:
            Slots evicted, int64 [m], oldest first. Afterwards ``len(self) <= capacity``.

        Raises:
            UserError: anything else than that; nothing is changed.
        """
        ...

    def drop(self, n: int) -> np.ndarray:
        """Evict ``n`` experiences (all, if there are fewer) of the sampler's choice, to stay inside a byte budget.

        Returns:
            Slots evicted, int64 [m].
        """
        ...

    def draw(self, rng: np.random.Generator, n: int) -> Draw:
        """Draw ``n`` filled slots, with replacement.

        Raises:
            UserError: nothing is stored, or ``n`` is negative.
        """
        ...

    def update(self, slots: np.ndarray, priority: np.ndarray) -> None:
        """New priorities for filled slots.

        Args:
            slots: int64 [n]. Of repeated slots the last priority counts.
            priority: float [n], finite and >= 0.

        Raises:
            UserError: anything else than that; nothing is changed.
        """
        ...

    def state(self) -> State:
        """Everything that later draws depend on, as raw arrays."""
        ...

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace what is here by a saved state. Raises UserError, and changes nothing, where it does not fit or is
        damaged."""
        ...

    def check(self) -> None:
        """Raise AssertionError if an invariant broke. May be slow."""
        ...

    def filled(self) -> np.ndarray:
        """Filled slots, int64 [len(self)], in any fixed order."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...

    def __len__(self) -> int:
        """Experiences stored."""
        ...
