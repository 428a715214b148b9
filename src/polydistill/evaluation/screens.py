"""What a person would see while a task is played: colour screens in lockstep with the observations."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from polydistill.envs.atari import FRAME_SKIP, Emulators
from polydistill.envs.base import EnvOptions
from polydistill.tasks import Task

CONTROL_STEPS_PER_SECOND = 60 / FRAME_SKIP  # Atari in real time


class Screens(Protocol):
    """Pictures of ``N`` copies of a task, uint8 RGB ``[N, H, W, 3]``. ``obs``: what the task's environment returned."""

    def reset(self, seed: int, obs: np.ndarray) -> np.ndarray: ...

    def step(self, actions: np.ndarray, obs: np.ndarray) -> np.ndarray: ...

    def close(self) -> None: ...


class AtariScreens:
    """A second, colour emulator of each copy, ``[N, 210, 160, 3]``.

    Without sticky actions an episode is a function of seed and actions, so it films an ``AtariVec`` of as many copies,
    the same no-op starts and the same seed (a test holds them side by side).
    """

    def __init__(self, task: Task, num_envs: int):
        self._emulators = Emulators(task.name, num_envs, rgb=True, size=(210, 160), options=EnvOptions(threads=1))

    def reset(self, seed: int, obs: np.ndarray) -> np.ndarray:
        return self._emulators.reset(seed)

    def step(self, actions: np.ndarray, obs: np.ndarray) -> np.ndarray:
        return self._emulators.step(actions).obs

    def close(self) -> None:
        self._emulators.close()


class ObservationScreens:
    """An observation with two or more axes: the newest frame (``[..., H, W]``) in grey, or all of it as RGB.

    Args:
        colour: It is uint8 ``[3, H, W]``.
    """

    def __init__(self, colour: bool = False):
        self._colour = colour

    def reset(self, seed: int, obs: np.ndarray) -> np.ndarray:
        return self.step(np.empty(0), obs)

    def step(self, actions: np.ndarray, obs: np.ndarray) -> np.ndarray:
        if self._colour:
            return np.ascontiguousarray(obs.transpose(0, 2, 3, 1))
        frame = obs.reshape(len(obs), -1, *obs.shape[-2:])[:, -1]  # [N, H, W]
        if frame.dtype != np.uint8 or frame.max(initial=0) <= 1:
            low, high = frame.min(initial=0), frame.max(initial=1)
            frame = ((frame - low) * (255.0 / (high - low))).astype(np.uint8)
        return np.repeat(frame[..., None], 3, axis=-1)

    def close(self) -> None: ...


def has_screens(task: Task) -> bool:
    """Whether there is anything to look at: not in an observation that is a plain vector."""
    return task.kind == "atari" or len(task.obs_shape) >= 2


def open_screens(task: Task, num_envs: int) -> Screens | None:
    """Screens of ``task``, or None where :func:`has_screens` says no."""
    if task.kind == "atari":
        return AtariScreens(task, num_envs)
    colour = task.obs_dtype == "uint8" and task.stack == 1 and task.obs_shape[:-2] == (3,)
    return ObservationScreens(colour) if has_screens(task) else None


def enlarge(screen: np.ndarray, height: int) -> np.ndarray:
    """``[..., H, W, 3]`` repeated pixel by pixel to the whole multiple nearest to ``height``."""
    times = max(1, round(height / screen.shape[-3]))
    return screen.repeat(times, axis=-3).repeat(times, axis=-2)
