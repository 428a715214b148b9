"""Measured by playing: the range of a teacher's values, which Yin & Pan (2017) divide, and an emulator's speed."""

from __future__ import annotations

import time

import numpy as np
import torch

from polydistill.envs.base import VecEnv
from polydistill.errors import UserError
from polydistill.teachers.base import Teacher


def value_range(
    teacher: Teacher, env: VecEnv, steps: int, rng: np.random.Generator, seed: int, epsilon: float = 0.05
) -> tuple[float, float]:
    """Smallest and largest ``max_a Q(s, a)`` over ``steps`` control steps of the teacher's own play.

    Args:
        env: Copies of the teacher's task; reset here and left open.
        steps: Control steps in all, over all copies.
        rng: Randomness of the actions.
        seed: Of the episodes.
        epsilon: Share of the actions that are uniformly random. The paper names neither it nor the steps.

    Raises:
        UserError: the teacher says NaN or infinity.
    """
    obs, (low, high) = env.reset(seed), (np.inf, -np.inf)
    n, k = env.num_envs, env.task.n_actions
    for played in range(0, steps, n):
        values = teacher(torch.from_numpy(obs).to(teacher.device)).values.cpu().numpy()
        if not np.isfinite(values).all():
            raise UserError(
                f"the teacher of {teacher.task.name} says NaN or infinity after {played:,} control steps of its own "
                "play: train or export it again"
            )
        best = values.max(1)
        low, high = min(low, float(best.min())), max(high, float(best.max()))
        explore = rng.random(n) < epsilon
        obs = env.step(np.where(explore, rng.integers(0, k, n), values.argmax(1))).obs
    return low, high


def emulator_rate(env: VecEnv, seed: int, seconds: float = 0.5) -> float:
    """Control steps per second of ``env`` alone, over all copies: random actions, and nobody looks."""
    rng = np.random.default_rng(seed)
    env.reset(seed)
    actions = rng.integers(0, env.task.n_actions, (64, env.num_envs))
    steps, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds or steps < len(actions):
        env.step(actions[steps % len(actions)])
        steps += 1
    return steps * env.num_envs / passed
