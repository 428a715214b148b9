"""The recurrent network of Distral's agents (Teh et al. 2017, section 4.2, after Mnih et al. 2016): one column.

Convolutions 16 8x8/4 and 32 4x4/2 for screens of 84x84, a flat layer for anything else; 256 ReLU units; an LSTM of 256;
then logits (or a Gaussian's parameters) and a value. Without the heads and with three colours it has 1,201,456
parameters: 3,088 + 8,224 + 663,808 + 526,336.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from polydistill.ops.gaussian import from_outputs
from polydistill.tasks import Task

SCREEN = 2592  # 32 planes of 9x9


class Memory(NamedTuple):
    """What an LSTM remembers, both ``[N, width]``."""

    hidden: Tensor
    cell: Tensor

    def kept(self, where: Tensor) -> Memory:
        """Empty in the rows in which ``where`` (bool ``[N]``) is false."""
        keep = where.unsqueeze(1).to(self.hidden.dtype)
        return Memory(self.hidden * keep, self.cell * keep)


class ColumnOutput(NamedTuple):
    """The policy, values ``[T, N]``, and the memory after the last step.

    The policy is logits ``[T, N, A]``, or means and variances ``[T, N, 2, D]`` of a continuous action.
    """

    logits: Tensor
    value: Tensor
    memory: Memory


class Column(nn.Module):
    """One policy and one value function with a memory of their own.

    Args:
        task: Whose observations it reads.
        outputs: Numbers a policy needs: one per action, or two per dimension of a continuous action.
        hidden: Units before the LSTM.
        lstm: Units of the LSTM; 0: none, and what is remembered is empty.
    """

    def __init__(self, task: Task, outputs: int, hidden: int = 256, lstm: int = 256):
        super().__init__()
        self.scale = 1 / 255 if task.obs_dtype == "uint8" else 1.0
        self.width, self.gaussian = lstm, task.continuous
        self.encoder: nn.Module
        if len(task.obs_shape) == 3 and task.obs_shape[1:] == (84, 84):
            self.encoder = nn.Sequential(
                nn.Conv2d(task.obs_shape[0], 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Flatten(),
                nn.Linear(SCREEN, hidden), nn.ReLU(),
            )  # fmt: skip
        else:
            self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(prod(task.obs_shape), hidden), nn.ReLU())
        self.lstm = nn.LSTMCell(hidden, lstm) if lstm else None
        self.policy = nn.Linear(lstm or hidden, outputs)
        self.value = nn.Linear(lstm or hidden, 1)

    def empty(self, n: int) -> Memory:
        """The memory of ``n`` episodes that begin."""
        zero = self.policy.weight.new_zeros(n, self.width)
        return Memory(zero, zero.clone())

    def forward(self, obs: Tensor, start: Tensor, memory: Memory) -> ColumnOutput:
        """Observations of ``T`` steps in ``N`` environments.

        Args:
            obs: ``[T, N, *obs_shape]``.
            start: bool ``[T, N]``, an episode begins with this observation: nothing before it is remembered.
            memory: From before the first step.
        """
        steps, n = start.shape
        x = self.encoder(obs.flatten(0, 1).float() * self.scale)
        if self.lstm is not None:
            out = []
            for row, first in zip(x.unflatten(0, (steps, n)), start, strict=True):
                memory = Memory(*self.lstm(row, tuple(memory.kept(~first))))
                out.append(memory.hidden)
            x = torch.stack(out).flatten(0, 1)
        policy = self.policy(x).unflatten(0, (steps, n))
        return ColumnOutput(from_outputs(policy) if self.gaussian else policy, self.value(x).view(steps, n), memory)


def policy_size(task: Task) -> int:
    """Numbers that a policy of ``task`` needs."""
    return 2 * len(task.action_low) if task.continuous else task.n_actions
