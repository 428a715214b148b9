"""How good each variant was in the end and at its best, as Parisotto et al. (2016, Table 1) report it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from polydistill.evaluation.curves import CURVES, CurvePoint, curve_points
from polydistill.evaluation.markdown import escape, number, row
from polydistill.evaluation.paper_numbers import PAPER_BEST, PaperNumber, read_paper

BEST = "best"  # in a table's marker


def best_table(experiment: Path) -> str:
    """The Markdown table of % of teacher in the evaluations of training: the mean of the last tenth, and the best.

    One line per task, one column per variant; a cell is the mean over the seeds. A variant that ``paper_best.csv`` has
    numbers of gets a second column with the paper's. The paper's best is in % of the expert's best; ours is in % of the
    teacher's mean, like everything else here.

    Raises:
        UserError: ``curves.csv`` is missing, damaged or empty, or a file of the paper's numbers is damaged.
    """
    points, variants, tasks = curve_points(experiment)
    ends, bests = read_paper(experiment), read_paper(experiment, PAPER_BEST)
    columns: dict[str, list[tuple[float, float]]] = {}
    for v in variants:
        columns[v] = [end_and_best(points, v, t) for t in tasks]
        told = [(_told(ends, v, t), _told(bests, v, t)) for t in tasks]
        if not all(math.isnan(best) for _, best in told):
            columns[f"{v}, paper"] = told
    lines = [row(["end / best, % of teacher", *map(escape, columns)]), row(["---", *["---:"] * len(columns)])]
    lines += [row([escape(t), *(_cell(own[i]) for own in columns.values())]) for i, t in enumerate(tasks)]
    note = "Evaluations during training: the mean of the last tenth of them (at least one), and the best one; each the "
    note += f"mean over seeds, in % of the teacher's mean score. The best of many is biased upwards. From [{CURVES}]"
    note += f"({CURVES})."
    if len(columns) > len(variants):
        sources = "; ".join(dict.fromkeys(n.source for n in bests))
        note += f" Paper, best in % of its teachers' best: {sources} ([{PAPER_BEST}]({PAPER_BEST}))."
    return "\n".join([*lines, "", note])


def end_and_best(points: Sequence[CurvePoint], variant: str, task: str) -> tuple[float, float]:
    """% of teacher in the last tenth of the evaluations and in the best one, means over seeds; NaN if unknown."""
    own = [p for p in points if (p.variant, p.task) == (variant, task) and math.isfinite(p.percent)]
    ends, bests = [], []
    for seed in sorted({p.seed for p in own}):
        curve = [percent for _, percent in sorted((p.updates, p.percent) for p in own if p.seed == seed)]
        ends.append(float(np.mean(curve[-max(1, len(curve) // 10) :])))
        bests.append(max(curve))
    return (float(np.mean(ends)), float(np.mean(bests))) if own else (math.nan, math.nan)


def _told(numbers: Sequence[PaperNumber], variant: str, task: str) -> float:
    return next((n.percent for n in numbers if (n.variant, n.task) == (variant, task)), math.nan)


def _cell(values: tuple[float, float]) -> str:
    return "–" if all(map(math.isnan, values)) else " / ".join(map(number, values))
