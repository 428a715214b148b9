"""Playing full episodes with a policy that remembers, and that draws its actions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from polydistill.envs.base import EVALUATION_SEED_BASE, VecEnv
from polydistill.envs.suite import make_env
from polydistill.evaluation.play import Episode, shares
from polydistill.evaluation.rows import Label, Row
from polydistill.tasks import Task

#: Observations ``[N, *obs_shape]``, bool ``[N]`` (an episode begins), memory -> probabilities ``[N, A]``, memory.
#: Of continuous actions: means and variances ``[N, 2, D]``. The first memory is None.
Remembering = Callable[[np.ndarray, np.ndarray, Any], tuple[np.ndarray, Any]]

PROTOCOL = "drawn"  # full episodes, actions drawn from the policy, as the paper's agents are scored
DISTILLED = "distilled"  # the variant whose rows are pi_0's
COPIES = 10  # of the environment, at most


def draw(task: Task, chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Actions int64 ``[N]`` by probabilities ``[N, A]``, or float ``[N, D]`` by means and variances ``[N, 2, D]``."""
    if task.continuous:
        mean, variance = chances[:, 0], chances[:, 1]
        return np.asarray(mean + np.sqrt(variance) * rng.standard_normal(mean.shape))
    drawn = (rng.random((len(chances), 1)) > chances.cumsum(1)).sum(1)
    return np.minimum(drawn, chances.shape[1] - 1)


def play_remembering(env: VecEnv, policy: Remembering, *, episodes: int, seed: int) -> Iterator[Episode]:
    """Play ``episodes`` full episodes with drawn actions and yield each as it ends.

    Copy ``i`` plays a fixed share of them, as in :func:`~polydistill.evaluation.play.play`.

    Args:
        seed: Of the starts and of the actions; evaluations use ``EVALUATION_SEED_BASE`` and above.

    Raises:
        ValueError: no episode.
    """
    if episodes < 1:
        raise ValueError(f"there must be at least one episode to play, got {episodes}")
    n, share = env.num_envs, shares(episodes, env.num_envs)
    rng = np.random.default_rng([seed, 0xD157])
    obs, start, memory = env.reset(seed), np.ones(n, bool), None
    score, length, number = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64)
    while (number < share).any():
        chances, memory = policy(obs, start, memory)
        step = env.step(draw(env.task, chances, rng))
        obs, start = step.obs, step.ended
        score += step.reward
        length += 1
        for i in np.flatnonzero(step.ended):
            if number[i] < share[i]:
                yield Episode(float(score[i]), int(length[i]), int(i), int(number[i]))
                number[i] += 1
            score[i], length[i] = 0.0, 0


def score_remembering(
    task: Task, policy: Remembering, episodes: int, label: Label, *, seed: int = EVALUATION_SEED_BASE, threads: int = 0
) -> list[Row]:
    """Rows of ``episodes`` full episodes of ``task``, numbered as they ended.

    Raises:
        UserError: the environment cannot be opened.
    """
    env = make_env(task, min(COPIES, episodes), threads=threads)
    try:
        return [
            Row(
                variant=label.variant, task=task.name, seed=label.seed, updates=label.updates,
                control_steps=label.control_steps, protocol=PROTOCOL, episode=k, steps=e.steps, score=e.score,
            )
            for k, e in enumerate(play_remembering(env, policy, episodes=episodes, seed=seed))
        ]  # fmt: skip
    finally:
        env.close()
