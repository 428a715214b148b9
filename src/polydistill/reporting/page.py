"""``report.html``: one page that holds everything it shows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.errors import UserError
from polydistill.evaluation.visited import EVERY
from polydistill.outputs import replace_page
from polydistill.plugins import nearest
from polydistill.reporting import distral_page, media, plots
from polydistill.reporting.data import RunData, number, read_run
from polydistill.reporting.embedding import look_inside
from polydistill.reporting.html import environment, inline, seeds
from polydistill.reporting.partitions import met_in, partition_rows, value_histogram
from polydistill.reporting.statistics import AGGREGATES, TaskResult, Value, aggregates, task_results
from polydistill.reporting.svg import write_svg
from polydistill.reporting.text import duration, millions


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the report of ``run`` to ``out`` (default ``run/report.html``) and return its path.

    An unfinished run gives a page of what there is so far, which says what is missing.

    Raises:
        UserError: ``run`` is not a run, or ``out`` cannot be written.
    """
    html = distral_page.render(run) if distral_page.is_distral(run) else render(read_run(run))
    return replace_page(out if out is not None else run / "report.html", html, "the report")


def write_picture(run: Path, out: Path) -> Path | None:
    """Write the final scores of a run as one SVG file that stands alone, for light and dark pages.

    Returns:
        ``out``; None if no score can be said in % of its teacher's, which then are 0 or less.

    Raises:
        UserError: ``run`` is not a run, or ``out`` cannot be written.
    """
    data = read_run(run)
    plot = plots.final_scores(task_results(data), aggregates(data)["geometric_mean"])
    return None if plot is None else write_svg(out, plot)


def write_states(run: Path, task: str, out: Path) -> Path:
    """Write which states of a task the student met, first and last (Yin & Pan 2017, Fig. 2), as an SVG file.

    Raises:
        UserError: ``run`` is not a run, has no such task or fewer than two evaluations with values, or ``out`` cannot
            be written.
    """
    data = read_run(run)
    if task not in data.tasks:
        raise UserError(f"{run}: no task {task!r}; {nearest(task, data.tasks)}")
    plot = value_histogram(data, task)
    if plot is None:
        raise UserError(f"{run}: fewer than two evaluations during training have values of {task}'s states to compare")
    return write_svg(out, plot)


def render(data: RunData) -> str:
    """The page as HTML."""
    results, totals = task_results(data), aggregates(data)
    return (
        environment()
        .get_template("template.html.j2")
        .render(
            name=data.path.resolve().name,
            headline=headline(data, results, totals["geometric_mean"]),
            games="games" if _all_atari(data) else "tasks",
            missing=data.missing,
            results=results,
            worse=[r for r in results if r.worse],
            better=[r for r in results if r.better],
            judged=[r for r in results if math.isfinite(r.difference.low)],
            totals=[(label, totals[key]) for key, (label, _) in AGGREGATES.items()],
            floored=(data.summary.get("aggregate") or {}).get("floored", 0),
            rule=(data.summary.get("aggregate") or {}).get("rule", ""),
            protocol=data.summary.get("protocol") or {},
            final=inline(plots.final_scores(results, totals["geometric_mean"])),
            videos=[v for v in (_video(data, task) for task in data.tasks) if v],
            curves=[(task, inline(plot)) for task in data.tasks if (plot := plots.learning_curve(data, task))],
            agreement=inline(plots.over_time(data, "agreement")),
            kl=inline(plots.over_time(data, "kl")),
            met=[
                (task, inline(plot), partition_rows(data, task))
                for task in data.tasks
                if (plot := value_histogram(data, task))
            ],
            met_in=met_in(data),
            visited_every=EVERY,
            inspections=[_inspection(data, task) for task in data.tasks if task in data.inspections],
            inside=look_inside(data),
            recipe=data.recipe,
            seeds=seeds(data),
            info=data.info,
            duration=duration(number(data.info.get("wall_seconds"))),
            teachers=[(t, data.task_info(t), _card(data.task_info(t))) for t in data.tasks],
        )
    )


def headline(data: RunData, results: list[TaskResult], geometric: Value) -> str:
    """What came of the run, in one sentence."""
    parameters = number((data.info.get("student") or {}).get("parameters"))
    size = f" of {millions(parameters)} parameters" if parameters > 0 else ""
    count, kind = len(data.tasks), "game" if _all_atari(data) else "task"
    subject = f"One network{size}"
    number_of = f"{count} {kind}{'' if count == 1 else 's'}"
    teachers = "its teacher" if count == 1 else "its teachers"
    if results and math.isfinite(geometric.value):
        how = "" if count == 1 else "geometric mean"
        bounds = (
            f"95\u00a0% interval {geometric.low:.0f} to {geometric.high:.0f}\u00a0%"
            if math.isfinite(geometric.low)
            else ""
        )
        note = "; ".join(filter(None, (how, bounds)))
        return f"{subject} plays {number_of} at {geometric.value:.0f}\u00a0% of {teachers}" + (
            f" ({note})." if note else "."
        )
    if results:
        return f"{subject} plays {number_of}; a percentage of {teachers} is not defined for every one of them."
    entries = (data.evals[-1].get("tasks") or {}) if data.evals else {}
    percents = [p for p in (number(e.get("percent")) for e in entries.values()) if math.isfinite(p)]
    updates = number((data.evals or data.train or [{}])[-1].get("updates"))
    so_far = f" after {updates:,.0f} updates" if math.isfinite(updates) else ""
    if percents:
        mean = f"{np.mean(percents):.0f}\u00a0% of {teachers}{so_far}, on average"
        return f"{subject} learns {number_of}: {mean}, and not evaluated in full yet."
    return f"{subject} learns {number_of if count else 'its tasks'}; it has not been evaluated yet."


def _all_atari(data: RunData) -> bool:
    return bool(data.tasks) and all(data.task_info(t).get("kind") == "atari" for t in data.tasks)


def _card(info: dict[str, Any]) -> str:
    return json.dumps(info.get("teacher_card"), indent=2) if info.get("teacher_card") else ""


def _video(data: RunData, task: str) -> dict[str, Any] | None:
    arrays = data.inspections.get(task, {})
    uri = media.mp4(data.videos[task]) if task in data.videos else None
    note = str(arrays.get("video_note", ""))
    if uri is None and not note:
        return None
    poster, scores, steps = arrays.get("video_poster"), arrays.get("video_scores"), arrays.get("video_steps")
    told = ""
    if uri and scores is not None and steps is not None:
        told = f"Student {scores[0]:g} points in {steps[0]} control steps, teacher {scores[1]:g} in {steps[1]}."
        told = told.replace("-", "−")
    return {
        "task": task,
        "uri": uri,
        "poster": media.png(poster) if uri and poster is not None and poster.size else None,
        "told": told,
        "note": note,
    }


def _inspection(data: RunData, task: str) -> dict[str, Any]:
    arrays = data.inspections[task]
    meanings = [str(m) for m in arrays["action_meanings"]]
    states = []
    for k in range(len(arrays["worst_regret"])):
        theirs, ours = int(arrays["worst_teacher_action"][k]), int(arrays["worst_student_action"][k])
        obs, screen = arrays["worst_obs"][k], arrays["worst_screen"][k]
        picture = screen if screen.size and data.task_info(task).get("kind") == "atari" else media.newest_frame(obs)
        states.append(
            {
                "picture": media.png(picture) if picture is not None else None,
                "rows": [
                    (
                        who,
                        meanings[action],
                        f"{arrays['worst_q'][k, action]:.3f}",
                        f"{100 * arrays['worst_probability'][k, action]:.0f}\u00a0%",
                    )
                    for who, action in (("teacher", theirs), ("student", ours))
                ],
                "regret": f"{arrays['worst_regret'][k]:.3g}",
                "position": int(arrays["worst_position"][k]),
            }
        )
    return {
        "task": task,
        "states": states,
        "count": len(arrays["value"]),
        "agreement": 100 * float(arrays["agreement"]),
        "regret": f"{float(arrays['mean_regret']):.3g}",
        "value": inline(plots.decile_bars(arrays, task, "value")),
        "position": inline(plots.decile_bars(arrays, task, "position")),
        "confusion": _confusion(arrays["confusion"], meanings),
    }


def _confusion(counts: np.ndarray, meanings: list[str]) -> dict[str, Any]:
    """Rows: teacher's actions that occur. Cells: count, and its share of the row in %."""
    columns = [j for j in range(len(meanings)) if counts[:, j].any() or counts[j].any()]
    rows = [
        (meanings[i], [(int(counts[i, j]), round(100 * counts[i, j] / counts[i].sum()), i == j) for j in columns])
        for i in columns
        if counts[i].any()
    ]
    return {"columns": [meanings[j] for j in columns], "rows": rows}
