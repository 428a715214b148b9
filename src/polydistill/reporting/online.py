"""The figure of online distillation (Rusu et al. 2016, Fig. 5): learner, best so far, and the students that follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from polydistill.errors import UserError
from polydistill.evaluation.rows import read_csv
from polydistill.reporting.plots import label_ends, short_number
from polydistill.reporting.svg import RANDOM, STUDENT, TASKS, TEACHER, axes, style, to_svg, write_svg
from polydistill.training.online import CURVE, Point

COLOURS = (STUDENT, TASKS[1], TASKS[0], TASKS[5])  # of the students, one after the other


def online_curve(runs: Sequence[Path]) -> str | None:
    """Scores over the learner's control steps as an ``<svg>``; None before the first evaluation.

    Args:
        runs: Folders of ``teach --shadow-student``. The learner is the first one's; the students are everybody's.

    Raises:
        UserError: a folder without ``shadow.csv``, or a damaged one.
    """
    curves = [_read(run) for run in runs]
    if not curves or not curves[0]:
        return None
    learner = list({p.control_steps: p for p in curves[0]}.values())  # one line per student and evaluation
    students = [
        ([p for p in curve if p.seed == seed], seed)
        for curve in curves
        for seed in dict.fromkeys(p.seed for p in curve)
    ]
    x = np.array([p.control_steps for p in learner], np.float64)
    score, best = np.array([p.learner for p in learner]), np.array([p.best for p in learner])
    with style():
        figure, ax = axes(640, 320)
        ax.plot(x, score, color=RANDOM, linewidth=1.3, alpha=0.75, marker="o", markersize=2.6)
        ax.plot(x, best, color=TEACHER, drawstyle="steps-post", linewidth=1.6, dashes=(6, 2))
        labels = [(float(score[-1]), "learner", RANDOM), (float(best[-1]), "best so far", TEACHER)]
        told = [f"the learner's last score is {score[-1]:.1f}", f"its best {best[-1]:.1f}"]
        for i, (points, seed) in enumerate(students):
            name = "student" if len(students) == 1 else f"student, seed {seed}"
            known = [p for p in points if not math.isnan(p.student)]
            if not known:
                continue
            colour = COLOURS[i % len(COLOURS)]
            y = [p.student for p in known]
            ax.plot([p.control_steps for p in known], y, color=colour, linewidth=2.0, marker="o", markersize=3.2)
            labels.append((y[-1], name, colour))
            told.append(f"the last of the {name} {y[-1]:.1f}")
        ax.set_xlim(0, float(x.max()))
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: short_number(v)))
        ax.set_xlabel("control steps of the learner")
        ax.set_ylabel("score")
        label_ends(figure, ax, labels)
        return to_svg(figure, "online", "Online distillation: " + ", ".join(told))


def write_online(runs: Sequence[Path], out: Path) -> Path:
    """Write the figure as one SVG file that stands alone, for light and dark pages.

    Raises:
        UserError: nothing to draw yet, or ``out`` cannot be written.
    """
    plot = online_curve(runs)
    if plot is None:
        raise UserError(f"{runs[0] / CURVE}: no evaluation to draw yet")
    return write_svg(out, plot)


def _read(run: Path) -> list[Point]:
    if not (run / CURVE).is_file():
        raise UserError(f"{run}: no {CURVE}; was it trained with teach --shadow-student?")
    return read_csv(run / CURVE, Point)
