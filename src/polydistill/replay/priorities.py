"""Priorities as they come in: checked, and what a new experience starts with."""

from __future__ import annotations

from typing import Literal

import numpy as np

from polydistill.errors import UserError

#: First priority of an experience. ``exact``: the one handed in with it; ``max``: the largest seen so far, 1 at first,
#: so that everything is drawn soon (Schaul et al. 2016, algorithm 1). Where none is handed in, both are the largest.
Insertion = Literal["exact", "max"]

_ZERO = np.zeros((), np.float32)


class Priorities:
    """Checks priorities and remembers the largest.

    Attributes:
        largest: The largest priority seen, at least 1.
    """

    def __init__(self, insertion: Insertion) -> None:
        self.insertion, self.largest = insertion, 1.0

    def checked(self, priority: np.ndarray) -> np.ndarray:
        """A copy: contiguous float32 [n] without negative zeros.

        Raises:
            UserError: NaN, infinite in float32, or negative.
        """
        priority = np.asarray(priority)
        if priority.dtype != np.float32:
            with np.errstate(over="ignore"):
                priority = priority.astype(np.float32)
        out = priority + _ZERO
        if len(out):
            largest = out.item(out.argmax())  # NaN counts as the largest; argmax takes a fifth of the time of max
            if not largest < np.inf or out.item(out.argmin()) < 0:
                bad = out[~((out >= 0) & (out < np.inf))]
                raise UserError(
                    f"a priority is {bad[0]}: {len(bad)} of {len(out)} are NaN, infinite or negative; "
                    "nothing was changed"
                )
            if largest > self.largest:
                self.largest = largest
        return out

    def first(self, n: int, priority: np.ndarray | None) -> np.ndarray:
        """What ``n`` new experiences start with: float32 [n]. Raises as ``checked`` does."""
        exact = None if priority is None else self.checked(priority)
        if exact is None or self.insertion == "max":
            return np.full(n, self.largest, np.float32)
        return exact


def sane_largest(saved: np.ndarray, where: str, at_least: float = 1.0) -> float:
    """A saved ``Priorities.largest``. Raises UserError unless it is finite and no smaller than it can be."""
    largest = float(saved)
    if not at_least <= largest < np.inf:
        raise UserError(f"{where}: the saved state is damaged (its largest priority is {largest:g})")
    return largest


def uniform(rng: np.random.Generator, k: int, n: int, draws: Literal["independent", "stratified"]) -> np.ndarray:
    """Numbers in [0, 1) for k minibatches of n, float64 [k * n]; stratified: in each, one in each of n equal parts."""
    u = rng.random((k, n))
    if draws == "stratified":
        u = np.minimum((np.arange(n) + u) / n, np.nextafter(1.0, 0.0))
    return u.reshape(-1)
