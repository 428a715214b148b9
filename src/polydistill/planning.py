"""What a recipe would cost, before it runs."""

from __future__ import annotations

import time

from polydistill import build
from polydistill.nets.student import count
from polydistill.recipe import DistillRecipe
from polydistill.replay.sizing import human
from polydistill.teachers.base import Teacher
from polydistill.training.progress import duration


def plan(recipe: DistillRecipe) -> str:
    """What :func:`~polydistill.api.distill` would run, in words. Checks everything and writes nothing."""
    parts = build.parts(recipe)
    steps = recipe.schedule.warmup + recipe.schedule.total_updates * recipe.schedule.collect // recipe.schedule.updates
    student, counted = parts.student, parts.plan.sampler_bytes
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
        f"schedule  {recipe.schedule.total_updates:,} updates of {len(parts.suite)} x {recipe.learner.batch_size} "
        f"samples, {steps:,} control steps per task",
        f"time      about {duration(_estimate(parts, steps))} on this machine, evaluations not counted",
    ]
    return "\n".join(lines)


#: Of the trial run: a small memory and a short look at the teacher's values.
_SHORT = {"size": "200MB", "measure_steps": 500}


def _card_score(teacher: Teacher) -> str:
    mean = teacher.score("noop")
    return "" if mean is None else f", scores {mean:.1f}"


def _estimate(parts: build.Parts, steps: int) -> float:
    """Seconds of the run, from a few updates and control steps played here."""
    small = parts.recipe.model_copy(update={"memory": parts.recipe.memory.model_copy(update=_SHORT)})
    trial = build.parts(small, parts.teachers)
    made = build.actors(trial)
    rectangle, learner = build.rectangle(trial, made), build.learner(trial)
    rng = build.sampler_stream(small)
    rounds = 24
    for actor in made:
        actor.step()
    began = time.perf_counter()
    for _ in range(rounds):
        for actor in made:
            actor.step()
    played = (time.perf_counter() - began) / (rounds * small.behaviour.num_envs)
    learner.step(rectangle.draw(rng))
    began = time.perf_counter()
    for _ in range(5):
        learner.step(rectangle.draw(rng))
    learnt = (time.perf_counter() - began) / 5
    for actor in made:
        actor.env.close()
    return played * steps + learnt * small.schedule.total_updates
