"""What tables in a terminal or a log file are made of: ASCII, without colours."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: float) -> str:
    """One decimal below 1,000, a dash for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"


def interval(low: float, high: float) -> str:
    """``[low, high]``, or a dash for an unknown one."""
    return "-" if math.isnan(low) else f"[{number(low)}, {number(high)}]"


def grid(head: Sequence[str], body: Sequence[Sequence[str]], width: int | None = 80) -> list[str]:
    """Lines of a table: the head, a rule and one line per row; the first column to the left, the others to the right.

    Args:
        width: Columns of text at most, for which long names in the first column are shortened; None: no limit.
    """
    table = [head, *body]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    gap = 2
    if width is not None:
        gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= width else 1
        widths[0] = min(widths[0], max(8, width - sum(widths[1:]) - gap * (len(widths) - 1)))
    lines = [_line(row, widths, gap) for row in table]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def _line(cells: Sequence[str], widths: Sequence[int], gap: int) -> str:
    name = cells[0] if len(cells[0]) <= widths[0] else cells[0][: widths[0] - 1] + "~"
    return (" " * gap).join([name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])
