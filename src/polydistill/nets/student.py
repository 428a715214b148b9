"""What every student is: a rectangle of observations in, a rectangle of logits out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from polydistill.tasks import Suite


@dataclass(frozen=True)
class PolicyOutput:
    """A student's answer for ``G`` tasks x ``B`` samples.

    Attributes:
        logits: float32 ``[G, B, A]`` on the suite's action axis. Entries of actions a task does not have mean nothing;
            ``ops.policy`` masks them. They are logits, not Q-values (except under the MSE objective).
        features: ``[G, B, D]``, activations of the last hidden layer after its ReLU.
    """

    logits: Tensor
    features: Tensor


class Student(nn.Module):
    """Base of the students. A subclass gives features, hidden, logits and description.

    Args:
        suite: The tasks, in the order of the rectangle's rows.
        bf16: Run everything but the output layers in bfloat16, with float32 master weights.
    """

    def __init__(self, suite: Suite, bf16: bool = False):
        super().__init__()
        self.suite, self.bf16 = suite, bf16

    def features(self, obs: Sequence[Tensor]) -> Tensor:
        """``G`` tensors ``[B, *obs_shape]`` -> last hidden activations float32 ``[G, B, D]``."""
        raise NotImplementedError

    def logits(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Rows ``tasks`` of the rectangle, ``[len(tasks), B, D]`` -> float32 ``[len(tasks), B, A]``."""
        raise NotImplementedError

    def hidden(self, obs: Tensor, task: int) -> Tensor:
        """One task's last hidden activations, ``[B, *obs_shape]`` -> float32 ``[B, D]``."""
        raise NotImplementedError

    def forward(self, obs: Sequence[Tensor], tasks: Sequence[int] | None = None) -> PolicyOutput:
        """``tasks`` (None: all at once) of the suite: as many tensors ``[B, *obs_shape]``."""
        if tasks is None:
            features, tasks = self.features(obs), range(len(self.suite))
        else:
            features = torch.stack([self.hidden(o, g) for o, g in zip(obs, tasks, strict=True)])
        return PolicyOutput(self.logits(features, tasks), features)

    def act(self, obs: Tensor, task: int) -> Tensor:
        """One task: ``[B, *obs_shape]`` -> logits float32 ``[B, A]``."""
        return self.logits(self.hidden(obs, task)[None], [task])[0]

    @torch.inference_mode()
    def greedy(self, obs: np.ndarray, task: int) -> np.ndarray:
        """Best action of each observation in the task's own indices: ``[B, *obs_shape] -> int64 [B]``."""
        device = next(self.parameters()).device
        logits = self.act(torch.from_numpy(obs).to(device), task).cpu()
        return logits[:, list(self.suite.actions[task])].argmax(-1).numpy()

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context the layers before the output run in."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bf16)

    def description(self) -> dict[str, object]:
        """Keyword arguments that rebuild this network, JSON-ready."""
        raise NotImplementedError


class SharedOutput(nn.Linear):
    """One linear layer for the whole action axis, shared by all tasks (Actor-Mimic; Yin & Pan)."""

    def for_tasks(self, features: Tensor) -> Tensor:
        """``[G, B, D] -> [G, B, A]`` in float32."""
        with torch.autocast(features.device.type, enabled=False):
            out: Tensor = self(features.float())
        return out


def count(module: nn.Module, trainable: bool = False) -> int:
    """Number of parameters, or of those that learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)
