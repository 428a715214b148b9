"""Any Gymnasium environment with discrete actions and array observations as a task: ``gym:CartPole-v1``."""

from __future__ import annotations

import difflib
import re
from enum import Enum
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from polydistill.envs.base import EnvOptions, Step, at_least_one, copy_seeds, own_actions
from polydistill.errors import UserError
from polydistill.tasks import Task


def _open(task_name: str) -> Any:
    """One Gymnasium environment; of observations that are a dictionary with an ``image``, only that (MiniGrid's).

    Raises:
        UserError: unknown id (the nearest one is suggested), or a package is missing.
    """
    import gymnasium

    env_id = _env_id(task_name)
    if env_id.startswith("ALE/") or (env_id in gymnasium.registry and env_id not in known_ids()):
        raise UserError(
            f"{task_name!r}: Atari games are tasks of their own, named like 'pong' (see --profile, --sticky)"
        )
    try:
        env = gymnasium.make(env_id, disable_env_checker=True)
    except gymnasium.error.DependencyNotInstalled as error:
        raise UserError(f"{task_name!r} needs a package that is not installed: {_one_line(error)}") from None
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.Error, ModuleNotFoundError) as error:
        near = difflib.get_close_matches(env_id, known_ids(), n=1)
        hint = f"; did you mean 'gym:{near[0]}'?" if near else ""
        raise UserError(f"no Gymnasium environment {env_id!r}{hint} ({_one_line(error)})") from None
    seen = env.observation_space
    if isinstance(seen, gymnasium.spaces.Dict) and isinstance(seen.spaces.get("image"), gymnasium.spaces.Box):
        return gymnasium.wrappers.TransformObservation(env, itemgetter("image"), seen["image"])
    return env


def known_ids() -> list[str]:
    """Registered ids, Atari's left out: ale-py registers them, with other pixels and sticky actions than ours."""
    import gymnasium

    return [name for name, spec in gymnasium.registry.items() if not str(spec.entry_point).startswith("ale_py")]


def _env_id(task_name: str) -> str:
    return re.sub("^(gym|gymnasium):", "", task_name)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def gymnasium_task(name: str) -> Task:
    """The task of ``gym:<id>``. The environment is opened once, to look at its spaces.

    Actions mean what the environment's ``get_action_meanings`` says, or its enumeration ``actions``; without them they
    are ``CartPole-v1:a0``, ..., so that no two environments' actions are taken for the same. A dictionary's ``image``
    stands for all of it. ``gym:minigrid:MiniGrid-Empty-5x5-v0`` imports ``minigrid`` first.

    Raises:
        UserError: unknown id, missing package, actions that are not discrete, or observations that are not one array.
    """
    from gymnasium import spaces

    env = _open(name)
    try:
        actions, obs = env.action_space, env.observation_space
        if not isinstance(actions, spaces.Discrete):
            raise UserError(f"{name!r} has actions {actions}; polydistill plays discrete ones, Discrete(n)")
        if not isinstance(obs, spaces.Box):
            raise UserError(
                f"{name!r} has observations {obs}; polydistill reads one array, Box(...): "
                "wrap it in gymnasium.wrappers.FlattenObservation and register that"
            )
        n = int(actions.n)
        meanings = _meanings(env, n) or tuple(f"{_env_id(name)}:a{i}" for i in range(n))
    finally:
        env.close()
    return Task(
        name=f"gym:{_env_id(name)}",
        kind="gymnasium",
        action_meanings=meanings,
        obs_shape=tuple(obs.shape),
        obs_dtype=np.dtype(obs.dtype).name,
    )


def _meanings(env: Any, n: int) -> tuple[str, ...] | None:
    """What ``get_action_meanings`` says, or the enumeration ``actions`` (MiniGrid), if it names ``n`` actions."""
    ask, listed = (getattr(env.unwrapped, name, None) for name in ("get_action_meanings", "actions"))
    meanings: tuple[str, ...] = ()
    if callable(ask):
        meanings = tuple(str(m) for m in ask())
    elif isinstance(listed, type) and issubclass(listed, Enum):
        meanings = tuple(m.name.upper() for m in listed)
    return meanings if len(set(meanings)) == n == len(meanings) else None


class GymnasiumVec:
    """``num_envs`` copies stepped one after another; see :class:`~polydistill.envs.base.VecEnv`.

    An episode that Gymnasium reports as terminated and truncated at once counts as terminated.

    Args:
        task: From :func:`gymnasium_task`.
        num_envs: Number of copies, ``N``.

    Raises:
        UserError: unknown id, missing package, or no copy.
    """

    def __init__(self, task: Task, num_envs: int):
        from gymnasium.vector import AutoresetMode, SyncVectorEnv

        self.task, self.num_envs = task, at_least_one(num_envs)
        self._env = SyncVectorEnv([partial(_open, task.name)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
        space: Any = self._env.single_action_space
        self._first = int(space.start)

    def reset(self, seed: int) -> np.ndarray:
        obs, _ = self._env.reset(seed=copy_seeds(seed, self.num_envs).tolist())
        return np.asarray(obs)

    def step(self, actions: np.ndarray) -> Step:
        chosen = own_actions(actions, self.task, self.num_envs) + self._first
        obs, reward, terminated, truncated, info = self._env.step(chosen)
        obs, truncated = np.asarray(obs), truncated & ~terminated
        final = None
        if (ended := terminated | truncated).any():
            final = np.zeros_like(obs)
            for i in np.flatnonzero(ended):
                final[i] = info["final_obs"][i]
        return Step(obs, reward.astype(np.float32), terminated, truncated, final, np.zeros_like(terminated))

    def close(self) -> None:
        self._env.close()


def resolve(name: str, profile: str) -> Task:
    """The task of ``gym:<id>``; ``profile`` concerns Atari alone."""
    return gymnasium_task(name)


def make(task: Task, num_envs: int, options: EnvOptions) -> GymnasiumVec:
    """An environment for ``task``.

    Raises:
        UserError: sticky actions were asked for.
    """
    if options.sticky:
        raise UserError(
            f"task {task.name!r} has no sticky actions here: register it with gymnasium.wrappers.StickyAction instead"
        )
    return GymnasiumVec(task, num_envs)
