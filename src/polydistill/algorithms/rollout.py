"""A few control steps of every copy of a game, kept where the network is."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from polydistill.nets.encoders import is_screen
from polydistill.tasks import Task


class Rollout:
    """``steps`` control steps of ``copies`` copies: written while they play, then cut into minibatches.

    Its tensors stay where they are, so a CUDA graph may read them. A screen's bytes are kept channels last, the order
    in which convolutions read them: they are turned round once, when they are seen, not once an epoch.

    Args:
        device: The network's.

    Attributes:
        obs: ``[T + 1, N, *obs_shape]`` of the task's dtype, a view; the last row is what the rollout led to.
        q: float32 ``[T + 1, N, n_actions]``, what the network said of them.
        actions: int64 ``[T * N]``, what was done.
        target: float32 ``[T * N]``, what is learnt.
    """

    def __init__(self, steps: int, copies: int, task: Task, device: str):
        self._screen, shape = is_screen(task), task.obs_shape
        self._shape = (*shape[1:], shape[0]) if self._screen else shape
        rows, dtype = (steps + 1) * copies, getattr(torch, task.obs_dtype)
        self._flat = torch.zeros(rows, prod(shape), dtype=dtype, device=device)
        self.obs = self._seen(self._flat).unflatten(0, (steps + 1, copies))
        self.q = torch.zeros(steps + 1, copies, task.n_actions, device=device)
        self.actions = torch.zeros(steps * copies, dtype=torch.int64, device=device)
        self.target = torch.zeros(steps * copies, device=device)

    def batch(self, index: Tensor) -> Tensor:
        """Observations ``[B, *obs_shape]`` of int64 ``[B]``, counted step by step: ``t * N + copy``."""
        return self._seen(self._flat.index_select(0, index))

    def _seen(self, rows: Tensor) -> Tensor:
        shaped = rows.view(-1, *self._shape)
        return shaped.permute(0, 3, 1, 2) if self._screen else shaped
