"""How much a head start was worth: measures of two learning curves, and an experiment's table of them.

The measures are those of Taylor & Stone (2009, "Transfer Learning for Reinforcement Learning Domains", section 2.1):
jump-start, total reward as the area under the curve, transfer ratio, time to threshold. The table has scores at equal
control steps as Table 2 of Parisotto et al. (2016).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.errors import UserError
from polydistill.evaluation.curves import CURVES, CurvePoint
from polydistill.evaluation.markdown import escape, mean_and_spread, number, row
from polydistill.evaluation.rows import read_csv
from polydistill.ops.scores import first_reaching, mean_between

TRANSFER = "transfer"  # after the # of a table's marker
ABOUT = "transfer.json"
COLUMNS = 6  # of scores in the table, at most

Curve = Sequence[tuple[float, float]]
"""(control steps, score) of each evaluation, in the order of the steps."""


@dataclass(frozen=True)
class About:
    """Which curves of an experiment are compared.

    Attributes:
        task: The target.
        variants: Initialisations in the order of the table.
        baseline: The one that the others are held against.
        paper: Where the paper's numbers are from.
        millions: Control steps of the paper's numbers, in millions.
        scores: Variant -> the paper's scores at those.
    """

    task: str
    variants: tuple[str, ...]
    baseline: str
    paper: str = ""
    millions: tuple[float, ...] = ()
    scores: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def write(self, experiment: Path) -> None:
        """Keep it in the experiment's folder."""
        experiment.mkdir(parents=True, exist_ok=True)
        (experiment / ABOUT).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, experiment: Path) -> About:
        """Raises UserError if it is missing or damaged."""
        try:
            content: dict[str, Any] = json.loads((experiment / ABOUT).read_text())
            known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
            return cls(**known)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{experiment / ABOUT}: missing or damaged ({error})") from None


# Measures ------------------------------------------------------------------------------------------------------------


def score_at(curve: Curve, steps: float) -> float:
    """The curve at ``steps`` by straight lines between evaluations; NaN before the first and after the last."""
    if not curve or not curve[0][0] <= steps <= curve[-1][0]:
        return math.nan
    x, y = zip(*curve, strict=True)
    return float(np.interp(steps, x, y))


def jump_start(curve: Curve, baseline: Curve) -> float:
    """What the curve's first evaluation has more than the baseline's; NaN if one of them is not at 0 control steps."""
    return score_at(curve, 0) - score_at(baseline, 0)


def mean_score(curve: Curve, until: float) -> float:
    """Area under the curve from its first evaluation to ``until``, over that length; NaN if it ends before.

    In points of score, so that curves of unequal lengths compare.
    """
    return mean_between([x for x, _ in curve], [y for _, y in curve], curve[0][0], until) if curve else math.nan


def transfer_ratio(area: float, baseline: float) -> float:
    """(area - baseline) / baseline of two areas or mean scores; NaN for a baseline that is not positive."""
    return (area - baseline) / baseline if baseline > 0 else math.nan


def steps_to(curve: Curve, threshold: float) -> float:
    """Control steps of the first evaluation that is at least ``threshold``; NaN if none is."""
    return first_reaching([x for x, _ in curve], [y for _, y in curve], threshold)


# Table ---------------------------------------------------------------------------------------------------------------


def curves_of(points: Sequence[CurvePoint], variant: str, task: str) -> dict[int, Curve]:
    """Seed -> curve."""
    own = [p for p in points if (p.variant, p.task) == (variant, task) and not math.isnan(p.score)]
    return {s: sorted((p.control_steps, p.score) for p in own if p.seed == s) for s in sorted({p.seed for p in own})}


def transfer_table(experiment: Path) -> str:
    """The Markdown tables of a transfer: scores at equal control steps, measures against the baseline, the paper's.

    Where the curves reach control steps of which the paper has scores, these have columns of their own beside ours.

    A cell is the mean over seeds, with the standard deviation where there are several. Each seed is held against the
    mean of the baseline's seeds; the threshold is the baseline's mean score at the last common evaluation.

    Raises:
        UserError: ``curves.csv`` or ``transfer.json`` is missing or damaged.
    """
    about, points = About.read(experiment), read_csv(experiment / CURVES, CurvePoint)
    found = {v: curves_of(points, v, about.task) for v in about.variants}
    found = {v: curves for v, curves in found.items() if curves}
    if not found:
        return f"No evaluation of {about.task} yet."
    end = min(curve[-1][0] for curves in found.values() for curve in curves.values())
    longest = max((c for curves in found.values() for c in curves.values()), key=len)
    parts = [_scores(about, found, [x for x, _ in longest if x <= end])]
    base = list(found.get(about.baseline, {}).values())
    if base:
        parts.append(_measures(about, found, _mean_curve(base), end))
    if about.scores:
        parts.append(_papers(about))
    return "\n\n".join(parts)


def _scores(about: About, found: dict[str, dict[int, Curve]], steps: Sequence[float]) -> str:
    """Scores at some of the ``steps`` of the evaluations, and at those of the paper that lie between them."""
    millions = about.millions if about.scores else ()
    told = {1e6 * m: i for i, m in enumerate(millions) if steps[0] <= 1e6 * m <= steps[-1]}
    grid = _grid(steps, _thin(list(told)))
    head = [f"{escape(about.task)}, control steps"]
    for x in grid:
        head += [f"{x:,.0f}", f"{x:,.0f}, paper"] if x in told else [f"{x:,.0f}"]
    lines = [row(head), row(["---", *["---:"] * (len(head) - 1)])]
    for variant, curves in found.items():
        cells = []
        for x in grid:
            own = [score_at(c, x) for c in curves.values()]
            best = max(_mean([score_at(c, x) for c in cs.values()]) for cs in found.values())
            cells.append(f"**{mean_and_spread(own)}**" if _mean(own) == best else mean_and_spread(own))
            if x in told:
                cells.append(number(about.scores[variant][told[x]]) if variant in about.scores else "–")
        lines.append(row([escape(variant), *cells]))
    seeds = max(len(c) for c in found.values())
    over = f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    note = f"Scores during training, {over}; bold: the best"
    note += " of ours; between two evaluations on a straight line." if told else "."
    return "\n".join([*lines, "", f"{note} From [{CURVES}]({CURVES})."])


def _measures(about: About, found: dict[str, dict[int, Curve]], base: Curve, end: float) -> str:
    threshold, area = base[-1][1], mean_score(base, end)
    lines = [
        row(["", "jump-start", "mean score", "transfer ratio", f"steps to {number(threshold)}"]),
        row(["---", "---:", "---:", "---:", "---:"]),
    ]
    for variant, curves in found.items():
        own = list(curves.values())
        means = [mean_score(c, end) for c in own]
        reached = [steps_to([p for p in c if p[0] <= end], threshold) for c in own]
        there = [x for x in reached if not math.isnan(x)]
        some = f" ({len(there)} of {len(reached)})" if len(there) < len(reached) else ""
        ratio = [transfer_ratio(m, area) for m in means]
        jump = "–" if variant == about.baseline else mean_and_spread([jump_start(c, base) for c in own])
        ratio_cell = "–" if variant == about.baseline or math.isnan(_mean(ratio)) else f"{_mean(ratio):+.2f}"
        steps = f"{_mean(there):,.0f}{some}" if there else "never"
        lines.append(row([escape(variant), jump, mean_and_spread(means), ratio_cell, steps]))
    note = (
        f"Up to {end:,.0f} control steps, against the mean curve of {escape(about.baseline)}: score at step 0 above it;"
        " area under the curve per step, and by what share it is larger; first evaluation as good as its last one."
    )
    return "\n".join([*lines, "", note])


def _papers(about: About) -> str:
    lines = [row(["paper, million steps", *(f"{x:g}" for x in about.millions)])]
    lines.append(row(["---", *["---:"] * len(about.millions)]))
    lines += [row([escape(v), *(number(x) for x in scores)]) for v, scores in about.scores.items()]
    return "\n".join([*lines, "", f"{about.paper}."])


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean of curves at the steps of the first, as far as all of them go."""
    end = min(c[-1][0] for c in curves)
    return [(x, _mean([score_at(c, x) for c in curves])) for x, _ in curves[0] if x <= end]


def _grid(steps: Sequence[float], fixed: Sequence[float]) -> list[float]:
    """The ``fixed`` steps and some others, in their order; none that nearly is a fixed one, which it would double."""
    near = 0.02 * steps[-1]
    free = [x for x in _thin(steps, max(2, COLUMNS - len(fixed))) if all(abs(x - y) > near for y in fixed)]
    return sorted([*free, *fixed])


def _thin(grid: Sequence[float], most: int = COLUMNS) -> list[float]:
    """At most so many of them, evenly spaced, first and last among them."""
    if len(grid) <= most:
        return list(grid)
    return [grid[round(i)] for i in np.linspace(0, len(grid) - 1, most)]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan
