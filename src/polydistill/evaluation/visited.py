"""Which states a policy meets while it is evaluated, by the teacher's value (Yin & Pan 2017, Fig. 2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from polydistill.evaluation.play import Greedy

#: Control steps from one state that is kept to the next of the same copy: neighbours say much the same, and the teacher
#: is asked about these alone.
EVERY = 4


class Visited:
    """A policy to be evaluated, and beside its play the teacher's value of every fourth state that it meets.

    Its actions, and so its scores, are the policy's.

    Args:
        greedy: The policy.
        outputs: Observations ``[n, *obs_shape]`` -> the teacher's values ``[n, n_actions]``.
    """

    def __init__(self, greedy: Greedy, outputs: Callable[[np.ndarray], np.ndarray]):
        self._greedy, self._outputs = greedy, outputs
        self._steps = 0
        self._values: list[np.ndarray] = []

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Greedy actions int64 ``[n]`` of the copies that play, ``[n, *obs_shape]``; once per control step."""
        if self._steps % EVERY == 0:
            self._values.append(self._outputs(obs).max(1))
        self._steps += 1
        return self._greedy(obs)

    @property
    def values(self) -> np.ndarray:
        """``max_a Q_teacher(s, a)`` of the states kept, float32 ``[n]``."""
        return np.concatenate([np.zeros(0, np.float32), *self._values]).astype(np.float32)
