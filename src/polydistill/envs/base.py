"""What the project needs from an environment: many copies of one task, stepped together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from polydistill.errors import UserError
from polydistill.tasks import Task

#: Seeds below this one are for training and collecting, seeds from it on for evaluation. :func:`copy_seeds` keeps the
#: two apart down to the emulator, so an evaluation never replays a start or a sticky-action stream met in training.
EVALUATION_SEED_BASE = 1_000_000

MAX_FRAMES = 108_000  # emulator frames in one Atari episode = 30 minutes at 60 Hz (Mnih et al. 2015)


@dataclass(frozen=True)
class Step:
    """Outcome of one control step in each of ``N`` copies. The arrays are the caller's: nobody writes to them again.

    Attributes:
        obs: ``[N, *obs_shape]``. Where an episode ended this is already the next episode's first observation.
        reward: float32 ``[N]``, raw (never clipped here).
        terminated: bool ``[N]``, the task itself ended. Never True together with ``truncated``.
        truncated: bool ``[N]``, a time limit cut the episode: the state still has a value.
        final_obs: ``[N, *obs_shape]`` or None when no episode ended; rows of ended episodes hold their last
            observation, the other rows hold zeros.
        life_lost: bool ``[N]``, a life was lost in this step, the last one included; False where the task has no lives.
    """

    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final_obs: np.ndarray | None
    life_lost: np.ndarray

    @property
    def ended(self) -> np.ndarray:
        """Bool ``[N]``: the episode is over, for whatever reason."""
        return self.terminated | self.truncated


class VecEnv(Protocol):
    """``num_envs`` copies of ``task``. Actions are the task's own indices, ``0 .. task.n_actions - 1``.

    Of a continuous task they are floats ``[N, D]`` in the units of its box: -1 is a lower bound, 1 an upper one, and
    what lies outside is moved to the bound.
    """

    task: Task
    num_envs: int

    def reset(self, seed: int) -> np.ndarray:
        """Start every copy afresh; copy ``i`` is seeded from ``seed`` and ``i`` alone. Returns ``[N, *obs_shape]``.

        Training uses seeds below :data:`EVALUATION_SEED_BASE`, evaluation seeds from it on.
        """

    def step(self, actions: np.ndarray) -> Step:
        """Advance every copy by one control step. ``actions``: integers ``[N]``, or floats ``[N, D]``.

        Raises:
            ValueError: wrong shape, wrong kind of number, or an action the task does not have.
        """

    def close(self) -> None:
        """Free what the copies hold."""


class SendReceive(ABC):
    """Base of a :class:`VecEnv` whose copies play by themselves between ``send`` and ``receive``."""

    @abstractmethod
    def send(self, actions: np.ndarray) -> None:
        """Begin a control step. Raises ValueError as ``step`` does; then nothing has begun."""

    @abstractmethod
    def receive(self) -> Step:
        """Wait for the step begun, and return what came of it."""

    def step(self, actions: np.ndarray) -> Step:
        """See :meth:`VecEnv.step`."""
        self.send(actions)
        return self.receive()


def step_while(env: VecEnv, actions: np.ndarray, work: Callable[[], object]) -> Step:
    """One control step; ``work()`` is done while the copies play, where they play by themselves, and before it if not.

    An error in ``work`` goes on to the caller, with the environment in order.
    """
    if not isinstance(env, SendReceive):
        work()
        return env.step(actions)
    env.send(actions)
    try:
        work()
    finally:
        step = env.receive()
    return step


def step_all(envs: Sequence[VecEnv], actions: Sequence[np.ndarray]) -> list[Step]:
    """One control step of several environments; those that play by themselves do so at the same time."""
    for env, chosen in zip(envs, actions, strict=True):
        if isinstance(env, SendReceive):
            env.send(chosen)
    return [
        env.receive() if isinstance(env, SendReceive) else env.step(chosen)
        for env, chosen in zip(envs, actions, strict=True)
    ]


@dataclass(frozen=True)
class EnvOptions:
    """How to play, for adapters that have the setting; ``noop_max`` concerns Atari alone, and other adapters
    may have some of the rest.

    Attributes:
        sticky: Probability of repeating the previous action instead of the chosen one, per emulator frame. An adapter
            that cannot do it refuses values other than 0.
        threads: Emulator threads; 0 means one per core.
        noop_max: An episode starts after 1 to ``noop_max`` no-op frames; 0 for none.
        max_frames: Emulator frames after which an episode is truncated, no-ops not counted.

    Raises:
        UserError: a value out of range.
    """

    sticky: float = 0.0
    threads: int = 0
    noop_max: int = 30
    max_frames: int = MAX_FRAMES

    def __post_init__(self) -> None:
        if not 0.0 <= self.sticky <= 1.0:
            raise UserError(f"sticky is a probability, from 0 to 1; found {self.sticky}")
        for name, least in (("threads", 0), ("noop_max", 0), ("max_frames", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}; found {getattr(self, name)}")


def copy_seeds(seed: int, num_envs: int) -> np.ndarray:
    """One seed per copy, int64 ``[N]`` in ``0 .. 2**31 - 1`` (what a C++ ``int`` holds; a negative one means "random").

    Entry ``i`` depends on ``seed`` and ``i`` alone, and neighbouring seeds share nothing (with ``seed + i``, copy 1 of
    seed 0 would play the games of copy 0 of seed 1). Bit 30 is set for evaluation seeds and clear for training seeds.

    Raises:
        ValueError: ``seed`` is negative.
    """
    if seed < 0:
        raise ValueError(f"a seed must not be negative; found {seed}")
    words = [np.random.SeedSequence([seed, i]).generate_state(1)[0] for i in range(num_envs)]
    kind = int(seed >= EVALUATION_SEED_BASE) << 30
    return (np.array(words, dtype=np.int64) & (2**30 - 1)) | kind


def own_actions(actions: np.ndarray, task: Task, num_envs: int) -> np.ndarray:
    """``actions`` as contiguous int64 ``[N]``, checked: ale-py waits for ever on an action it does not know.

    Raises:
        ValueError: wrong shape, not integers, or an action outside ``0 .. task.n_actions - 1``.
    """
    actions = np.asarray(actions)
    if actions.shape != (num_envs,) or actions.dtype.kind not in "iu":
        raise ValueError(f"{task.name}: expected {num_envs} integer actions, found {actions.dtype} {actions.shape}")
    if actions.min() < 0 or actions.max() >= task.n_actions:
        raise ValueError(f"{task.name}: actions run from 0 to {task.n_actions - 1}, found {actions.tolist()}")
    return np.ascontiguousarray(actions, dtype=np.int64)


def box_actions(actions: np.ndarray, task: Task, num_envs: int) -> np.ndarray:
    """``actions`` ``[N, D]`` in the units of a continuous task's box, clipped to it: float64 in the task's own units.

    Raises:
        ValueError: wrong shape, not floats, or NaN.
    """
    actions, size = np.asarray(actions), len(task.action_low)
    if actions.shape != (num_envs, size) or actions.dtype.kind != "f":
        raise ValueError(f"{task.name}: expected {num_envs} x {size} floats, found {actions.dtype} {actions.shape}")
    if np.isnan(actions).any():
        raise ValueError(f"{task.name}: an action is NaN")
    low, high = np.array(task.action_low), np.array(task.action_high)  # [D]
    inside: np.ndarray = (low + (actions + 1) / 2 * (high - low)).clip(low, high)
    return inside


def at_least_one(num_envs: int) -> int:
    """``num_envs``, checked.

    Raises:
        UserError: there would be no copy.
    """
    if num_envs < 1:
        raise UserError(f"an environment needs at least 1 copy; found {num_envs}")
    return num_envs
