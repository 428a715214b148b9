"""Start-state bundles: a hundred positions of a game, each kept as a seed and the actions that lead to it.

Rusu et al. 2016 score agents from 100 positions within the first 20 % of games that professionals played (appendix,
"Agent Evaluation"). Those were never published. Here an independent policy plays instead
(:mod:`~polydistill.evaluation.making_starts`), and a bundle keeps what it did, not what the emulator held: a position
is played up to again, and what is seen there is compared with a hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from polydistill.errors import UserError
from polydistill.settings import Settings
from polydistill.tasks import Task

#: A start lies within this share of an episode's length (Rusu et al. 2016).
WITHIN = 0.2
#: Among the hashes of a start: the console's memory, beside what is seen under each observation profile.
RAM = "ram"


class Origin(Settings):
    """Where starts come from.

    Attributes:
        policy: Folder of the policy, or ``random``.
        epsilon: Share of uniformly random actions; 1 for ``random``.
        score: Mean raw return of the whole episodes that the starts were taken from.
        card_score: What a teacher's card says under ``noop``; None for anything but a teacher.
        command: What made the bundle.
        versions: Of this program and the emulator.
    """

    policy: str
    epsilon: float = Field(ge=0, le=1)
    score: float
    card_score: float | None = None
    command: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Start:
    """One position.

    Attributes:
        seed: What a one-copy environment is reset with, one for evaluation
            (:data:`~polydistill.envs.base.EVALUATION_SEED_BASE`).
        actions: uint8 ``[steps]``, the task's own actions from there to the hand-over.
        episode_steps: Length in control steps of the episode it was taken from.
        hashes: Observation profile (and :data:`RAM`) -> :func:`digest` at the hand-over.
    """

    seed: int
    actions: np.ndarray
    episode_steps: int
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class Bundle:
    """Starts of one task. ``rom_sha256`` is None for what is no Atari game; ``path`` is for messages."""

    task: str
    action_meanings: tuple[str, ...]
    rom_sha256: str | None
    origin: Origin
    starts: tuple[Start, ...]
    path: Path

    def require(self, task: Task, count: int | None = None) -> None:
        """Refuse a bundle of another game or ROM, and more starts than there are.

        Raises:
            UserError: one line that names the file.
        """
        if task.name != self.task:
            raise UserError(f"{self.path}: starts of {self.task}, not of {task.name}; name another bundle")
        if task.action_meanings != self.action_meanings:
            theirs, ours = ", ".join(self.action_meanings), ", ".join(task.action_meanings)
            raise UserError(f"{self.path}: made with the actions {theirs}, but {task.name} here has {ours}")
        here = rom_of(task)
        if here != self.rom_sha256:
            raise UserError(
                f"{self.path}: made with another ROM of {task.name} "
                f"(bundle {self.rom_sha256!s:.12}, here {here!s:.12}); {remake(task.name)}"
            )
        if count is not None and count > len(self.starts):
            raise UserError(f"{self.path}: {count} starts were asked for, it holds {len(self.starts)}")

    def verify(self, k: int, task: Task, obs: np.ndarray) -> None:
        """Compare what is seen at the hand-over of start ``k``, ``[*obs_shape]``, with what its maker saw.

        Where the pixels differ, an Atari game's RAM decides: another processor may round otherwise when it shrinks a
        screen.

        Raises:
            UserError: naming the start.
        """
        start = self.starts[k]
        if digest(obs) == start.hashes.get(task.obs_profile):
            return
        ram = start.hashes.get(RAM)
        if ram is None or ram_digest(task, start) != ram:
            raise self.broken(k, f"after its {len(start.actions)} control steps the task shows something else")

    def broken(self, k: int, why: str) -> UserError:
        """The error of a start that cannot be reached again."""
        made, here = self.origin.versions, versions(self.rom_sha256 is not None)
        other = [f"{name} was {made.get(name, 'unknown')}, here {v}" for name, v in here.items() if made.get(name) != v]
        hint = f" ({'; '.join(other)})" if other else ""
        return UserError(f"{self.path}: start {k} is not reached again: {why}{hint}; {remake(self.task)}")


def digest(seen: np.ndarray | bytes) -> str:
    """128-bit hash, in hex."""
    content = seen if isinstance(seen, bytes) else np.ascontiguousarray(seen).tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def ram_digest(task: Task, start: Start) -> str | None:
    """Hash of the console's memory at the hand-over; None for what is no Atari game."""
    if task.kind != "atari":
        return None
    from polydistill.envs.atari import ram_after

    return digest(ram_after(task.name, start.seed, start.actions.tolist()))


def rom_of(task: Task) -> str | None:
    """SHA-256 of the game's ROM; None for what is no Atari game."""
    if task.kind != "atari":
        return None
    from polydistill.envs.atari import rom_hash

    return rom_hash(task.name)


def versions(atari: bool) -> dict[str, str]:
    """What a position depends on beside the bundle, as far as it is installed as a package."""
    found = {}
    for name in ("polydistill", *(["ale-py"] if atari else [])):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def remake(task: str) -> str:
    """What to do about a bundle that does not serve."""
    return f"make them with polydistill starts --task {task} --policy FOLDER and evaluate with --starts FILE"
