"""Real Atari 2600 games through ale-py's native vector environment."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.envs.base import MAX_FRAMES as MAX_FRAMES
from polydistill.envs.base import EnvOptions, SendReceive, Step, at_least_one, copy_seeds, own_actions
from polydistill.errors import UserError
from polydistill.tasks import ATARI_AXIS, Task

#: Observation profiles: ``ale`` = grey, then maximum over two frames (ale-py, Gymnasium, EnvPool);
#: ``nature`` = maximum on RGB, then grey (DeepMind, SB3, CleanRL).
PROFILES = ("ale", "nature")

FRAME_SKIP = 4  # emulator frames in one control step
STACK = 4  # frames in one observation

#: The emulator's own time limit, out of reach: Emulators keeps a better one.
_NEVER = 2**30

#: OpenCV's integer luminance, ``(9798 R + 19235 G + 3735 B + 2**14) >> 15``. Every product and sum is a whole number
#: of 2**-15 below 2**8, so float32 holds it exactly.
_LUMINANCE = np.array([9798, 19235, 3735], dtype=np.float32) / 2**15


def _ale() -> Any:
    try:
        import ale_py
    except ImportError:
        raise UserError("Atari games need ale-py: pip install 'polydistill[atari]'") from None
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    return ale_py


def games() -> tuple[str, ...]:
    """ROM ids of ale-py, sorted; four of them are for two players and refused by :func:`rom_path`.

    Raises:
        UserError: ale-py is missing.
    """
    _ale()
    from ale_py import roms

    return tuple(sorted(roms.get_all_rom_ids()))


def nearest_game(name: str, known: tuple[str, ...]) -> str | None:
    """The ROM id that ``name`` may mean: ``ALE/MsPacman-v5``, ``MsPacmanNoFrameskip-v4`` and ``mspacman`` too."""
    core = re.sub(r"^(ALE/|atari:)|(-ram)?(-v\d+)?$|(NoFrameskip|Deterministic)(?=-v\d+$|$)", "", name)
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[-\s]+", "_", core).lower()
    if snake in known:
        return snake
    near = difflib.get_close_matches(snake, known, n=1)
    return near[0] if near else None


@cache
def rom_path(game: str) -> Path:
    """Path of a game's ROM.

    Raises:
        UserError: ale-py is missing, has no such game (the nearest name is suggested), or cannot play it alone.
    """
    known = games()
    from ale_py import roms

    if game not in known:
        near = nearest_game(game, known)
        hint = f"; did you mean {near!r}?" if near else "; names look like 'space_invaders'"
        raise UserError(f"unknown Atari game {game!r}{hint}")
    path = str(roms.get_rom_path(game))
    # Loading an unsupported ROM ends the whole process (ale-py 0.12.1: combat, joust, maze_craze, warlords).
    if _ale().ALEInterface.isSupportedROM(path) is None:
        raise UserError(f"Atari game {game!r} is for two players: ale-py has no single-player version of it")
    return Path(path)


@cache
def rom_hash(game: str) -> str:
    """SHA-256 of the ROM's bytes, in hex.

    Raises:
        UserError: as :func:`rom_path`.
    """
    return hashlib.sha256(rom_path(game).read_bytes()).hexdigest()


@cache
def minimal_actions(game: str) -> tuple[int, ...]:
    """ALE codes of the game's minimal action set, ascending (so in all 104 games of ale-py 0.12.1).

    Raises:
        UserError: as :func:`rom_path`.
    """
    path = rom_path(game)
    ale = _ale().ALEInterface()
    ale.loadROM(str(path))
    return tuple(int(a.value) for a in ale.getMinimalActionSet())


def atari_task(game: str, profile: str = "ale") -> Task:
    """The task of one Atari game.

    Raises:
        UserError: unknown game or observation profile.
    """
    if profile not in PROFILES:
        raise UserError(f"unknown observation profile {profile!r}; choose one of {', '.join(PROFILES)}")
    return Task(
        name=game,
        kind="atari",
        action_meanings=tuple(ATARI_AXIS[c] for c in minimal_actions(game)),
        obs_shape=(STACK, 84, 84),
        obs_profile=profile,
        stack=STACK,
    )


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Grey uint8 ``[...]`` of RGB uint8 ``[..., 3]``: Y = .299 R + .587 G + .114 B, bit for bit as OpenCV rounds it."""
    y = rgb.reshape(-1, 3).astype(np.float32) @ _LUMINANCE
    y += 0.5
    return y.astype(np.uint8).reshape(rgb.shape[:-1])


def ram_after(game: str, seed: int, actions: Sequence[int]) -> bytes:
    """The console's 128 bytes of RAM after control steps of own actions, without no-ops, sticky actions or pixels.

    Raises:
        UserError: as :func:`rom_path`.
    """
    path = rom_path(game)
    ale = _ale().ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("random_seed", int(copy_seeds(seed, 1)[0]))
    ale.loadROM(str(path))
    ale.reset_game()  # once more, as ale-py's vector environment does: some games tell the difference
    codes = ale.getMinimalActionSet()
    for action in actions:
        for _ in range(FRAME_SKIP):
            ale.act(codes[action])
    return bytes(ale.getRAM().tobytes())


class Emulators:
    """``num_envs`` copies of one game, one frame per control step and no stack: what :class:`AtariVec` builds on.

    Two of them with the same game, copies, seed and settings play the same episodes for the same actions, whatever the
    size and the colour of their frames: a second one with ``size=(210, 160), rgb=True`` films the first.

    * One control step is 4 emulator frames; its reward is the raw sum over them (clipping is the learner's).
    * A frame is the maximum of the last two screens, shrunk with area averaging (DeepMind: bilinear).
    * An episode starts after 1 to ``noop_max`` no-op frames, uniformly (Mnih et al. 2015), and without FIRE. ale-py
      draws from 0 up (its ``noop_max=30`` means 0 to 29); where it drew 0, the copy starts again.
    * ``max_frames`` frames, rounded up to whole control steps and no-ops not counted, end an episode as *truncated*.
      Counted here: at ale-py's own limit the last frame mixes this step's third screen with the step before.
    * A lost life is *reported*, never acted upon: ale-py's own ``episodic_life`` restarts the whole game.
    * The frame at a *termination* lacks the last screens (ale-py stops looking at game over); nobody needs its value.

    Args:
        game: ROM id.
        num_envs: Number of copies, ``N``. Opening and seeding one takes about 0.15 s of a core.
        rgb: Colour frames; grey ones are grey *before* the maximum.
        size: Height and width of a frame; (210, 160) is the screen itself.
        options: The settings.

    Attributes:
        noops: int32 ``[N]``, no-op frames before the present episode of each copy.

    Raises:
        UserError: unknown game, or no copy.
    """

    def __init__(self, game: str, num_envs: int, *, rgb: bool, size: tuple[int, int], options: EnvOptions):
        self.num_envs = at_least_one(num_envs)
        rom_path(game)
        from ale_py.vector_env import AtariVectorEnv

        self._noop_max = options.noop_max
        self._max_steps = -(-options.max_frames // FRAME_SKIP)
        self._env = AtariVectorEnv(
            game,
            num_envs,
            num_threads=options.threads,
            max_num_frames_per_episode=_NEVER,
            repeat_action_probability=options.sticky,
            autoreset_mode="SameStep",
            img_height=size[0],
            img_width=size[1],
            grayscale=not rgb,
            stack_num=1,
            frameskip=FRAME_SKIP,
            noop_max=options.noop_max + 1 if options.noop_max else 0,
            reward_clipping=False,
            use_fire_reset=False,
        )
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._lives = np.zeros(num_envs, dtype=np.int32)
        self.noops = np.zeros(num_envs, dtype=np.int32)

    def reset(self, seed: int) -> np.ndarray:
        """Start every copy afresh; uint8 ``[N, height, width]`` or ``[N, height, width, 3]``."""
        frames, info = self._env.reset(seed=copy_seeds(seed, self.num_envs))
        return self._started(np.ones(self.num_envs, dtype=np.bool_), frames, info)

    def restart(self, rows: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """Start the copies of ``rows`` (bool ``[N]``) as copy 0 starts after :meth:`reset`; the newest frame of all.

        Some games keep something of the last game through a mere reset, and load differently: assault, beam_rider and
        twelve more of ale-py 0.12.1. A seed makes ale-py load the game anew, which costs 0.09 s of a core per copy.
        """
        first = np.array([copy_seeds(seed, 1)[0] for seed in seeds])
        frames, info = self._env.reset(seed=first, options={"reset_mask": rows})
        return self._started(rows, frames, info)

    def step(self, actions: np.ndarray) -> Step:
        """One control step of *valid* own actions, int64 ``[N]``; ``obs`` and ``final_obs`` are single frames."""
        self.send(actions)
        return self.receive()

    def send(self, actions: np.ndarray) -> None:
        """Begin a control step; the emulator threads play it until :meth:`receive` fetches what came of it."""
        self._env.send(actions)

    def receive(self) -> Step:
        """What came of the actions sent."""
        frames, reward, terminated, _, info = self._env.recv()
        self._steps += 1
        truncated = (self._steps >= self._max_steps) & ~terminated
        life_lost = ((info["lives"] < self._lives) | terminated) & (self._lives > 0)
        final = None
        if (ended := terminated | truncated).any():
            final = np.zeros_like(frames[:, 0])
            final[truncated] = frames[truncated, 0]
            if terminated.any():
                final[terminated] = info["final_obs"][terminated, 0]
            if truncated.any():
                frames, info = self._env.reset(options={"reset_mask": truncated})
            newest = self._started(ended, frames, info)
        else:
            newest, self._lives = frames[:, 0], info["lives"]
        return Step(newest, reward.astype(np.float32), terminated, truncated, final, life_lost)

    def _started(self, rows: np.ndarray, frames: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """Count the episodes of ``rows`` (bool ``[N]``) from here, once each has had its no-ops; the newest frames."""
        while self._noop_max and (again := rows & (info["episode_frame_number"] == 0)).any():
            frames, info = self._env.reset(options={"reset_mask": again})  # unseeded: the copy's own stream goes on
        self._steps[rows] = 0
        self._lives = info["lives"]
        self.noops = np.where(rows, info["episode_frame_number"], self.noops)
        newest: np.ndarray = frames[:, 0]
        return newest

    def close(self) -> None:
        """Free threads and emulators now, not when somebody collects the garbage."""
        self._env.close()
        if hasattr(self._env, "ale"):
            del self._env.ale


class AtariVec(SendReceive):
    """``num_envs`` copies of one Atari game; see :class:`~polydistill.envs.base.VecEnv` and :class:`Emulators`.

    An observation ``uint8 [4, 84, 84]`` stacks the last four frames, newest last; an episode starts with three zero
    frames and one screen, so no stack crosses an episode. Under the profile ``ale`` a frame is grey before the maximum
    of two screens is taken, under ``nature`` it is grey at the very end (DeepMind greys before shrinking: at most one
    level away).

    Args:
        task: From :func:`atari_task`.
        num_envs: Number of copies, ``N``.
        sticky: Probability that the emulator repeats the previous action (0 in the papers, 0.25 in "v5" environments).
        noop_max: Most no-op frames at a start; 0 for none.
        max_frames: Emulator frames in one episode.
        threads: Emulator threads; 0 lets ale-py choose one per core.

    Raises:
        UserError: unknown game, or a setting out of range.
    """

    def __init__(
        self,
        task: Task,
        num_envs: int,
        *,
        sticky: float = 0.0,
        noop_max: int = 30,
        max_frames: int = MAX_FRAMES,
        threads: int = 0,
    ):
        options = EnvOptions(sticky=sticky, threads=threads, noop_max=noop_max, max_frames=max_frames)
        self.task, self.num_envs = task, num_envs
        rgb = task.obs_profile == "nature"
        self._grey: Callable[[np.ndarray], np.ndarray] = luminance if rgb else np.asarray
        self._emulators = Emulators(task.name, num_envs, rgb=rgb, size=(84, 84), options=options)
        # The last four frames of each copy, oldest first, each uint8 [N, 84, 84]. Only the newest is ever greyed.
        self._frames: list[np.ndarray] = []

    @property
    def noops(self) -> np.ndarray:
        """int32 ``[N]``: no-op frames before the present episode of each copy."""
        return self._emulators.noops

    def reset(self, seed: int) -> np.ndarray:
        newest = self._grey(self._emulators.reset(seed))
        self._frames = [*(np.zeros_like(newest) for _ in range(STACK - 1)), newest]
        return np.stack(self._frames, axis=1)

    def restart(self, rows: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """Start the copies of ``rows`` afresh; see :class:`polydistill.evaluation.copies.Copies`."""
        newest = self._grey(self._emulators.restart(rows, seeds))
        older = self._frames[:-1] or [np.zeros_like(newest) for _ in range(STACK - 1)]
        for frame in older:
            frame[rows] = 0
        self._frames = [*older, newest]
        return np.stack(self._frames, axis=1)

    def send(self, actions: np.ndarray) -> None:
        self._emulators.send(own_actions(actions, self.task, self.num_envs))

    def receive(self) -> Step:
        played = self._emulators.receive()
        newest = self._grey(played.obs)
        final = None
        if played.final_obs is not None:
            ended = played.ended
            final = np.stack([*self._frames[1:], self._grey(played.final_obs)], axis=1)
            final[~ended] = 0
            for frame in self._frames:
                frame[ended] = 0
        self._frames = [*self._frames[1:], newest]
        return replace(played, obs=np.stack(self._frames, axis=1), final_obs=final)

    def close(self) -> None:
        self._emulators.close()


def resolve(name: str, profile: str) -> Task:
    """The task of ``pong`` or ``atari:pong``; see :func:`atari_task`."""
    return atari_task(name.removeprefix("atari:"), profile)


def make(task: Task, num_envs: int, options: EnvOptions) -> AtariVec:
    """An environment for ``task``; see :class:`AtariVec`."""
    return AtariVec(
        task,
        num_envs,
        sticky=options.sticky,
        noop_max=options.noop_max,
        max_frames=options.max_frames,
        threads=options.threads,
    )
