"""The figure of a transfer: learning curves of every initialisation over control steps, with the seeds behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from polydistill.evaluation.curves import CURVES, CurvePoint
from polydistill.evaluation.rows import read_csv
from polydistill.evaluation.transfer_measures import About, curves_of, score_at
from polydistill.reporting.plots import WIDE, label_ends, short_number
from polydistill.reporting.svg import RANDOM, TASKS, axes, style, to_svg, write_svg

PICTURE = "transfer.svg"
SHOWS = "Score over control steps: a line is the mean over seeds, thin lines are the seeds"


def transfer_curves(experiment: Path) -> str | None:
    """The figure as an ``<svg>``; None before the first evaluation.

    Raises:
        UserError: ``curves.csv`` or ``transfer.json`` is missing or damaged.
    """
    about, points = About.read(experiment), read_csv(experiment / CURVES, CurvePoint)
    found = {v: list(curves_of(points, v, about.task).values()) for v in about.variants}
    found = {v: curves for v, curves in found.items() if curves}
    if not found:
        return None
    labels, told = [], []
    with style():
        figure, ax = axes(1.4 * WIDE, 300)
        for i, (variant, curves) in enumerate(found.items()):
            colour = RANDOM if variant == about.baseline else TASKS[i % len(TASKS)]
            end = min(c[-1][0] for c in curves)
            x = np.array([s for s, _ in curves[0] if s <= end])
            y = np.array([[score_at(c, s) for s in x] for c in curves])
            if len(curves) > 1:
                ax.plot(x, y.T, color=colour, linewidth=0.8, alpha=0.5)
            ax.plot(x, y.mean(0), color=colour, linewidth=2.0, marker="o", markersize=3.2)
            labels.append((float(y.mean(0)[-1]), variant, colour))
            told.append(f"{variant} {y.mean(0)[-1]:.1f}")
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: short_number(v)))
        ax.set_xlabel("control steps")
        ax.set_ylabel(f"score in {about.task}")
        label_ends(figure, ax, labels)
        return to_svg(figure, "transfer", f"{about.task}, last evaluation: {', '.join(told)}")


def write_transfer(experiment: Path) -> Path | None:
    """Write ``transfer.svg``, which stands alone; None if there is nothing to draw yet.

    Raises:
        UserError: a file of the experiment is missing or damaged, or the picture cannot be written.
    """
    plot = transfer_curves(experiment)
    return None if plot is None else write_svg(experiment / PICTURE, plot)
