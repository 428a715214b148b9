"""The report's figures, each an inline ``<svg>``. x is updates; what a line is stands beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from polydistill.reporting.data import RunData, number, series
from polydistill.reporting.statistics import TaskResult, Value
from polydistill.reporting.svg import INK, RANDOM, STUDENT, TASKS, TEACHER, axes, stacked, style, to_svg

POINTS = 150  # at most, of a curve
WIDE = 420.0  # natural width of a figure that may take half of a desktop window, in pixels


def learning_curve(data: RunData, task: str) -> str | None:
    """Raw score of the student over updates with its interval, and the lines of teacher and random policy."""
    x, score = series(data.evals, task, "score")
    if not len(x):
        return None
    with style():
        figure, ax = axes()
        band_x, low = series(data.evals, task, "low")
        _, high = series(data.evals, task, "high")
        if len(band_x) == len(low) == len(high) and len(low):
            ax.fill_between(band_x, low, high, color=STUDENT, alpha=0.18, linewidth=0)
        ax.plot(x, score, color=STUDENT, marker="o", markersize=3.2)
        entry = (data.evals[-1].get("tasks") or {}).get(task, {})
        teacher, random = number(entry.get("teacher")), _random(data, task)
        labels = [(float(score[-1]), "student", STUDENT)]
        for level, name, colour, dash in ((teacher, "teacher", TEACHER, (6, 3)), (random, "random", RANDOM, (1, 2.5))):
            if np.isfinite(level):
                ax.axhline(level, color=colour, dashes=dash, linewidth=1.5)
                labels.append((level, name, colour))
        _updates_axis(ax, data, x)
        label_ends(figure, ax, labels)
        ax.set_ylabel("score")
        last = f"{task}: the student's last evaluation is {score[-1]:.1f}"
        return to_svg(
            figure, f"curve-{task}", last + (f", its teacher's {teacher:.1f}" if np.isfinite(teacher) else "")
        )


def over_time(data: RunData, key: str) -> str | None:
    """``agreement`` (in %) or ``kl`` (in nats, logarithmic) of every task over updates."""
    percent = key == "agreement"
    with style():
        figure, ax = axes(WIDE, 250)
        labels, told, ends = [], [], []
        for i, task in enumerate(data.tasks):
            x, y = series(data.train, task, key)
            if not percent:
                x, y = x[y > 0], y[y > 0]
            if not len(x):
                continue
            ends += [x[0], x[-1]]
            x, y = thin(x, 100 * y if percent else y)
            colour = TASKS[i % len(TASKS)]
            ax.plot(x, y, color=colour, linewidth=1.6, dashes=(None, None) if i < len(TASKS) else (4, 2))
            labels.append((float(y[-1]), task, colour))
            told.append(f"{task} {y[-1]:.0f} %" if percent else f"{task} {y[-1]:.3g} nats")
        if not labels:
            return None
        ax.set_ylabel("agreement with the teacher, %" if percent else "KL to the teacher, nats")
        if percent:
            ax.set_ylim(min(50.0, *(y for y, _, _ in labels)) if ax.get_ylim()[0] > 40 else None, 100)
        else:
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
        _updates_axis(ax, data, np.array(ends), lines=data.train)
        label_ends(figure, ax, labels)
        return to_svg(figure, f"time-{key}", f"{'Agreement' if percent else 'KL'} at the end: {', '.join(told)}")


def final_scores(results: Sequence[TaskResult], geometric: Value) -> str | None:
    """Student against teacher in % of teacher, one row per task and one for the geometric mean."""
    rows = [(r.name, r.percent, _percent_of_itself(r.teacher)) for r in results if np.isfinite(r.percent.value)]
    if not rows:
        return None
    if len(results) > 1 and np.isfinite(geometric.value):
        rows.append(("geometric mean", geometric, Value(100.0)))
    with style():
        figure, ax = interval_axes(WIDE, len(rows), "% of the teacher's mean score")
        ax.axvline(100, color=TEACHER, dashes=(6, 3), linewidth=1.2)
        for i, (name, student, teacher) in enumerate(rows):
            mean = name == "geometric mean" and i == len(rows) - 1
            draw_interval(ax, teacher, i + 0.14, TEACHER, marker=None if mean else "D", size=4.5)
            draw_interval(ax, student, i, STUDENT, marker="s" if mean else "o", size=7.0)
            label_row(ax, i, name, _with_interval(student), weight="bold" if mean else "normal")
        told = "; ".join(f"{name} {_with_interval(student)} %" for name, student, _ in rows)
        return to_svg(figure, "final", f"Student in % of its teacher, with 95 % intervals: {told}")


def decile_bars(arrays: dict[str, np.ndarray], task: str, by: str) -> str | None:
    """Disagreement in % and mean regret by decile of the teacher's value (``value``) or of the ``position``."""
    regret, disagreement = arrays.get(f"{by}_regret"), arrays.get(f"{by}_disagreement")
    bounds = arrays.get(f"{by}_bounds")
    if regret is None or disagreement is None or bounds is None or not len(regret):
        return None
    with style():
        figure, (top, bottom) = stacked(WIDE, 260)
        place = np.arange(len(regret))
        for ax, height, name in ((top, 100 * disagreement, "disagreement, %"), (bottom, regret, "mean regret")):
            ax.bar(place, height, width=0.82, color=STUDENT, linewidth=0)
            ax.set_ylabel(name)
            ax.set_ylim(bottom=0)
            ax.yaxis.set_major_locator(MaxNLocator(3))
            ax.tick_params(axis="x", length=0)
        bottom.set_xticks(place, _bounds_text(bounds[:, 0]))
        what = "teacher's value of the state" if by == "value" else "control steps since the episode began"
        bottom.set_xlabel(f"{what}, from")
        worst = int(np.argmax(regret))
        told = f"{task}: regret is greatest, {regret[worst]:.3g} on average, where the {what} is {_span(bounds[worst])}"
        return to_svg(figure, f"decile-{by}-{task}", told)


def _bounds_text(lower: np.ndarray) -> list[str]:
    """Every third lower bound with the decimals that tell them apart; nothing between."""
    spread = float(lower[-1] - lower[0])
    decimals = int(np.clip(1 - np.floor(np.log10(spread)), 0, 6)) if 0 < spread < 10 else 0
    return [f"{b:.{decimals}f}" if i % 3 == 0 else "" for i, b in enumerate(lower)]


def _span(bounds: np.ndarray) -> str:
    return f"{bounds[0]:.3g} to {bounds[1]:.3g}"


def _random(data: RunData, task: str) -> float:
    summary = (data.summary.get("tasks") or {}).get(task, {}).get("random")
    return number(summary if summary is not None else data.task_info(task).get("random_score"))


def _percent_of_itself(teacher: Value) -> Value:
    return Value(100.0, 100 * teacher.low / teacher.value, 100 * teacher.high / teacher.value)


def _with_interval(value: Value) -> str:
    interval = f" [{value.low:.0f}, {value.high:.0f}]" if np.isfinite(value.low) else ""
    return f"{value.value:.0f}{interval}"


def interval_axes(width: float, rows: int, xlabel: str) -> tuple[Figure, Axes]:
    """Axes for one interval per row, the first at the top; :func:`draw_interval` and :func:`label_row` fill a row."""
    figure, ax = axes(width, 54 + 40 * rows)
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")
    ax.set_ylim(rows - 0.6, -0.65)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.08)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.set_xlabel(xlabel)
    return figure, ax


def label_row(ax: Axes, row: int, name: str, value: str, weight: str = "normal") -> None:
    """The row's name at the left above its interval, what it amounts to at the right."""
    for x, text, side in ((0, name, "left"), (1, value, "right")):
        ax.annotate(text, (x, row - 0.3), xycoords=("axes fraction", "data"), color=INK, weight=weight, va="center",
                    ha=side)  # fmt: skip


def draw_interval(ax: Axes, value: Value, y: float, colour: str, marker: str | None, size: float) -> None:
    if np.isfinite(value.low):
        ax.plot([value.low, value.high], [y, y], color=colour, linewidth=2.2)
    if marker:
        ax.plot([value.value], [y], color=colour, marker=marker, markersize=size, linestyle="none")


def thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of consecutive groups ``[<= POINTS]`` of a longer curve ``[n]``."""
    if len(x) <= POINTS:
        return x, y
    groups = np.array_split(np.arange(len(x)), POINTS)
    return np.array([x[g[-1]] for g in groups]), np.array([y[g].mean() for g in groups])


def short_number(value: float) -> str:
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def _updates_axis(ax: Axes, data: RunData, x: np.ndarray, lines: list[dict[str, Any]] | None = None) -> None:
    """Updates below; the control steps of all tasks at the same places above."""
    last = float(x.max()) or 1.0
    ax.set_xlim(0 if x.min() < 0.5 * last else x.min() - 0.05 * last, last)
    ticks = np.asarray(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(*ax.get_xlim()))
    ticks = ticks[(ticks >= ax.get_xlim()[0]) & (ticks <= last)]
    ax.set_xticks(ticks, [short_number(t) for t in ticks])
    ax.set_xlabel("updates")
    known = [(number(r.get("updates")), number(r.get("control_steps"))) for r in (lines or data.evals)]
    pairs = np.array([p for p in known if np.isfinite(p).all()]).reshape(-1, 2)
    if len(pairs) < 2:
        return
    order = np.argsort(pairs[:, 0], kind="stable")
    steps = np.interp(ticks, pairs[order, 0], pairs[order, 1], left=np.nan)
    above = ax.twiny()
    above.set_xlim(ax.get_xlim())
    above.grid(False)
    keep = np.isfinite(steps)
    above.set_xticks(ticks[keep], [short_number(s) for s in steps[keep]])
    above.tick_params(length=0)
    above.set_xlabel("control steps, all tasks")


def label_ends(figure: Figure, ax: Axes, labels: list[tuple[float, str, str]], share: float = 0.62) -> None:
    """Names at the right of the axes beside the level they belong to, pushed apart where they would touch.

    ``share``: of the figure's height, how much the axes have.
    """
    figure.canvas.draw()  # the limits are final now
    low, high = ax.get_ylim()
    log = ax.get_yscale() == "log"
    scale = np.log10 if log else np.asarray
    span = float(scale(high) - scale(low)) or 1.0
    gap = 14 / (share * figure.get_size_inches()[1] * 72)  # of the axes' height, for text of 11 px
    placed: list[float] = []
    for level, _, _ in sorted(labels):
        at = float(np.clip((scale(level) - scale(low)) / span, 0, 1))
        at = max(at, placed[-1] + gap) if placed else at
        placed.append(at)
    ceiling = 0.95  # below the tick labels of the upper axis
    for i in range(len(placed) - 1, -1, -1):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - gap
    for at, (_, name, colour) in zip(placed, sorted(labels), strict=True):
        text = name if len(name) <= 18 else name[:17] + "…"
        ax.annotate(text, (1, at), xytext=(5, 0), xycoords="axes fraction", textcoords="offset points",
                    color=colour, va="center", annotation_clip=False)  # fmt: skip
