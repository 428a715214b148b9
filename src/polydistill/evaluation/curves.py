"""An experiment's evaluations during training: how soon each variant was how good, and how good on the way.

An evaluation is a few episodes, so the first one that is good enough may be luck: beside it stands the first at which
the mean of three in a row was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from polydistill.errors import UserError
from polydistill.evaluation.markdown import escape, mean_and_spread, number, row
from polydistill.evaluation.rows import read_csv
from polydistill.ops.scores import first_reaching, mean_between

CURVES = "curves.csv"

REACH = "reach-"  # before the per cent, in a table's marker
AREA = "area"  # in a table's marker
ROW = 3  # evaluations whose mean is not one evaluation's luck


@dataclass(frozen=True)
class CurvePoint:
    """One task in one evaluation during training; scores as in :class:`~polydistill.evaluation.scores.TaskScore`."""

    variant: str
    task: str
    seed: int
    updates: int
    control_steps: int
    score: float
    low: float
    high: float
    teacher_score: float
    percent: float


def curve_points(experiment: Path) -> tuple[list[CurvePoint], list[str], list[str]]:
    """The evaluations in an experiment's ``curves.csv``, its variants and its tasks, in their order there.

    Raises:
        UserError: the file is missing, damaged or empty.
    """
    points = read_csv(experiment / CURVES, CurvePoint)
    if not points:
        raise UserError(f"{experiment / CURVES}: no evaluations yet; add a finished run")
    return points, list(dict.fromkeys(p.variant for p in points)), list(dict.fromkeys(p.task for p in points))


def reach_table(experiment: Path, percent: int) -> str:
    """The Markdown table of the updates after which evaluations gave ``percent`` % of the teacher's score.

    Two lines per task, one column per variant: when the mean of three evaluations in a row first was so high (the
    updates are the last one's), and when a single one was. A cell is the mean over the seeds that came so far, with how
    many did. The last two lines are about the slowest task.

    Raises:
        UserError: ``curves.csv`` is missing, damaged or empty.
    """
    points, variants, tasks = curve_points(experiment)
    lines = [
        row([f"updates to {percent} % of teacher", *map(escape, variants)]),
        row(["---", *["---:"] * len(variants)]),
    ]
    kinds = {of: {(v, t): reach(points, v, t, percent, of) for v in variants for t in tasks} for of in (ROW, 1)}
    names = {ROW: "mean of three", 1: "first alone"}
    for t in tasks:
        for of, found in kinds.items():
            lines.append(row([f"{escape(t)}, {names[of]}", *(_cell(list(found[v, t].values())) for v in variants)]))
    for of, found in kinds.items() if len(tasks) > 1 else ():
        lines.append(row([f"**all tasks**, {names[of]}", *(_cell(_last(found, v, tasks)) for v in variants)]))
    note = "The first three evaluations in a row during training whose mean was as good (updates of the last of them), "
    note += "and the first one alone that was; means over the seeds that came so far (n of m)"
    if gap := least_gap(points):
        note += f"; evaluations are {gap:,} updates apart at least"
    if spread := noise(points, percent):
        told = ", ".join(f"{number(x)} % of teacher in {escape(t)}" for t, x in spread.items())
        note += f"; a single one is noisy: half its 95 % interval is {told} (median)"
    return "\n".join([*lines, "", f"{note}. From [{CURVES}]({CURVES})."])


def area_table(experiment: Path) -> str:
    """The Markdown table of the mean % of teacher over training: the area under each curve.

    One line per task, one column per variant; a cell is the mean over seeds, with the standard deviation where there
    are several. Of a task's curves that part counts which all of them have; without such a part there is a dash.

    Raises:
        UserError: ``curves.csv`` is missing, damaged or empty.
    """
    points, variants, tasks = curve_points(experiment)
    lines = [
        row(["mean % of teacher over training", *map(escape, variants)]),
        row(["---", *["---:"] * len(variants)]),
    ]
    means: dict[str, list[float]] = {v: [] for v in variants}
    spans, several = [], 1
    for t in tasks:
        begin, end = _common(points, t)
        areas = {v: list(mean_percent(points, v, t, begin, end).values()) for v in variants}
        for v, own in areas.items():
            means[v].append(float(np.mean(own)) if own else math.nan)
        lines.append(row([escape(t), *(_spread(areas[v]) for v in variants)]))
        if begin < end:
            spans.append(f"{escape(t)} {begin:,.0f} to {end:,.0f}")
            several = max(several, *map(len, areas.values()))
    if len(tasks) > 1:
        lines.append(row(["**mean over tasks**", *(number(float(np.mean(means[v]))) for v in variants)]))
    note = "Area under the curve of % of teacher over updates, by its length"
    note += f": {', '.join(spans)} updates" if spans else ""
    note += f"; mean ± standard deviation of {several} seeds" if several > 1 else "; one seed"
    return "\n".join([*lines, "", f"{note}. From [{CURVES}]({CURVES})."])


def least_gap(points: Sequence[CurvePoint]) -> int:
    """Updates between two evaluations of a run, at least; 0 where no run had two.

    The final evaluation comes when a run ends: where it is nearer to the one before than those are to each other, or
    one update behind an only one, that is no gap of the schedule.
    """
    gaps: set[int] = set()
    for series in {(p.variant, p.task, p.seed) for p in points}:
        updates = {p.updates for p in points if (p.variant, p.task, p.seed) == series}
        *steps, last = np.diff(sorted(updates)).tolist() or [0]
        gaps.update(steps or [last] * (last > 1))
    return min(gaps, default=0)


def reach(points: Sequence[CurvePoint], variant: str, task: str, percent: float, of: int = 1) -> dict[int, float]:
    """Seed -> updates after which the mean of ``of`` evaluations in a row first was ``percent`` % of the teacher.

    The updates are those of the last of them; NaN if there were none. An evaluation without a per cent takes part in
    no mean.
    """
    found = {}
    for seed, curve in _curves(points, variant, task).items():
        values = np.array([x for _, x in curve])
        means = np.lib.stride_tricks.sliding_window_view(values, of).mean(1) if len(values) >= of else values[:0]
        found[seed] = first_reaching([u for u, _ in curve[of - 1 :]], means, percent)
    return found


def mean_percent(points: Sequence[CurvePoint], variant: str, task: str, begin: float, end: float) -> dict[int, float]:
    """Seed -> mean % of teacher from ``begin`` to ``end`` updates, by straight lines between the evaluations.

    NaN for a seed whose evaluations do not go that far.
    """
    found = {}
    for seed, curve in _curves(points, variant, task).items():
        known = [(u, x) for u, x in curve if math.isfinite(x)]
        found[seed] = mean_between([u for u, _ in known], [x for _, x in known], begin, end)
    return found


def noise(points: Sequence[CurvePoint], percent: float) -> dict[str, float]:
    """Task -> half the 95 % interval of one evaluation, in % of teacher: the median over the evaluations that gave at
    least half of ``percent``, where there is one with an interval."""
    found: dict[str, list[float]] = {}
    for p in points:
        half = 50 * (p.high - p.low) / p.teacher_score if p.teacher_score > 0 else math.nan
        if p.percent >= percent / 2 and math.isfinite(half):
            found.setdefault(p.task, []).append(half)
    return {task: float(np.median(widths)) for task, widths in found.items()}


def _curves(points: Sequence[CurvePoint], variant: str, task: str) -> dict[int, list[tuple[int, float]]]:
    """Seed -> (updates, % of teacher) of its evaluations, in their order."""
    own = [p for p in points if (p.variant, p.task) == (variant, task)]
    return {
        seed: sorted((p.updates, p.percent) for p in own if p.seed == seed) for seed in sorted({p.seed for p in own})
    }


def _common(points: Sequence[CurvePoint], task: str) -> tuple[float, float]:
    """The updates between which every run of a task was evaluated; the second is the smaller if there are none."""
    runs: dict[tuple[str, int], list[int]] = {}
    for p in points:
        if p.task == task and math.isfinite(p.percent):
            runs.setdefault((p.variant, p.seed), []).append(p.updates)
    return max(map(min, runs.values()), default=0), min(map(max, runs.values()), default=0)


def _last(reached: dict[tuple[str, str], dict[int, float]], variant: str, tasks: Sequence[str]) -> list[float]:
    """Per seed: updates until every task had come so far; NaN where one never did."""
    seeds = sorted({seed for t in tasks for seed in reached[variant, t]})
    per_seed = [[reached[variant, t].get(seed, math.nan) for t in tasks] for seed in seeds]
    return [math.nan if any(map(math.isnan, values)) else max(values) for values in per_seed]


def _cell(updates: Sequence[float]) -> str:
    there = [u for u in updates if not math.isnan(u)]
    if not updates:
        return "–"
    return f"{number(float(np.mean(there))) if there else 'never'} ({len(there)} of {len(updates)})"


def _spread(values: Sequence[float]) -> str:
    return "–" if any(map(math.isnan, values)) else mean_and_spread(values)
