"""Games that a network of several plays worse than their teachers: negative transfer (Yin & Pan 2017, section 1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from polydistill.evaluation.curves import CURVES, CurvePoint, curve_points
from polydistill.evaluation.markdown import escape, number, row

NEGATIVE_TRANSFER = "negative-transfer"  # in a table's marker
FLAG = "▼"


def negative_transfer_table(experiment: Path) -> str:
    """The Markdown table of the last evaluations: % of teacher, and in how many seeds that is surely below it.

    One line per task, one column per variant; the last line counts the flagged tasks.

    Raises:
        UserError: ``curves.csv`` is missing, damaged or empty.
    """
    points, variants, tasks = curve_points(experiment)
    found = {(v, t): last_points(points, v, t) for v in variants for t in tasks}
    lines = [row(["at the end, % of teacher", *map(escape, variants)]), row(["---", *["---:"] * len(variants)])]
    lines += [row([escape(t), *(_cell(found[v, t]) for v in variants)]) for t in tasks]
    played = {v: [found[v, t] for t in tasks if found[v, t]] for v in variants}
    counts = [f"{sum(map(flagged, played[v]))} of {len(played[v])}" for v in variants]
    lines.append(row([f"**{FLAG}**, tasks", *counts]))
    note = (
        f"{FLAG} negative transfer: in every seed the 95 % interval of the student's last evaluation lies below its "
        f"teacher's mean score; (n of m): in n of m seeds. From [{CURVES}]({CURVES})."
    )
    return "\n".join([*lines, "", note])


def last_points(points: Sequence[CurvePoint], variant: str, task: str) -> list[CurvePoint]:
    """The last evaluation of each seed."""
    last: dict[int, CurvePoint] = {}
    for p in points:
        if (p.variant, p.task) == (variant, task) and p.updates >= last.get(p.seed, p).updates:
            last[p.seed] = p
    return list(last.values())


def below(point: CurvePoint) -> bool:
    """Whether the whole interval of the student's score is below the teacher's score. Unknown (NaN): no."""
    return point.high < point.teacher_score


def flagged(points: Sequence[CurvePoint]) -> bool:
    """Whether every seed, and there is one, is below its teacher."""
    return bool(points) and all(map(below, points))


def _cell(points: Sequence[CurvePoint]) -> str:
    if not points:
        return "–"
    percent = number(float(np.mean([p.percent for p in points])))
    if flagged(points):
        return f"{percent} {FLAG}"
    n = sum(map(below, points))
    return f"{percent} ({n} of {len(points)})" if n else percent
