"""Copies that start again one by one: each as a fresh environment does, and none disturbs another."""

from __future__ import annotations

import numpy as np
import pytest

from polydistill.envs.atari import AtariVec
from polydistill.envs.base import EVALUATION_SEED_BASE, VecEnv
from polydistill.envs.suite import make_env, resolve_task
from polydistill.evaluation.copies import Copies, Line, Singles, open_copies
from polydistill.tasks import Task

#: beam_rider keeps something of the last game through a reset without a seed.
TASKS = ["catch", "gym:CartPole-v1", "breakout nature", "beam_rider"]
SEEDS = [EVALUATION_SEED_BASE + s for s in (5, 77, 123_456_789)]


def fresh(task: Task) -> VecEnv:
    return make_env(task, 1, noop_max=0, threads=1)


@pytest.mark.parametrize("key", TASKS)
def test_a_restart_is_a_fresh_environment(key: str) -> None:
    """Copy 1 starts again in the middle; both copies against environments that were just opened."""
    name, _, profile = key.partition(" ")
    task = resolve_task(name, profile=profile or "ale")
    rng = np.random.default_rng(0)
    copies = open_copies(task, 2, threads=1)
    twins = [fresh(task), fresh(task)]
    seen = copies.restart(np.array([True, True]), SEEDS[:2])
    for i in range(2):
        assert np.array_equal(seen[i], twins[i].reset(SEEDS[i])[0])
    for t in range(120):
        if t == 60:
            before = seen.copy()
            restarted = copies.restart(np.array([False, True]), SEEDS[2:])
            twins[1].close()
            twins[1] = fresh(task)
            assert np.array_equal(restarted[1], twins[1].reset(SEEDS[2])[0])
            assert np.array_equal(restarted[0], before[0])
            assert np.array_equal(seen, before)  # what was handed out is not written to
        actions = rng.integers(0, task.n_actions, 2)
        step = copies.step(actions)
        seen = step.obs
        for i in range(2):
            twin = twins[i].step(actions[i : i + 1])
            assert np.array_equal(step.obs[i], twin.obs[0])
            assert step.reward[i] == twin.reward[0]
            assert step.terminated[i] == twin.terminated[0]
            assert step.truncated[i] == twin.truncated[0]
            assert step.life_lost[i] == twin.life_lost[0]
            if twin.final_obs is not None:
                assert step.final_obs is not None
                assert np.array_equal(step.final_obs[i], twin.final_obs[0])
    for env in (copies, *twins):
        env.close()


def test_atari_restarts_its_own_copies() -> None:
    """No emulator per copy beside the one for all."""
    copies = open_copies(resolve_task("pong"), 2, threads=1)
    assert isinstance(copies, AtariVec)
    assert isinstance(copies, Copies)
    copies.close()
    assert isinstance(open_copies(resolve_task("catch"), 2), Singles)


def test_a_line_gives_every_episode_to_one_copy() -> None:
    """Five episodes, two copies that leave after 3 and 2 steps: by hand."""
    line = Line(open_copies(resolve_task("catch"), 2), [EVALUATION_SEED_BASE + i for i in range(5)])
    seen = []
    while line.busy.any():
        seen.append((line.which.tolist(), np.where(line.busy, line.age, -1).tolist()))
        line.step(np.ones(2, dtype=np.int64))
        line.advance(line.busy & (line.age >= [3, 2]))
    assert seen == [
        ([0, 1], [0, 0]),
        ([0, 1], [1, 1]),
        ([0, 2], [2, 0]),
        ([3, 2], [0, 1]),
        ([3, 4], [1, 0]),
        ([3, 4], [2, 1]),
    ]
