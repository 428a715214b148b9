"""Scoring what stands on disk: runs, exported students, teachers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from polydistill import build
from polydistill.devices import device_of
from polydistill.envs.base import EVALUATION_SEED_BASE
from polydistill.errors import UserError
from polydistill.evaluation.protocol import EPISODES, Protocol, evaluate_task, require_starts
from polydistill.evaluation.remembering import COPIES, PROTOCOL
from polydistill.evaluation.scores import Label, Row, Summary, mean_scores, summarise, with_teacher
from polydistill.policies import Policy, load, of_teacher
from polydistill.tasks import Task
from polydistill.teachers.base import Teacher
from polydistill.teachers.zoo import load_teacher
from polydistill.training.distral_policy import DistralPolicy, score


@dataclass(frozen=True)
class Evaluation:
    """Scores of one policy folder.

    Attributes:
        rows: One per episode.
        distilled: Of Distral's distilled policy, whose rows have the variant ``distilled``; None where there is none.
    """

    path: Path
    summary: Summary
    rows: list[Row]
    distilled: Summary | None = None


def evaluate(
    path: str | Path | Policy | DistralPolicy,
    *,
    protocol: str | None = None,
    starts: str | Path | None = None,
    episodes: int | None = None,
    steps: int | None = None,
    teachers: bool = True,
    device: str = "auto",
    on_task: Callable[[str], None] = lambda name: None,
) -> Evaluation:
    """Score a run's student (against its teachers, played under the same protocol), a teacher, or Distral's policies.

    Args:
        path: A run, an exported student, a teacher's folder, or a loaded policy.
        protocol: ``noop`` (if not given), ``sticky`` or ``starts``. Distral's policies have one of their own,
            ``drawn``: they draw their actions.
        starts: Bundle of ``starts``, or a folder of them; None for those that come with the package.
        episodes: Full episodes per task (30 if neither is given, under ``starts`` all); or ``steps``: control steps.
        teachers: Play the teachers too; without them there is no percentage.
        device: Where the networks run.
        on_task: Told the name of each task before it is played.

    Raises:
        UserError: nothing to evaluate there, a teacher of the run has moved, or a protocol that does not go with it.
    """
    bundle, where = None if starts is None else str(starts), device_of(device)
    name = "noop" if protocol in (None, PROTOCOL) else protocol
    settings = Protocol.parse({"name": name, "starts": bundle, "episodes": episodes, "steps": steps}, "protocol")
    policy = path if isinstance(path, Policy | DistralPolicy) else load(path, device)
    if isinstance(policy, DistralPolicy):
        if protocol not in (None, PROTOCOL) or steps is not None:
            wrong = "steps" if protocol in (None, PROTOCOL) else f"protocol {protocol}"
            raise UserError(f"{policy.path}: Distral's policies draw their actions in full episodes: leave {wrong} out")
        return _drawn(policy, settings.episodes or EPISODES, on_task)
    if protocol == PROTOCOL:
        raise UserError(f"{policy.path}: protocol {PROTOCOL} is for Distral's policies; choose noop, sticky or starts")
    known = _teachers_of(policy.path) if teachers else {}
    ours, _, summary = compare(policy, known, settings, where, on_task=on_task)
    return Evaluation(policy.path, summary, ours)


def _drawn(policy: DistralPolicy, episodes: int, on_task: Callable[[str], None]) -> Evaluation:
    ours, alone = score(policy, episodes, threads=build.emulator_threads(), on_task=on_task)
    rules = {"name": PROTOCOL, "episodes": episodes, "num_envs": min(COPIES, episodes), "seed": EVALUATION_SEED_BASE}
    own, distilled = (summarise(rows, [], {}, protocol=rules) if rows else None for rows in (ours, alone))
    assert own is not None
    return Evaluation(policy.path, own, [*ours, *alone], distilled)


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
