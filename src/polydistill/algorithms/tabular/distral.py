"""Tabular Distral (Teh et al. 2017, section 2.2): soft Q-learning of every task and distillation take turns.

All seeds and tasks are learnt at once: tables have the shape ``[N, G, S, A]``, N seeds and G tasks. Each seed has its
own random numbers, so its result does not depend on the seeds beside it. What differs between Distral and its baselines
is the prior alone: whose visits it is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from polydistill.algorithms.tabular.two_rooms import ACTIONS, TwoRooms
from polydistill.ops import distral as ops
from polydistill.rng import stream
from polydistill.settings import Settings

#: Whose visits make the prior pi_0: those of all tasks (Distral), of each task for itself, nobody's (it stays uniform).
Prior = Literal["shared", "own", "uniform"]

CHUNK = 100  # iterations whose random numbers are drawn at once
AGES = 10_000  # control steps of an episode after which its visits have one weight


class TabularSettings(Settings):
    """Settings of the paper's App. B.1; what it leaves open is said.

    Attributes:
        alpha, beta: c_KL / (c_KL + c_Ent) and 1 / (c_KL + c_Ent). The paper has the KL alone: alpha 1.
        tasks: Goals per seed; not in the paper.
        rollout: Control steps of each task between two distillations.
        count_discount: A visit t steps after the start of its episode counts ``count_discount ** t``. Eq. 5 has gamma;
            1 is a common shortcut.
        count_decay: All counts are multiplied by this at every distillation; 1 keeps every visit. Not in the paper.
    """

    alpha: float = Field(1.0, ge=0, le=1)
    beta: float = Field(5.0, gt=0)
    gamma: float = Field(0.95, gt=0, lt=1)
    learning_rate: float = Field(0.1, gt=0, le=1)
    tasks: int = Field(8, ge=1)
    rollout: int = Field(10, ge=1)
    pseudocount: float = Field(1.0, gt=0)
    count_discount: float = Field(0.95, gt=0, le=1)
    count_decay: float = Field(1.0, ge=0, le=1)


class TabularDistral:
    """Learner of all tasks of some seeds.

    Args:
        prior: See :data:`Prior`. The same seed has the same goals, starts and noise under each.

    Attributes:
        goals: int ``[N, G]``.
        q: float64 ``[N, G, S, A]``, from 0.
        log_pi0: float64 ``[N, 1 or G, S, A]``, logarithm of the distilled policy.
        counts: float64 ``[N, G, S, A]``, weighted visits.
        control_steps: Of each task so far.

    Raises:
        ValueError: more tasks than there are cells for goals.
    """

    def __init__(self, world: TwoRooms, settings: TabularSettings, seeds: Sequence[int], prior: Prior = "shared"):
        self.world, self.settings, self.prior = world, settings, prior
        n, g, a = len(seeds), settings.tasks, len(ACTIONS)
        self.goals = np.stack([world.goals(stream(seed, "two-rooms", "goals"), g) for seed in seeds])
        self._noise = [stream(seed, "two-rooms", "noise") for seed in seeds]
        self._drawn = np.empty((0, settings.rollout, n, 2, g))
        priors = g if prior == "own" else 1
        self.q = np.zeros((n, g, world.states, a))
        self.counts = np.zeros_like(self.q)
        self.log_pi0 = np.full((n, priors, world.states, a), -np.log(a))
        # the same tables with one row per seed, task and state, and where each task's rows begin
        self._q, self._counts, self._log_pi0 = (x.reshape(-1, a) for x in (self.q, self.counts, self.log_pi0))
        self._q_rows = world.states * np.arange(n * g).reshape(n, g)
        self._prior_rows = self._q_rows if prior == "own" else world.states * np.arange(n)[:, None]
        self._state = np.full((n, g), -1)  # -1: an episode begins
        self._age = np.zeros((n, g), dtype=np.int64)  # control steps since it began
        self._weights = settings.count_discount ** np.arange(AGES)
        self.control_steps = 0

    def iterate(self) -> None:
        """One rollout of every task under the present prior, learning at each step; then one distillation."""
        for noise in self._next_noise():
            self._step(*noise.transpose(1, 0, 2))
        self.control_steps += self.settings.rollout
        self._distil()

    def policies(self) -> np.ndarray:
        """The task policies, eq. 4, ``[N, G, S, A]``."""
        return self._soft_policy(self.q, self.log_pi0)

    def pi0(self) -> np.ndarray:
        """The distilled policy, ``[N, 1 or G, S, A]``."""
        return np.exp(self.log_pi0)

    def _step(self, to_start: np.ndarray, to_act: np.ndarray) -> None:
        """One control step of every task; the arguments are uniform numbers ``[N, G]``."""
        s, world = self.settings, self.world
        fresh = self._state < 0
        state = np.where(fresh, world.start(to_start, self.goals), self._state)
        self._age[fresh] = 0
        here = self._q_rows + state
        chances = self._soft_policy(self._q.take(here, 0), self._log_pi0.take(self._prior_rows + state, 0))
        action = (chances.cumsum(-1)[..., :-1] <= to_act[..., None]).sum(-1)
        after, reward, reached = world.step(state, action, self.goals)
        q, log_pi0 = self._q.take(self._q_rows + after, 0), self._log_pi0.take(self._prior_rows + after, 0)
        value = ops.soft_value(_t(q), _t(log_pi0), s.alpha, s.beta)
        target = ops.soft_target(_t(reward), _t(reached), value, s.gamma).numpy()
        self._q[here, action] += s.learning_rate * (target - self._q[here, action])
        self._counts[here, action] += self._weights[np.minimum(self._age, len(self._weights) - 1)]
        self._age += 1
        self._state = np.where(reached, -1, after)

    def _distil(self) -> None:
        if self.prior == "uniform":
            return
        if self.settings.count_decay < 1:
            self.counts *= self.settings.count_decay
        counts = self.counts if self.prior == "own" else self.counts.sum(1, keepdims=True)
        np.log(ops.distilled_policy(_t(counts), self.settings.pseudocount).numpy(), out=self.log_pi0)

    def _soft_policy(self, q: np.ndarray, log_pi0: np.ndarray) -> np.ndarray:
        s = self.settings
        return np.asarray(ops.soft_policy(_t(q), _t(log_pi0), s.alpha, s.beta).exp().numpy())

    def _next_noise(self) -> np.ndarray:
        """``[rollout, N, 2, G]`` in [0, 1)."""
        if not len(self._drawn):
            shape = (CHUNK, self.settings.rollout, 2, self.settings.tasks)
            self._drawn = np.stack([rng.random(shape) for rng in self._noise], 2)
        now, self._drawn = self._drawn[0], self._drawn[1:]
        return np.asarray(now)


def _t(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
