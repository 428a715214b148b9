"""Tables in Markdown files, generated from the experiments' ``scores.csv``: no number is typed by hand.

A table stands between ``<!-- table:results/x -->`` and ``<!-- /table -->``, where ``results/x`` is the experiment's
folder seen from the folder of the Markdown file; or it is a folder of teachers, and the table comes from their cards.
``results/x#reach-90`` is the table of updates until the student had 90 % of its teacher's score; ``results/x#area``
that of the mean % of teacher over training; ``results/x#best`` that of the last and the best evaluations of each
training; ``results/x#negative-transfer`` that of the games played worse than by the teacher; ``results/x#transfer``
that of a transfer; ``results/x#tasks`` and ``results/x#order`` are those of Distral's agents; ``results/x#teachers``
that of teachers that were measured again.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from polydistill.errors import UserError
from polydistill.evaluation.best import BEST, best_table
from polydistill.evaluation.curves import AREA, REACH, area_table, reach_table
from polydistill.evaluation.distral_results import holds_agents
from polydistill.evaluation.distral_tables import ORDER, TASKS, agents_table, order_table, tasks_table
from polydistill.evaluation.markdown import escape, mean_and_spread, number, row, span
from polydistill.evaluation.negative_transfer import NEGATIVE_TRANSFER, negative_transfer_table
from polydistill.evaluation.paper_numbers import PAPER, read_paper
from polydistill.evaluation.rows import read_csv
from polydistill.evaluation.scores import RULE, aggregate
from polydistill.evaluation.teacher_scores import TEACHERS, teachers_table
from polydistill.evaluation.transfer_measures import TRANSFER, transfer_table
from polydistill.evaluation.zoo_table import zoo_table

#: What stands behind the # of a marker -> the table.
PARTS = {
    AREA: area_table,
    BEST: best_table,
    NEGATIVE_TRANSFER: negative_transfer_table,
    TRANSFER: transfer_table,
    TASKS: tasks_table,
    ORDER: order_table,
    TEACHERS: teachers_table,
}

_MARKED = re.compile(r"(<!-- table:(?P<where>\S+) -->)(?P<old>.*?)(?=<!-- /?table)(?P<close><!-- /table -->)?", re.S)


@dataclass(frozen=True)
class Result:
    """One run in one task: the columns of an experiment's ``scores.csv``.

    Attributes:
        variant: What the experiment compares.
        seed: The run's seed.
        updates, control_steps: Optimiser steps and collected control steps when it was scored.
        score, teacher_score: Mean raw returns under ``protocol``.
        percent: ``100 * score / teacher_score``; NaN for a teacher <= 0.
        parameters: The student's, those it does not train included; 0 if unknown.
    """

    variant: str
    task: str
    seed: int
    updates: int
    control_steps: int
    protocol: str
    score: float
    teacher_score: float
    percent: float
    parameters: int = 0


def opening(where: str) -> str:
    """The marker before the table of the experiment at ``where``, seen from the Markdown file's folder."""
    return f"<!-- table:{where} -->"


def close() -> str:
    """The marker after a table."""
    return "<!-- /table -->"


def fill_tables(path: Path) -> bool:
    """Renew every table of a Markdown file; the file is touched only if a table has changed.

    Returns:
        Whether the file changed: True in a continuous-integration check means that a stale number was committed.

    Raises:
        UserError: no such file, a table without its end marker, or an experiment whose ``scores.csv`` is missing or
            damaged. Then nothing is written.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error})") from None
    if not text.count("<!-- table:") == text.count(close()) == len(_MARKED.findall(text)):
        raise UserError(f"{path}: each {opening('...')} needs one {close()} after it")

    def fill(match: re.Match[str]) -> str:
        if match["close"] is None:
            raise UserError(f"{path}: {match[1]} is not followed by {close()}")
        where, _, part = match["where"].partition("#")
        folder = path.parent / where
        cards = sorted(folder.glob("*/card.json"))
        if part.startswith(REACH) and part.removeprefix(REACH).isdecimal():
            table = reach_table(folder, int(part.removeprefix(REACH)))
        elif part in PARTS:
            table = PARTS[part](folder)
        elif part:
            raise UserError(f"{path}: no table {match['where']!r}; #{REACH}90 is a table of updates to 90 % of teacher")
        else:
            table = zoo_table(cards) if cards else experiment_table(folder, where)
        return f"{match[1]}\n{table}\n{close()}"

    new = _MARKED.sub(fill, text)
    if new == text:
        return False
    tmp = path.with_name(path.name + ".tmp")
    tmp.write_text(new, newline="")
    os.replace(tmp, path)
    return True


def experiment_table(experiment: Path, link: str) -> str:
    """The Markdown table of an experiment: one line per task, one column per variant, then the means over tasks.

    That of Distral's agents is :func:`~polydistill.evaluation.distral_tables.agents_table`. In all others a cell is the
    raw score and the % of teacher, means over seeds, with the scores' standard deviation where there are several
    seeds. A variant that ``paper.csv`` has numbers of gets a second column with them. Means over tasks are
    taken of these cells; a variant that lacks a task has none.

    Args:
        link: The experiment's folder as the Markdown file links to it.

    Raises:
        UserError: ``scores.csv`` is missing, damaged or empty, or ``paper.csv`` is damaged.
    """
    if holds_agents(experiment):
        return agents_table(experiment, link)
    results = read_csv(experiment / "scores.csv", Result)
    if not results:
        raise UserError(f"{experiment / 'scores.csv'}: no results yet; add a finished run")
    paper = read_paper(experiment)
    several = len({r.protocol for r in results}) > 1
    groups: dict[str, dict[str, list[Result]]] = {}  # column -> task -> one result per seed
    of_variant: dict[str, str] = {}  # column -> variant
    for r in results:
        column = f"{r.variant} ({r.protocol})" if several else r.variant
        groups.setdefault(column, {}).setdefault(r.task, []).append(r)
        of_variant[column] = r.variant
    tasks = list(dict.fromkeys(r.task for r in results))
    teacher = {t: sorted({number(r.teacher_score) for r in results if r.task == t}) for t in tasks}
    columns: list[_Column] = []
    for name, group in groups.items():
        means = [_mean(group, t, lambda r: r.percent) for t in tasks]
        cells = [_cell(group.get(t, [])) for t in tasks]
        columns.append(_Column(name, cells, means, _budget(group), _parameters(group)))
        told = {n.task: n for n in paper if n.variant == of_variant[name]}
        if any(t in told for t in tasks):
            means = [told[t].percent if t in told else math.nan for t in tasks]
            budget = next(iter(told.values())).budget or "–"
            columns.append(_Column(f"{name}, paper", [_percent(m) for m in means], means, budget, ""))
    lines = [row(["task", "teacher", *(escape(c.name) for c in columns)])]
    lines.append(row(["---", *["---:"] * (1 + len(columns))]))
    lines += [row([escape(t), " / ".join(teacher[t]), *(c.cells[i] for c in columns)]) for i, t in enumerate(tasks)]
    totals = [aggregate(c.percents) for c in columns]
    for name in ("geometric mean", "arithmetic mean", "IQM"):
        values = [getattr(m, name.lower().replace(" ", "_")) for m in totals]
        lines.append(row([f"**{name}**, % of teacher", "", *(number(v) for v in values)]))
    lines.append(row(["updates / control steps of a run", "", *(escape(c.budget) for c in columns)]))
    if any(r.parameters for r in results):
        lines.append(row(["parameters", "", *(c.parameters for c in columns)]))
    own = [m for m, c in zip(totals, columns, strict=True) if c.parameters]
    rule = f" {RULE}" if any(m.floored or math.isnan(m.geometric_mean) for m in own) else ""
    base = "" if link == "." else f"{link.rstrip('/')}/"
    sources = [f"From [{base}scores.csv]({base}scores.csv)."]
    if len(columns) > len(groups):
        told_by = "; ".join(dict.fromkeys(n.source for n in paper))
        sources.append(f"Paper, in % of its own teachers: {told_by} ([{base}{PAPER}]({base}{PAPER})).")
    return "\n".join([*lines, "", f"{_note(results)}{rule}", *sources])


@dataclass(frozen=True)
class _Column:
    """A column of the table: cells and % of teacher per task, then single cells; a paper's has no parameters."""

    name: str
    cells: list[str]
    percents: list[float]
    budget: str
    parameters: str


def _note(results: Sequence[Result]) -> str:
    """Protocol and seeds."""
    seeds = len({r.seed for r in results})
    protocols = ", ".join(dict.fromkeys(r.protocol for r in results))
    spread = f", mean ± standard deviation of {seeds} seeds" if seeds > 1 else ", one seed"
    return f"Raw scores (% of teacher) under protocol {protocols}{spread}."


def _budget(group: Mapping[str, Sequence[Result]]) -> str:
    of = [r for own in group.values() for r in own]
    return f"{span([r.updates for r in of])} / {span([r.control_steps for r in of])}"


def _parameters(group: Mapping[str, Sequence[Result]]) -> str:
    known = [r.parameters for own in group.values() for r in own if r.parameters]
    return span(known) if known else "–"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{number(value)} %"


def _mean(group: dict[str, list[Result]], task: str, value: Callable[[Result], float]) -> float:
    return float(np.mean([value(r) for r in group[task]])) if task in group else math.nan


def _cell(results: Sequence[Result]) -> str:
    if not results:
        return "–"
    return f"{mean_and_spread([r.score for r in results])} ({number(float(np.mean([r.percent for r in results])))} %)"
