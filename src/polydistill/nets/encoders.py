"""The layers before a network's first fully-connected one, chosen by what the task shows."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from polydistill.nets.nature import NatureTorso, screen_features
from polydistill.tasks import Task


class FlatTorso(nn.Module):
    """For observations that are no Atari screen: flatten, scale, one ReLU layer. ``[B, *obs_shape] -> [B, width]``."""

    def __init__(self, obs_shape: Sequence[int], image: bool, width: int = 64):
        super().__init__()
        self.scale = 1 / 255 if image else 1.0
        self.layer = nn.Linear(prod(obs_shape), width)
        self.features = width

    def forward(self, obs: Tensor) -> Tensor:
        return torch.relu(self.layer(obs.flatten(1).float() * self.scale))

    def description(self) -> dict[str, object]:
        """What rebuilds it (beside the task), JSON-ready."""
        return {"flat_width": self.features}


Torso = NatureTorso | FlatTorso


def is_screen(task: Task) -> bool:
    """Whether the task shows stacks of 84x84 frames, which the Nature convolutions read."""
    return len(task.obs_shape) == 3 and task.obs_shape[1:] == (84, 84)


def make_torso(task: Task, channels: Sequence[int] = (32, 64, 64), norm: bool = False, flat_width: int = 64) -> Torso:
    """A fresh torso that reads the task's observations."""
    if is_screen(task):
        return NatureTorso(channels, task.obs_shape[0], norm)
    return FlatTorso(task.obs_shape, task.obs_dtype == "uint8", flat_width)


class SharedTorso(nn.Module):
    """One torso for every task that shows the same kind of observation; tasks of another shape get their own.

    All of them give ``features`` numbers: from there on everything is rectangular.

    Raises:
        ValueError: torsos of unequal width.
    """

    def __init__(self, tasks: Sequence[Task], channels: Sequence[int], norm: bool = False):
        super().__init__()
        kinds = {(t.obs_shape, t.obs_dtype): t for t in tasks}
        screens = [t for t in kinds.values() if is_screen(t)]
        self.features = screen_features(channels) if screens else 64
        self.torsos = nn.ModuleList(make_torso(t, channels, norm, self.features) for t in kinds.values())
        order = list(kinds)
        self.of_task = [order.index((t.obs_shape, t.obs_dtype)) for t in tasks]

    def forward(self, obs: Sequence[Tensor]) -> Tensor:
        """``G`` tensors ``[B, *obs_shape]`` -> ``[G, B, features]``."""
        if len(self.torsos) == 1:
            out: Tensor = self.torsos[0](torch.cat(list(obs))).unflatten(0, (len(obs), -1))
            return out
        return torch.stack([self.one(o, g) for g, o in enumerate(obs)])

    def one(self, obs: Tensor, task: int) -> Tensor:
        """``[B, *obs_shape] -> [B, features]``."""
        out: Tensor = self.torsos[self.of_task[task]](obs)
        return out
