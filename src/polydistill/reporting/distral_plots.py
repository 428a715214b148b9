"""The figures of a Distral run's page: returns during training, and at the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from polydistill.reporting.plots import WIDE, draw_interval, interval_axes, label_ends, label_row, short_number, thin
from polydistill.reporting.statistics import Value
from polydistill.reporting.svg import STUDENT, TEACHER, axes, style, to_svg
from polydistill.reporting.text import num


def learning_curve(name: str, x: np.ndarray, y: np.ndarray, distilled: float, *, wide: bool = False) -> str:
    """Return over control steps of each task, both ``[n]``; ``distilled``: the distilled policy's score, or NaN."""
    told = f"{name}: the return is {num(y[-1])} at the end of training"
    with style():
        figure, ax = axes(1.6 * WIDE, 260) if wide else axes()
        x, y = thin(x, y)
        ax.plot(x, y, color=STUDENT, marker="o" if len(x) == 1 else None, markersize=3.2)
        labels = [(float(y[-1]), "training", STUDENT)]
        if np.isfinite(distilled):
            ax.axhline(distilled, color=TEACHER, dashes=(6, 3), linewidth=1.5)
            labels.append((distilled, "distilled", TEACHER))
            told += f", the distilled policy's final score {num(distilled)}"
        last = float(x.max())
        ax.set_xlim(0, last)
        ticks = [t for t in MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(0, last) if 0 <= t <= last]
        ax.set_xticks(ticks, [short_number(t) for t in ticks])
        ax.set_xlabel("control steps")
        ax.set_ylabel("return")
        label_ends(figure, ax, labels)
        return to_svg(figure, f"curve-{name}", told)


def final_returns(results: Sequence[tuple[str, Value, Value]]) -> str | None:
    """Name, its policy's score and the distilled one's, one row per task; None without tasks."""
    if not results:
        return None
    with style():
        figure, ax = interval_axes(1.3 * WIDE, len(results), "return")
        for i, (name, own, alone) in enumerate(results):
            if np.isfinite(alone.value):
                draw_interval(ax, alone, i + 0.14, TEACHER, marker="D", size=4.5)
            draw_interval(ax, own, i, STUDENT, marker="o", size=7.0)
            label_row(ax, i, name, num(own.value))
        told = "; ".join(
            f"{name} {num(own.value)}" + (f", distilled {num(alone.value)}" if np.isfinite(alone.value) else "")
            for name, own, alone in results
        )
        return to_svg(figure, "final", f"Final returns with 95 % intervals: {told}")
