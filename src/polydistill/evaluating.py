"""Scoring what stands on disk: runs, exported students, teachers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
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
from polydistill.evaluation.start_files import find
from polydistill.evaluation.teacher_scores import TeacherScore, teacher_score
from polydistill.nets.store import CONFIG
from polydistill.policies import Policy, load, of_teacher
from polydistill.tasks import Task
from polydistill.teachers.base import Teacher
from polydistill.teachers.zoo import CARD, load_teacher
from polydistill.training.distral_policy import DistralPolicy, score

RANDOM_GAMES = 10  # of the random policy beside a student; beside a teacher alone EPISODES, as on a card


@dataclass(frozen=True)
class Evaluation:
    """Scores of one policy folder.

    Attributes:
        rows: One per episode.
        distilled: Of Distral's distilled policy, whose rows have the variant ``distilled``; None where there is none.
        teacher: Of a teacher's folder, what a table of teachers says; None for a student.
        notes: What a reader of the scores has to know, a line each.
    """

    path: Path
    summary: Summary
    rows: list[Row]
    distilled: Summary | None = None
    teacher: TeacherScore | None = None
    notes: tuple[str, ...] = ()


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
    alone = None if known else _teacher_at(policy.path)
    ours, _, summary = compare(policy, known, settings, where, on_task=on_task, alone=alone)
    row = None if alone is None else _measured(alone, summary, settings)
    return Evaluation(policy.path, summary, ours, teacher=row, notes=tuple(_own_starts(policy, known, settings)))


def _own_starts(policy: Policy, teachers: Mapping[str, Teacher], protocol: Protocol) -> Iterator[str]:
    """A line for each bundle whose maker is scored from it, as far as paths tell: Rusu et al. 2016 take positions that
    none of the agents has reached."""
    for task in policy.suite.tasks if protocol.name == "starts" else ():
        bundle = find(task, protocol.starts, protocol.episodes)
        maker, teacher = bundle.origin.policy, teachers.get(task.name)
        scored = [policy.path, *([teacher.path] if teacher is not None and teacher.path else [])]
        if maker != "random" and Path(maker).resolve() in [p.resolve() for p in scored]:
            yield (
                f"{bundle.path}: these starts are {maker}'s own, which is scored from them here; those of an "
                "independent policy are fairer (polydistill starts)"
            )


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
    alone: Teacher | None = None,
) -> tuple[list[Row], list[Row], Summary]:
    """Play every task of ``policy``, and its teacher where there is one, under one protocol.

    Args:
        alone: The teacher that ``policy`` is, if it is one: its card may say what the random policy scores.

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
        games = RANDOM_GAMES if alone is None else EPISODES
        randoms[task.name] = random_score(task, teacher or alone, protocol, games)
    summary = summarise(ours, theirs, randoms, protocol=protocol.describe())
    means = mean_scores(theirs)
    return with_teacher(ours, means), with_teacher(theirs, means), summary


def _teachers_of(folder: Path) -> dict[str, Teacher]:
    """The teachers a run's student was distilled from; none for any other folder."""
    info = folder / "run.json"
    if not info.is_file():
        return {}
    try:
        about = json.loads(info.read_text())
        listed = [] if "task" in about and "tasks" not in about else about["tasks"]  # a teacher's own training has one
        found = {t["name"]: t["teacher"] for t in listed}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{info}: damaged ({error!r})") from None
    return {name: load_teacher(path) for name, path in found.items() if path}


def is_teacher(folder: Path) -> bool:
    """Whether a folder is a teacher's, and no other teacher was there to compare it with.

    Raises:
        UserError: its files are damaged.
    """
    return _teacher_at(folder) is not None and not _teachers_of(folder)


def _teacher_at(folder: Path) -> Teacher | None:
    return load_teacher(folder) if (folder / CARD).is_file() and not (folder / CONFIG).is_file() else None


def _measured(teacher: Teacher, summary: Summary, protocol: Protocol) -> TeacherScore:
    played = 0 if _noted(teacher, protocol) is not None else EPISODES
    if played and protocol.name == "starts":
        played = next(iter(summary.tasks.values())).episodes
    name = teacher.path.resolve().name if teacher.path else teacher.task.name
    return teacher_score(name, summary, random_episodes=played, card=teacher.score(protocol.name))


def _noted(teacher: Teacher | None, protocol: Protocol) -> float | None:
    """The random policy's score on a teacher's card: from no-op starts."""
    return teacher.score("random") if teacher is not None and protocol.name == "noop" else None


def random_score(task: Task, teacher: Teacher | None, protocol: Protocol, games: int = RANDOM_GAMES) -> float:
    """The uniformly random policy's mean score: from the teacher's card, or played (under ``starts`` from all)."""
    noted = _noted(teacher, protocol)
    if noted is not None:
        return noted
    few = protocol if protocol.name == "starts" else Protocol(name=protocol.name, episodes=games, seed=protocol.seed)
    return mean_scores(evaluate_task(task, None, few, threads=build.emulator_threads()))[task.name]
