"""A trained network as something that acts: `predict`, as Stable-Baselines3 users know it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polydistill.devices import device_of
from polydistill.errors import UserError
from polydistill.nets.store import CONFIG, load_student
from polydistill.nets.student import Student
from polydistill.tasks import Suite, place_of
from polydistill.teachers.base import Teacher
from polydistill.teachers.zoo import CARD, load_teacher
from polydistill.training import distral_files
from polydistill.training.distral_policy import DistralPolicy

#: ``[B, *obs_shape]``, row of the suite -> numbers ``[B, n_actions]`` in the task's own actions.
Values = Callable[[np.ndarray, int], np.ndarray]


@dataclass
class Policy:
    """A student or a teacher, ready to act.

    Attributes:
        suite: The tasks it plays.
        values: What it says about its own actions: logits, or a teacher's Q-values.
        kind: ``logits`` or ``q``.
        path: Where it was loaded from.
        exploration: With ``deterministic=False`` a Q-network takes a random action with this probability; a network
            with logits draws from its softmax.
    """

    suite: Suite
    values: Values
    kind: str
    path: Path
    exploration: float = 0.05

    def predict(
        self,
        observation: np.ndarray,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        task: str | None = None,
        rng: np.random.Generator | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Actions for one observation or a batch.

        Args:
            observation: ``[*obs_shape]`` or ``[B, *obs_shape]`` (Atari: uint8 ``[.., 4, 84, 84]``, newest frame last).
            state: Returned as it is: these networks have no memory. ``episode_start`` plays no part either.
            deterministic: False draws an action instead of taking the best one.
            task: Which task is played; may be left out when there is only one.
            rng: Randomness of ``deterministic=False``; None makes a fresh one.

        Returns:
            Actions in the task's own numbering (an int64 scalar for a single observation), and ``state``.

        Raises:
            UserError: unknown task, or an observation of another shape or dtype.
        """
        g = place_of(task, self.suite.tasks, self.path)
        batch, single = self.suite.tasks[g].batch(observation)
        values = self.values(batch, g)
        actions = values.argmax(-1) if deterministic else self._draw(values, rng or np.random.default_rng())
        return (actions[0] if single else actions), state

    def outputs(self, task: str) -> Callable[[np.ndarray], np.ndarray]:
        """The values of one task's own actions: ``[B, *obs_shape] -> [B, n_actions]``."""
        g = place_of(task, self.suite.tasks, self.path)
        return lambda obs: self.values(obs, g)

    def greedy(self, task: str) -> Callable[[np.ndarray], np.ndarray]:
        """The function of one task that an evaluation plays: ``[B, *obs_shape] -> int64 [B]``."""
        outputs = self.outputs(task)
        return lambda obs: outputs(obs).argmax(-1)

    def _draw(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.kind == "q":
            explore = rng.random(len(values)) < self.exploration
            return np.where(explore, rng.integers(0, values.shape[1], len(values)), values.argmax(-1))
        gumbel = -np.log(-np.log(rng.random(values.shape)))  # argmax(logits + Gumbel noise) ~ softmax(logits)
        return np.asarray((values + gumbel).argmax(-1))


def of_student(student: Student, path: Path, device: torch.device | None = None) -> Policy:
    """A student as a policy of all its tasks."""
    where = device or torch.device("cpu")
    student.to(where)
    own = [list(a) for a in student.suite.actions]

    @torch.inference_mode()
    def values(obs: np.ndarray, task: int) -> np.ndarray:
        logits = student.act(torch.from_numpy(obs).to(where), task)
        return np.asarray(logits.cpu().numpy()[:, own[task]])

    return Policy(student.suite, values, "logits", path)


def of_teacher(teacher: Teacher, device: torch.device | None = None) -> Policy:
    """A teacher as a policy of its one task."""
    where = device or torch.device("cpu")
    teacher.to(str(where))

    def values(obs: np.ndarray, task: int) -> np.ndarray:
        return teacher(torch.from_numpy(obs).to(where)).values.cpu().numpy()

    return Policy(Suite((teacher.task,)), values, teacher.kind, teacher.path or Path(teacher.task.name))


def load(path: str | Path, device: str = "cpu") -> Policy | DistralPolicy:
    """Load a run's student, an exported student, a teacher, or Distral's policies, by their folder.

    Raises:
        UserError: nothing of the kind is there, it is damaged, or there is no such device.
    """
    folder, where = Path(path), device_of(device)
    if (folder / CONFIG).is_file():
        return of_student(load_student(folder), folder, where)
    if (folder / CARD).is_file():
        return of_teacher(load_teacher(folder), where)
    if (folder / distral_files.CONFIG).is_file():
        saved = distral_files.load(folder)
        saved.nets.to(where)
        return DistralPolicy(saved, folder, where)
    if (folder / "run.json").is_file():
        raise UserError(f"{folder} has no student yet: its run was killed or goes on; continue it with --resume")
    raise UserError(f"no policy at {folder}: expected a run, or a teacher's folder such as zoo/pong")


def load_policy(path: str | Path, device: str = "cpu") -> Policy:
    """As :func:`load`, for what a policy that remembers cannot do.

    Raises:
        UserError: as there, or these are Distral's policies.
    """
    found = load(path, device)
    if isinstance(found, DistralPolicy):
        raise UserError(f"{path} holds Distral's policies, which remember: only evaluate and report take them")
    return found
