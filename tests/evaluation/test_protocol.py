"""Protocols: what their names fix, what is refused, and the rows they give."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from polydistill.envs.base import Step
from polydistill.envs.suite import resolve_task
from polydistill.errors import UserError
from polydistill.evaluation import protocol as module
from polydistill.evaluation.protocol import EVALUATION_SEED_BASE, RULES, Protocol, evaluate_task
from polydistill.evaluation.rows import Label
from polydistill.tasks import Task

TASK = Task("stub", "catch", ("NOOP", "GOOD"), (1,))


class Stub:
    """Copy ``i``'s episodes last ``3 - i`` steps and return ``10 * i``, so that the last copy is the first to end."""

    def __init__(self, num_envs: int) -> None:
        self.task, self.num_envs, self.closed, self.seed = TASK, num_envs, False, -1

    def reset(self, seed: int) -> np.ndarray:
        self.seed, self._t = seed, np.zeros(self.num_envs, np.int64)
        return np.zeros((self.num_envs, 1), np.uint8)

    def step(self, actions: np.ndarray) -> Step:
        self._t += 1
        ended = self._t == 3 - np.arange(self.num_envs)
        self._t[ended] = 0
        reward = np.where(ended, 10.0 * np.arange(self.num_envs), 0.0).astype(np.float32)
        obs = np.zeros((self.num_envs, 1), np.uint8)
        return Step(obs, reward, ended, np.zeros_like(ended), obs, ended)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Stub, dict[str, Any]]]:
    made: list[tuple[Stub, dict[str, Any]]] = []

    def make_env(task: Task, num_envs: int, **settings: Any) -> Stub:
        made.append((Stub(num_envs), settings))
        return made[-1][0]

    monkeypatch.setattr(module, "make_env", make_env)
    return made


def first_action(obs: np.ndarray) -> np.ndarray:
    return np.zeros(len(obs), np.int64)


def test_rules_are_the_papers() -> None:
    for rules in RULES.values():
        assert (rules.epsilon, rules.max_frames) == (0.05, 108_000)
    assert [(name, rules.sticky, rules.noop_max) for name, rules in RULES.items()] == [
        ("noop", 0.0, 30),
        ("sticky", 0.25, 30),
        ("starts", 0.0, 0),
    ]
    with pytest.raises(FrozenInstanceError):
        RULES["noop"].epsilon = 0.0  # type: ignore[misc]


def test_budgets() -> None:
    assert (Protocol().episodes, Protocol().steps) == (30, None)
    by_steps = Protocol(steps=100_000)
    assert (by_steps.episodes, by_steps.steps, by_steps.copies) == (None, 100_000, 10)
    assert Protocol(episodes=3).copies == 3
    again = Protocol.model_validate(by_steps.model_dump())
    assert again == by_steps


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"episodes": 5, "steps": 5}, "either episodes or steps"),
        ({"episodes": 0}, "episodes"),
        ({"seed": 7}, "seed"),
        ({"name": "human"}, "name"),
        ({"num_envs": 0}, "num_envs"),
        ({"episode": 5}, "did you mean 'episodes'"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Protocol.parse(values, "recipe.yaml")


def test_protocol_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Protocol().episodes = 3  # type: ignore[misc]


def test_describe_names_everything_that_fixes_the_scores() -> None:
    assert Protocol(name="sticky", episodes=5).describe() == {
        "name": "sticky", "episodes": 5, "steps": None, "num_envs": 10, "seed": EVALUATION_SEED_BASE,
        "sticky": 0.25, "noop_max": 30, "epsilon": 0.05, "max_frames": 108_000,
    }  # fmt: skip


def test_rows_are_in_the_order_of_copies(opened: list[tuple[Stub, dict[str, Any]]]) -> None:
    label = Label("mimic", seed=3, updates=100, control_steps=400)
    rows = evaluate_task(TASK, first_action, Protocol(episodes=4, num_envs=3), threads=1, label=label)
    assert [(r.episode, r.score, r.steps) for r in rows] == [(0, 0.0, 3), (1, 0.0, 3), (2, 10.0, 2), (3, 20.0, 1)]
    assert {(r.variant, r.task, r.seed, r.updates, r.control_steps, r.protocol) for r in rows} == {
        ("mimic", "stub", 3, 100, 400, "noop")
    }
    assert np.isnan([r.teacher_score for r in rows]).all()
    env, settings = opened[0]
    assert env.closed
    assert env.seed == EVALUATION_SEED_BASE
    assert settings == {"sticky": 0.0, "threads": 1, "noop_max": 30, "max_frames": 108_000}


def test_sticky_reaches_the_emulator(opened: list[tuple[Stub, dict[str, Any]]]) -> None:
    evaluate_task(TASK, None, Protocol(name="sticky", episodes=1))
    assert opened[0][1]["sticky"] == 0.25


def test_the_environment_is_closed_when_the_policy_fails(opened: list[tuple[Stub, dict[str, Any]]]) -> None:
    def broken(obs: np.ndarray) -> np.ndarray:
        raise UserError("NaN Q-values")

    with pytest.raises(UserError):
        evaluate_task(TASK, broken, Protocol(episodes=1))
    assert opened[0][0].closed


def test_sticky_is_refused_where_there_is_none() -> None:
    with pytest.raises(UserError, match="sticky"):
        evaluate_task(resolve_task("catch"), None, Protocol(name="sticky", episodes=1))


def test_random_catch() -> None:
    """A built-in task through the whole path, by episodes and by steps."""
    task = resolve_task("catch")
    rows = evaluate_task(task, None, Protocol(episodes=200))
    assert len(rows) == 200
    by_steps = evaluate_task(task, None, Protocol(steps=sum(r.steps for r in rows)))
    assert 195 <= len(by_steps) <= 210
    assert evaluate_task(task, None, Protocol(episodes=200)) == rows


def test_random_breakout() -> None:
    """Real Atari: raw scores of whole games (five lives), the same with other threads, others with another seed."""
    pytest.importorskip("ale_py")
    task = resolve_task("breakout")

    def scores(threads: int = 1, **settings: Any) -> list[tuple[float, int]]:
        protocol = Protocol.parse({"episodes": 2, **settings}, "test")
        return [(r.score, r.steps) for r in evaluate_task(task, None, protocol, threads=threads)]

    noop = scores()
    assert all(0 <= score <= 20 and 100 < steps < 1000 for score, steps in noop)
    assert scores(threads=2) == noop
    assert scores(seed=EVALUATION_SEED_BASE + 1) != noop
    assert scores(name="sticky") != noop
