"""The convolutions of the Nature DQN (Mnih et al. 2015), of smaller students (Rusu et al. 2016, App. B) and of
Actor-Mimic's large one (Parisotto et al. 2016, App. D)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

FIRST = ((8, 4), (4, 2))  # kernel and stride of the first layers; all others are 3x3/1


def screen_features(channels: Sequence[int]) -> int:
    """Numbers that :class:`NatureTorso` makes of a screen of 84x84: (32, 64, 64) gives 3,136.

    Raises:
        ValueError: fewer than three layers, or more than a screen has room for.
    """
    side = 84
    for kernel, stride in (*FIRST, *[(3, 1)] * (len(channels) - len(FIRST))):
        side = (side - kernel) // stride + 1
    if len(channels) < 3 or side < 1:
        raise ValueError(f"channels {list(channels)}: three to six layers read a screen of 84x84")
    return channels[-1] * side**2


def norm_channels_last(x: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
    """``group_norm`` with one group, of ``[B, C, H, W]`` that lies channels last in memory; the result does too.

    So laid out, one sample is one row: ``layer_norm``'s single kernel takes mean and variance in float32 and rounds
    once, to the dtype of ``x``. Gain and bias ``[C]`` are rounded to it first.
    """
    rows = x.permute(0, 2, 3, 1)
    pixels = rows.shape[1] * rows.shape[2]
    gains, biases = (w.to(x.dtype).repeat(pixels) for w in (gain, bias))
    with torch.autocast(x.device.type, enabled=False):  # it would make float32 of x first
        normed = functional.layer_norm(rows.flatten(1), (pixels * rows.shape[3],), gains, biases, eps)
    return normed.view(rows.shape).permute(0, 3, 1, 2)


class ScreenNorm(nn.GroupNorm):
    """Layer normalisation over ``[C, H, W]`` with a gain and bias per channel.

    CUDA's ``group_norm`` turns its output round to channels first (pytorch#111824; channels last with #191945), and
    autocast runs it in float32: both cost the next convolution a copy. There it is done by hand.
    """

    def __init__(self, channels: int):
        super().__init__(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cuda":
            return super().forward(x)
        return norm_channels_last(x, self.weight, self.bias, self.eps)


class NatureTorso(nn.Module):
    """Convolutions 8x8/4, 4x4/2, then 3x3/1, each with ReLU, then a flatten in ``[C, H, W]`` order.

    Args:
        channels: Output channels of the layers; the papers' DQN has three. (32, 64, 64) gives 3,136 features.
        in_channels: Frames in the stack.
        norm: Layer normalisation over ``[C, H, W]`` with a gain and bias per channel before each ReLU, as parallel
            Q-learning needs (Gallici et al. 2024); the papers' networks have none.

    Input ``[B, 4, 84, 84]`` uint8; output ``[B, features]``.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 64), in_channels: int = 4, norm: bool = False):
        super().__init__()
        self._settings = {"channels": list(channels), "norm": norm}
        self.features = screen_features(channels)
        layers: list[nn.Module] = []
        before = in_channels
        for after, (kernel, stride) in zip(channels, (*FIRST, *[(3, 1)] * len(channels)), strict=False):
            layers.append(nn.Conv2d(before, after, kernel, stride))
            if norm:
                layers.append(ScreenNorm(after))
            layers.append(nn.ReLU())
            before = after
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, obs: Tensor) -> Tensor:
        dtype = torch.bfloat16 if torch.is_autocast_enabled(obs.device.type) else torch.float32
        # bytes are turned round before they grow: twice as quick as both in one call (torch 2.13, CPU)
        x = obs.contiguous(memory_format=torch.channels_last).to(dtype, copy=True).mul_(1 / 255)  # a copy: it is ours
        return self.layers(x).flatten(1)

    def description(self) -> dict[str, object]:
        """What rebuilds it (beside the task), JSON-ready."""
        return self._settings
