"""What a recipe would cost, before it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from polydistill import build
from polydistill.evaluation.protocol import Protocol, require_starts
from polydistill.nets.student import count
from polydistill.recipe import DistillRecipe
from polydistill.replay.sizing import human, require_memory
from polydistill.teachers.base import Teacher
from polydistill.training.collect import Actor
from polydistill.training.distil import Rectangle, Schedule
from polydistill.training.learner import Learner
from polydistill.training.progress import duration


def plan(recipe: DistillRecipe) -> str:
    """What :func:`~polydistill.api.distill` would run, in words. Checks everything and writes nothing."""
    parts = check(recipe)
    schedule, tasks = recipe.schedule, len(parts.suite)
    student, counted = parts.student, parts.plan.sampler_bytes
    total, each = control_steps(schedule, tasks, recipe.behaviour.num_envs)
    lines = [
        f"student   {recipe.student.kind}: {count(student):,} parameters, {count(student, trainable=True):,} learn "
        f"(teachers together {sum(count(t.net) for t in parts.teachers):,}), "
        f"{'bfloat16' if student.bf16 else 'float32'} on {parts.device}",
        *(
            f"task      {t.task.name}: {t.task.n_actions} actions, teacher {t.path}{_card_score(t)}"
            for t in parts.teachers
        ),
        f"memory    {parts.plan.capacity:,} experiences per task, about {human(parts.plan.expected_bytes)} when full"
        + (f", {human(parts.plan.sampler_bytes)} of it for sampling ({recipe.memory.sampler})" if counted else ""),
        f"schedule  {schedule.total_updates:,} updates of {tasks if schedule.games == 'joint' else 1} x "
        f"{recipe.learner.batch_size} samples, {_steps_in_words(total, each)}",
        f"time      about {duration(_estimate(parts, total, each))} on this machine, evaluations not counted",
    ]
    return "\n".join(lines)


def check(recipe: DistillRecipe, teachers: Sequence[Teacher] | None = None) -> build.Parts:
    """The parts of a distillation that would not be refused, as far as that is known before they are put together.

    Raises:
        UserError: as :func:`~polydistill.api.distill`, but for its folder.
    """
    most = max(recipe.evaluation.episodes, recipe.evaluation.final_episodes)
    parts = build.parts(recipe, teachers)
    sample = sum(math.prod(t.obs_shape) * np.dtype(t.obs_dtype).itemsize for t in parts.suite.tasks)
    require_memory(recipe.learner.batch_size * sample, "minibatches", "a smaller --batch-size")
    require_starts(parts.suite.tasks, Protocol(name=recipe.evaluation.protocol, episodes=most))
    return parts


def rehearse(parts: build.Parts) -> None:
    """Put a small run of these parts together, and nothing more.

    Raises:
        UserError: what only shows then: an environment that cannot be opened, a memory's options.
    """
    for actor in _trial(parts)[0]:
        actor.env.close()


def control_steps(schedule: Schedule, tasks: int, copies: int) -> tuple[int, list[int] | None]:
    """What the loop (:func:`~polydistill.training.distil.distil`) plays up to its last update.

    Args:
        copies: Of each task.

    Returns:
        Control steps of all tasks together, and of each; None where the lengths of episodes decide about that.
    """
    by_episode = schedule.games == "round_robin_episode"
    a_round = copies if by_episode else max(1, schedule.collect // copies) * copies
    rounds = -(-schedule.total_updates * schedule.collect // (schedule.updates * a_round))  # the last one is played out
    warmup = -(-schedule.warmup // copies) * copies
    if by_episode and tasks > 1:
        return tasks * warmup + rounds * a_round, None
    turns, more = (rounds, 0) if schedule.games == "joint" else divmod(rounds, tasks)
    each = [warmup + a_round * (turns + (g < more)) for g in range(tasks)]
    return sum(each), each


def _steps_in_words(total: int, each: Sequence[int] | None) -> str:
    if each is None:
        return f"{total:,} control steps of all tasks together, an episode of one after the other"
    least, most = min(each), max(each)
    return f"{least:,} control steps per task" if least == most else f"{least:,} to {most:,} control steps per task"


#: Of the trial run: a small memory and a short look at the teacher's values.
_SHORT = {"size": "200MB", "measure_steps": 500}


def _card_score(teacher: Teacher) -> str:
    mean = teacher.score("noop")
    return "" if mean is None else f", scores {mean:.1f}"


def _estimate(parts: build.Parts, total: int, each: Sequence[int] | None) -> float:
    """Seconds of the run, whose control steps are these; with unknown shares every task has the same."""
    played, learnt = _measure(parts)
    shares: Sequence[float] = [total / len(played)] * len(played) if each is None else each
    return sum(s * n for s, n in zip(played, shares, strict=True)) + learnt * parts.recipe.schedule.total_updates


def _measure(parts: build.Parts) -> tuple[list[float], float]:
    """Seconds of a control step of each task, and of an update, from a few of them made here."""
    made, rectangle, learner = _trial(parts)
    rng, rounds, played = build.sampler_stream(parts.recipe), 24, []
    for actor in made:
        actor.step()
        began = time.perf_counter()
        for _ in range(rounds):
            actor.step()
        played.append((time.perf_counter() - began) / (rounds * actor.env.num_envs))
    drawn = [None] if parts.recipe.schedule.games == "joint" else [[g] for g in range(len(made))]
    for tasks in drawn:
        learner.step(rectangle.draw(rng, tasks))
    times = -(-5 // len(drawn))
    began = time.perf_counter()
    for tasks in drawn * times:
        learner.step(rectangle.draw(rng, tasks))
    learnt = (time.perf_counter() - began) / (times * len(drawn))
    for actor in made:
        actor.env.close()
    return played, learnt


def _trial(parts: build.Parts) -> tuple[list[Actor], Rectangle, Learner]:
    memory = parts.recipe.memory.model_copy(update=_SHORT)
    trial = build.parts(parts.recipe.model_copy(update={"memory": memory}), parts.teachers)
    made = build.actors(trial)
    return made, build.rectangle(trial, made), build.learner(trial)
