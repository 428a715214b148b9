"""An experiment's two pictures: the course of training of every variant, and where each ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from polydistill.evaluation.curves import CURVES, CurvePoint
from polydistill.evaluation.experiment import SCORES
from polydistill.evaluation.paper_numbers import PaperNumber, read_paper
from polydistill.evaluation.rows import read_csv
from polydistill.evaluation.tables import Result
from polydistill.evaluation.transfer_measures import ABOUT
from polydistill.reporting.plots import WIDE, label_ends, short_number
from polydistill.reporting.svg import INK, MUTED, TASKS, TEACHER, axes, style, to_svg, write_pictures

CURVES_SVG, PERCENT_SVG = "curves.svg", "percent.svg"

#: Files in the experiment's folder -> what they show.
PICTURES = {
    CURVES_SVG: "% of teacher during training, mean over tasks, one line per variant",
    PERCENT_SVG: "% of teacher at the end, one bar per task and variant",
}


#: What the second shows where networks go on to other tasks.
KEPT = f"{PICTURES[PERCENT_SVG]}; of a transfer, the network with its best evaluation"


def draw(experiment: Path, by_steps: bool = False) -> list[Path]:
    """Write ``curves.svg`` and ``percent.svg`` of an experiment; one that has nothing to show is left out.

    A transfer has no ``curves.svg``: sources and targets are other tasks, which no mean is over. Its ``transfer.svg``
    has the curves (:mod:`~polydistill.reporting.transfer`).

    Args:
        by_steps: The curves are over control steps, not over updates.

    Returns:
        The files written.

    Raises:
        UserError: a file of the experiment is missing or damaged, or a picture cannot be written.
    """
    results = read_csv(experiment / SCORES, Result)
    points = read_csv(experiment / CURVES, CurvePoint) if (experiment / CURVES).exists() else []
    course = None if (experiment / ABOUT).exists() else curves(points, by_steps)
    return write_pictures(
        experiment, {CURVES_SVG: course, PERCENT_SVG: finals(results, points, read_paper(experiment))}
    )


def curves(points: Sequence[CurvePoint], by_steps: bool = False) -> str | None:
    """% of teacher over updates: the mean over tasks, then over seeds, with the band from the worst seed to the best.

    Tasks and seeds that were evaluated at other updates are brought to common ones by straight lines between their
    evaluations; where one of them has not begun or has ended, the variant has no line.

    Args:
        by_steps: Over control steps, those of all of a run's tasks together: variants that make another number of
            updates from the same play are only to be compared so.
    """
    variants = dict.fromkeys(p.variant for p in points)
    lines = {v: _line([p for p in points if p.variant == v], by_steps) for v in variants}
    shown = {v: line for v, line in lines.items() if line is not None}
    if not shown:
        return None
    with style():
        figure, ax = axes(1.4 * WIDE, 280)
        ax.axhline(100, color=TEACHER, dashes=(6, 3), linewidth=1.2)
        labels, told = [], []
        for i, (variant, (x, seeds)) in enumerate(shown.items()):
            colour, mean = TASKS[i % len(TASKS)], seeds.mean(0)
            if len(seeds) > 1:
                ax.fill_between(x, seeds.min(0), seeds.max(0), color=colour, alpha=0.18, linewidth=0)
            ax.plot(x, mean, color=colour, marker="o", markersize=3.2)
            labels.append((float(mean[-1]), variant, colour))
            told.append(f"{variant} {mean[-1]:.0f} %")
        last = max(x[-1] for x, _ in shown.values())
        ticks = [t for t in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, last) if 0 <= t <= last]
        ax.set_xlim(0, last)
        ax.set_xticks(ticks, [short_number(t) for t in ticks])
        ax.set_xlabel("control steps of a run" if by_steps else "updates")
        ax.set_ylabel("% of teacher, mean over tasks")
        label_ends(figure, ax, labels)
        return to_svg(figure, "curves", f"At the last {'control step' if by_steps else 'update'}: {', '.join(told)}")


def finals(results: Sequence[Result], points: Sequence[CurvePoint], paper: Sequence[PaperNumber] = ()) -> str | None:
    """% of teacher at the end: a bar is the mean over seeds, a dot one seed with the 95 % interval of its episodes.

    A hollow diamond is the paper's number. The interval is that of the student's mean alone.
    """
    rows = [r for r in results if np.isfinite(r.percent)]
    if not rows:
        return None
    tasks = list(dict.fromkeys(r.task for r in rows))
    variants = list(dict.fromkeys(r.variant for r in rows))
    spread = {(p.variant, p.task, p.seed, p.updates, p.score): (p.low, p.high) for p in points}
    told = []
    with style():
        figure, ax = axes(1.4 * WIDE, 60 + len(tasks) * (34 + 20 * len(variants)))
        ax.grid(True, axis="x")
        ax.grid(False, axis="y")
        ax.axvline(100, color=TEACHER, dashes=(6, 3), linewidth=1.2)
        y, places = 0.0, []
        for task in tasks:
            ax.annotate(task, (0, y), xycoords=("axes fraction", "data"), color=INK, weight="bold", va="center")
            y += 1
            for i, variant in enumerate(variants):
                own = [r for r in rows if r.task == task and r.variant == variant]
                theirs = [n.percent for n in paper if n.task == task and n.variant == variant]
                colour = TASKS[i % len(TASKS)]
                places.append((y, variant, colour))
                if own:
                    mean = float(np.mean([r.percent for r in own]))
                    ax.barh(y, mean, height=0.62, color=colour, alpha=0.3, linewidth=0)
                    told.append(f"{task} {variant} {mean:.0f} %")
                for k, r in enumerate(own):
                    at = y + 0.22 * (k - (len(own) - 1) / 2) / max(len(own) - 1, 1)
                    low, up = spread.get((r.variant, r.task, r.seed, r.updates, r.score), (np.nan, np.nan))
                    ax.plot(100 * np.array([low, up]) / r.teacher_score, [at, at], color=colour, linewidth=1.6)
                    ax.plot([r.percent], [at], color=colour, marker="o", markersize=4.5, linestyle="none")
                if theirs:
                    ax.plot(theirs, [y], color=INK, marker="D", markersize=5.5, fillstyle="none", linestyle="none")
                y += 1
            y += 0.4
        ax.set_yticks([at for at, _, _ in places], [variant for _, variant, _ in places])
        ax.set_ylim(y - 0.4, -0.8)
        ax.spines["left"].set_visible(False)
        ax.margins(x=0.05)
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.set_xlabel("% of the teacher's mean score" + ("; hollow: the paper's" if paper else ""), color=MUTED)
        return to_svg(figure, "percent", f"At the end: {'; '.join(told)}")


def _line(points: Sequence[CurvePoint], by_steps: bool = False) -> tuple[np.ndarray, np.ndarray] | None:
    """Updates or control steps ``[n]`` and, per seed, the mean over tasks of % of teacher ``[seeds, n]``; None if
    nothing is known."""
    series: dict[int, dict[str, list[tuple[int, float]]]] = {}
    for p in points:
        if np.isfinite(p.percent):
            at = p.control_steps if by_steps else p.updates
            series.setdefault(p.seed, {}).setdefault(p.task, []).append((at, p.percent))
    tasks = {task for own in series.values() for task in own}
    whole = [own for own in series.values() if own.keys() == tasks]  # a seed that lacks a task would shift the mean
    if not whole:
        return None
    each = [np.array(sorted(dict(line).items())) for own in whole for line in own.values()]
    begin, end = max(line[0, 0] for line in each), min(line[-1, 0] for line in each)
    x = np.unique(np.concatenate([line[:, 0] for line in each]))
    x = x[(x >= begin) & (x <= end)]
    if not len(x):
        return None
    y = np.array([np.interp(x, line[:, 0], line[:, 1]) for line in each])
    return x, y.reshape(len(whole), len(tasks), len(x)).mean(1)
