"""A transfer's folder, completed to that of a finished run, so that experiments and tables read it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from polydistill.evaluation.protocol import evaluate_task
from polydistill.evaluation.rows import Label, Row, mean_scores, with_teacher, write_csv
from polydistill.evaluation.scores import summarise, to_json
from polydistill.nets.student import count
from polydistill.ops.scores import percent_of_teacher
from polydistill.settings import Settings
from polydistill.tasks import Task
from polydistill.teachers.base import Teacher
from polydistill.teachers.zoo import Network
from polydistill.training.folder import RunFolder
from polydistill.training.student_folder import Scored
from polydistill.training.teach import CURVE, Teaching, evaluations


def about(task: Task, network: Network, net: Any, recipe: Settings, against: Teacher | None) -> dict[str, Any]:
    """What ``run.json`` says beside command, commit and machine."""
    entry = {
        "name": task.name,
        "kind": task.kind,
        "action_meanings": list(task.action_meanings),
        "teacher": str(against.path) if against is not None and against.path else None,
        "random_score": against.score("random") if against is not None else None,
    }
    return {
        "algorithm": "transfer",
        "transfer": recipe.model_dump(mode="json", include={"source", "init", "hand_over"}),
        "student": {
            "kind": network.body.kind if network.body is not None else "q_network",
            "parameters": count(net),
            "trainable": count(net),
        },
        "task": task.to_dict(),
        "tasks": [entry],
    }


def write_results(folder: RunFolder, scored: Scored, teaching: Teaching, seed: int, against: Teacher | None) -> None:
    """Scores, their summary and the curve as a distillation has them; the teacher plays the same games.

    Raises:
        UserError: the disk is full or not writable.
    """
    name, trainer = teaching.task.name, teaching.trainer
    theirs = evaluate_task(against.task, against.greedy, scored.protocol, label=Label("teacher")) if against else []
    rows = [
        replace(row, variant="student", seed=seed, updates=trainer.updates, control_steps=trainer.steps)
        for row in scored.rows
    ]
    means = mean_scores(theirs)
    summary = summarise(rows, theirs, {name: scored.random}, protocol=scored.protocol.describe())
    write_csv(folder.path / "scores.csv", with_teacher(rows, means), Row)
    write_csv(folder.path / "teacher_scores.csv", with_teacher(theirs, means), Row)
    folder.write_text("metrics.jsonl", "".join(_line(name, p, means) for p in evaluations(folder.path / CURVE)))
    folder.write_text("summary.json", to_json(summary))


def _line(task: str, point: tuple[int, int, float], means: dict[str, float]) -> str:
    steps, updates, score = point
    teacher = means.get(task, math.nan)
    percent = float(percent_of_teacher(score, teacher))
    numbers = {"score": score, "low": math.nan, "high": math.nan, "teacher": teacher, "percent": percent}
    known = {key: None if math.isnan(x) else x for key, x in numbers.items()}
    return json.dumps({"kind": "eval", "updates": updates, "control_steps": steps, "tasks": {task: known}}) + "\n"
