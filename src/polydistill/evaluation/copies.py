"""Copies of one task that work through a list of episodes, each from its own seed, whichever copy is free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from polydistill.envs.base import MAX_FRAMES, Step, VecEnv
from polydistill.envs.suite import make_env
from polydistill.tasks import Task


@runtime_checkable
class Copies(Protocol):
    """``num_envs`` copies of ``task`` that can be started again one by one."""

    task: Task
    num_envs: int

    def restart(self, rows: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """Start the copies of ``rows`` (bool ``[N]``) afresh, the first one from ``seeds[0]`` and so on.

        A copy then plays what copy 0 plays after ``reset(seed)``, whatever it did before. The first call must name all.
        Returns what all copies see, ``[N, *obs_shape]``.
        """

    def step(self, actions: np.ndarray) -> Step:
        """As :meth:`polydistill.envs.base.VecEnv.step`."""

    def close(self) -> None:
        """Free what the copies hold."""


class Singles:
    """:class:`Copies` of any kind: environments of one copy, stepped one after another."""

    def __init__(self, envs: Sequence[VecEnv]):
        self.task, self.num_envs, self._envs = envs[0].task, len(envs), envs
        self._obs = np.zeros((len(envs), *self.task.obs_shape), dtype=self.task.obs_dtype)

    def restart(self, rows: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        self._obs = self._obs.copy()
        for i, seed in zip(np.flatnonzero(rows).tolist(), seeds, strict=True):
            self._obs[i] = self._envs[i].reset(seed)[0]
        return self._obs

    def step(self, actions: np.ndarray) -> Step:
        steps = [env.step(actions[i : i + 1]) for i, env in enumerate(self._envs)]
        blank = np.zeros_like(steps[0].obs)
        finals = [blank if s.final_obs is None else s.final_obs for s in steps]
        self._obs = np.concatenate([s.obs for s in steps])
        return Step(
            obs=self._obs,
            reward=np.concatenate([s.reward for s in steps]),
            terminated=np.concatenate([s.terminated for s in steps]),
            truncated=np.concatenate([s.truncated for s in steps]),
            final_obs=np.concatenate(finals) if any(s.final_obs is not None for s in steps) else None,
            life_lost=np.concatenate([s.life_lost for s in steps]),
        )

    def close(self) -> None:
        for env in self._envs:
            env.close()


def open_copies(task: Task, num_envs: int, *, threads: int = 0, max_frames: int = MAX_FRAMES) -> Copies:
    """``num_envs`` copies of ``task`` without no-ops and sticky actions: their episodes follow from seed and actions.

    Args:
        threads: Emulator threads, 0 for one per core.
        max_frames: Emulator frames after which an Atari episode is truncated.

    Raises:
        UserError: the environment cannot be opened.
    """
    env = make_env(task, num_envs, threads=threads, noop_max=0, max_frames=max_frames)
    if isinstance(env, Copies):
        return env
    env.close()
    return Singles([make_env(task, 1, noop_max=0, max_frames=max_frames) for _ in range(num_envs)])


class Line:
    """A list of episodes, and the copies that take the next one whenever they are told to.

    Attributes:
        which: int64 ``[N]``, the episode each copy plays; -1 for a copy that idles, for there is none left.
        age: int64 ``[N]``, control steps since its start.
        obs: ``[N, *obs_shape]``, what each copy sees.

    Raises:
        ValueError: there are more copies than episodes.
    """

    def __init__(self, copies: Copies, seeds: Sequence[int]):
        if copies.num_envs > len(seeds):
            raise ValueError(f"{copies.num_envs} copies for {len(seeds)} episodes")
        self._copies, self._seeds, self._taken = copies, seeds, 0
        self.which = np.full(copies.num_envs, -1, dtype=np.int64)
        self.age = np.zeros(copies.num_envs, dtype=np.int64)
        self.obs = np.zeros(0)
        self.advance(np.ones(copies.num_envs, dtype=np.bool_))

    @property
    def busy(self) -> np.ndarray:
        """Bool ``[N]``: the copies that play an episode."""
        return self.which >= 0

    def advance(self, rows: np.ndarray) -> None:
        """Let the copies of ``rows`` (bool ``[N]``) leave their episodes and take the next ones of the list."""
        leaving = np.flatnonzero(rows)
        self.which[leaving] = -1
        taking = leaving[: len(self._seeds) - self._taken]
        if not len(taking):
            return
        seeds = self._seeds[self._taken : self._taken + len(taking)]
        self.which[taking] = np.arange(self._taken, self._taken + len(taking))
        self.age[taking] = 0
        self._taken += len(taking)
        fresh = np.zeros(len(rows), dtype=np.bool_)
        fresh[taking] = True
        self.obs = self._copies.restart(fresh, seeds)

    def step(self, actions: np.ndarray) -> Step:
        """One control step of every copy; idle ones too, for a :class:`VecEnv` steps all of them together."""
        step = self._copies.step(actions)
        self.obs = step.obs
        self.age += 1
        return step
