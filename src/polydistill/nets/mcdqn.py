"""Actor-Mimic's second baseline network, MCDQN (Parisotto et al. 2016, App. C): only the convolutions are shared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polydistill.nets.encoders import SharedTorso
from polydistill.nets.student import Student
from polydistill.tasks import Suite


class MCDQN(Student):
    """Shared torso, then per task ``hidden`` -> ``A``: the tasks have no feature and no value in common.

    Eight games: 13,001,008 parameters = 77,984 + 8 · 1,615,378.
    """

    def __init__(
        self,
        suite: Suite,
        channels: Sequence[int] = (32, 64, 64),
        hidden: int = 512,
        norm: bool = False,
        bf16: bool = False,
    ):
        super().__init__(suite, bf16)
        self.settings = {"channels": list(channels), "hidden": hidden, "norm": norm}
        self.torso = SharedTorso(suite.tasks, channels, norm)
        self.fcs = nn.ModuleList(nn.Linear(self.torso.features, hidden) for _ in suite.tasks)
        self.outputs = nn.ModuleList(nn.Linear(hidden, len(suite.axis)) for _ in suite.tasks)

    def features(self, obs: Sequence[Tensor]) -> Tensor:
        with self.autocast(obs[0].device):
            rows = zip(self.fcs, self.torso(obs), strict=True)
            return torch.stack([torch.relu(fc(row)) for fc, row in rows]).float()

    def hidden(self, obs: Tensor, task: int) -> Tensor:
        with self.autocast(obs.device):
            return torch.relu(self.fcs[task](self.torso.one(obs, task))).float()

    def logits(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        return torch.stack([self.outputs[g](row) for row, g in zip(features, tasks, strict=True)])

    def description(self) -> dict[str, object]:
        return self.settings


make = MCDQN
