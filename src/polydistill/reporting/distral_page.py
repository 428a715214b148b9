"""The report of a run of Distral: no teacher, so nothing is a percentage; a distilled policy that has scores too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from polydistill.algorithms.distral import AGENTS
from polydistill.errors import UserError
from polydistill.evaluation.remembering import DISTILLED
from polydistill.evaluation.rows import Row, by_task, read_rows
from polydistill.ops.distral import costs
from polydistill.ops.scores import bootstrap_interval, stratified_bootstrap
from polydistill.reporting.data import RunData, number, read_json, read_metrics, series
from polydistill.reporting.distral_plots import final_returns, learning_curve
from polydistill.reporting.html import environment, inline, seeds
from polydistill.reporting.statistics import Value
from polydistill.reporting.text import duration, num

RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class Result:
    """One task of the final evaluation, or the mean over tasks.

    Attributes:
        own, alone: Mean return of the task's policy and of the distilled one.
        training: Of the last training episodes.
    """

    name: str
    own: Value
    alone: Value
    training: float
    episodes: int


def is_distral(run: Path) -> bool:
    """Whether ``run`` is a folder of ``polydistill distral TASK ...``."""
    return bool(_settings(run).get("agent"))


def _settings(run: Path) -> dict[str, Any]:
    try:
        recipe = yaml.safe_load((run / RECIPE).read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    settings = recipe.get("settings") if isinstance(recipe, dict) else None
    return settings if isinstance(settings, dict) else {}


def render(run: Path) -> str:
    """The page as HTML; an unfinished run gives a page of what there is."""
    data, settings = RunData(run), _settings(run)
    data.info = read_json(data, "run.json", "how it was run")
    data.recipe = (run / RECIPE).read_text(errors="replace")
    read_metrics(data)
    rows = _rows(data)
    data.missing = [clause for clause in data.missing if clause != "evaluations during training"]  # it has none
    agent, results = AGENTS.get(str(settings["agent"])), _results(data, rows)
    lines = [{**line, "each": number(line.get("control_steps")) / max(len(data.tasks), 1)} for line in data.train]
    courses = {task: series(lines, task, "return", x="each") for task in data.tasks}
    courses = {task: course for task, course in courses.items() if len(course[0])}
    known = {r.name: r for r in results}
    return (
        environment()
        .get_template("distral.html.j2")
        .render(
            name=run.resolve().name,
            headline=headline(data, str(settings["agent"]), results),
            agent=agent,
            policies=_policies(settings),
            costs=_costs(settings),
            distils=agent is not None and agent.distils,
            missing=data.missing,
            results=results,
            mean=_mean(results, rows) if len(results) > 1 else None,
            final=inline(final_returns([(r.name, r.own, r.alone) for r in results])),
            curves=[
                (task, inline(learning_curve(task, *course, known[task].alone.value if task in known else math.nan)))
                for task, course in courses.items()
            ],
            mean_curve=_mean_curve(courses, results) if len(data.tasks) == len(courses) > 1 else None,
            recipe=data.recipe,
            seeds=seeds(data),
            info=data.info,
            duration=duration(number(data.info.get("seconds"))),
            teachers=[],
        )
    )


def headline(data: RunData, agent: str, results: Sequence[Result]) -> str:
    """What came of the run, in one sentence."""
    count = len(data.tasks)
    tasks = "one task" if count == 1 else f"{count} tasks together"
    if not results:
        played = number((data.train or [{}])[-1].get("control_steps"))
        so_far = f", {played / max(count, 1):,.0f} control steps of each so far" if math.isfinite(played) else ""
        return f"{agent} learns {tasks}{so_far}; it has not been evaluated yet."
    own = np.mean([r.own.value for r in results])
    alone = np.mean([r.alone.value for r in results])
    mean = "mean return" if count == 1 else "mean return over tasks"
    also = f"; its distilled policy alone gets {num(alone)}" if math.isfinite(alone) else ""
    return f"{agent} has learnt {tasks}: {mean} {num(own)}{also}."


def _rows(data: RunData) -> list[Row]:
    path = data.path / "scores.csv"
    try:
        return read_rows(path)
    except UserError:
        data.missing.append("the final scores (scores.csv" + (" cannot be read)" if path.is_file() else ")"))
        return []


def _results(data: RunData, rows: Sequence[Row]) -> list[Result]:
    own, alone = _scores(rows, distilled=False), _scores(rows, distilled=True)
    last = (data.train or [{}])[-1].get("tasks") or {}
    trained = {name: number((last.get(name) or {}).get("return")) for name in own}
    return [Result(name, _value(own[name]), _value(alone.get(name)), trained[name], len(own[name])) for name in own]


def _scores(rows: Sequence[Row], *, distilled: bool) -> dict[str, np.ndarray]:
    chosen = [row for row in rows if (row.variant == DISTILLED) == distilled]
    return {task: np.array([row.score for row in own]) for task, own in by_task(chosen).items()}


def _value(scores: np.ndarray | None) -> Value:
    return Value() if scores is None else Value(float(scores.mean()), *bootstrap_interval(scores))


def _mean(results: Sequence[Result], rows: Sequence[Row]) -> Result:
    """Mean over tasks; episodes are resampled, each within its task."""

    def value(distilled: bool) -> Value:
        samples = list(_scores(rows, distilled=distilled).values())
        if len(samples) < len(results):
            return Value()
        bounds = stratified_bootstrap(samples, lambda drawn: float(np.mean([s.mean() for s in drawn])))
        return Value(float(np.mean([s.mean() for s in samples])), *bounds)

    training = float(np.mean([r.training for r in results]))
    return Result("mean", value(False), value(True), training, sum(r.episodes for r in results))


def _mean_curve(courses: dict[str, tuple[np.ndarray, np.ndarray]], results: Sequence[Result]) -> Any:
    """From where every task has finished an episode; all tasks are logged at once."""
    x = np.unique(np.concatenate([course[0] for course in courses.values()]))
    x = x[x >= max(course[0][0] for course in courses.values())]
    y = np.mean([np.interp(x, *course) for course in courses.values()], axis=0)
    alone = float(np.mean([r.alone.value for r in results])) if results else math.nan
    return inline(learning_curve("mean over tasks", x, y, alone, wide=True)) if len(x) else None


def _policies(settings: dict[str, Any]) -> str:
    """What a task's policy is made of, in words."""
    agent = AGENTS.get(str(settings["agent"]))
    if agent is None:
        return ""
    if agent.shared and agent.own:
        made = "Each task's policy is made of a network of its own and one that all share."
    else:
        made = "Each task has a network of its own." if agent.own else "One network plays every task."
    if not agent.distils:
        return made
    return f"{made} All are distilled into one policy while they learn; α is {agent.alpha:g}."


def _costs(settings: dict[str, Any]) -> dict[str, str]:
    agent, beta = AGENTS.get(str(settings["agent"])), number(settings.get("beta"))
    if agent is None or not agent.distils or not beta > 0:
        return {}
    kl, entropy = costs(agent.alpha, beta)
    return {"beta": f"{beta:g}", "kl": f"{kl:.3g}", "entropy": f"{entropy:.3g}"}
