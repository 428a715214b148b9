"""A shadow student's folder, completed to that of a finished run, so that ``evaluate`` and ``report`` read it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from polydistill.errors import UserError
from polydistill.evaluation.protocol import Protocol
from polydistill.evaluation.rows import Row, mean_scores, with_teacher, write_csv
from polydistill.evaluation.scores import TaskScore, summarise, to_json
from polydistill.nets.student import count
from polydistill.training.shadow import Shadow


@dataclass(frozen=True)
class Scored:
    """How a teacher did.

    Attributes:
        path: Its folder.
        protocol: How it was played.
        rows: One per episode, as :func:`~polydistill.evaluation.protocol.evaluate_task` gives them.
        random: The uniformly random policy's mean score.
    """

    path: Path
    protocol: Protocol
    rows: list[Row]
    random: float


def complete(
    out: Path,
    shadow: Shadow,
    teacher: Scored,
    evaluations: Iterable[Mapping[str, Any]],
    info: Mapping[str, Any],
    control_steps: int,
) -> TaskScore:
    """Play the student under the teacher's protocol; write everything that belongs to a finished run beside it.

    Args:
        out: The student's folder.
        evaluations: Those during training, as lines of ``metrics.jsonl``.
        info: Command, commit, versions, machine.
        control_steps: The learner's.

    Raises:
        UserError: the disk is full or not writable.
    """
    name, means = shadow.task.name, mean_scores(teacher.rows)
    rows = shadow.evaluate(teacher.protocol, control_steps)
    summary = summarise(rows, teacher.rows, {name: teacher.random}, protocol=teacher.protocol.describe())
    settings = {**shadow.settings.model_dump(mode="json", exclude={"seeds"}), "seed": shadow.seed}
    try:
        write_csv(out / "scores.csv", with_teacher(rows, means), Row)
        write_csv(out / "teacher_scores.csv", with_teacher(teacher.rows, means), Row)
        _write(out / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in evaluations))
        _write(out / "recipe.yaml", yaml.safe_dump({"shadow": settings}, sort_keys=False))
        _write(out / "summary.json", to_json(summary))
        _write(out / "run.json", json.dumps({**info, **_about(shadow, teacher)}, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror})") from error
    return summary.tasks[name]


def _write(path: Path, text: str) -> None:
    """Replace a text file in one rename."""
    tmp = path.with_name(f".{path.name}.tmp")
    tmp.write_text(text)
    os.replace(tmp, path)


def _about(shadow: Shadow, teacher: Scored) -> dict[str, Any]:
    """What ``run.json`` says of a student and its task."""
    task, student = shadow.task, shadow.student
    about = {
        "name": task.name,
        "kind": task.kind,
        "action_meanings": list(task.action_meanings),
        "teacher": str(teacher.path),
        "teacher_kind": shadow.best.kind,
        "random_score": teacher.random,
    }
    return {
        "student": {
            "kind": shadow.settings.student,
            "parameters": count(student),
            "trainable": count(student, trainable=True),
        },
        "tasks": [about],
    }
