"""Any Gymnasium environment with array observations as a task: ``gym:CartPole-v1``, ``gym:Pendulum-v1?g=5``.

Actions are discrete, or numbers in a bounded box; of the latter only Distral knows what to do.
"""

from __future__ import annotations

import difflib
import re
from enum import Enum
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np
import yaml

from polydistill.envs.base import EnvOptions, Step, at_least_one, box_actions, copy_seeds, own_actions
from polydistill.errors import UserError
from polydistill.tasks import Task


def _open(task_name: str) -> Any:
    """One Gymnasium environment; of observations that are a dictionary with an ``image``, only that (MiniGrid's).

    Raises:
        UserError: unknown id (the nearest one is suggested), an option it does not have, or a package is missing.
    """
    import gymnasium

    env_id, options = _env_id(task_name), _options(task_name)
    if env_id.startswith("ALE/") or (env_id in gymnasium.registry and env_id not in known_ids()):
        raise UserError(
            f"{task_name!r}: Atari games are tasks of their own, named like 'pong' (see --profile, --sticky)"
        )
    try:
        env = gymnasium.make(env_id, disable_env_checker=True, **options)
    except gymnasium.error.DependencyNotInstalled as error:
        raise UserError(f"{task_name!r} needs a package that is not installed: {_one_line(error)}") from None
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.Error, ModuleNotFoundError) as error:
        near = difflib.get_close_matches(env_id, known_ids(), n=1)
        hint = f"; did you mean 'gym:{near[0]}'?" if near else ""
        raise UserError(f"no Gymnasium environment {env_id!r}{hint} ({_one_line(error)})") from None
    except Exception as error:
        raise _wrong_options(task_name, error) from None
    seen = env.observation_space
    if isinstance(seen, gymnasium.spaces.Dict) and isinstance(seen.spaces.get("image"), gymnasium.spaces.Box):
        return gymnasium.wrappers.TransformObservation(env, itemgetter("image"), seen["image"])
    return env


def _wrong_options(task_name: str, error: Exception) -> Exception:
    """What to raise where an environment fails: its own error, unless the user chose its options."""
    if not _options(task_name):
        return error
    return UserError(f"{task_name!r}: {_env_id(task_name)} does not take these options ({_one_line(error)})")


def _try(env: Any, task_name: str) -> None:
    """One step: a wrong value may go wrong only there."""
    try:
        env.reset(seed=0)
        env.step(env.action_space.sample())
    except Exception as error:
        raise _wrong_options(task_name, error) from None


def known_ids() -> list[str]:
    """Registered ids, Atari's left out: ale-py registers them, with other pixels and sticky actions than ours."""
    import gymnasium

    return [name for name, spec in gymnasium.registry.items() if not str(spec.entry_point).startswith("ale_py")]


def _env_id(task_name: str) -> str:
    return _own_name(task_name).partition("?")[0]


def _own_name(task_name: str) -> str:
    return re.sub("^(gym|gymnasium):", "", task_name)


def _options(task_name: str) -> dict[str, Any]:
    """What stands behind the ``?``: ``KEY=VALUE`` with ``&`` between, values as in YAML."""
    _, asked, text = task_name.partition("?")
    found: dict[str, Any] = {}
    for part in text.split("&") if asked else ():
        key, equals, value = part.partition("=")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not (equals and value and key.isidentifier()):
            raise UserError(f"{task_name!r}: {part!r} is no option; write gym:Pendulum-v1?g=5, with & between several")
    return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def gymnasium_task(name: str) -> Task:
    """The task of ``gym:<id>`` or ``gym:<id>?KEY=VALUE&...``. The environment is opened once, to look at its spaces.

    Actions mean what the environment's ``get_action_meanings`` says, or its enumeration ``actions``; without them they
    are ``CartPole-v1:a0``, ..., so that no two environments' actions are taken for the same. A dictionary's ``image``
    stands for all of it. ``gym:minigrid:MiniGrid-Empty-5x5-v0`` imports ``minigrid`` first. Options go to the
    environment's constructor.

    Raises:
        UserError: unknown id, missing package, actions that are neither discrete nor numbers with bounds, or
            observations that are not one array.
    """
    from gymnasium import spaces

    env = _open(name)
    try:
        actions, obs = env.action_space, env.observation_space
        if _options(name):
            _try(env, name)
        low, high = _bounds(name, actions)
        if not isinstance(obs, spaces.Box):
            raise UserError(
                f"{name!r} has observations {obs}; polydistill reads one array, Box(...): "
                "wrap it in gymnasium.wrappers.FlattenObservation and register that"
            )
        n = len(low) or int(actions.n)
        meanings = (None if low else _meanings(env, n)) or tuple(f"{_env_id(name)}:a{i}" for i in range(n))
    finally:
        env.close()
    return Task(
        name=f"gym:{_own_name(name)}",
        kind="gymnasium",
        action_meanings=meanings,
        obs_shape=tuple(obs.shape),
        obs_dtype=np.dtype(obs.dtype).name,
        action_low=low,
        action_high=high,
    )


def _bounds(name: str, actions: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lower and upper bounds of an action's numbers, flattened; empty for discrete actions."""
    from gymnasium import spaces

    if isinstance(actions, spaces.Discrete):
        return (), ()
    if not isinstance(actions, spaces.Box) or actions.dtype is None or actions.dtype.kind != "f":
        raise UserError(f"{name!r} has actions {actions}; polydistill plays discrete ones, Discrete(n), or floats, Box")
    if not actions.is_bounded():
        raise UserError(
            f"{name!r} has actions {actions} without bounds: give it some with gymnasium.wrappers.TransformAction and "
            "register that"
        )
    return tuple(actions.low.ravel().tolist()), tuple(actions.high.ravel().tolist())


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
        self._space = space

    def reset(self, seed: int) -> np.ndarray:
        obs, _ = self._env.reset(seed=copy_seeds(seed, self.num_envs).tolist())
        return np.asarray(obs)

    def step(self, actions: np.ndarray) -> Step:
        obs, reward, terminated, truncated, info = self._env.step(self._chosen(actions))
        obs, truncated = np.asarray(obs), truncated & ~terminated
        final = None
        if (ended := terminated | truncated).any():
            final = np.zeros_like(obs)
            for i in np.flatnonzero(ended):
                final[i] = info["final_obs"][i]
        return Step(obs, reward.astype(np.float32), terminated, truncated, final, np.zeros_like(terminated))

    def _chosen(self, actions: np.ndarray) -> np.ndarray:
        if not self.task.continuous:
            return own_actions(actions, self.task, self.num_envs) + int(self._space.start)
        chosen = box_actions(actions, self.task, self.num_envs)
        return chosen.reshape(self.num_envs, *self._space.shape).astype(self._space.dtype)

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
