"""The teacher's values of the states that are met in an evaluation: every fourth, and the play is what it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polydistill import api
from polydistill.envs.catch import catch_task, optimal_q
from polydistill.evaluation.play import Greedy
from polydistill.evaluation.protocol import Protocol, evaluate_task
from polydistill.evaluation.visited import Visited
from polydistill.policies import of_student, of_teacher
from polydistill.training.records import histogram
from tests.distilling import NAMES, exact_teacher, parts_of, small

PROTOCOL = Protocol(episodes=12, num_envs=4)


def test_every_fourth_step_of_every_copy_that_plays() -> None:
    asked: list[float] = []

    def outputs(obs: np.ndarray) -> np.ndarray:
        asked.extend(obs[:, 0].tolist())
        return np.stack([obs[:, 0], -obs[:, 0]], 1)  # the larger of the two is the value

    visited = Visited(lambda obs: np.arange(len(obs)), outputs)
    assert len(visited.values) == 0
    for step, n in enumerate([3, 3, 3, 3, 2, 2, 1, 1, 1]):  # copies finish one after the other
        actions = visited(np.full((n, 1), (-1) ** (step // 4) * (step + 1.0)))
        np.testing.assert_array_equal(actions, np.arange(n))
    assert asked == [1, 1, 1, -5, -5, 9]
    np.testing.assert_array_equal(visited.values, np.float32([1, 1, 1, 5, 5, 9]))


@pytest.mark.parametrize("name", NAMES)
def test_the_play_is_what_it_was(name: str) -> None:
    task, teacher = catch_task(name), of_teacher(exact_teacher(name))
    steps: list[np.ndarray] = []

    def remembering(greedy: Greedy) -> Greedy:
        return lambda obs: (steps.append(obs.copy()), greedy(obs))[1]

    visited = Visited(teacher.greedy(name), teacher.outputs(name))
    watched = evaluate_task(task, visited, PROTOCOL)
    assert watched == evaluate_task(task, remembering(teacher.greedy(name)), PROTOCOL)
    expected = np.concatenate([optimal_q(obs, name=name).max(1) for obs in steps[::4]])
    np.testing.assert_array_equal(visited.values, expected.astype(np.float32))
    assert 0.2 < len(visited.values) / sum(map(len, steps)) < 0.3


def test_evaluations_during_training_tell_them() -> None:
    """Of teachers that have values: a largest logit is the value of nothing."""
    teachers = [exact_teacher(NAMES[0]), exact_teacher(NAMES[1], "logits")]
    parts = parts_of(small(), teachers)
    student, masters = of_student(parts.student, Path()), [of_teacher(t) for t in teachers]
    told = api.entries(parts.suite.tasks, student, PROTOCOL, dict.fromkeys(NAMES, 1.0), masters)
    visited = Visited(student.greedy(NAMES[0]), masters[0].outputs(NAMES[0]))
    evaluate_task(parts.suite.tasks[0], visited, PROTOCOL)
    assert told[NAMES[0]]["visited"] == histogram(visited.values)
    assert sum(told[NAMES[0]]["visited"]["counts"]) == len(visited.values) > 20
    assert "visited" not in told[NAMES[1]]
    assert told[NAMES[1]].keys() == {"score", "low", "high", "teacher", "percent"}
