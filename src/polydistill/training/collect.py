"""Playing one task and remembering what was seen; the teacher is asked once per state, here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polydistill.envs.base import VecEnv, step_while
from polydistill.errors import UserError
from polydistill.nets.student import Student
from polydistill.nets.task_torsos import TaskTorsos
from polydistill.replay.memory import Memory
from polydistill.teachers.base import Teacher
from polydistill.training.behaviour import Behaviour

#: ``[N, *obs_shape]`` -> (teacher's outputs ``[N, n]``, student's logits ``[N, n]``, both in the task's own actions;
#: features ``[N, F]`` of the torso they share, or None).
Ask = Callable[[Tensor], tuple[Tensor, Tensor, Tensor | None]]

#: (teacher's outputs ``[N, n]``, student's logits ``[N, n]``) -> priorities ``[N]``.
Priority = Callable[[Tensor, Tensor], Tensor]


def ask_both(teacher: Teacher, student: Student, task: int) -> Ask:
    """The function that asks teacher and student about the same states.

    Where the student keeps the teacher's frozen torso (Yin & Pan), one pass through it serves both.
    """
    own = torch.tensor(student.suite.actions[task])
    net: Any = teacher.net
    sharing = student if shares_torso(teacher, student, task) else None

    @torch.inference_mode()
    def ask(obs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        torso = None
        if isinstance(sharing, TaskTorsos):
            torso = net.encode(obs)
            values = net.head(torso).float()
            logits = sharing.logits(sharing.from_torso(torso)[None], [task])[0]
        else:
            values, logits = teacher(obs).values, student.act(obs, task)
        return values, logits.index_select(1, own.to(logits.device)), torso

    return ask


def shares_torso(teacher: Teacher, student: Student, task: int) -> bool:
    """Whether the student keeps the teacher's torso, frozen and in the same precision: one pass can serve both."""
    if not isinstance(student, TaskTorsos) or student.train_convs or not hasattr(teacher.net, "encode"):
        return False
    return bool(getattr(teacher.net, "bf16", False)) == student.torso_bf16[task]


def as_array(tensor: Tensor) -> np.ndarray:
    """A CPU tensor's memory as an array; NumPy has no bfloat16, so that comes as uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


class Actor:
    """Copies of one task, its teacher, the student, and the task's memory.

    Args:
        task: Row of the suite.
        rng: The behaviour's stream.
        seed: Seed of the environment's first episodes.
        device: Where the networks are.
        priority: What a state enters the memory with; None leaves first priorities to the sampler, and so does a
            teacher that plays alone, for then the student is not asked.

    Attributes:
        control_steps: Those that count, in all copies together.
        refilled: Those that only filled a memory again.
    """

    def __init__(
        self,
        task: int,
        env: VecEnv,
        teacher: Teacher,
        student: Student,
        memory: Memory,
        behaviour: Behaviour,
        rng: np.random.Generator,
        seed: int,
        device: torch.device,
        priority: Priority | None = None,
    ):
        self.task, self.env, self.memory, self.behaviour = task, env, memory, behaviour
        self.rng, self.device, self._priority = rng, device, priority
        self.control_steps = self.refilled = self.episodes = 0
        self._ask = ask_both(teacher, student, task)
        self._teacher = teacher
        self._obs = env.reset(seed)
        self._start = np.ones(env.num_envs, dtype=bool)
        self._returns = np.zeros(env.num_envs)
        self._finished: deque[float] = deque(maxlen=100)

    def step(self, counted: bool = True) -> None:
        """One control step in each copy; ``counted`` says in which of the two counters.

        Raises:
            UserError: teacher or student said what no memory takes (NaN); it names the task.
        """
        obs = torch.from_numpy(self._obs).to(self.device, non_blocking=True)
        priority = torso = None
        if self.behaviour.needs_student:
            asked, answered, torso = self._ask(obs)
            values, logits = asked.cpu().numpy(), answered.cpu().numpy()
            best, chosen = values.argmax(1), logits.argmax(1)
            if self._priority is not None:
                priority = self._priority(torch.from_numpy(values), torch.from_numpy(logits)).numpy()
        else:
            values = self._teacher(obs).values.cpu().numpy()
            best = chosen = values.argmax(1)
        features = as_array(torso.cpu()) if self.memory.keeps_features and torso is not None else None

        def remember() -> None:
            value = values.max(1)
            try:
                self.memory.append(self._obs, values, value, self._start, priority, features)
            except UserError as error:
                raise UserError(f"{self.env.task.name}: {error}") from None

        actions = self.behaviour.choose(best, chosen, values.shape[1], self.control_steps, self.rng)
        step = step_while(self.env, actions, remember)
        self._obs, self._start = step.obs, step.ended
        self._returns += step.reward
        self.episodes += int(step.ended.sum())
        self._finished.extend(self._returns[step.ended].tolist())
        self._returns[step.ended] = 0
        if counted:
            self.control_steps += self.env.num_envs
        else:
            self.refilled += self.env.num_envs

    @property
    def mean_return(self) -> float | None:
        """Mean return of the last 100 finished episodes; None before the first."""
        return float(np.mean(self._finished)) if self._finished else None
