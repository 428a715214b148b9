"""The page's look inside the student: scatter plots of its embedded activations, written as SVG by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from polydistill.reporting import media
from polydistill.reporting.data import RunData

SIZE, TALLEST, EDGE, RING = 420.0, 460.0, 16.0, 7.5  # a panel's width, greatest height, border; a mark's radius: pixels
COLOURS = 8  # custom properties --task-0 .. of the page
LEVELS = 8  # of a task's values: equally many states have each


def look_inside(data: RunData) -> dict[str, Any] | None:
    """What the template shows of ``data.embedding``; None if there is nothing to say."""
    arrays = data.embedding
    if not arrays:
        return None
    if str(arrays["note"]):
        return {"note": str(arrays["note"])}
    names = [str(n) for n in arrays["names"]]
    return {
        "names": [(name, _task_colour(g)) for g, name in enumerate(names)],
        "count": len(arrays["task"]) // len(names),
        "known": bool(np.isfinite(arrays["value"]).any()),
        "unknown": [n for g, n in enumerate(names) if not np.isfinite(arrays["value"][arrays["task"] == g]).all()],
        "settings": {k: f"{float(arrays[k]):g}" for k in ("copies", "every", "epsilon", "perplexity", "components")},
        "ramp": Markup(", ".join(_level_colour(i) for i in range(LEVELS))),
        "layers": [_layer(arrays, "first", names), _layer(arrays, "hidden", names)],
        "marked": _marked(arrays, names),
    }


def levels(value: np.ndarray, task: np.ndarray) -> np.ndarray:
    """Level int64 ``[S]``, 0 to 7, of each state's value by its rank in its own task; -1 where it is not known.

    Equal values have one rank, the mean of theirs.
    """
    level = np.full(len(value), -1)
    for g in np.unique(task):
        rows = (task == g) & np.isfinite(value)
        own = np.sort(value[rows])
        rank = (np.searchsorted(own, value[rows]) + np.searchsorted(own, value[rows], "right")) / 2  # 0.5 .. n - 0.5
        level[rows] = rank * LEVELS // max(len(own), 1)
    return level


def scatter(
    points: np.ndarray,
    groups: Iterable[tuple[np.ndarray, str, bool]],
    *,
    labels: Sequence[tuple[np.ndarray, str, str]] = (),
    marked: Sequence[int] = (),
    description: str,
) -> Markup:
    """Points ``[S, 2]`` as an ``<svg>`` element.

    Args:
        groups: Which points (indices), their CSS colour, and whether they are squares instead of dots.
        labels: A name amid some points: their indices, the text, the CSS colour.
        marked: Points that get the numbers 1, 2, ..
        description: What a person who cannot see it should know; plain text.
    """
    place, height = _place(points)
    size = 4.4 if len(points) <= 1500 else 3.4
    parts = [f'<rect x=".5" y=".5" width="{SIZE - 1:g}" height="{height - 1:g}" rx="4" fill="none" '
             'style="stroke:var(--rule)"/>']  # fmt: skip
    for rows, colour, square in groups:
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in place[rows])  # a line of no length, as wide as its cap
        cap, width = ("square", size * 0.85) if square else ("round", size)
        parts.append(f'<path d="{dots}" fill="none" stroke-linecap="{cap}" style="stroke:{colour};'
                     f'stroke-width:{width:g};stroke-opacity:.8"/>')  # fmt: skip
    rings = _apart(place[list(marked)])
    taken = [(x, y, 2 * RING) for x, y in rings]
    for rows, text, colour in labels:
        x, y = _free(place[rows], 8.0 * len(text), height, taken)
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" dominant-baseline="middle" font-size="13" '
                     f'font-weight="650" style="fill:{colour};stroke:var(--paper);stroke-width:4;paint-order:stroke">'
                     f"{escape(text)}</text>")  # fmt: skip
    for number, (x, y) in enumerate(rings, 1):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RING:g}" style="fill:var(--paper);stroke:var(--ink);'
                     f'stroke-width:1.2"/><text x="{x:.1f}" y="{y + 3.3:.1f}" text-anchor="middle" font-size="9.5" '
                     f'font-weight="650" style="fill:var(--ink)">{number}</text>')  # fmt: skip
    head = (f'<svg class="plot" viewBox="0 0 {SIZE:g} {height:g}" style="max-width:{1.2 * SIZE:.0f}px" role="img" '
            f'aria-label="{escape(description)}">')  # fmt: skip
    return Markup(head + "".join(parts) + "</svg>")


def _layer(arrays: dict[str, np.ndarray], layer: str, names: list[str]) -> dict[str, Any]:
    title = "Last hidden layer"
    if layer == "first":
        title = "First convolution" if bool(arrays["first_convolution"]) else "First hidden layer"
    shown: dict[str, Any] = {"title": title, "width": int(arrays[f"{layer}_width"])}
    if str(arrays[f"{layer}_note"]):
        return shown | {"note": str(arrays[f"{layer}_note"])}
    points, task, value = arrays[f"{layer}_points"], arrays["task"], arrays["value"]
    marked = [int(i) for i in arrays["marked"]]
    told = f"{title}: {len(points)} states of {', '.join(names)} as points"
    rows = [np.flatnonzero(task == g) for g in range(len(names))]
    if len(names) > 1:
        shown |= {
            "same": 100 * float(arrays[f"{layer}_same"]),
            "within": 100 * float(arrays[f"{layer}_within"]),
            "apart": layer == "first" and not bool(arrays["first_shared"]),
            "by_task": scatter(
                points,
                [(r, _task_colour(g), g >= COLOURS) for g, r in enumerate(rows)],
                labels=[(r, names[g], _task_colour(g)) for g, r in enumerate(rows)],
                marked=marked,
                description=f"{told}, coloured by task; {100 * float(arrays[f'{layer}_same']):.0f} % of a state's ten "
                "nearest neighbours are of its own task",
            ),
        }
    level = levels(value, task)
    if (level >= 0).any():
        groups = [(np.flatnonzero(level == -1), "var(--rule)", False)]
        groups += [(np.flatnonzero(level == i), _level_colour(i), False) for i in range(LEVELS)]
        shown["by_value"] = scatter(
            points, groups, marked=marked, description=f"{told}, coloured by the teacher's value of the state"
        )
    return shown


def _marked(arrays: dict[str, np.ndarray], names: list[str]) -> list[dict[str, Any]]:
    found = []
    for k, i in enumerate(arrays["marked"]):
        picture = arrays.get(f"picture_{k}", np.zeros((0, 0), np.uint8))
        frame = media.newest_frame(picture) if picture.size else None
        found.append(
            {
                "task": names[int(arrays["task"][i])],
                "as": str(arrays["marked_as"][k]),
                "value": f"{float(arrays['value'][i]):.3g}".replace("-", "−"),
                "position": int(arrays["position"][i]),
                "picture": media.png(frame) if frame is not None else None,
            }
        )
    return found


def _place(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Pixels ``[S, 2]``, one scale for both axes, and the height that they need."""
    low, high = points.min(0), points.max(0)
    span = np.maximum(high - low, 1e-9)
    scale = (SIZE - 2 * EDGE) / max(span[0], span[1] * SIZE / TALLEST)
    height = round(max(span[1] * scale + 2 * EDGE, TALLEST / 3))
    middle = np.array([SIZE, height]) / 2
    return middle + (points - (low + high) / 2) * scale * [1, -1], height


def _apart(rings: np.ndarray) -> np.ndarray:
    """Centres ``[K, 2]`` of marks, each moved beside those before that would cover it."""
    placed: list[np.ndarray] = []
    for centre in rings:
        for other in placed:
            way = centre - other
            far = float(np.linalg.norm(way))
            if far < 2 * RING:
                centre = other + (way / far if far > 0.1 else np.array([1.0, 0.0])) * (2 * RING + 1)
        placed.append(centre)
    return np.array(placed).reshape(-1, 2)


def _free(place: np.ndarray, width: float, height: float, taken: list[tuple[float, float, float]]) -> np.ndarray:
    """Where among its points ``[N, 2]`` a name of ``width`` goes: near their middle, clear of what is there already.

    ``taken``: centres and widths of marks and names; the new one is added.
    """
    inside = np.clip(place, [width / 2 + 4, 14], [SIZE - width / 2 - 4, height - 14])
    far = np.linalg.norm(place[:, None] - place, axis=-1).sum(1)
    for i in np.argsort(far, kind="stable"):
        x, y = inside[i]
        if all(abs(x - a) > (width + w) / 2 or abs(y - b) > 18 for a, b, w in taken):
            break
    else:
        i = int(far.argmin())
    taken.append((*inside[i], width))
    return np.asarray(inside[i])


def _task_colour(g: int) -> str:
    return f"var(--task-{g % COLOURS})"


def _level_colour(level: int) -> str:
    """From pale to the teacher's colour to the page's ink: further from the paper, higher, on light and dark pages."""
    share = level / (LEVELS - 1)
    if share <= 0.5:
        return f"color-mix(in oklab,var(--teacher) {200 * share:.0f}%,color-mix(in oklab,var(--muted) 35%,var(--rule)))"
    return f"color-mix(in oklab,var(--ink) {200 * share - 100:.0f}%,var(--teacher))"
