"""How good each variant was in the end and at its best, as Parisotto et al. (2016, Table 1) report it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from polydistill.evaluation.curves import CURVES, CurvePoint, curve_points
from polydistill.evaluation.markdown import escape, number, row

BEST = "best"  # in a table's marker


def best_table(experiment: Path) -> str:
    """The Markdown table of % of teacher in the evaluations of training: the mean of the last tenth, and the best.

    One line per task, one column per variant; a cell is the mean over the seeds. The paper's best is in % of the
    expert's best; ours is in % of the teacher's mean, like everything else here.

    Raises:
        UserError: ``curves.csv`` is missing, damaged or empty.
    """
    points, variants, tasks = curve_points(experiment)
    lines = [row(["end / best, % of teacher", *map(escape, variants)]), row(["---", *["---:"] * len(variants)])]
    lines += [row([escape(t), *(_cell(end_and_best(points, v, t)) for v in variants)]) for t in tasks]
    note = "Evaluations during training: the mean of the last tenth of them (at least one), and the best one; each the "
    note += f"mean over seeds, in % of the teacher's mean score. The best of many is biased upwards. From [{CURVES}]"
    return "\n".join([*lines, "", f"{note}({CURVES})."])


def end_and_best(points: Sequence[CurvePoint], variant: str, task: str) -> tuple[float, float]:
    """% of teacher in the last tenth of the evaluations and in the best one, means over seeds; NaN if unknown."""
    own = [p for p in points if (p.variant, p.task) == (variant, task) and math.isfinite(p.percent)]
    ends, bests = [], []
    for seed in sorted({p.seed for p in own}):
        curve = [percent for _, percent in sorted((p.updates, p.percent) for p in own if p.seed == seed)]
        ends.append(float(np.mean(curve[-max(1, len(curve) // 10) :])))
        bests.append(max(curve))
    return (float(np.mean(ends)), float(np.mean(bests))) if own else (math.nan, math.nan)


def _cell(values: tuple[float, float]) -> str:
    return "–" if math.isnan(values[0]) else " / ".join(map(number, values))
