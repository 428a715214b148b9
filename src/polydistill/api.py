"""Distillation from end to end: what ``polydistill distill`` does, as a function."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from polydistill import build
from polydistill.evaluating import compare
from polydistill.evaluation.embedding import embed
from polydistill.evaluation.inspection import inspect_task
from polydistill.evaluation.protocol import EVALUATION_SEED_BASE, Protocol, evaluate_task
from polydistill.evaluation.scores import Label, Row, Summary, mean_scores, summarise, to_json, write_csv
from polydistill.evaluation.visited import Visited
from polydistill.nets.store import save_student
from polydistill.nets.student import count
from polydistill.ops.scores import percent_of_teacher
from polydistill.planning import check
from polydistill.policies import Policy, of_student, of_teacher
from polydistill.recipe import DistillRecipe, read, require_same
from polydistill.tasks import Task
from polydistill.teachers.base import Teacher
from polydistill.training.callbacks import Callback, Record, tell
from polydistill.training.collect import Actor
from polydistill.training.folder import RunFolder, now, provenance, require_usable, resumed
from polydistill.training.records import histogram
from polydistill.training.run import Run
from polydistill.training.watched import METRICS

#: Evaluations while training use other seeds than the final one, so that nothing is chosen on those.
VALIDATION_SEED = EVALUATION_SEED_BASE + 500_000

#: What a resumed run may change: how long, where, and how it is scored.
RESUMED_WITH = ("schedule.total_updates", "evaluation", "device", "threads")


@dataclass(frozen=True)
class Result:
    """A finished or stopped distillation."""

    folder: Path
    finished: bool
    policy: Policy
    summary: Summary | None


def distill(
    recipe: DistillRecipe | Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    teachers: Sequence[Teacher] | None = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
    command: str | None = None,
    inspect: bool = True,
) -> Result:
    """Distil teachers into one student: train, evaluate against the teachers, save.

    Args:
        recipe: Settings, a mapping of them, the name of a shipped recipe, or a YAML file.
        out: The run's folder.
        teachers: Teachers made in Python; None loads ``recipe.teachers``.
        callbacks: Watchers; see :class:`~polydistill.training.callbacks.Callback`.
        resume: Continue the run in ``out`` from its newest checkpoint.
        overwrite: Replace a run that is in ``out``.
        command: What to note as the command.
        inspect: After the final evaluation, look for the states where the student is worse, and record a video.

    Raises:
        UserError: bad input; nothing has been written then.
    """
    if not isinstance(recipe, DistillRecipe):
        named = {} if teachers is None else {"teachers": [str(t.path or t.task.name) for t in teachers]}
        content, where = (recipe, "recipe") if isinstance(recipe, Mapping) else read(str(recipe))
        recipe = DistillRecipe.parse({**named, **content}, where)
    parts = check(recipe, teachers)
    require_usable(Path(out), resume=resume, overwrite=overwrite)  # H-PR's teachers are measured next, which takes time
    actors = build.actors(parts, partial(tell, callbacks))
    try:
        folder = RunFolder(Path(out), resume=resume, overwrite=overwrite)
        try:
            return _distill(parts, actors, folder, callbacks, resume, command, inspect)
        finally:
            folder.close()
    finally:
        for actor in actors:
            actor.env.close()


def _distill(
    parts: build.Parts,
    actors: Sequence[Actor],
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
    masters = [of_teacher(t, parts.device) for t in parts.teachers]
    validation = Protocol(name=recipe.evaluation.protocol, episodes=recipe.evaluation.episodes, seed=VALIDATION_SEED)
    known: dict[str, float] = {}

    def evaluate_now(updates: int) -> dict[str, Record]:
        if not known:
            known.update(_teacher_means(parts, masters, validation))
        return entries(parts.suite.tasks, student, validation, known, masters)

    run = Run(
        folder=folder,
        actors=actors,
        learner=build.learner(parts),
        rectangle=build.rectangle(parts, actors),
        schedule=recipe.schedule,
        rng=build.sampler_stream(recipe),
        evaluate=evaluate_now,
        callbacks=callbacks,
        evaluate_every=recipe.evaluation.every,
    )
    if resume and run.resume():
        tell(callbacks, f"resumed {folder.path} after {run.learner.updates:,} updates")
    finished = run.drive()
    parts.student.eval()
    save_student(folder.path, parts.student, recipe.student.kind)
    summary = None
    if finished:
        label = Label("student", recipe.seed, run.learner.updates, run.control_steps)
        summary = _final(parts, student, label, folder, callbacks)
        theirs = {name: score.teacher for name, score in summary.tasks.items()}
        folder.append(METRICS, {"kind": "eval", "final": True, **run.when(), "tasks": eval_record(summary, theirs)})
        if inspect and recipe.evaluation.inspect:
            _inspect(parts, masters, student, folder, callbacks)
    ended = {"finished": now() if finished else None, "wall_seconds": round(run.seconds, 1)}
    folder.write_json("run.json", {**info, **ended, "refilled_control_steps": run.refilled})
    return Result(folder.path, finished, student, summary)


def _final(
    parts: build.Parts, student: Policy, label: Label, folder: RunFolder, callbacks: Sequence[Callback]
) -> Summary:
    """Student and teachers under the protocol, on seeds used nowhere else; writes rows and ``summary.json``."""
    settings = parts.recipe.evaluation
    protocol = Protocol(name=settings.protocol, episodes=settings.final_episodes)

    def say(task: str) -> None:
        tell(callbacks, f"final scores: teacher and student play {protocol.episodes} games of {task}")

    teachers = {t.task.name: t for t in parts.teachers}
    ours, theirs, summary = compare(student, teachers, protocol, parts.device, label=label, on_task=say)
    write_csv(folder.path / "teacher_scores.csv", theirs, Row)
    write_csv(folder.path / "scores.csv", ours, Row)
    folder.write_text("summary.json", to_json(summary))
    return summary


def _teacher_means(parts: build.Parts, masters: Sequence[Policy], protocol: Protocol) -> dict[str, float]:
    means = {}
    for task, teacher, master in zip(parts.suite.tasks, parts.teachers, masters, strict=True):
        noted = teacher.score(protocol.name)
        if noted is None:
            rows = evaluate_task(task, master.greedy(task.name), protocol, threads=build.emulator_threads())
            noted = mean_scores(rows)[task.name]
        means[task.name] = noted
    return means


def entries(
    tasks: Sequence[Task],
    student: Policy,
    protocol: Protocol,
    teacher: Mapping[str, float],
    masters: Sequence[Policy] = (),
) -> dict[str, Record]:
    """The student's scores in every task, and the teachers' means beside them, as a line of ``metrics.jsonl``.

    With ``masters``, the teachers, ``visited`` is the histogram of their values of the states that the student met,
    where they have values.
    """
    rows, visited = [], {}
    values = {m.suite.tasks[0].name: m for m in masters if m.kind == "q"}
    for task in tasks:
        greedy = student.greedy(task.name)
        if task.name in values:
            greedy = visited[task.name] = Visited(greedy, values[task.name].outputs(task.name))
        rows += evaluate_task(task, greedy, protocol, threads=build.emulator_threads())
    found = eval_record(summarise(rows, [], {}, protocol=protocol.describe()), teacher)
    for name, met in visited.items():
        found[name]["visited"] = histogram(met.values)
    return found


def eval_record(summary: Summary, teacher: Mapping[str, float]) -> dict[str, Record]:
    """What a line of ``metrics.jsonl`` says of each task."""
    return {
        name: {
            "score": score.score,
            "low": _finite(score.low),
            "high": _finite(score.high),
            "teacher": teacher[name],
            "percent": _finite(float(percent_of_teacher(score.score, teacher[name]))),
        }
        for name, score in summary.tasks.items()
    }


def _inspect(
    parts: build.Parts,
    masters: Sequence[Policy],
    student: Policy,
    folder: RunFolder,
    callbacks: Sequence[Callback],
) -> None:
    tau = build.temperatures(parts).flatten().tolist()
    for g, (task, master) in enumerate(zip(parts.suite.tasks, masters, strict=True)):
        tell(callbacks, f"looking for the states of {task.name} where the student is worse")
        inspect_task(
            task,
            master.outputs(task.name),
            student.outputs(task.name),
            tau=tau[g],
            seed=EVALUATION_SEED_BASE + 250_000,
            out=folder.path / "inspection",
        )
    tell(callbacks, "looking inside the student")
    values = [m.outputs(t.name) if m.kind == "q" else None for t, m in zip(parts.suite.tasks, masters, strict=True)]
    embed(parts.student, values, seed=EVALUATION_SEED_BASE + 250_002, out=folder.path / "inspection")


def _describe(parts: build.Parts) -> dict[str, Any]:
    student = parts.student
    return {
        "student": {
            "kind": parts.recipe.student.kind,
            "parameters": count(student),
            "trainable": count(student, trainable=True),
            "teacher_parameters": sum(count(t.net) for t in parts.teachers),
        },
        "tasks": [
            {
                "name": t.task.name,
                "kind": t.task.kind,
                "action_meanings": list(t.task.action_meanings),
                "teacher_kind": t.kind,
                "teacher": str(t.path) if t.path else None,
                "teacher_card": t.card or None,
                "random_score": t.score("random"),
            }
            for t in parts.teachers
        ],
    }


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
