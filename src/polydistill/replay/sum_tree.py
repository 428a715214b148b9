"""Masses per slot, and the slot at which their running sum passes a number: two levels, vectorised over a batch."""

from __future__ import annotations

import numpy as np

_CHUNK = 1024  # numbers looked up at once; bounds the copy of their rows


def _shape(slots: int) -> tuple[int, int]:
    """Rows, and slots in a row."""
    width = 128 if slots < 3_000_000 else 256
    return -(-slots // width), width


class SumTree:
    """Masses >= 0 of ``slots`` slots, 0 at first.

    The sum of a row of slots is computed again from its members whenever one changes, so rounding errors do not add up.

    Args:
        slots: Slot numbers are 0 .. slots - 1.
    """

    def __init__(self, slots: int) -> None:
        rows, self._width = _shape(slots)
        self._mass = np.zeros((rows, self._width))
        self._flat = self._mass.reshape(-1)
        self._sums = np.zeros(len(self._mass))
        self._ends: np.ndarray | None = None  # cumulative sums of the rows

    def set(self, slots: np.ndarray, mass: np.ndarray) -> None:
        """Give slots, int64 [n], masses, float64 [n]; of repeated slots the last counts."""
        self._flat[slots] = mass
        rows = slots // self._width
        self._sums[rows] = self._mass.take(rows, axis=0).sum(axis=1)
        self._ends = None

    def get(self, slots: np.ndarray) -> np.ndarray:
        """Masses of slots, float64 [n]."""
        return self._flat[slots]

    def _cumulative(self) -> np.ndarray:
        if self._ends is None:
            self._ends = self._sums.cumsum()
        return self._ends

    @property
    def total(self) -> float:
        """Sum of all masses."""
        return float(self._cumulative()[-1])

    def find(self, x: np.ndarray) -> np.ndarray:
        """The first slot at which the running sum exceeds x, int64 [n], for x, float64 [n], in [0, total).

        A slot of mass 0 is never found.
        """
        if len(x) > _CHUNK:
            return np.concatenate([self.find(x[i : i + _CHUNK]) for i in range(0, len(x), _CHUNK)])
        ends = self._cumulative()
        row = ends.searchsorted(x, "right")
        running = self._mass.take(row, axis=0).cumsum(axis=1)
        # Sums in another order round otherwise: keep what is left of x inside the row.
        left = np.minimum(x - (ends[row] - self._sums[row]), np.nextafter(running[:, -1], 0.0))
        return np.asarray(row * self._width + (running > np.maximum(left, 0.0)[:, None]).argmax(axis=1))

    def clear(self) -> None:
        """Set every mass to 0."""
        self._mass[:], self._sums[:], self._ends = 0.0, 0.0, None

    @staticmethod
    def bytes_of(slots: int) -> int:
        """``nbytes`` of what the constructor would make."""
        rows, width = _shape(slots)
        return 8 * rows * (width + 2)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._mass.nbytes + 2 * self._sums.nbytes

    def check(self) -> None:
        """Raise AssertionError if an invariant broke."""
        if not (self._mass >= 0).all() or not np.allclose(self._mass.sum(axis=1), self._sums, rtol=1e-12, atol=0):
            raise AssertionError("sum tree: a negative mass, or sums that are not those of the masses")
        if self._ends is not None and not np.array_equal(self._ends, self._sums.cumsum()):
            raise AssertionError("sum tree: cumulative sums are stale")
