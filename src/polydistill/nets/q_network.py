"""One task's Q-network: torso, one hidden layer, one linear output per action of the task's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polydistill.nets.encoders import Torso


class QNetwork(nn.Module):
    """Nature DQN (Mnih et al. 2015): torso -> 512 -> ``n_actions``; 1,693,362 parameters with 18 actions.

    Args:
        torso: Anything ``[B, *obs_shape] -> [B, features]`` with an attribute ``features``.
        norm: Layer normalisation before the hidden ReLU (parallel Q-learning).
        bf16: Run the torso in bfloat16.
        bf16_hidden: Run the hidden layer in bfloat16 too: for training only. The output layer is always float32: action
            gaps of 0.01 lie below bfloat16's resolution near 1.

    Input ``[B, *obs_shape]``; output float32 ``[B, n_actions]``.
    """

    def __init__(
        self,
        torso: Torso,
        n_actions: int,
        hidden: int = 512,
        norm: bool = False,
        bf16: bool = False,
        bf16_hidden: bool = False,
    ):
        super().__init__()
        self.torso = torso
        self.hidden = nn.Linear(torso.features, hidden)
        self.hidden_norm = nn.LayerNorm(hidden) if norm else nn.Identity()
        self.output = nn.Linear(hidden, n_actions)
        self.bf16, self.bf16_hidden = bf16, bf16_hidden

    def encode(self, obs: Tensor) -> Tensor:
        """``[B, *obs_shape] -> [B, features]``, in bfloat16 where the torso runs in it."""
        with torch.autocast(obs.device.type, torch.bfloat16, enabled=self.bf16):
            out: Tensor = self.torso(obs)
        return out

    def last_hidden(self, features: Tensor) -> Tensor:
        """``[B, features] ->`` activations of the hidden layer after its ReLU, float32 ``[B, hidden]``."""
        with torch.autocast(features.device.type, torch.bfloat16, enabled=self.bf16_hidden):
            x = features if self.bf16_hidden else features.float()
            h = torch.relu(self.hidden_norm(self.hidden(x)))
        return h.float()

    def head(self, features: Tensor) -> Tensor:
        """``[B, features] -> float32 [B, n_actions]``."""
        out: Tensor = self.output(self.last_hidden(features))
        return out

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(self.encode(obs))
