"""Students of several sizes against each other: what each costs and what it keeps of its teachers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from polydistill.evaluation.rows import write_csv
from polydistill.reporting.data import read_run
from polydistill.reporting.plots import WIDE, label_ends, short_number
from polydistill.reporting.statistics import aggregates, task_results
from polydistill.reporting.svg import INK, STUDENT, TEACHER, axes, style, to_svg, write_pictures

MEAN = "geometric mean"  # of several tasks
TEACHER_NAME = "teacher"


@dataclass(frozen=True)
class ParetoRow:
    """One size in one task, or over all of them: the columns of ``pareto.csv``.

    Attributes:
        size: The student's size; ``teacher`` for the teachers together.
        task: A task, or ``geometric mean`` where there are several.
        parameters: The student's; of the teachers together.
        parameters_percent: In % of the teachers' together.
        latency_1_ms, latency_32_ms: Median milliseconds of one forward of 1 and of 32 observations.
        updates: Optimiser steps.
        score, teacher_score: Mean raw returns; NaN in the mean over tasks.
        percent, low, high: % of teacher and its 95 % interval, episodes of both resampled.
        kept: 1 for the smallest size that keeps what was asked.
    """

    size: str
    task: str
    parameters: int
    parameters_percent: float
    latency_1_ms: float
    latency_32_ms: float
    updates: int
    score: float
    teacher_score: float
    percent: float
    low: float
    high: float
    kept: int = 0


@dataclass(frozen=True)
class Cost:
    """Parameters, those in % of the teachers', and median milliseconds of one forward of 1 and of 32 observations."""

    parameters: int
    parameters_percent: float
    latency_1_ms: float
    latency_32_ms: float


def size_rows(size: str, cost: Cost, run: Path) -> list[ParetoRow]:
    """The rows of a finished run; the last one is what counts: its only task, or the mean over tasks.

    Raises:
        UserError: not a run.
    """
    data = read_run(run)
    updates = int(data.evals[-1].get("updates") or 0) if data.evals else 0
    found = [(r.name, r.student.value, r.teacher.value, r.percent) for r in task_results(data)]
    if len(found) > 1:
        found.append((MEAN, math.nan, math.nan, aggregates(data)["geometric_mean"]))
    return [
        ParetoRow(
            size, name, cost.parameters, cost.parameters_percent, cost.latency_1_ms, cost.latency_32_ms, updates,
            score, teacher, percent.value, percent.low, percent.high,
        )
        for name, score, teacher, percent in found
    ]  # fmt: skip


def teacher_rows(cost: Cost, of: Sequence[ParetoRow]) -> list[ParetoRow]:
    """The teachers' own rows, with the scores they had beside a student."""
    return [
        ParetoRow(
            TEACHER_NAME, r.task, cost.parameters, cost.parameters_percent, cost.latency_1_ms, cost.latency_32_ms, 0,
            r.teacher_score, r.teacher_score, 100.0, math.nan, math.nan,
        )
        for r in of
    ]  # fmt: skip


def markdown(rows: Sequence[ParetoRow], keep: float, notes: Sequence[str]) -> str:
    """The table: a line per size, the largest first."""
    sizes = list(dict.fromkeys(r.size for r in rows))
    tasks = [t for t in dict.fromkeys(r.task for r in rows) if t != MEAN]
    head = [
        "size",
        "parameters",
        "% of teacher's",
        "ms, batch 1",
        "ms, batch 32",
        *tasks,
        "% of teacher",
        "95 % interval",
    ]
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for size in sizes:
        own = [r for r in rows if r.size == size]
        last = own[-1]
        scores = {r.task: _number(r.score) for r in own}
        name = f"**{size}**" if last.kept else size
        cells = [name, f"{last.parameters:,}", _number(last.parameters_percent)]
        cells += [f"{last.latency_1_ms:.2f}", f"{last.latency_32_ms:.2f}", *(scores.get(t, "–") for t in tasks)]
        interval = f"{_number(last.low)} to {_number(last.high)}" if math.isfinite(last.low) else "–"
        lines.append(_line([*cells, _number(last.percent), interval]))
    kept = next((r.size for r in rows if r.kept), None)
    told = f"Bold: the smallest that keeps {keep:g} %." if kept else f"None of them keeps {keep:g} %."
    return "\n".join([*lines, "", " ".join([told, *notes])]) + "\n"


def picture(rows: Sequence[ParetoRow], keep: float) -> str | None:
    """% of teacher over parameters, with intervals; the filled one is the winner."""
    last = {r.size: r for r in rows if r.size != TEACHER_NAME}  # the last row of a size is what counts
    shown = [r for r in last.values() if np.isfinite(r.percent)]
    if not shown:
        return None
    with style():
        figure, ax = axes(1.4 * WIDE, 300)
        ax.axhline(100, color=TEACHER, dashes=(6, 3), linewidth=1.2)
        ax.axhline(keep, color=INK, dashes=(1, 2.5), linewidth=1.2)
        for r in shown:
            if np.isfinite(r.low):
                ax.plot([r.parameters] * 2, [r.low, r.high], color=STUDENT, linewidth=2.0)
            fill = "full" if r.kept else "none"
            ax.plot(
                [r.parameters], [r.percent], color=STUDENT, marker="o", markersize=8, fillstyle=fill, linestyle="none"
            )
            below = r.low if np.isfinite(r.low) else r.percent
            ax.annotate(r.size, (r.parameters, below), xytext=(0, -12), textcoords="offset points", color=INK,
                        ha="center", va="center")  # fmt: skip
        ax.set_xscale("log")
        ax.margins(x=0.12)
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: short_number(v)))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("parameters")
        ax.set_ylabel("% of teacher")
        label_ends(figure, ax, [(100.0, "teacher", TEACHER), (keep, f"{keep:g} %", INK)])
        told = ", ".join(f"{r.size} ({r.parameters:,} parameters) {r.percent:.0f} %" for r in shown)
        return to_svg(figure, "pareto", f"% of teacher by size: {told}")


def write_pareto(out: Path, rows: Sequence[ParetoRow], keep: float, notes: Sequence[str]) -> None:
    """``pareto.csv``, ``pareto.md`` and ``pareto.svg`` in ``out``; the picture only where a percentage is known."""
    write_csv(out / "pareto.csv", rows, ParetoRow)
    (out / "pareto.md").write_text(markdown(rows, keep, notes))
    write_pictures(out, {"pareto.svg": picture(rows, keep)})


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
