"""What a teacher is to the rest of the project: frozen, asked for outputs in its task's own actions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from polydistill.errors import UserError
from polydistill.tasks import Task

OutputKind = Literal["q", "logits"]


@dataclass(frozen=True)
class TeacherOutput:
    """A teacher's answer.

    Attributes:
        values: float32 ``[B, n_actions]`` in the task's own action order.
        kind: ``q`` (Q-values: the temperature applies) or ``logits`` (a policy's: it does not).
    """

    values: Tensor
    kind: OutputKind


@dataclass
class Teacher:
    """A frozen network and the task it plays.

    Args:
        task: What it plays.
        net: ``[B, *obs_shape] -> float32 [B, n_actions]``. It is put in eval mode and loses its gradients. If it has
            ``encode`` and ``head`` (and ``torso``), a student may keep the torso and share the pass; if it has
            ``encode`` and ``last_hidden``, a student may be taught its features (Actor-Mimic).
        kind: What its outputs are.
        path: Where it came from; None for one made in Python.
        card: What ``card.json`` says.

    Raises:
        UserError: the network gives another number of outputs than the task has actions, or NaN or infinity.
    """

    task: Task
    net: nn.Module
    kind: OutputKind = "q"
    path: Path | None = None
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.net.eval().requires_grad_(False)
        outputs = self(self._blank()).values
        where = f"teacher {self.path or self.task.name}"
        expected = (2, self.task.n_actions)
        if outputs.shape != expected:
            raise UserError(f"{where}: expected outputs {expected} for two observations, found {tuple(outputs.shape)}")
        if not torch.isfinite(outputs).all():
            raise UserError(f"{where}: its outputs are NaN or infinite on a blank screen; train or export it again")

    @torch.inference_mode()
    def __call__(self, obs: Tensor) -> TeacherOutput:
        """``[B, *obs_shape] ->`` outputs ``[B, n_actions]``, on the network's device."""
        return TeacherOutput(self.net(obs).float(), self.kind)

    @property
    def feature_length(self) -> int | None:
        """Units of its last hidden layer; None for a network that does not show them."""
        if not (hasattr(self.net, "encode") and hasattr(self.net, "last_hidden")):
            return None
        return self.features(self._blank()).shape[1]

    @torch.no_grad()
    def features(self, obs: Tensor, encoded: bool = False) -> Tensor:
        """Activations of its last hidden layer, after the ReLU: ``[B, *obs_shape] ->`` float32 ``[B, D]``.

        Args:
            encoded: ``obs`` is what its torso made of the observations, ``[B, F]``.
        """
        net: Any = self.net
        out: Tensor = net.last_hidden(obs if encoded else net.encode(obs)).float()
        return out

    def score(self, name: str) -> float | None:
        """The card's mean score under a protocol, or the random policy's (``random``); None if it does not say."""
        entry = self.card.get("scores", {}).get(name)
        return entry["mean"] if isinstance(entry, dict) else entry

    def to(self, device: str) -> Teacher:
        """Move the network."""
        self.net.to(device)
        return self

    def greedy(self, obs: np.ndarray) -> np.ndarray:
        """Best own action of each observation, int64 ``[B]``."""
        return self(torch.from_numpy(obs).to(self.device)).values.argmax(-1).cpu().numpy()

    def _blank(self) -> Tensor:
        return torch.zeros(2, *self.task.obs_shape, dtype=getattr(torch, self.task.obs_dtype), device=self.device)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((p.device for p in self.net.parameters()), torch.device("cpu"))
