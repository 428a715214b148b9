"""What every kind of environment promises. A new file in envs/ adds its task to TASKS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import gymnasium
import numpy as np
import pytest

from polydistill.envs import suite
from polydistill.envs.base import EVALUATION_SEED_BASE, Step, VecEnv, copy_seeds, step_all, step_while
from polydistill.envs.catch import CatchVec
from polydistill.envs.suite import make_env, resolve_task
from polydistill.errors import UserError
from polydistill.tasks import Task

LIMIT = 12  # control steps until truncation in limited()

SHORT = "PolydistillShort-v0"
if SHORT not in gymnasium.registry:
    entry = gymnasium.spec("CartPole-v1").entry_point
    gymnasium.register(SHORT, entry_point=entry, max_episode_steps=LIMIT)

TASKS = ["pong", "breakout nature", "catch", "catch-mirror", "catch-wind", "catch-wide", "gym:CartPole-v1"]
TASKS += ["doom:mazes-1", "doom:tag-5"]


@cache
def task_of(key: str) -> Task:
    name, _, profile = key.partition(" ")
    return resolve_task(name, profile=profile or "ale")


@contextmanager
def opened(key: str, num_envs: int) -> Iterator[VecEnv]:
    env = make_env(task_of(key), num_envs, threads=1)
    try:
        yield env
    finally:
        env.close()


def limited(key: str) -> VecEnv:
    """Three copies that truncate after LIMIT steps."""
    task = task_of(key)
    if task.kind == "catch":
        return CatchVec(task, 3, max_steps=LIMIT)
    if task.kind == "gymnasium":
        return make_env(resolve_task(f"gym:{SHORT}"), 3)
    return make_env(task, 3, threads=1, max_frames=4 * LIMIT)


def roll(env: VecEnv, seed: int, steps: int) -> tuple[np.ndarray, list[Step]]:
    """Copy i follows its own random actions, whoever plays beside it."""
    actions = [np.random.default_rng([7, i]).integers(0, env.task.n_actions, steps) for i in range(env.num_envs)]
    return env.reset(seed), [env.step(np.array(column)) for column in zip(*actions, strict=True)]


def frames(obs: np.ndarray, steps: list[Step], copy: int) -> np.ndarray:
    return np.stack([obs[copy], *(s.obs[copy] for s in steps)])


def test_every_adapter_is_here() -> None:
    assert {task_of(key).kind for key in TASKS} == suite._built_in()


@pytest.mark.parametrize("key", TASKS)
def test_contract(key: str) -> None:
    task, steps = task_of(key), 45
    with opened(key, 3) as env:
        assert (env.task, env.num_envs) == (task, 3)
        obs, played = roll(env, 5, steps)
        # The specification matches the data.
        for o in [obs, *(s.obs for s in played)]:
            assert o.shape == (3, *task.obs_shape)
            assert o.dtype == np.dtype(task.obs_dtype)
        for s in played:
            assert (s.reward.dtype, s.reward.shape) == (np.float32, (3,))
            for flag in (s.terminated, s.truncated, s.life_lost):
                assert (flag.dtype, flag.shape) == (np.bool_, (3,))
            assert not (s.terminated & s.truncated).any()
            assert (s.final_obs is not None) == s.ended.any()
            if s.final_obs is not None:
                assert (s.final_obs.shape, s.final_obs.dtype) == (s.obs.shape, s.obs.dtype)
                assert not s.final_obs[~s.ended].any()
        # Arrays handed out are never written to again.
        kept = [s.obs.copy() for s in played]
        again, replayed = roll(env, 5, steps)
        assert all(np.array_equal(a, s.obs) for a, s in zip(kept, played, strict=True))
        # One seed, one game.
        assert np.array_equal(obs, again)
        for a, b in zip(played, replayed, strict=True):
            assert np.array_equal(a.obs, b.obs)
            assert np.array_equal(a.reward, b.reward)
            assert np.array_equal(a.ended, b.ended)
        # Another seed, another game; and the copies differ.
        other, otherwise = roll(env, 6, steps)
        assert not np.array_equal(frames(obs, played, 0), frames(other, otherwise, 0))
        assert not np.array_equal(frames(obs, played, 0), frames(obs, played, 1))
        # Every action the task names is taken; nothing else is.
        for action in range(task.n_actions):
            env.step(np.full(3, action, dtype=np.int32))
        for bad in ([0, 0, task.n_actions], [-1, 0, 0], [0, 0], [0.0, 0.0, 0.0]):
            with pytest.raises(ValueError, match="actions"):
                env.step(np.array(bad))
        env.step(np.zeros(3, dtype=np.int64))  # a refused action leaves the environment in order
    # A copy depends on the seed and its index alone.
    with opened(key, 1) as env:
        alone, played_alone = roll(env, 5, steps)
        assert np.array_equal(frames(alone, played_alone, 0), frames(obs, played, 0))


def test_several_environments_take_one_step_each() -> None:
    with opened("pong", 3) as pong, opened("catch", 2) as catch, opened("pong", 3) as p, opened("catch", 2) as c:
        for env in (pong, catch, p, c):
            env.reset(5)
        for t in range(3):
            actions = [np.full(3, t), np.full(2, t)]
            for step, same in zip(
                step_all([pong, catch], actions), (p.step(actions[0]), c.step(actions[1])), strict=True
            ):
                assert np.array_equal(step.obs, same.obs)
                assert np.array_equal(step.reward, same.reward)


@pytest.mark.parametrize("key", ["pong", "catch", "doom:mazes-1"])
def test_work_is_done_during_a_step(key: str) -> None:
    with opened(key, 3) as env, opened(key, 3) as twin:
        env.reset(5)
        twin.reset(5)
        done: list[int] = []
        for t in range(5):
            actions = np.full(3, t % 3)
            step, same = step_while(env, actions, lambda t=t: done.append(t)), twin.step(actions)
            assert np.array_equal(step.obs, same.obs)
        assert done == [0, 1, 2, 3, 4]

        def fail() -> None:
            raise UserError("memory full")

        with pytest.raises(UserError, match="memory full"):
            step_while(env, np.zeros(3, np.int64), fail)
        env.step(np.zeros(3, np.int64))  # an error leaves the environment in order
        with pytest.raises(ValueError, match="actions"):
            step_while(env, np.array([99, 0, 0]), lambda: done.append(5))
        env.step(np.zeros(3, np.int64))


@pytest.mark.parametrize("key", ["pong", "breakout nature", "catch", "gym:CartPole-v1", "doom:mazes-1"])
def test_truncation_is_not_termination(key: str) -> None:
    env = limited(key)
    try:
        obs = env.reset(3)
        age = np.zeros(3, dtype=np.int64)
        cut = 0
        for t in range(3 * LIMIT):
            step = env.step(np.full(3, t % 2))
            age += 1
            assert np.array_equal(step.truncated, (age == LIMIT) & ~step.terminated)
            if step.truncated.any():
                assert step.final_obs is not None
                for i in np.flatnonzero(step.truncated):
                    assert not np.array_equal(step.final_obs[i], step.obs[i])
            cut += int(step.truncated.sum())
            age[step.ended] = 0
            obs = step.obs
        assert cut > 0
        assert obs.shape[0] == 3
    finally:
        env.close()


def test_copy_seeds() -> None:
    seeds = copy_seeds(11, 64)
    assert seeds.dtype == np.int64
    assert np.array_equal(copy_seeds(11, 8), seeds[:8])
    for seed in (0, 11, 2**31, 2**63):
        assert ((copy_seeds(seed, 8) >= 0) & (copy_seeds(seed, 8) < 2**31)).all()
    training = np.concatenate([copy_seeds(s, 16) for s in [*range(200), EVALUATION_SEED_BASE - 1]])
    evaluation = np.concatenate([copy_seeds(EVALUATION_SEED_BASE + s, 16) for s in range(200)])
    assert len(np.unique(training)) == len(training)
    assert training.max() < 2**30 <= evaluation.min()
    assert copy_seeds(0, 2).tolist() == [821328062, 743699524]  # a change here changes every run
    with pytest.raises(ValueError, match="negative"):
        copy_seeds(-1, 2)


@pytest.mark.parametrize("key", ["pong", "catch", "gym:CartPole-v1", "doom:mazes-1"])
def test_settings_out_of_range(key: str) -> None:
    task = task_of(key)
    with pytest.raises(UserError, match="at least 1 copy"):
        make_env(task, 0)
    with pytest.raises(UserError, match="sticky is a probability"):
        make_env(task, 1, sticky=25)
    for name in ("threads", "noop_max", "max_frames"):
        with pytest.raises(UserError, match=f"{name} must be at least"):
            make_env(task, 1, **{name: -1})  # type: ignore[arg-type]
    if task.kind != "atari":
        with pytest.raises(UserError, match="no sticky actions"):
            make_env(task, 1, sticky=0.25)
