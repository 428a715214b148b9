"""From rows to a summary: per task and over tasks, student against teacher. Plays nothing, knows no algorithm."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from polydistill.evaluation.plain import grid, interval, number
from polydistill.evaluation.rows import (
    Label,
    Row,
    append_csv,
    append_rows,
    by_task,
    mean_scores,
    read_csv,
    read_rows,
    with_teacher,
    write_csv,
)
from polydistill.ops.scores import (
    arithmetic_mean,
    bootstrap_interval,
    geometric_mean,
    iqm,
    percent_of_teacher,
    random_normalised,
)

__all__ = [
    "RULE",
    "Aggregate",
    "Label",
    "Row",
    "Summary",
    "TaskScore",
    "aggregate",
    "append_csv",
    "append_rows",
    "by_task",
    "format_table",
    "mean_scores",
    "read_csv",
    "read_rows",
    "summarise",
    "to_json",
    "with_teacher",
    "write_csv",
]

RULE = (
    "Aggregates are over tasks, of % of teacher. In the geometric mean an entry below 1 %, zero and negative scores "
    "included, counts as 1 %. A teacher at or below 0 has no percentage, and then there is no aggregate."
)


@dataclass(frozen=True)
class TaskScore:
    """One task. Scores are raw mean returns; NaN where something is unknown or undefined.

    Attributes:
        score, low, high: The student's mean and its 95 % bootstrap interval (NaN for a single episode).
        teacher, teacher_low, teacher_high: The same for the teacher, under the same protocol.
        random: A uniformly random policy's mean.
        percent: ``100 * score / teacher``; undefined for a teacher <= 0.
        random_normalised: ``100 * (score - random) / (teacher - random)``; undefined unless teacher > random.
        episodes: How many of the student's episodes ``score`` is the mean of.
    """

    score: float
    low: float
    high: float
    teacher: float
    teacher_low: float
    teacher_high: float
    random: float
    percent: float
    random_normalised: float
    episodes: int


@dataclass(frozen=True)
class Aggregate:
    """Means over tasks of % of teacher, NaN if it is undefined in any task.

    Attributes:
        floored: How many entries the geometric mean raised to 1 %.
        rule: What happens to scores <= 0, in words.
    """

    arithmetic_mean: float
    geometric_mean: float
    iqm: float
    floored: int
    rule: str = RULE


@dataclass(frozen=True)
class Summary:
    """What ``summary.json`` holds: the protocol, every task, and the aggregate over tasks."""

    protocol: dict[str, Any]
    tasks: dict[str, TaskScore]
    aggregate: Aggregate


def aggregate(percents: Sequence[float]) -> Aggregate:
    """Means over tasks of % of teacher. ValueError if there are none."""
    geometric = geometric_mean(percents)
    return Aggregate(arithmetic_mean(percents), geometric.value, iqm(percents), geometric.floored)


def summarise(
    student_rows: Sequence[Row],
    teacher_rows: Sequence[Row],
    random_scores: Mapping[str, float],
    *,
    protocol: Mapping[str, Any],
) -> Summary:
    """Compare one student with its teachers.

    Args:
        student_rows: Episodes of one student at one point of its training, any number of tasks.
        teacher_rows: The teachers' episodes under the same protocol; a task without any has an unknown teacher (NaN).
        random_scores: Mean score of the uniformly random policy per task; a task that is not named is unknown (NaN).
        protocol: What :meth:`~polydistill.evaluation.protocol.Protocol.describe` says; kept as it is.

    Raises:
        ValueError: no rows, rows of another protocol, or rows of several students.
    """
    if not student_rows:
        raise ValueError("no episodes to summarise")
    if names := {row.protocol for row in (*student_rows, *teacher_rows)} - {protocol["name"]}:
        raise ValueError(f"protocol is {protocol['name']}, but there are rows of {', '.join(sorted(names))}")
    if len({(row.variant, row.seed, row.updates) for row in student_rows}) > 1:
        raise ValueError("rows of several students, or of one at several points: summarise each by itself")
    teachers = by_task(teacher_rows)
    tasks = {}
    for task, rows in by_task(student_rows).items():
        score, low, high = _mean_and_interval(rows)
        teacher, teacher_low, teacher_high = _mean_and_interval(teachers.get(task, []))
        random = float(random_scores.get(task, math.nan))
        percent = float(percent_of_teacher(score, teacher))
        normalised = float(random_normalised(score, random, teacher))
        tasks[task] = TaskScore(
            score, low, high, teacher, teacher_low, teacher_high, random, percent, normalised, len(rows)
        )
    return Summary(dict(protocol), tasks, aggregate([t.percent for t in tasks.values()]))


def _mean_and_interval(rows: Sequence[Row]) -> tuple[float, float, float]:
    if not rows:
        return math.nan, math.nan, math.nan
    scores = [row.score for row in rows]
    return arithmetic_mean(scores), *bootstrap_interval(scores)


def to_json(summary: Summary) -> str:
    """The text of ``summary.json``; NaN becomes null, for JSON has no NaN."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(asdict(summary)), indent=2, allow_nan=False) + "\n"


def format_table(summary: Summary, width: int = 80) -> str:
    """The summary as plain ASCII text of at most ``width`` columns, without colours: readable in any pipe or log file.

    Long task names are shortened to fit. The text ends without a line end.
    """
    head = ["task", "score", "95 % interval", "teacher", "95 % interval", "% teacher", "norm. %"]
    body = [
        [
            name,
            number(t.score),
            interval(t.low, t.high),
            number(t.teacher),
            interval(t.teacher_low, t.teacher_high),
            number(t.percent),
            number(t.random_normalised),
        ]
        for name, t in summary.tasks.items()
    ]
    lines = grid(head, body, width)
    total = summary.aggregate
    notes = [
        f"% of teacher over {len(body)} task{'s' * (len(body) > 1)}: geometric mean {number(total.geometric_mean)}, "
        f"arithmetic mean {number(total.arithmetic_mean)}, IQM {number(total.iqm)}",
        f"{protocol_in_words(summary.protocol)} norm. %: random policy 0, teacher 100.",
    ]
    if total.floored or math.isnan(total.geometric_mean):
        notes.append(f"{total.rule} Here {total.floored} counted as 1 %.")
    return "\n".join([*lines, "", *(line for note in notes for line in textwrap.wrap(note, width))])


def protocol_in_words(protocol: Mapping[str, Any]) -> str:
    """A sentence, from what :meth:`~polydistill.evaluation.protocol.Protocol.describe` says."""
    episodes = protocol.get("episodes")
    amount = "all starts" if protocol["name"] == "starts" and episodes is None else f"{episodes} episodes"
    amount = f"{protocol['steps']:,} control steps" if protocol.get("steps") else amount
    return f"Protocol {protocol['name']}: epsilon {protocol.get('epsilon')}, {amount} per task."


def format_drawn(summary: Summary, distilled: Summary | None) -> str:
    """Scores of Distral's policies as plain ASCII text: without a teacher there is nothing to be a percentage of.

    Args:
        distilled: Of the distilled policy in the same tasks; None where there is none.
    """
    shown = [summary, *([] if distilled is None else [distilled])]
    head = ["task", "score", "95 % interval", *(["distilled", "95 % interval"] if distilled is not None else [])]
    body = [[name] for name in summary.tasks]
    for s in shown:
        for line, t in zip(body, s.tasks.values(), strict=True):
            line += [number(t.score), interval(t.low, t.high)]
    if len(body) > 1:
        means = [number(arithmetic_mean([t.score for t in s.tasks.values()])) for s in shown]
        body.append(["mean", *(cell for mean in means for cell in (mean, ""))])
    lines = [line.rstrip() for line in grid(head, body, None)]
    note = f"Protocol drawn: actions drawn from the policy, {summary.protocol['episodes']} full episodes per task."
    return "\n".join([*lines, "", note])
