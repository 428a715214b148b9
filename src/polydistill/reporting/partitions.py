"""Which states were met, by the teacher's value (Yin & Pan 2017, Fig. 2), and what H-PR made of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from polydistill.reporting.data import RunData, number
from polydistill.reporting.svg import MUTED, STUDENT, TEACHER, axes, style, to_svg

#: Keys of an evaluation's record: states that the student met in the evaluation itself; and, of runs before those were
#: noted, the newest states collected before it, the exploration of that time among them.
VISITED, COLLECTED = "visited", "values"


def met_in(data: RunData) -> str:
    """Which states :func:`value_histogram` shows: :data:`VISITED`, where two evaluations have them; or the others."""
    having = [line for line in data.evals if any(VISITED in entry for entry in (line.get("tasks") or {}).values())]
    return VISITED if len(having) > 1 else COLLECTED


def value_histogram(data: RunData, task: str) -> str | None:
    """Share of states by ``max_a Q_teacher`` among those met in the first and in the last evaluation during training.

    Older runs: see :func:`met_in`. Where the run has H-PR's partitions, their edges are drawn.
    """
    met = met_in(data)
    found = [(line, _histogram(line, task, met)) for line in data.evals]
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
    """H-PR's partitions: range, experiences and mean priority at the last record; and, summed over the run, shares of
    draws and of the loss, and what of the experiences that came was clamped and dropped.

    Where the range grew (``expand``), counting begins with its last edges.
    """
    records = _records(data, task)
    if not records:
        return []
    newest, edges = records[-1][0], partition_edges(data, task)
    p = len(edges) - 1
    put, draws, dropped = (np.sum([_column(e, key, p) for e, _ in records], 0) for key in ("put", "draws", "dropped"))
    clamped = np.sum([_column(e, "outside_rate", p) * _column(e, "put", p) for e, _ in records], 0)
    loss = np.sum([_column(e, "loss_share", p) * _lost(e, mean, p) for e, mean in records], 0)
    fill, priority = _column(newest, "fill", p), _column(newest, "mean_priority", p)
    return [
        {
            "range": f"{low:.3g} to {high:.3g}",
            "fill": int(fill[j]) if np.isfinite(fill[j]) else 0,
            "draws": _percent(draws[j], draws.sum()),
            "priority": f"{priority[j]:.3g}" if np.isfinite(priority[j]) else "–",
            "loss": _percent(loss[j], loss.sum()),
            "outside": _percent(clamped[j], put[j]),
            "dropped": _percent(dropped[j], put[j] + dropped[j]),
        }
        for j, (low, high) in enumerate(pairwise(edges))
    ]


def partition_edges(data: RunData, task: str) -> np.ndarray:
    """Edges of H-PR's partitions, float64 ``[p + 1]``; empty for another sampler."""
    records = _records(data, task)
    return _edges(records[-1][0]) if records else np.zeros(0)


def _records(data: RunData, task: str) -> list[tuple[dict[str, Any], float]]:
    """What the sampler told with each record, and the mean loss since the one before, as long as its edges stood."""
    found: list[tuple[dict[str, Any], float]] = []
    for line in reversed(data.train):
        told = (line.get("tasks") or {}).get(task, {})
        entry = told.get("partitions")
        if not isinstance(entry, dict) or len(_edges(entry)) < 2:
            continue
        if found and not np.array_equal(_edges(entry), _edges(found[0][0])):
            break
        found.append((entry, number(told.get("loss"))))
    return found[::-1]


def _edges(entry: dict[str, Any]) -> np.ndarray:
    return np.array([number(x) for x in entry.get("edges") or []], np.float64)


def _column(entry: dict[str, Any], key: str, p: int) -> np.ndarray:
    """Float64 ``[p]``; NaN if it is not known. Older files have one ``dropped`` for all: 0 of all is 0 of each."""
    values = np.array([number(x) for x in entry.get(key) or []], np.float64)
    if len(values) == 1 and values[0] == 0:
        return np.zeros(p)
    return values if len(values) == p else np.full(p, np.nan)


def _lost(entry: dict[str, Any], mean: float, p: int) -> float:
    """Sum of the losses of what was drawn; a record without a draw has no mean."""
    drawn = float(_column(entry, "draws", p).sum())
    return mean * drawn if drawn else 0.0


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if np.isfinite(part) and whole > 0 else "–"


def _histogram(line: dict[str, Any], task: str, key: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Edges and shares in %."""
    entry = (line.get("tasks") or {}).get(task, {}).get(key)
    if not isinstance(entry, dict):
        return None
    counts = np.array(entry.get("counts", []), np.float64)
    low, high = number(entry.get("low")), number(entry.get("high"))
    if not counts.sum() or not low < high:
        return None
    return np.linspace(low, high, len(counts) + 1), 100 * counts / counts.sum()


def _median(edges: np.ndarray, share: np.ndarray) -> float:
    return float(edges[np.searchsorted(share.cumsum(), share.sum() / 2)])
