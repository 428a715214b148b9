"""Online distillation (Rusu et al. 2016, section 4.5): a student follows the best policy a learner has had so far.

The learner may be anything that plays and gets better. It shows what it sees (``observe``) and offers its policy
whenever that has been scored (``offer``): a strictly better score makes a copy of it the teacher, from which the
student is distilled (``learn``). Only observations are remembered, no outputs of any teacher: the targets of every
minibatch are asked from the teacher of that moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polydistill.algorithms.policy_distillation import REGRESSIONS, Targets, policy_distillation
from polydistill.errors import UserError
from polydistill.evaluation.protocol import Protocol, evaluate_task
from polydistill.evaluation.rows import Label, Row
from polydistill.nets.sizes import make_named
from polydistill.nets.store import save_student
from polydistill.optim import DQNRMSprop, eps_for_max_lr, flatten_optimizer, restore_optimizer
from polydistill.replay.observations import Observations
from polydistill.rng import seeded_init, stream
from polydistill.tasks import Suite, Task
from polydistill.teachers.base import OutputKind, Teacher
from polydistill.teachers.best import Best, Outputs
from polydistill.training.checkpoint import generator_state, restore_generator
from polydistill.training.shadow_settings import ShadowSettings

__all__ = ["PATIENCE", "Shadow", "ShadowSettings"]

PATIENCE = 20  # updates in a row without a finite gradient before the student gives up


class Shadow:
    """A student in the shadow of a learner.

    Args:
        task: What is played.
        settings: How it follows.
        num_envs: Copies of the task that the learner plays: rows of what :meth:`observe` is shown.
        seed: Root of the student's first weights and of its minibatches.
        device: Where student and teacher run.
        kind: What the learner's network gives: Q-values, or a policy's ``logits`` (the temperature is 1 then).

    Attributes:
        student: The network; nothing of it ever reaches the learner.
        best: The teacher, its score and when that was measured.
        memory: What was seen.
        seen: Observations shown so far, all copies together: the control steps, as far as they were shown.
        updates: Optimiser steps taken.

    Raises:
        UserError: unknown network or option, or a memory that does not fit.
    """

    def __init__(
        self,
        task: Task,
        settings: ShadowSettings,
        num_envs: int = 1,
        *,
        seed: int = 1,
        device: str = "cpu",
        kind: OutputKind = "q",
    ):
        if settings.loss in REGRESSIONS and kind != "q":
            raise UserError(f"loss {settings.loss} needs Q-values, but the learner of {task.name} gives {kind}")
        self.task, self.settings, self.num_envs, self.seed = task, settings, num_envs, seed
        with seeded_init(seed, "shadow"):
            self.network, student = make_named(settings.student, Suite((task,)), settings.options)
        if not all(p.requires_grad for p in student.parameters()):
            raise UserError(
                f"{self.network} keeps one teacher's convolutions, but a shadow's teacher changes: use net1"
            )
        self.student = student.to(device)
        self.memory = Observations(task, num_envs, settings.capacity, settings.size)
        self.best = Best(task, kind, device)
        eps = eps_for_max_lr(settings.learning_rate, settings.max_learning_rate)
        eps /= settings.batch_size**2  # it belongs to gradients summed over the minibatch; ours are means
        self.optimizer = DQNRMSprop(self.student.parameters(), lr=settings.learning_rate, eps=eps)
        self.seen = self.updates = self.skipped = self._fresh = self._owed = self._in_a_row = 0
        self._rng = stream(seed, "shadow", task.name)
        self._objective = policy_distillation(settings.loss)
        self._tau = settings.temperature if kind == "q" else 1.0
        self._own = torch.tensor(self.student.suite.actions[0], device=device)
        self._valid = torch.tensor(self.student.suite.valid)[:, None].to(device)  # [1, 1, A]

    @property
    def teacher(self) -> Teacher | None:
        """The best policy so far; None before the first offer."""
        return self.best.teacher

    # ------------------------------------------------------------------ what the learner tells
    def observe(self, obs: np.ndarray, start: np.ndarray | None = None) -> None:
        """Remember one observation of each copy.

        Args:
            obs: ``[num_envs, *obs_shape]`` of the task's dtype; copied.
            start: bool ``[num_envs]``, true where an episode begins; it saves space to say so, nothing else.

        Raises:
            UserError: another shape or dtype.
        """
        self.memory.append(obs, start)
        self.seen += self.num_envs
        self._fresh += self.num_envs

    def offer(self, score: float, policy: Outputs, control_steps: int | None = None) -> bool:
        """Say what the learner's policy scored; strictly better than ever before, it is the teacher from now on.

        Args:
            score: Of an evaluation, on the same scale every time.
            policy: A network or function, see :meth:`Best.offer`.
            control_steps: When it was scored; None: the observations shown so far.

        Returns:
            Whether it is the teacher now.

        Raises:
            UserError: the score is no finite number, or the policy does not give one per action.
        """
        follows = self.teacher is not None
        taken = self.best.offer(score, policy, self.seen if control_steps is None else control_steps)
        if taken and follows and self.settings.on_swap == "flush":
            self.memory.clear()
        return taken

    # ------------------------------------------------------------------ learning
    @property
    def ready(self) -> bool:
        """Whether there is a teacher and enough to learn from."""
        return self.teacher is not None and self.memory.shown >= self.settings.learning_starts

    def catch_up(self, progress: int | None = None) -> dict[str, float]:
        """The updates that the observations since the last call owe; those shown while it waited owe none.

        Args:
            progress: Control steps that the learner's training went on by since then. What was shown beyond that only
                filled a memory again, after a resume, and owes nothing. None: all of it counts.
        """
        fresh, self._fresh = self._fresh, 0
        owed = self._owed + (fresh if progress is None else min(fresh, progress))
        updates, self._owed = divmod(owed, self.settings.update_period)
        return self.learn(updates)

    def learn(self, updates: int = 1) -> dict[str, float]:
        """Optimiser steps on states drawn uniformly, with targets of the present teacher.

        Returns:
            Means over the updates: ``loss``, and ``agreement`` (how often both have the same best action). Empty, and
            nothing has happened, while the student waits for a teacher or for enough to learn from.

        Raises:
            UserError: many updates in a row had a gradient that is NaN or infinite.
        """
        if not self.ready or updates < 1:
            return {}
        loss, agree = torch.stack([self._update() for _ in range(updates)]).mean(0).tolist()
        return {"loss": loss, "agreement": agree}

    def _update(self) -> Tensor:
        obs = torch.from_numpy(self.memory.sample(self._rng, self.settings.batch_size)).to(self._valid.device)
        said = self._objective(self.student([obs]), Targets(self._target(obs), self._valid, self._tau))
        loss = said.per_example.mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in self.student.parameters() if p.grad is not None])
        if torch.isfinite(norm):
            self.optimizer.step()
            self._in_a_row = 0
        else:
            self.skipped, self._in_a_row = self.skipped + 1, self._in_a_row + 1
            if self._in_a_row >= PATIENCE:
                raise UserError(
                    f"{PATIENCE} updates of the shadow student in a row had a NaN or infinite gradient: "
                    "try a smaller shadow.learning_rate"
                )
        self.updates += 1
        return torch.stack([loss.detach(), said.metrics["agreement"].mean()])

    def _target(self, obs: Tensor) -> Tensor:
        """What the present teacher says, on the action axis ``[1, B, A]``."""
        assert self.teacher is not None
        values = self.teacher(obs).values
        return values.new_zeros(1, len(obs), self._valid.shape[-1]).index_copy(2, self._own, values[None])

    # ------------------------------------------------------------------ using the student
    def greedy(self, obs: np.ndarray) -> np.ndarray:
        """The student's best actions, ``[B, *obs_shape] -> int64 [B]``, in the task's own indices."""
        return self.student.greedy(obs, 0)

    def evaluate(self, protocol: Protocol, control_steps: int | None = None, threads: int = 0) -> list[Row]:
        """Play full episodes with the student: one row each. Raises UserError where the task cannot be opened."""
        label = Label("student", self.seed, self.updates, self.seen if control_steps is None else control_steps)
        return evaluate_task(self.task, self.greedy, protocol, threads=threads, label=label)

    def save(self, folder: Path) -> None:
        """Write the student to ``folder``, for :func:`polydistill.load`. Raises UserError if that is not possible."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror}") from error
        save_student(folder, self.student, self.network)

    # ------------------------------------------------------------------ checkpoints
    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Tensors and counters of a checkpoint. The memory is not among them: it is filled again."""
        teacher, best = self.best.state()
        tensors = {"student": self.student.state_dict(), "optimizer": flatten_optimizer(self.optimizer)}
        counters = {
            "seed": self.seed,
            "seen": self.seen,
            "updates": self.updates,
            "skipped": self.skipped,
            "best": best,
        }
        return {**tensors, "teacher": teacher}, {**counters, "rng": generator_state(self._rng)}

    def load_state(
        self, tensors: Mapping[str, Mapping[str, Tensor]], counters: Mapping[str, Any], policy: Outputs | None = None
    ) -> None:
        """Undo :meth:`state`; ``policy`` takes the teacher's weights, see :meth:`Best.load_state`.

        Raises:
            UserError: a student or teacher of another shape, or there is a teacher and no ``policy``.
        """
        try:
            self.student.load_state_dict(dict(tensors["student"]))
        except (RuntimeError, KeyError) as error:
            raise UserError(f"the saved shadow student does not fit ({' '.join(str(error).split()):.200})") from None
        self.best.load_state(tensors.get("teacher", {}), counters["best"], policy)
        restore_optimizer(self.optimizer, tensors.get("optimizer", {}))
        self.seed = counters["seed"]
        self.seen, self.updates, self.skipped = counters["seen"], counters["updates"], counters["skipped"]
        restore_generator(self._rng, counters["rng"])
        self._fresh = self._owed = self._in_a_row = 0
        self.memory.clear()
