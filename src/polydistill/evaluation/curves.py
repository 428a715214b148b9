"""An experiment's evaluations during training, and how soon each variant was how good."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from polydistill.errors import UserError
from polydistill.evaluation.markdown import escape, number, row
from polydistill.evaluation.rows import read_csv
from polydistill.ops.scores import first_reaching

CURVES = "curves.csv"

REACH = "reach-"  # before the per cent, in a table's marker


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
    """The Markdown table of the updates after which an evaluation first gave ``percent`` % of the teacher's score.

    One line per task, one column per variant; a cell is the mean over the seeds that came so far, with how many did
    where some did not. The last line is about the slowest task.

    Raises:
        UserError: ``curves.csv`` is missing, damaged or empty.
    """
    points, variants, tasks = curve_points(experiment)
    reached = {(v, t): reach(points, v, t, percent) for v in variants for t in tasks}
    lines = [
        row([f"updates to {percent} % of teacher", *map(escape, variants)]),
        row(["---", *["---:"] * len(variants)]),
    ]
    lines += [row([escape(t), *(_cell(list(reached[v, t].values())) for v in variants)]) for t in tasks]
    if len(tasks) > 1:
        lines.append(row(["**all tasks**, the last one", *(_cell(_last(reached, v, tasks)) for v in variants)]))
    note = "First evaluation during training that was as good"
    if gap := least_gap(points):
        note += f"; evaluations are {gap:,} updates apart at least"
    note += "."
    return "\n".join([*lines, "", f"{note} From [{CURVES}]({CURVES})."])


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


def reach(points: Sequence[CurvePoint], variant: str, task: str, percent: float) -> dict[int, float]:
    """Seed -> updates after which an evaluation first gave ``percent`` % of the teacher; NaN if none did."""
    own = [p for p in points if (p.variant, p.task) == (variant, task)]
    found = {}
    for seed in sorted({p.seed for p in own}):
        curve = sorted((p.updates, p.percent) for p in own if p.seed == seed)
        found[seed] = first_reaching([u for u, _ in curve], [x for _, x in curve], percent)
    return found


def _last(reached: dict[tuple[str, str], dict[int, float]], variant: str, tasks: Sequence[str]) -> list[float]:
    """Per seed: updates until every task had come so far; NaN where one never did."""
    seeds = sorted({seed for t in tasks for seed in reached[variant, t]})
    per_seed = [[reached[variant, t].get(seed, math.nan) for t in tasks] for seed in seeds]
    return [math.nan if any(map(math.isnan, values)) else max(values) for values in per_seed]


def _cell(updates: Sequence[float]) -> str:
    there = [u for u in updates if not math.isnan(u)]
    if not updates:
        return "–"
    if not there:
        return "never"
    some = f" ({len(there)} of {len(updates)})" if len(there) < len(updates) else ""
    return f"{number(float(np.mean(there)))}{some}"
