"""One optimiser step on a rectangle of all tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from polydistill.algorithms.policy_distillation import Loss, Objective, Targets
from polydistill.errors import UserError
from polydistill.nets.student import Student
from polydistill.nets.task_torsos import TaskTorsos


@dataclass(frozen=True)
class Minibatch:
    """``G`` tasks x ``B`` samples, on the learner's device.

    Attributes:
        obs: ``G`` tensors ``[B, *obs_shape]``, or ``[B, F]`` if ``encoded``.
        targets: What the teachers said.
        weights: float32 ``[G, B]``, importance weights.
        tasks: Rows of the suite; None: all of them.
        encoded: ``obs`` holds features of the student's frozen torsos.
    """

    obs: Sequence[Tensor]
    targets: Targets
    weights: Tensor
    tasks: Sequence[int] | None = None
    encoded: bool = False


#: Whether drawn samples go home with the priority of the logits ``before`` the update or with that ``after`` it.
Refresh = Literal["before", "after"]


class NotFiniteError(UserError):
    """Too many updates in a row had a loss or gradient that is NaN or infinite."""


class Learner:
    """Student + objective + optimiser.

    Args:
        learning_rate: Updates done so far -> learning rate of the next one.
        max_grad_norm: Gradients are scaled down to this norm; None leaves them.
        patience: Non-finite updates in a row that are skipped before :class:`NotFiniteError`.
        beside: What learns with the student and is no part of it (the objective's own layers); checkpoints keep it.
        refresh: When the priorities of a step are taken; ``after`` costs one more forward pass.
    """

    def __init__(
        self,
        student: Student,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        learning_rate: Callable[[int], float],
        max_grad_norm: float | None = None,
        patience: int = 20,
        beside: nn.Module | None = None,
        refresh: Refresh = "before",
    ):
        self.student, self.objective, self.optimizer = student, objective, optimizer
        self.learning_rate, self.max_grad_norm, self.patience = learning_rate, max_grad_norm, patience
        self.beside, self.refresh = beside, refresh
        own = [*student.parameters(), *(beside.parameters() if beside is not None else ())]
        self.parameters = [p for p in own if p.requires_grad]
        self.updates = self.skipped = self._in_a_row = 0

    def step(self, batch: Minibatch) -> Loss:
        """One update. A loss or gradient that is not finite is skipped and counted.

        Raises:
            NotFiniteError: ``patience`` of them in a row.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.updates)
        forward = cast(TaskTorsos, self.student).from_features if batch.encoded else self.student
        loss = replace(self.objective(forward(batch.obs, batch.tasks), batch.targets), tasks=batch.tasks)
        self.optimizer.zero_grad(set_to_none=True)
        (batch.weights * loss.per_example).mean().backward()  # the one place that weights and reduces
        norm = self._clip()
        if torch.isfinite(norm):
            self.optimizer.step()
            self._in_a_row = 0
        else:
            self.skipped += 1
            self._in_a_row += 1
            if self._in_a_row >= self.patience:
                raise NotFiniteError(
                    f"{self.patience} updates in a row had a NaN or infinite gradient: the last checkpoint is sound, "
                    "try a smaller learner.learning_rate or learner.max_grad_norm=10"
                )
        self.updates += 1
        if self.refresh == "before":
            return loss
        with torch.no_grad():
            now = self.objective(forward(batch.obs, batch.tasks), batch.targets)
        return replace(loss, priority=now.priority)

    def _clip(self) -> Tensor:
        if self.max_grad_norm is not None:
            return nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        return nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
