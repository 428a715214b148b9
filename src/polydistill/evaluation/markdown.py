"""What Markdown tables are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def number(value: float) -> str:
    """One decimal below 1,000, thousands marked above, a dash for NaN."""
    if math.isnan(value):
        return "–"
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def mean_and_spread(values: Sequence[float]) -> str:
    """The mean, with the standard deviation (of a sample) where there are several; a dash for none."""
    spread = f" ± {number(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
    return f"{number(float(np.mean(values)) if len(values) else math.nan)}{spread}"


def span(values: Sequence[int]) -> str:
    """``a`` or ``a to b``."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def row(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    """Text that may stand in a cell."""
    return text.replace("|", "\\|")
