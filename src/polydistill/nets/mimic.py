"""Actor-Mimic's network (Parisotto et al. 2016): everything shared, one output per action of the axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polydistill.nets.encoders import SharedTorso
from polydistill.nets.student import SharedOutput, Student
from polydistill.tasks import Suite


class Mimic(Student):
    """Torso -> ``hidden`` -> ``A``, shared by all tasks. 1,693,362 parameters for Atari.

    With one task it is also Rusu's compressed student (2016, App. B): channels (16, 32, 32) and 256 units are net1
    (427,874 parameters), (16, 16, 16) and 128 net2 (113,346), (16, 16, 16) and 64 net3 (61,954).

    Actor-Mimic's large network, which it transfers (App. D): channels (256, 512, 512, 512), hidden (2048, 1024);
    35,216,146 parameters.

    Args:
        hidden: Units of the fully-connected layer, or of several, one after the other. The last ones are the features.
    """

    def __init__(
        self,
        suite: Suite,
        channels: Sequence[int] = (32, 64, 64),
        hidden: int | Sequence[int] = 512,
        norm: bool = False,
        bf16: bool = False,
    ):
        super().__init__(suite, bf16)
        widths = [hidden] if isinstance(hidden, int) else list(hidden)
        units = hidden if isinstance(hidden, int) else widths
        self.settings: dict[str, object] = {"channels": list(channels), "hidden": units, "norm": norm}
        self.torso = SharedTorso(suite.tasks, channels, norm)
        layers: list[nn.Module] = []
        for before, after in zip([self.torso.features, *widths], widths, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.fc = layers[0] if len(widths) == 1 else nn.Sequential(*layers[:-1])
        self.output = SharedOutput(widths[-1], len(suite.axis))

    def features(self, obs: Sequence[Tensor]) -> Tensor:
        with self.autocast(obs[0].device):
            return torch.relu(self.fc(self.torso(obs))).float()

    def hidden(self, obs: Tensor, task: int) -> Tensor:
        with self.autocast(obs.device):
            return torch.relu(self.fc(self.torso.one(obs, task))).float()

    def logits(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        return self.output.for_tasks(features)

    def description(self) -> dict[str, object]:
        return self.settings


make = Mimic
