"""Multi-task DQN from end to end, the baseline without teachers: what ``polydistill multitask`` does, as a function."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from polydistill.algorithms.dqn import DQNSettings
from polydistill.algorithms.multi_dqn import MultiDQN, Switch
from polydistill.api import VALIDATION_SEED, Result, entries, eval_record
from polydistill.build import bf16_pays, emulator_threads
from polydistill.devices import device_of
from polydistill.envs.base import VecEnv
from polydistill.envs.suite import make_env, resolve_task
from polydistill.errors import UserError
from polydistill.evaluating import compare
from polydistill.evaluation.embedding import embed
from polydistill.evaluation.inspection import inspect_task
from polydistill.evaluation.protocol import EVALUATION_SEED_BASE, Protocol, evaluate_task, require_starts
from polydistill.evaluation.recording import Outputs
from polydistill.evaluation.scores import Label, Row, Summary, mean_scores, to_json, write_csv
from polydistill.nets.sizes import make_named
from polydistill.nets.store import save_student
from polydistill.nets.student import Student, count
from polydistill.policies import Policy, of_student, of_teacher
from polydistill.recipe import EvaluationSettings, StudentSettings, require_same
from polydistill.replay.sizing import frame_bytes, index_bytes, parse_size, plan_capacity
from polydistill.rng import seeded_init
from polydistill.settings import Settings
from polydistill.tasks import Suite, Task
from polydistill.teachers.base import Teacher
from polydistill.teachers.zoo import load_teacher
from polydistill.training.callbacks import Callback, Record, tell
from polydistill.training.folder import RunFolder, now, provenance, resumed
from polydistill.training.multi import MultitaskRun
from polydistill.training.watched import METRICS

#: What a resumed run may change: how long, where, and how it is scored.
RESUMED_WITH = ("total_steps", "evaluation", "against", "device", "threads")

#: The inspection shows a Q-network's values as softmax(Q / this), its teacher's as well.
INSPECTION_TEMPERATURE = 0.01


class MultitaskRecipe(Settings):
    """Everything a multi-task DQN depends on, beside the code and the machine.

    Attributes:
        against: Folders of teachers for comparison; they take no part in the training.
        switch: See :data:`polydistill.algorithms.multi_dqn.Switch`.
        total_steps: Control steps of each game; where games take turns, their mean.
        memory: Bytes for all memories together.
        threads: Threads of torch and of each game's emulators; 0: one per core.
    """

    tasks: tuple[str, ...] = Field(min_length=1)
    against: tuple[str, ...] = ()
    student: StudentSettings = StudentSettings(kind="controllers")
    switch: Switch = "lockstep"
    dqn: DQNSettings = DQNSettings()
    total_steps: int = Field(ge=1)
    memory: str = "8GB"
    evaluation: EvaluationSettings = EvaluationSettings()
    seed: int = Field(1, ge=0, lt=100_000)
    device: str = "auto"
    threads: int = Field(0, ge=0)


@dataclass
class Parts:
    """What a recipe becomes."""

    recipe: MultitaskRecipe
    suite: Suite
    teachers: dict[str, Teacher]
    student: Student
    device: torch.device
    settings: DQNSettings
    budget_bytes: int


def multitask(
    recipe: MultitaskRecipe | Mapping[str, Any],
    out: str | Path,
    *,
    teachers: Sequence[Teacher] | None = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
    command: str | None = None,
    inspect: bool = True,
) -> Result:
    """Train one network on several games with DQN, score it against their teachers, save.

    Args:
        recipe: Settings, or a mapping of them.
        out: The run's folder; its files are those of a distillation.
        teachers: Teachers made in Python; None loads ``recipe.against``.
        callbacks: Watchers; see :class:`~polydistill.training.callbacks.Callback`.
        resume: Continue the run in ``out`` from its newest checkpoint.
        overwrite: Replace a run that is in ``out``.
        command: What to note as the command.
        inspect: After the final evaluation, compare states and record a video, where there is a teacher.

    Raises:
        UserError: bad input; nothing has been written then.
    """
    if not isinstance(recipe, MultitaskRecipe):
        recipe = MultitaskRecipe.parse(recipe, "recipe")
    parts = make_parts(recipe, teachers)
    most = max(recipe.evaluation.episodes, recipe.evaluation.final_episodes)
    require_starts(parts.suite.tasks, Protocol(name=recipe.evaluation.protocol, episodes=most))
    envs: list[VecEnv] = []
    try:
        for task in parts.suite.tasks:
            envs.append(make_env(task, recipe.dqn.num_envs, threads=recipe.threads or emulator_threads()))
        learner = MultiDQN(
            envs, parts.student, parts.settings, recipe.switch, recipe.seed, parts.device, parts.budget_bytes
        )
        folder = RunFolder(Path(out), resume=resume, overwrite=overwrite)
        try:
            return _train(parts, learner, folder, callbacks, resume, command, inspect)
        finally:
            folder.close()
    finally:
        for env in envs:
            env.close()


def make_parts(recipe: MultitaskRecipe, teachers: Sequence[Teacher] | None = None) -> Parts:
    """Tasks, teachers, network and memory plan; nothing large is allocated and nothing is written yet.

    A task that has a teacher is the teacher's, its observation profile included.

    Raises:
        UserError: whatever is wrong with the recipe, a teacher, or the machine.
    """
    device = device_of(recipe.device)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    if recipe.total_steps <= recipe.dqn.learning_starts:
        raise UserError(
            f"total_steps {recipe.total_steps:,} ends before dqn.learning_starts {recipe.dqn.learning_starts:,}: "
            "nothing would be learnt"
        )
    found = list(teachers) if teachers is not None else [load_teacher(path) for path in recipe.against]
    known = {t.task.name: t.to(str(device)) for t in found}
    tasks = [known[name].task if name in known else resolve_task(name) for name in recipe.tasks]
    for name in known.keys() - {task.name for task in tasks}:
        raise UserError(f"--against has a teacher of {name}, which is not among the tasks: {', '.join(recipe.tasks)}")
    suite = Suite(tuple(tasks))
    need = max(_transition_bytes(task) for task in tasks)
    plan = plan_capacity(parse_size(recipe.memory), len(suite), need, recipe.dqn.capacity)
    settings = recipe.dqn.model_copy(update={"capacity": plan.capacity})
    return Parts(recipe, suite, known, _student(recipe, suite, device), device, settings, plan.budget_bytes)


def _student(recipe: MultitaskRecipe, suite: Suite, device: torch.device) -> Student:
    chosen = recipe.student
    bf16 = chosen.bf16 if chosen.bf16 is not None else bf16_pays(device)
    with seeded_init(recipe.seed, "student"):
        _, student = make_named(chosen.kind, suite, chosen.options, bf16=bf16, where="student.options")
    if count(student) != count(student, trainable=True):
        raise UserError(f"{chosen.kind} has layers that do not learn: use controllers, mimic or task_heads")
    return student.to(device)


def _transition_bytes(task: Task) -> int:
    return frame_bytes(task) + index_bytes(2 * task.stack, 1)


def _train(
    parts: Parts,
    learner: MultiDQN,
    folder: RunFolder,
    callbacks: Sequence[Callback],
    resume: bool,
    command: str | None,
    inspect: bool,
) -> Result:
    recipe = parts.recipe
    if resume:
        require_same(folder.path / "recipe.yaml", recipe, RESUMED_WITH)
    info = {**provenance(command, str(parts.device)), "finished": None, **_describe(parts)}
    if resume:
        info = resumed(info, folder.path / "run.json")
    folder.write_json("run.json", info)
    folder.write_yaml("recipe.yaml", recipe.model_dump(mode="json"))
    student = of_student(parts.student, folder.path, parts.device)
    validation = Protocol(name=recipe.evaluation.protocol, episodes=recipe.evaluation.episodes, seed=VALIDATION_SEED)
    known: dict[str, float] = {}

    def evaluate_now(updates: int) -> dict[str, Record]:
        known.update(known or _teacher_means(parts, validation))
        return _known_only(entries(parts.suite.tasks, student, validation, known))

    run = MultitaskRun(
        folder=folder,
        learner=learner,
        total_steps=recipe.total_steps * len(parts.suite),
        evaluate=evaluate_now,
        callbacks=callbacks,
        evaluate_every=recipe.evaluation.every,
    )
    if resume and run.resume():
        tell(callbacks, f"resumed {folder.path} after {learner.control_steps:,} control steps")
    finished = run.drive()
    parts.student.eval()
    save_student(folder.path, parts.student, recipe.student.kind)
    summary = None
    if finished:
        label = Label("student", recipe.seed, learner.updates, learner.control_steps)
        summary = _final(parts, student, label, folder, callbacks)
        record = _known_only(eval_record(summary, {name: s.teacher for name, s in summary.tasks.items()}))
        folder.append(METRICS, {"kind": "eval", "final": True, **run.when(), "tasks": record})
        if inspect and recipe.evaluation.inspect:
            _inspect(parts, student, folder, callbacks)
    ended = {"finished": now() if finished else None, "wall_seconds": round(run.seconds, 1)}
    folder.write_json("run.json", {**info, **ended, "refilled_control_steps": learner.refilled})
    return Result(folder.path, finished, student, summary)


def _final(parts: Parts, student: Policy, label: Label, folder: RunFolder, callbacks: Sequence[Callback]) -> Summary:
    """Student and teachers under the protocol, on seeds used nowhere else; writes rows and ``summary.json``."""
    settings = parts.recipe.evaluation
    protocol = Protocol(name=settings.protocol, episodes=settings.final_episodes)

    def say(task: str) -> None:
        who = "teacher and student play" if task in parts.teachers else "the student plays"
        tell(callbacks, f"final scores: {who} {protocol.episodes} games of {task}")

    ours, theirs, summary = compare(student, parts.teachers, protocol, parts.device, label=label, on_task=say)
    write_csv(folder.path / "teacher_scores.csv", theirs, Row)
    write_csv(folder.path / "scores.csv", ours, Row)
    folder.write_text("summary.json", to_json(summary))
    return summary


def _teacher_means(parts: Parts, protocol: Protocol) -> dict[str, float]:
    """Mean scores from the teachers' cards, or played; NaN for a task without a teacher."""
    means = {}
    for task in parts.suite.tasks:
        teacher = parts.teachers.get(task.name)
        noted = teacher.score(protocol.name) if teacher is not None else math.nan
        if noted is None and teacher is not None:
            master = of_teacher(teacher, parts.device).greedy(task.name)
            noted = mean_scores(evaluate_task(task, master, protocol, threads=emulator_threads()))[task.name]
        means[task.name] = math.nan if noted is None else noted
    return means


def _known_only(entries: Mapping[str, Record]) -> dict[str, Record]:
    """None for a number that is not known: JSON has no NaN."""
    return {
        name: {k: None if v is None or math.isnan(v) else v for k, v in entry.items()}
        for name, entry in entries.items()
    }


def _inspect(parts: Parts, student: Policy, folder: RunFolder, callbacks: Sequence[Callback]) -> None:
    tau, out, values = INSPECTION_TEMPERATURE, folder.path / "inspection", dict[str, Outputs]()
    for name, teacher in parts.teachers.items():
        tell(callbacks, f"looking for the states of {name} where the student is worse")
        ours, theirs = student.outputs(name), of_teacher(teacher, parts.device).outputs(name)
        if teacher.kind == "q":
            values[name] = theirs
        inspect_task(
            teacher.task,
            theirs,
            lambda obs, q=ours: q(obs) / tau,  # type: ignore[misc]
            tau=tau if teacher.kind == "q" else 1.0,
            seed=EVALUATION_SEED_BASE + 250_000,
            out=out,
        )
    tell(callbacks, "looking inside the student")
    of_tasks = [values.get(task.name) for task in parts.suite.tasks]
    embed(parts.student, of_tasks, seed=EVALUATION_SEED_BASE + 250_002, out=out)


def _describe(parts: Parts) -> dict[str, Any]:
    tasks = []
    for task in parts.suite.tasks:
        teacher = parts.teachers.get(task.name)
        tasks.append(
            {
                "name": task.name,
                "kind": task.kind,
                "action_meanings": list(task.action_meanings),
                "teacher": str(teacher.path) if teacher is not None and teacher.path else None,
                "teacher_card": (teacher.card or None) if teacher is not None else None,
                "random_score": teacher.score("random") if teacher is not None else None,
            }
        )
    return {
        "algorithm": "multi-task DQN",
        "student": {
            "kind": parts.recipe.student.kind,
            "parameters": count(parts.student),
            "trainable": count(parts.student, trainable=True),
            "teacher_parameters": sum(count(t.net) for t in parts.teachers.values()),
        },
        "tasks": tasks,
    }
