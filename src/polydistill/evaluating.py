"""Scoring what stands on disk: runs, exported students, teachers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from polydistill import build
from polydistill.errors import UserError
from polydistill.evaluation.protocol import Protocol, evaluate_task, require_starts
from polydistill.evaluation.scores import Label, Row, Summary, mean_scores, summarise, with_teacher
from polydistill.policies import Policy, load, of_teacher
from polydistill.tasks import Task
from polydistill.teachers.base import Teacher
from polydistill.teachers.zoo import load_teacher
from polydistill.training.run import device_of


@dataclass(frozen=True)
class Evaluation:
    """Scores of one policy folder."""

    path: Path
    summary: Summary
    rows: list[Row]


def evaluate(
    path: str | Path | Policy,
    *,
    protocol: str = "noop",
    starts: str | Path | None = None,
    episodes: int | None = None,
    steps: int | None = None,
    teachers: bool = True,
    device: str = "auto",
    on_task: Callable[[str], None] = lambda name: None,
) -> Evaluation:
    """Score a run's student (against its teachers, played under the same protocol) or a teacher.

    Args:
        path: A run, an exported student, a teacher's folder, or a loaded policy.
        protocol: ``noop``, ``sticky`` or ``starts``.
        starts: Bundle of ``starts``, or a folder of them; None for those that come with the package.
        episodes: Full episodes per task (30 if neither is given, under ``starts`` all); or ``steps``: control steps.
        teachers: Play the teachers too; without them there is no percentage.
        device: Where the networks run.
        on_task: Told the name of each task before it is played.

    Raises:
        UserError: nothing to evaluate there, or a teacher of the run has moved.
    """
    bundle = None if starts is None else str(starts)
    settings = Protocol.parse({"name": protocol, "starts": bundle, "episodes": episodes, "steps": steps}, "protocol")
    where = device_of(device)
    policy = path if isinstance(path, Policy) else load(path, device)
    known = _teachers_of(policy.path) if teachers else {}
    ours, _, summary = compare(policy, known, settings, where, on_task=on_task)
    return Evaluation(policy.path, summary, ours)


def compare(
    policy: Policy,
    teachers: Mapping[str, Teacher],
    protocol: Protocol,
    device: torch.device,
    *,
    label: Label | None = None,
    on_task: Callable[[str], None] = lambda name: None,
) -> tuple[list[Row], list[Row], Summary]:
    """Play every task of ``policy``, and its teacher where there is one, under one protocol.

    Returns:
        The policy's rows and the teachers', both with the teacher's mean, and their summary.

    Raises:
        UserError: a task cannot be played under the protocol.
    """
    require_starts(policy.suite.tasks, protocol)
    label, threads = label or Label(), build.emulator_threads()
    ours: list[Row] = []
    theirs: list[Row] = []
    randoms = {}
    for task in policy.suite.tasks:
        on_task(task.name)
        ours += evaluate_task(task, policy.greedy(task.name), protocol, threads=threads, label=label)
        teacher = teachers.get(task.name)
        if teacher is not None:
            master = of_teacher(teacher, device).greedy(task.name)
            theirs += evaluate_task(task, master, protocol, threads=threads, label=Label("teacher", label.seed))
        randoms[task.name] = random_score(task, teacher, protocol)
    summary = summarise(ours, theirs, randoms, protocol=protocol.describe())
    means = mean_scores(theirs)
    return with_teacher(ours, means), with_teacher(theirs, means), summary


def _teachers_of(folder: Path) -> dict[str, Teacher]:
    """The teachers a run's student was distilled from; none for any other folder."""
    info = folder / "run.json"
    if not info.is_file():
        return {}
    try:
        found = {t["name"]: t["teacher"] for t in json.loads(info.read_text())["tasks"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{info}: damaged ({error!r})") from None
    return {name: load_teacher(path) for name, path in found.items() if path}


def random_score(task: Task, teacher: Teacher | None, protocol: Protocol) -> float:
    """The uniformly random policy's mean score: from the teacher's card, or played."""
    noted = teacher.score("random") if teacher is not None else None
    if noted is not None and protocol.name == "noop":
        return noted
    few = protocol if protocol.name == "starts" else Protocol(name=protocol.name, episodes=10, seed=protocol.seed)
    return mean_scores(evaluate_task(task, None, few, threads=build.emulator_threads()))[task.name]
