"""Yin & Pan's network (2017, Fig. 1): each task keeps its teacher's convolutions, the layers above are shared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polydistill.errors import UserError
from polydistill.nets.encoders import make_torso
from polydistill.nets.student import PolicyOutput, SharedOutput, Student
from polydistill.tasks import Suite


class TaskTorsos(Student):
    """Per task: torso copied from the teacher (3,136 features); shared: 1,028 -> 512 -> ``A``.

    The shared layers have 3,760,918 parameters, each plain torso 77,984: 4,540,758 for ten games. 1,028 is the paper's.

    Args:
        suite: The tasks.
        torsos: One module per task, ``[B, *obs_shape] -> [B, features]`` with an attribute ``features``, all of one
            width; None makes fresh ones. They are used as they are: pass copies.
        widths: Units of the shared hidden layers.
        train_convs: False keeps the torsos exactly as they came (the paper does not say; see docs/papers.md):
            no gradient, so their features may be cached.
        torso_bf16: Which torsos run in bfloat16; None: each as it says in its attribute ``bf16``, else as the student.
            A copy in its teacher's precision gives its teacher's features, bit for bit.

    Raises:
        UserError: torsos of unequal width (a teacher with other convolutions than the rest).
    """

    def __init__(
        self,
        suite: Suite,
        torsos: Sequence[nn.Module] | None = None,
        widths: Sequence[int] = (1028, 512),
        train_convs: bool = False,
        torso_bf16: Sequence[bool] | None = None,
        bf16: bool = False,
    ):
        super().__init__(suite, bf16)
        self.train_convs = train_convs
        made = list(torsos) if torsos is not None else [make_torso(t) for t in suite.tasks]
        sizes = [int(t.features) for t in made]  # type: ignore[arg-type]
        if len(set(sizes)) > 1:
            found = ", ".join(f"{t.name} {n}" for t, n in zip(suite.tasks, sizes, strict=True))
            raise UserError(f"task_torsos needs torsos of one width, found {found}: use --student mimic or controllers")
        self.torsos = nn.ModuleList(made).requires_grad_(train_convs)
        self.torso_bf16 = [bool(getattr(t, "bf16", bf16)) for t in made] if torso_bf16 is None else list(torso_bf16)
        self.settings = {"widths": list(widths), "train_convs": train_convs, "torso_bf16": self.torso_bf16}
        layers: list[nn.Module] = []
        for before, after in zip([sizes[0], *widths], widths, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.shared = nn.Sequential(*layers)
        self.output = SharedOutput(widths[-1], len(suite.axis))

    def torso(self, obs: Tensor, task: int) -> Tensor:
        """One task's convolutional features ``[B, F]``; what a feature cache may keep while torsos are frozen."""
        precision = torch.autocast(obs.device.type, torch.bfloat16, enabled=self.torso_bf16[task])
        with torch.set_grad_enabled(self.train_convs and torch.is_grad_enabled()), precision:
            out: Tensor = self.torsos[task](obs)
        return out

    def from_torso(self, torso: Tensor) -> Tensor:
        """Torso features ``[..., F]`` -> last hidden activations float32 ``[..., D]``."""
        with self.autocast(torso.device):
            return self.shared(torso).float()

    @property
    def torso_features(self) -> int:
        """``F``, numbers that a torso gives."""
        return int(self.torsos[0].features)  # type: ignore[arg-type]

    def from_features(self, torso: Sequence[Tensor], tasks: Sequence[int] | None = None) -> PolicyOutput:
        """:meth:`forward` from torso features: ``tasks`` (None: all), as many tensors ``[B, F]``."""
        hidden = self.from_torso(_rectangle(torso))
        return PolicyOutput(self.logits(hidden, range(len(self.suite)) if tasks is None else tasks), hidden)

    def features(self, obs: Sequence[Tensor]) -> Tensor:
        return self.from_torso(_rectangle([self.torso(o, g) for g, o in enumerate(obs)]))

    def hidden(self, obs: Tensor, task: int) -> Tensor:
        return self.from_torso(self.torso(obs, task))

    def logits(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        return self.output.for_tasks(features)

    def description(self) -> dict[str, object]:
        return self.settings


def _rectangle(torso: Sequence[Tensor]) -> Tensor:
    """``G`` tensors ``[B, F]`` -> ``[G, B, F]``; where precisions differ, in the highest."""
    highest = max((t.dtype for t in torso), key=lambda dtype: dtype.itemsize)
    return torch.stack([t.to(highest) for t in torso])


make = TaskTorsos
