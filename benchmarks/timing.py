"""Two things timed side by side, in turns, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

Row = dict[str, Any]


def row(name: str, ours: float, reference: float, unit: str, want: str = "") -> Row:
    """One line of the table. ``want`` says what the ratio ours / reference should be, in words."""
    return {"name": name, "ours": ours, "reference": reference, "ratio": ours / reference, "unit": unit, "want": want}


def in_turns(ours: Callable[[], None], reference: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Seconds of each, called in turns after one unmeasured call of both, either first as often as the other.

    The reference's is the median; ours is that times the median of the ratios of neighbours, for a machine whose speed
    drifts changes both of a pair alike.
    """
    ratios, references = [], []
    for i in range(repeats + 1):
        seconds = {}
        for call in (ours, reference) if i % 2 else (reference, ours):
            began = time.perf_counter()
            call()
            seconds[call] = time.perf_counter() - began
        if i:
            ratios.append(seconds[ours] / seconds[reference])
            references.append(seconds[reference])
    median = float(np.median(references))
    return median * float(np.median(ratios)), median
