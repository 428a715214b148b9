"""Playing full episodes with a policy that remembers, and that draws its actions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from polydistill.envs.base import VecEnv
from polydistill.evaluation.play import Episode, shares

#: Observations ``[N, *obs_shape]``, bool ``[N]`` (an episode begins), memory -> probabilities ``[N, A]``, memory.
#: The first memory is None.
Remembering = Callable[[np.ndarray, np.ndarray, Any], tuple[np.ndarray, Any]]


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
        drawn = (rng.random((n, 1)) > chances.cumsum(1)).sum(1)
        step = env.step(np.minimum(drawn, chances.shape[1] - 1))
        obs, start = step.obs, step.ended
        score += step.reward
        length += 1
        for i in np.flatnonzero(step.ended):
            if number[i] < share[i]:
                yield Episode(float(score[i]), int(length[i]), int(i), int(number[i]))
                number[i] += 1
            score[i], length[i] = 0.0, 0
