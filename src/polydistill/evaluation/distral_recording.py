"""Runs of Distral's agents kept in ``results/<experiment>/``; only the files of a run are read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.errors import UserError
from polydistill.evaluation.claims import Claim
from polydistill.evaluation.curves import CURVES
from polydistill.evaluation.distral_results import SCORES, AgentScore, ReturnPoint, read_results
from polydistill.evaluation.distral_tables import PAPER
from polydistill.evaluation.experiment import (
    COMMANDS,
    command_block,
    read_json,
    read_lines,
    replaced,
    write_command,
)
from polydistill.evaluation.remembering import DISTILLED
from polydistill.evaluation.rows import by_task, mean_scores, read_rows, write_csv

POINTS = 60  # of a run's learning curve in one task, at most


def add_run(run: Path, experiment: Path, variant: str, settings: str = "") -> list[AgentScore]:
    """Add a finished run of ``polydistill distral`` to an experiment; what was there of the same run is replaced.

    Args:
        run: A run folder with ``run.json``, ``scores.csv`` and ``metrics.jsonl``.
        experiment: ``results/<experiment>``; made if it is not there.
        settings: The run's point in the grid.

    Returns:
        The rows that were added to the experiment's ``scores.csv``.

    Raises:
        UserError: a file of the run is missing or damaged. Then nothing has changed on disk.
    """
    about, rows = read_json(run / "run.json"), read_rows(run / SCORES)
    own = by_task(row for row in rows if row.variant != DISTILLED)
    alone = mean_scores(row for row in rows if row.variant == DISTILLED)
    if not own:
        raise UserError(f"{run / SCORES}: no episodes; is {run} the folder of a finished run?")
    scores = [
        AgentScore(
            variant=variant,
            task=task,
            seed=episodes[0].seed,
            settings=settings,
            updates=episodes[0].updates,
            control_steps=episodes[0].control_steps // len(own),
            protocol=episodes[0].protocol,
            score=float(np.mean([episode.score for episode in episodes])),
            distilled=alone.get(task, math.nan),
            parameters=int(about.get("parameters") or 0),
        )
        for task, episodes in own.items()
    ]
    seed = scores[0].seed
    title = ", ".join(filter(None, (variant, " + ".join(own), settings, f"seed {seed}")))
    try:
        lines = read_lines(run / "metrics.jsonl", "train")
        points = [ReturnPoint(variant, task, seed, settings, *point) for task in own for point in _curve(lines, task)]
        block = command_block({**about, "wall_seconds": about["seconds"]}, title)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{run}: run.json or metrics.jsonl lacks something ({error!r})") from None
    old_scores, old_points = read_results(experiment) if (experiment / SCORES).exists() else ([], [])
    experiment.mkdir(parents=True, exist_ok=True)
    key = ("variant", "task", "seed", "settings")
    for name, kind, old, new in ((CURVES, ReturnPoint, old_points, points), (SCORES, AgentScore, old_scores, scores)):
        write_csv(experiment / name, replaced(old, new, lambda r: tuple(getattr(r, k) for k in key)), kind)
    write_command(experiment / COMMANDS, block)
    return scores


def sort_rows(experiment: Path, variants: Sequence[str], grid: Sequence[str], tasks: Sequence[str]) -> None:
    """Put the rows in a given order, whichever run finished first; what is not named goes last.

    Raises:
        UserError: ``scores.csv`` or ``curves.csv`` is damaged.
    """
    orders = [{name: i for i, name in enumerate(names)} for names in (variants, grid, tasks)]

    def place(row: AgentScore | ReturnPoint) -> tuple[int, ...]:
        variant, point, task = (
            order.get(name, len(order))
            for order, name in zip(orders, (row.variant, row.settings, row.task), strict=True)
        )
        return variant, point, row.seed, task

    scores, points = read_results(experiment)
    write_csv(experiment / SCORES, sorted(scores, key=place), AgentScore)
    write_csv(experiment / CURVES, sorted(points, key=place), ReturnPoint)


def write_claims(experiment: Path, claims: Iterable[Claim]) -> None:
    """Keep what a paper says beside the experiment's own scores; no claims: no file."""
    rows = list(claims)
    if rows:
        write_csv(experiment / PAPER, rows, Claim)
    else:
        (experiment / PAPER).unlink(missing_ok=True)


def _curve(lines: Sequence[Mapping[str, Any]], task: str) -> list[tuple[int, float]]:
    """(Control steps of the task, return); of more than :data:`POINTS`, so many, the first and the last among them."""
    known = [
        (int(line["control_steps"]) // len(line["tasks"]), float(line["tasks"][task]["return"]))
        for line in lines
        if line["tasks"][task]["return"] is not None
    ]
    if len(known) <= POINTS:
        return known
    return [known[round(i)] for i in np.linspace(0, len(known) - 1, POINTS)]
