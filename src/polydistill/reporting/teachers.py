"""The figure of trained teachers: the curve of every training, one panel per game."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from polydistill.errors import UserError
from polydistill.evaluation.rows import read_csv
from polydistill.evaluation.teacher_scores import SCORES, TeacherScore
from polydistill.reporting.plots import label_ends, short_number, thin
from polydistill.reporting.svg import INK, RANDOM, TASKS, style, to_svg, write_svg

PICTURE = "curves.svg"

COLUMNS = 3  # of panels
WIDTH, HEIGHT = 215.0, 165.0  # of a panel, in pixels; one that is alone has twice as many


@dataclass(frozen=True)
class Curve:
    """One training.

    Attributes:
        game, variant: Of the file ``game-variant.csv``; a file ``game.csv`` has no variant.
        training: Mean raw return of training episodes over control steps, ``[n, 2]``.
        evaluations: Scores of the evaluations over control steps, ``[m, 2]``.
    """

    game: str
    variant: str
    training: np.ndarray
    evaluations: np.ndarray


def read_curve(path: Path) -> Curve:
    """The curve that ``polydistill record`` kept of a training.

    Raises:
        UserError: it is damaged.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        both = [
            np.array([(float(r["control_steps"]), float(r[column])) for r in rows if r[column]]).reshape(-1, 2)
            for column in ("training_return", "evaluation")
        ]
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not the curve of a training ({error!r})") from None
    game, _, variant = path.stem.partition("-")
    return Curve(game, variant, *both)


def teacher_curves(folder: Path) -> str | None:
    """The figure as an ``<svg>``; None without an evaluation.

    A line with dots is the evaluations, a thin one training at its exploration; the dotted level is a random policy's
    score, where ``scores.csv`` has it.

    Raises:
        UserError: a file of the folder is damaged.
    """
    curves = [read_curve(path) for path in sorted(folder.glob("*.csv")) if path.name != SCORES]
    games: dict[str, list[Curve]] = {}
    for curve in curves:
        if len(curve.evaluations):
            games.setdefault(curve.game, []).append(curve)
    if not games:
        return None
    scores = read_csv(folder / SCORES, TeacherScore) if (folder / SCORES).exists() else []
    random = {s.task: s.random for s in scores}
    columns, size = min(COLUMNS, len(games)), 2.0 if len(games) == 1 else 1.0
    lines = -(-len(games) // columns)
    with style():
        figure = Figure(figsize=(size * WIDTH * columns / 72, size * HEIGHT * lines / 72))
        FigureCanvasSVG(figure)
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for ax in panels[len(games) :]:
            ax.remove()
        for ax, (game, own) in zip(panels, games.items(), strict=False):
            _panel(ax, game, own, random.get(game, np.nan))
            if len(own) > 1:
                ends = [(float(c.evaluations[-1, 1]), c.variant or game, TASKS[i]) for i, c in enumerate(own)]
                label_ends(figure, ax, ends, share=0.75 / lines)
        figure.supxlabel("control steps", fontsize=11)
        told = ", ".join(f"{c.game} {c.variant}".strip() + f" {c.evaluations[-1, 1]:.4g}" for c in curves
                         if len(c.evaluations))  # fmt: skip
        return to_svg(figure, "teachers", f"Last evaluations: {told}")


def write_teacher_curves(folder: Path) -> Path | None:
    """Write ``curves.svg``, which stands alone; None if there is no evaluation yet.

    Raises:
        UserError: a file of the folder is damaged, or the picture cannot be written.
    """
    plot = teacher_curves(folder)
    return None if plot is None else write_svg(folder / PICTURE, plot)


def _panel(ax: Axes, game: str, curves: list[Curve], random: float) -> None:
    """One game's trainings, each in a colour of its own."""
    ax.set_title(game, loc="left", fontsize=12, color=INK)
    if np.isfinite(random):
        ax.axhline(random, color=RANDOM, dashes=(1, 2.5), linewidth=1.5)
    for curve, colour in zip(curves, TASKS, strict=False):
        if len(curve.training):
            ax.plot(*thin(*curve.training.T), color=colour, linewidth=0.8, alpha=0.5)
        ax.plot(*curve.evaluations.T, color=colour, marker="o", markersize=3.2)
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: short_number(v)))
    ax.yaxis.set_major_locator(MaxNLocator(4))
