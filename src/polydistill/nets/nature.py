"""The convolutions of the Nature DQN (Mnih et al. 2015) and of the smaller students (Rusu et al. 2016, App. B)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class NatureTorso(nn.Module):
    """Three convolutions 8x8/4, 4x4/2, 3x3/1 with ReLU, then a flatten in ``[C, H, W]`` order.

    Args:
        channels: Output channels of the three layers. (32, 64, 64) gives 3,136 features.
        in_channels: Frames in the stack.
        norm: Layer normalisation over ``[C, H, W]`` with a gain and bias per channel before each ReLU, as parallel
            Q-learning needs (Gallici et al. 2024); the papers' networks have none.

    Input ``[B, 4, 84, 84]`` uint8; output ``[B, features]``.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 64), in_channels: int = 4, norm: bool = False):
        super().__init__()
        self._settings = {"channels": list(channels), "norm": norm}
        layers: list[nn.Module] = []
        before = in_channels
        for after, kernel, stride in zip(channels, (8, 4, 3), (4, 2, 1), strict=True):
            layers.append(nn.Conv2d(before, after, kernel, stride))
            if norm:
                layers.append(nn.GroupNorm(1, after))
            layers.append(nn.ReLU())
            before = after
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.features = before * 7 * 7

    def forward(self, obs: Tensor) -> Tensor:
        dtype = torch.bfloat16 if torch.is_autocast_enabled(obs.device.type) else torch.float32
        # bytes are turned round before they grow: twice as quick as both in one call (torch 2.13, CPU)
        x = obs.contiguous(memory_format=torch.channels_last).to(dtype) * (1 / 255)
        return self.layers(x).flatten(1)

    def description(self) -> dict[str, object]:
        """What rebuilds it (beside the task), JSON-ready."""
        return self._settings
