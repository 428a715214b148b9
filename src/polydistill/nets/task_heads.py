"""Only the convolutions are shared; each task has a fully-connected layer and outputs of its own.

With the whole axis as outputs it is Actor-Mimic's second baseline, MCDQN (Parisotto et al. 2016, App. C); with a
task's own actions it is what Yin & Pan (2017) call DIST.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from polydistill.nets.encoders import SharedTorso
from polydistill.nets.student import Student
from polydistill.tasks import Suite


class TaskHeads(Student):
    """Shared torso, then per task ``hidden`` -> outputs: the tasks have no feature and no value in common.

    MCDQN, eight games: 13,001,008 parameters = 77,984 + 8 · 1,615,378. DIST, ten games with 85 actions in all:
    16,183,029 = 77,984 + 10 · 1,606,144 + 513 · 85.

    Args:
        outputs: ``axis``: every action of the suite's axis (MCDQN); ``own``: the task's own actions (DIST).
    """

    def __init__(
        self,
        suite: Suite,
        channels: Sequence[int] = (32, 64, 64),
        hidden: int = 512,
        outputs: Literal["axis", "own"] = "axis",
        norm: bool = False,
        bf16: bool = False,
    ):
        super().__init__(suite, bf16)
        if outputs not in ("axis", "own"):
            raise ValueError(f"outputs are 'axis' or 'own', not {outputs!r}")
        self.settings = {"channels": list(channels), "hidden": hidden, "outputs": outputs, "norm": norm}
        self.torso = SharedTorso(suite.tasks, channels, norm)
        self.fcs = nn.ModuleList(nn.Linear(self.torso.features, hidden) for _ in suite.tasks)
        everything = tuple(range(len(suite.axis)))
        places = [everything if outputs == "axis" else own for own in suite.actions]
        self.outputs = nn.ModuleList(nn.Linear(hidden, len(own)) for own in places)
        for g, own in enumerate(places):
            self.register_buffer(f"axis_{g}", torch.tensor(own), persistent=False)

    def features(self, obs: Sequence[Tensor]) -> Tensor:
        with self.autocast(obs[0].device):
            rows = zip(self.fcs, self.torso(obs), strict=True)
            return torch.stack([torch.relu(fc(row)) for fc, row in rows]).float()

    def hidden(self, obs: Tensor, task: int) -> Tensor:
        with self.autocast(obs.device):
            return torch.relu(self.fcs[task](self.torso.one(obs, task))).float()

    def logits(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        rows = []
        for row, g in zip(features, tasks, strict=True):
            axis = row.new_zeros(len(row), len(self.suite.axis))
            rows.append(axis.index_copy(1, self.get_buffer(f"axis_{g}"), self.outputs[g](row)))
        return torch.stack(rows)

    def description(self) -> dict[str, object]:
        return self.settings


make = TaskHeads
