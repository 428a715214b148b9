"""What ``--dry-run`` says, against what the loop does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polydistill import planning
from polydistill.algorithms.policy_distillation import Loss
from polydistill.errors import UserError
from polydistill.planning import control_steps, plan
from polydistill.recipe import DistillRecipe
from polydistill.training.distil import Schedule, distil
from polydistill.training.learner import Learner, Minibatch
from tests.distilling import NAMES, parts_of, small, write_teacher


class Player:
    """Stands in for an actor: copies of a game whose episodes all end together, every so many control steps."""

    def __init__(self, copies: int, length: int):
        self.env, self.num_envs, self.length = self, copies, length
        self.control_steps = self.episodes = 0

    def step(self) -> None:
        self.control_steps += self.num_envs
        self.episodes = self.control_steps // self.length


class Nothing:
    """Stands in for learner and rectangle."""

    updates = 0

    def draw(self, rng: object, tasks: object, updates: int) -> None:
        return None

    def step(self, batch: None) -> Loss:
        return Loss(torch.zeros(1, 1))

    def prioritise(self, loss: Loss) -> None:
        return None


def played(schedule: Schedule, lengths: Sequence[int], copies: int) -> list[int]:
    """Control steps of each task when the loop has made its last update."""
    players: Any = [Player(copies, n) for n in lengths]
    nothing: Any = Nothing()
    loop = distil(players, nothing, nothing, schedule, np.random.default_rng(0))
    assert sum(1 for _ in islice(loop, schedule.total_updates)) == schedule.total_updates
    return [p.control_steps for p in players]


@pytest.mark.parametrize("games", ["joint", "random", "round_robin_episode"])
@pytest.mark.parametrize("copies", [1, 4, 10])
@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize(("collect", "updates", "total"), [(4, 1, 50), (54, 10, 30), (54, 10, 31), (7, 3, 100)])
def test_control_steps_are_those_of_the_loop(
    games: Any, copies: int, tasks: int, collect: int, updates: int, total: int
) -> None:
    schedule = Schedule(warmup=18, collect=collect, updates=updates, games=games, total_updates=total)
    told, each = control_steps(schedule, tasks, copies)
    found = played(schedule, [13, 5, 29][:tasks], copies)
    assert told == sum(found)
    assert each == (None if games == "round_robin_episode" and tasks > 1 else found)


def test_rusus_three_games() -> None:
    """Three hours of 54,000 control steps, one of each game, after 18,000 of each (recipe rusu-multi)."""
    schedule = Schedule(warmup=18_000, collect=54_000, updates=10_000, games="random", total_updates=30_000)
    assert control_steps(schedule, 3, 10) == (216_000, [72_000] * 3)
    longer = schedule.model_copy(update={"total_updates": 30_001})
    assert control_steps(longer, 3, 10) == (270_000, [126_000, 72_000, 72_000])
    assert control_steps(longer.model_copy(update={"games": "joint"}), 3, 10) == (702_000, [234_000] * 3)
    # A game that ends steps of ten at a time: 162,010 are the first multiple of ten that pay for 30,001 updates.
    by_episode = longer.model_copy(update={"games": "round_robin_episode"})
    assert control_steps(by_episode, 3, 10) == (54_000 + 162_010, None)


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plan of the small recipe with settings on top: its lines by their first word."""
    teachers = [str(write_teacher(tmp_path / n, n)) for n in NAMES]
    monkeypatch.setattr(planning, "_measure", lambda parts: ([0.1, 0.3], 2.0))  # seconds per control step and update

    def of(**schedule: Any) -> dict[str, str]:
        recipe = DistillRecipe.parse({"teachers": teachers, **small(schedule=schedule)}, "x")
        return dict(line.split(maxsplit=1) for line in plan(recipe).splitlines())

    return of


@pytest.mark.parametrize(
    ("schedule", "words", "seconds"),
    [
        ({}, "60 updates of 2 x 16 samples, 440 control steps per task", "4m 56s"),  # 440 (0.1 + 0.3) + 60 x 2 s
        ({"games": "random"}, "60 updates of 1 x 16 samples, 320 control steps per task", "4m 08s"),
        # 61 rounds of 4 control steps: 31 of the first task. 324 x 0.1 + 320 x 0.3 + 122 = 250.4 s
        (
            {"games": "random", "total_updates": 61},
            "61 updates of 1 x 16 samples, 320 to 324 control steps per task",
            "4m 10s",
        ),
        # 2 x 200 + 60 x 4 control steps, of which nobody knows the shares: 640 x 0.2 + 120 s
        (
            {"games": "round_robin_episode"},
            "60 updates of 1 x 16 samples, 640 control steps of all tasks together, an episode of one after the other",
            "4m 08s",
        ),
    ],
)
def test_what_a_plan_says_of_each_way_to_alternate(
    said: Any, schedule: dict[str, Any], words: str, seconds: str
) -> None:
    found = said(**schedule)
    assert found["schedule"] == words
    assert found["time"] == f"about {seconds} on this machine, evaluations not counted"


@pytest.mark.parametrize(("games", "drawn"), [("joint", {None}), ("random", {0, 1}), ("round_robin_episode", {0, 1})])
def test_the_trial_learns_as_the_run_does(monkeypatch: pytest.MonkeyPatch, games: str, drawn: set[int | None]) -> None:
    """All tasks at once, or one at a time and none more than another; every task is played."""
    seen: list[int | None] = []
    step = Learner.step

    def noted(self: Learner, batch: Minibatch) -> Loss:
        seen.append(None if batch.tasks is None else int(*batch.tasks))
        return step(self, batch)

    monkeypatch.setattr(Learner, "step", noted)
    each, learnt = planning._measure(parts_of(small(schedule={"games": games})))
    assert set(seen) == drawn
    assert len({seen.count(task) for task in drawn}) == 1
    assert len(each) == len(NAMES)
    assert min(*each, learnt) > 0


def test_a_plan_is_refused_where_the_run_would_be(tmp_path: Path) -> None:
    """Though nothing of it is needed to say what would run."""
    recipe = {"teachers": [str(write_teacher(tmp_path / "catch", "catch"))], **small("mimic")}
    for key, value, match in (
        ("evaluation", {"protocol": "starts"}, "no starts of catch"),
        ("memory", {"capacity": 3}, "cannot hold one step of 4 environments"),
    ):
        with pytest.raises(UserError, match=match):
            plan(DistillRecipe.parse({**recipe, key: {**recipe[key], **value}}, "x"))
