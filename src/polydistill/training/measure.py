"""Measured by playing: the range of a teacher's values, which Yin & Pan (2017) divide, and an emulator's speed."""

from __future__ import annotations

import time

import numpy as np
import torch

from polydistill.envs.base import VecEnv
from polydistill.teachers.base import Teacher

#: The paper does not say how much the teacher explores while it is measured (SPEC 4.3.1).
EPSILON = 0.05


def value_range(teacher: Teacher, env: VecEnv, steps: int, rng: np.random.Generator, seed: int) -> tuple[float, float]:
    """Smallest and largest ``max_a Q(s, a)`` over ``steps`` control steps of the teacher's own play.

    Args:
        env: Copies of the teacher's task; reset here and left open.
        steps: Control steps in all, over all copies.
        rng: Randomness of the actions; a twentieth of them are uniformly random.
        seed: Of the episodes.
    """
    obs, (low, high) = env.reset(seed), (np.inf, -np.inf)
    n, k = env.num_envs, env.task.n_actions
    for _ in range(-(-steps // n)):
        values = teacher(torch.from_numpy(obs).to(teacher.device)).values.cpu().numpy()
        best = values.max(1)
        low, high = min(low, float(best.min())), max(high, float(best.max()))
        explore = rng.random(n) < EPSILON
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
