"""The figures of Distral's agents (Teh et al. 2017, Figure 4): learning curves, and all runs from best to worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from polydistill.evaluation.distral_results import Standing, curves_of, read_results, standings
from polydistill.evaluation.distral_tables import BASELINE
from polydistill.evaluation.transfer_measures import Curve
from polydistill.reporting.experiment import CURVES_SVG
from polydistill.reporting.plots import WIDE, label_ends, short_number
from polydistill.reporting.svg import INK, TASKS, axes, style, to_svg, write_pictures

ROBUSTNESS_SVG = "robustness.svg"

#: Files in the experiment's folder -> what they show.
PICTURES = {
    CURVES_SVG: "Training return over control steps at each agent's best settings; thin lines are seeds, A3C is dashed",
    ROBUSTNESS_SVG: "Final scores of all settings and seeds, mean over tasks, from best to worst; A3C is dashed",
}

COLUMNS = 3  # of the tasks' panels, at most
TOP, PANEL = 300, 190  # heights in pixels
GRID = 100  # points of a drawn line


def draw(experiment: Path) -> list[Path]:
    """Write ``curves.svg`` and ``robustness.svg`` for whatever runs are there; one with nothing to show is left out.

    Returns:
        The files written.

    Raises:
        UserError: a file of the experiment is missing or damaged, or a picture cannot be written.
    """
    scores, points = read_results(experiment)
    found = standings(scores, points)
    own = curves_of(points)
    lines = {s.variant: own[s.variant, s.best] for s in found if (s.variant, s.best) in own}
    tasks = list(dict.fromkeys(s.task for s in scores))
    return write_pictures(experiment, {CURVES_SVG: curves(lines, tasks), ROBUSTNESS_SVG: robustness(found)})


def curves(agents: Mapping[str, Mapping[tuple[int, str], Curve]], tasks: Sequence[str]) -> str | None:
    """The mean over tasks above, a panel per task below if there are several; one colour per agent.

    Args:
        agents: Agent -> (seed, task) -> curve. A seed that lacks one of the tasks is left out of the upper panel.
    """
    if not agents:
        return None
    columns = min(COLUMNS, len(tasks))
    rows = -(-len(tasks) // columns) if len(tasks) > 1 else 0
    looks = {agent: _look(i, agent) for i, agent in enumerate(agents)}
    with style():
        figure = Figure(figsize=(1.5 * WIDE / 72, (TOP + rows * PANEL) / 72))
        FigureCanvasSVG(figure)
        cells = figure.add_gridspec(1 + rows, columns, height_ratios=[TOP, *[PANEL] * rows])
        top = figure.add_subplot(cells[0, :])
        labels, told = [], []
        for agent, own in agents.items():
            level = _lines(top, own, tasks, looks[agent])
            if level is not None:
                labels.append((level, agent, looks[agent]["color"]))
                told.append(f"{agent} {level:.3g}")
        _steps_axis(top)
        top.set_xlabel("control steps of each task")
        top.set_ylabel("return" if len(tasks) == 1 else "return, mean over tasks")
        for k, task in enumerate(tasks if rows else ()):
            ax = figure.add_subplot(cells[1 + k // columns, k % columns])
            ax.set_title(task, color=INK, fontsize=12)
            for agent, own in agents.items():
                _lines(ax, own, [task], looks[agent])
            _steps_axis(ax)
        label_ends(figure, top, labels, 0.8 * TOP / (TOP + rows * PANEL))
        return to_svg(figure, "curves", f"Training return at the end: {', '.join(told)}")


def robustness(found: Sequence[Standing]) -> str | None:
    """Every run's final score, mean over tasks, over its place among the agent's runs (the paper's Figure 4, A2)."""
    if not found:
        return None
    with style():
        figure, ax = axes(1.5 * WIDE, TOP)
        labels, told = [], []
        for i, s in enumerate(found):
            look, runs = _look(i, s.variant), sorted(s.runs.values(), reverse=True)
            ax.plot(range(1, len(runs) + 1), runs, **look, marker="o", markersize=3.2)
            labels.append((runs[-1], s.variant, look["color"]))
            told.append(f"{s.variant} {runs[0]:.3g} to {runs[-1]:.3g}")
        longest = max(len(s.runs) for s in found)
        ax.set_xlim(0.8, longest + 0.2)
        ax.xaxis.set_major_locator(MaxNLocator(min(longest, 10), integer=True))
        ax.set_xlabel("runs of all settings and seeds, from best to worst")
        ax.set_ylabel("final score, mean over tasks")
        label_ends(figure, ax, labels)
        return to_svg(figure, "robustness", f"Final scores, best to worst run: {', '.join(told)}")


def _look(i: int, agent: str) -> dict[str, Any]:
    """Colour of the ``i``-th agent; the A3C ones are dashed, so that they are told from Distral's at a glance."""
    return {"color": TASKS[i % len(TASKS)], "dashes": (4, 2) if agent.startswith(BASELINE) else (None, None)}


def _lines(ax: Axes, own: Mapping[tuple[int, str], Curve], tasks: Sequence[str], look: dict[str, Any]) -> float | None:
    """The mean over ``tasks`` of every seed, thin, and their mean; its last value, None if nothing is known."""
    seeds = [seed for seed in dict.fromkeys(seed for seed, _ in own) if all((seed, task) in own for task in tasks)]
    if not seeds:
        return None
    each = {seed: [np.array(own[seed, task], np.float64) for task in tasks] for seed in seeds}
    parts = [curve for curves in each.values() for curve in curves]
    end = min(curve[-1, 0] for curve in parts)
    x = np.linspace(min(max(curve[0, 0] for curve in parts), end), end, GRID)
    y = np.array([np.mean([np.interp(x, c[:, 0], c[:, 1]) for c in each[seed]], axis=0) for seed in seeds])
    if len(seeds) > 1:
        ax.plot(x, y.T, **look, linewidth=0.7, alpha=0.45)
    marker = "o" if x[0] == x[-1] else None  # a single point
    ax.plot(x, y.mean(0), **look, linewidth=2.0, marker=marker, markersize=3.2)
    return float(y.mean(0)[-1])


def _steps_axis(ax: Axes) -> None:
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda at, _: short_number(at)))
