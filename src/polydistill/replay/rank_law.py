"""Drawing from a power law of ranks: uniform number in, rank out, exactly and without waiting for memory."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from polydistill.ops.ranks import power_sums

_CACHED = 30_000  # ranks whose sums stay in a core's own cache: searching them is as fast as guessing


class RankLaw:
    """P(r) in proportion to (r + 1)^-alpha over ranks r = 0 .. N - 1, for any N up to ``longest``.

    A rank is looked up in the table of the law's sums. A binary search in a table of megabytes waits for main memory at
    every step, so the place is guessed, by the Euler-Maclaurin formula

        sum_{t=1}^{r} t^-alpha ~ c + (r + 1/2)^(1 - alpha) / (1 - alpha),

    kept a little too low, and the table says whether the rank is that one or the next. Where this fails (alpha = 1, or
    a large one; the constructor tries every rank), and in short tables, the table is searched.

    Args:
        longest: Length of the table.
        alpha: Exponent, >= 0.
    """

    def __init__(self, longest: int, alpha: float) -> None:
        self.alpha = alpha
        sums = power_sums(longest, alpha)
        self._table = np.concatenate([[0.0], sums, [np.inf]])
        self._lower, self._upper = self._table[:-1], self._table[1:]  # x of rank r: lower[r] <= x < upper[r]
        self._guesses = False
        if alpha != 1.0 and longest > _CACHED:
            self._slope = 1.0 - alpha
            self._offset = (longest + 0.5) ** self._slope / self._slope - sums[-1]  # -c
            with np.errstate(all="ignore"):
                first, last = self._guess(self._lower[:longest]), self._guess(np.nextafter(sums, 0.0))
            short = np.arange(longest) - np.stack([first, last])
            self._guesses = bool(short.min() >= 0 and short.max() <= 1)

    def _guess(self, x: np.ndarray) -> np.ndarray:
        return (((x + self._offset) * self._slope) ** (1.0 / self._slope) - 0.55).astype(np.int64)

    def totals(self, counts: np.ndarray) -> np.ndarray:
        """Sum of the law over N ranks, float64 [n], for N in ``counts``, int64 [n]; 0 for N = 0."""
        return self._lower[counts]

    def ranks(self, x: np.ndarray) -> np.ndarray:
        """Ranks, int64 [n], for x = u * total, float64 [n], with u uniform in [0, 1).

        ``rng.random`` gives at most 1 - 2^-53, hence u * total < total in floating point too: no rank is N or above.
        """
        if not self._guesses:
            return np.asarray(self._upper.searchsorted(x, "right"))
        ranks = self._guess(x)
        return ranks + (self._upper[ranks] <= x)

    def powers(self, ranks: np.ndarray) -> np.ndarray:
        """(r + 1)^-alpha, float64 [n], of ranks, int64 [n]: divided by the total, the probability."""
        return np.asarray((ranks + 1.0) ** -self.alpha)

    @staticmethod
    def bytes_of(longest: int) -> int:
        """``nbytes`` of what the constructor would make."""
        return 8 * (longest + 2)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._table.nbytes


@lru_cache(maxsize=8)
def rank_law(longest: int, alpha: float) -> RankLaw:
    """The one law of this length and exponent: equal samplers of a suite share it."""
    return RankLaw(longest, alpha)
