"""The best policy a learner has had so far, as a teacher (Rusu et al. 2016, section 4.5)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polydistill.errors import UserError
from polydistill.tasks import Task
from polydistill.teachers.base import OutputKind, Teacher

#: ``[B, *obs_shape]`` -> outputs ``[B, n_actions]`` in the task's own actions: a network, or any function.
Outputs = nn.Module | Callable[[Tensor], Any]


class Best:
    """What has been offered with the highest score; of equal ones the first.

    Args:
        task: What is played.
        kind: What the policies give: Q-values or logits.
        device: Where the teacher runs.

    Attributes:
        teacher: None before the first offer.
        score: The teacher's; -inf before the first offer.
        at: Control steps at which it was scored.
    """

    def __init__(self, task: Task, kind: OutputKind = "q", device: str = "cpu"):
        self.task, self.kind, self.device = task, kind, device
        self.teacher: Teacher | None = None
        self.score, self.at = -math.inf, 0

    def offer(self, score: float, policy: Outputs, control_steps: int) -> bool:
        """Take ``policy`` as the teacher if ``score`` is strictly better than any before. Returns whether it was taken.

        A network is copied, so that it may go on learning. A function is called as it is, whenever the teacher is
        asked: it must not change with the learner.

        Raises:
            UserError: the score is no finite number, or a better policy whose outputs are not one finite number per
                action. Nothing has changed then.
        """
        if not math.isfinite(score):
            raise UserError(
                f"{self.task.name}: a score of {score} after {control_steps:,} control steps cannot be compared"
            )
        if score <= self.score:
            return False
        self.teacher = self._frozen(policy)
        self.score, self.at = float(score), control_steps
        return True

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The teacher's weights (none of a function, none before the first offer), and the rest, JSON-ready."""
        weights = {} if self.teacher is None else dict(self.teacher.net.state_dict())
        return weights, {"score": None if self.teacher is None else self.score, "at": self.at}

    def load_state(self, weights: Mapping[str, Tensor], rest: Mapping[str, Any], policy: Outputs | None) -> None:
        """Undo :meth:`state`.

        Args:
            policy: A network of the shape that was offered, which is copied and filled; or the function that was
                offered last. None will do only if nothing had been offered.

        Raises:
            UserError: there was a teacher and no ``policy`` is given, or the weights do not fit it.
        """
        teacher, score = None, rest["score"]
        if score is not None:
            if policy is None:
                raise UserError(f"{self.task.name}: a teacher was saved: give a network that its weights belong to")
            teacher = self._frozen(policy, weights)
        self.teacher, self.score, self.at = teacher, -math.inf if score is None else float(score), int(rest["at"])

    def _frozen(self, policy: Outputs, weights: Mapping[str, Tensor] | None = None) -> Teacher:
        net = copy.deepcopy(policy) if isinstance(policy, nn.Module) else _Function(policy)
        if weights is not None:
            try:
                net.load_state_dict(weights)
            except RuntimeError as error:
                text = " ".join(str(error).split())
                raise UserError(f"{self.task.name}: the saved teacher is of another network ({text:.200})") from None
        return Teacher(self.task, net.to(self.device), self.kind)


class _Function(nn.Module):
    """A function in a network's place."""

    def __init__(self, function: Callable[[Tensor], Any]):
        super().__init__()
        self.function = function

    def forward(self, obs: Tensor) -> Tensor:
        return torch.as_tensor(self.function(obs), device=obs.device)
