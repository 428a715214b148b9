"""The demo's parts, built once for every benchmark: shipped teachers, a task_torsos student, filled memories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from polydistill import build
from polydistill.recipe import DistillRecipe, read, resolve
from polydistill.training.collect import Actor

ZOO = Path(__file__).resolve().parent.parent / "zoo"
GAMES = ("pong", "freeway", "breakout")


@lru_cache(maxsize=1)
def demo() -> build.Parts:
    """The demo recipe's parts; without its feature cache, since the floor computes the convolutions too."""
    content, where = read("demo")
    teachers = [str(ZOO / game) for game in GAMES]
    overrides: dict[str, object] = {"teachers": teachers, "memory.size": "500MB", "memory.capacity": 50_000}
    overrides["memory.cache_features"] = False
    return build.parts(resolve(DistillRecipe, content, where, overrides))


def actors(parts: build.Parts, control_steps: int, capacity: int = 50_000) -> Sequence[Actor]:
    """Actors that have played ``control_steps`` each, the teacher deciding, as a trained student would."""
    recipe = parts.recipe
    behaviour = recipe.behaviour.model_copy(update={"who": "teacher", "epsilon_start": 0.05, "epsilon_end": 0.05})
    changed = recipe.model_copy(update={"behaviour": behaviour})
    made = build.actors(replace(parts, recipe=changed, plan=replace(parts.plan, capacity=capacity)))
    for actor in made:
        while actor.control_steps < control_steps:
            actor.step()
    return made
