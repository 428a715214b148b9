"""Joint updates of many games (Yin & Pan, Actor-Mimic) against their arithmetic; the loop against the emulator."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.collect_bench import bare_env
from benchmarks.timing import Row, in_turns, row
from polydistill import build
from polydistill.envs.atari import atari_task
from polydistill.ops.policy import distill_kl
from polydistill.recipe import DistillRecipe, read, resolve
from polydistill.rng import seeded_init
from polydistill.teachers.base import Teacher
from polydistill.teachers.zoo import Network, build_network
from polydistill.training.distil import distil

#: The games of Yin & Pan 2017. Their networks here are untrained: speed does not depend on what the weights are.
GAMES = (
    "pong", "freeway", "breakout", "qbert", "space_invaders",
    "seaquest", "enduro", "beam_rider", "ms_pacman", "riverraid",
)  # fmt: skip


def parts_of(games: int, recipe: str = "yin-pan-small", **overrides: object) -> build.Parts:
    """The parts of a recipe for the first ``games`` games, with small memories."""
    content, where = read(recipe)
    teachers = []
    for name in GAMES[:games]:
        task = atari_task(name, "ale")
        with seeded_init(0, name):
            teachers.append(Teacher(task, build_network(task, Network(bf16=True))))
    small = {"memory.capacity": 4_000, "memory.measure_steps": 100, "teachers": list(GAMES[:games])}
    return build.parts(resolve(DistillRecipe, content, where, small | overrides), teachers)


def mimic(games: int, **overrides: object) -> build.Parts:
    """The same of Actor-Mimic, with the 8 samples of each game that the authors' code takes."""
    return parts_of(games, "actor-mimic-small", **({"learner.batch_size": 8} | overrides))


def joint(name: str, parts: build.Parts, repeats: int = 10, updates: int = 10, want: str = "") -> Row:
    """Draw, learn, send priorities home; against the same arithmetic on a ready minibatch."""
    actors = build.actors(parts)
    for actor in actors:
        while actor.control_steps < 500:
            actor.step()
    rectangle, learner, rng = build.rectangle(parts, actors), build.learner(parts), np.random.default_rng(0)
    ready, optimizer = rectangle.draw(rng), build.learner(parts).optimizer
    obs, targets = [x.clone() for x in ready.obs], ready.targets

    def ours() -> None:
        for _ in range(updates):
            rectangle.prioritise(learner.step(rectangle.draw(rng)))

    def bare() -> None:
        for _ in range(updates):
            logits = parts.student(obs).logits
            loss = distill_kl(targets.values, logits, targets.temperature, targets.valid).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    a, b = in_turns(ours, bare, repeats)
    for actor in actors:
        actor.env.close()
    shape = f"{len(parts.suite)} x {rectangle.batch}"
    return row(f"{name} update, {shape} / its arithmetic", updates / a, updates / b, "updates/s", want)


def per_game(rows: Mapping[int, Row]) -> list[Row]:
    """Milliseconds that an update takes for each of its games, against the same with fewer games.

    Args:
        rows: Games -> what :func:`joint` gave for so many, in updates/s; fewest first.
    """
    cost = {games: 1000 / (games * found["ours"]) for games, found in rows.items()}
    return [
        row(f"Actor-Mimic update, time per game, {more} / {few}", cost[more], cost[few], "ms per game", "< 1")
        for few, more in itertools.pairwise(cost)
    ]


def feature_term(games: int, repeats: int = 10, updates: int = 10) -> Row:
    """Actor-Mimic's update with its feature term against the same without: the experts' passes and the projections."""
    sides, opened = [], []
    for beta in (0.01, None):
        features = {} if beta is None else {"objective.features.beta": beta}
        parts = mimic(games, **features)
        actors = build.actors(parts)
        for actor in actors:
            while actor.control_steps < 500:
                actor.step()
        sides.append((build.rectangle(parts, actors), build.learner(parts), np.random.default_rng(0)))
        opened += actors

    def learns(side: int) -> Callable[[], None]:
        rectangle, learner, rng = sides[side]

        def learn() -> None:
            for _ in range(updates):
                rectangle.prioritise(learner.step(rectangle.draw(rng)))

        return learn

    on, off = in_turns(learns(0), learns(1), repeats)
    for actor in opened:
        actor.env.close()
    shape = f"{games} x {sides[0][0].batch}"
    return row(f"Actor-Mimic with features / without, {shape}", updates / on, updates / off, "updates/s", "")


def whole(games: int = 3, updates: int = 400, rounds: int = 3) -> Row:
    """Playing, storing, drawing and learning with cached features, against the emulators alone.

    One update follows four control steps of each game, as in the paper.
    """
    parts = parts_of(games)
    actors = build.actors(parts)
    rectangle, learner, rng = build.rectangle(parts, actors), build.learner(parts), np.random.default_rng(0)
    losses = distil(actors, learner, rectangle, parts.recipe.schedule, rng)
    next(losses)
    envs = [bare_env(task, actors[0].env.num_envs) for task in parts.suite.tasks]
    steps = 4 * updates // actors[0].env.num_envs
    choice = [rng.integers(0, task.n_actions, (steps, actors[0].env.num_envs)) for task in parts.suite.tasks]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(updates):
            next(losses)
        seconds[0].append(time.perf_counter() - began)
        began = time.perf_counter()
        for env, actions in zip(envs, choice, strict=True):
            for one in actions:
                env.step(one)  # type: ignore[attr-defined]
        seconds[1].append(time.perf_counter() - began)
    for actor in actors:
        actor.env.close()
    ours, bare = (float(np.median(x)) for x in seconds)
    n = steps * actors[0].env.num_envs * games
    return row(f"the whole loop, {games} games / their emulators", n / ours, n / bare, "control steps/s", "")


def rows() -> list[Row]:
    """All rows of this file."""
    h_pr = [joint("H-PR", parts_of(games, **{"memory.cache_features": False})) for games in (1, 3, 10)]
    several = {games: joint("Actor-Mimic", mimic(games)) for games in (1, 3, 8)}
    large = {"student.options": {"channels": [256, 512, 512, 512], "hidden": [2048, 1024]}}
    whole_size = joint("Actor-Mimic, 35 M,", mimic(3, **large), repeats=2, updates=2, want=">= 0.9")
    return [*h_pr, *several.values(), *per_game(several), feature_term(3), feature_term(8), whole_size, whole()]
