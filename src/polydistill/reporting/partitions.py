"""Which states were met, by the teacher's value (Yin & Pan 2017, Fig. 2), and what H-PR made of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from polydistill.reporting.data import RunData, number
from polydistill.reporting.svg import MUTED, STUDENT, TEACHER, axes, style, to_svg


def value_histogram(data: RunData, task: str) -> str | None:
    """Share of states by ``max_a Q_teacher`` among those met before the first and before the last evaluation.

    The student of the first evaluation is weaker. Where the run has H-PR's partitions, their edges are drawn.
    """
    found = [(line, _histogram(line, task)) for line in data.evals]
    known = [(line, values) for line, values in found if values is not None]
    if len(known) < 2:
        return None
    edges = partition_edges(data, task)
    told = []
    with style():
        figure, ax = axes(420.0, 230.0)
        for (line, (at, share)), colour, fill in ((known[0], TEACHER, 0.0), (known[-1], STUDENT, 0.2)):
            percent = number((line.get("tasks") or {}).get(task, {}).get("percent"))
            name = f"after {number(line.get('updates')):,.0f} updates"
            name += f" ({percent:.0f} % of teacher)" if np.isfinite(percent) else ""
            ax.stairs(density(share, at), at, color=colour, linewidth=1.8, label=name, fill=False)
            if fill:
                ax.stairs(density(share, at), at, color=colour, alpha=fill, fill=True)
            told.append(f"{name}: middle value {_median(at, share):.3g}")
        for edge in edges:
            ax.axvline(edge, color=MUTED, linewidth=0.8, dashes=(2, 3))
        ax.set_xlabel("teacher's value of the state")
        ax.set_ylabel("% of states per unit of value")
        ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend
        ax.legend(frameon=False, fontsize=10, labelcolor=MUTED)
        return to_svg(figure, f"values-{task}", f"{task}: {'; '.join(told)}")


def density(share: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Shares ``[n]`` of bins with edges ``[n + 1]``, per unit of value: two histograms have bins of different width."""
    return share / np.diff(edges)


def partition_rows(data: RunData, task: str) -> list[dict[str, Any]]:
    """H-PR's partitions at the last record: range, experiences, share of draws, mean priority, share of the loss."""
    entry = _telemetry(data, task)
    edges = partition_edges(data, task)
    if not len(edges):
        return []
    draws, loss = np.array(entry["draws"], float), entry["loss_share"]
    total = draws.sum() or 1.0
    return [
        {
            "range": f"{low:.3g} to {high:.3g}",
            "fill": int(entry["fill"][j]),
            "draws": f"{100 * draws[j] / total:.1f}",
            "priority": f"{entry['mean_priority'][j]:.3g}",
            "loss": f"{100 * loss[j]:.1f}" if np.isfinite(loss[j]) else "–",
            "outside": f"{100 * entry['outside_rate'][j]:.1f}" if np.isfinite(entry["outside_rate"][j]) else "–",
        }
        for j, (low, high) in enumerate(pairwise(edges))
    ]


def partition_edges(data: RunData, task: str) -> np.ndarray:
    """Edges of H-PR's partitions, float64 ``[p + 1]``; empty for another sampler."""
    return np.array((_telemetry(data, task) or {}).get("edges", []), np.float64)


def _telemetry(data: RunData, task: str) -> dict[str, Any]:
    for line in reversed(data.train):
        entry = (line.get("tasks") or {}).get(task, {}).get("partitions")
        if isinstance(entry, dict):
            return {k: [np.nan if x is None else x for x in v] for k, v in entry.items()}
    return {}


def _histogram(line: dict[str, Any], task: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Edges and shares in %."""
    entry = (line.get("tasks") or {}).get(task, {}).get("values")
    if not isinstance(entry, dict):
        return None
    counts = np.array(entry.get("counts", []), np.float64)
    low, high = number(entry.get("low")), number(entry.get("high"))
    if not counts.sum() or not low < high:
        return None
    return np.linspace(low, high, len(counts) + 1), 100 * counts / counts.sum()


def _median(edges: np.ndarray, share: np.ndarray) -> float:
    return float(edges[np.searchsorted(share.cumsum(), share.sum() / 2)])
