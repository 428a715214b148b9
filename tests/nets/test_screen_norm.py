"""The layer normalisation of the Nature convolutions, as it is written for a GPU, held against ``group_norm``."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm

from polydistill.devices import device_of
from polydistill.nets.nature import NatureTorso, ScreenNorm, norm_channels_last


def inputs(dtype: torch.dtype, layout: torch.memory_format) -> list[Tensor]:
    """x ``[3, 5, 4, 6]`` with a mean far from 0, gain and bias ``[5]``."""
    generator = torch.Generator().manual_seed(0)
    x = 7 + 3 * torch.randn(3, 5, 4, 6, generator=generator)
    gain, bias = torch.randn(2, 5, generator=generator)
    x = x.to(dtype).contiguous(memory_format=layout)
    return [t.clone(memory_format=torch.preserve_format).requires_grad_() for t in (x, gain, bias)]


def test_by_hand() -> None:
    """Two pixels of one channel, 1 and 3: mean 2, variance 1; gain 10, bias 5."""
    x = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)
    out = norm_channels_last(x, torch.tensor([10.0]), torch.tensor([5.0]), 0.0)
    assert out.flatten().tolist() == [-5.0, 15.0]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)], ids=str)
@pytest.mark.parametrize("autocast", [False, True])
def test_it_is_group_norm_and_lies_channels_last(
    layout: torch.memory_format, dtype: torch.dtype, atol: float, autocast: bool
) -> None:
    ours, theirs = inputs(dtype, layout), inputs(torch.float32, torch.contiguous_format)
    theirs[0] = ours[0].detach().float().requires_grad_()  # the same numbers, rounded or not
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = norm_channels_last(*ours, 1e-5)
    expected = group_norm(theirs[0], 1, theirs[1], theirs[2], 1e-5)
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.float(), expected, rtol=atol, atol=atol)
    slope = torch.linspace(-1, 1, out.numel()).view(out.shape)
    (out.float() * slope).sum().backward()
    (expected * slope).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad.float(), other.grad, rtol=20 * atol, atol=20 * atol)


def test_a_torso_normed_by_hand_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer is still PyTorch's by name and weights, so teachers written before read as they did."""
    torso = NatureTorso((4, 4, 4), norm=True)
    norms = [m for m in torso.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 3
    assert list(norms[0].state_dict()) == ["weight", "bias"]
    generator = torch.Generator().manual_seed(1)
    for p in torso.parameters():
        nn.init.normal_(p, std=0.3, generator=generator)
    obs = torch.randint(0, 256, (2, 4, 84, 84), dtype=torch.uint8, generator=generator)
    before = torso(obs)
    monkeypatch.setattr(ScreenNorm, "forward", lambda self, x: norm_channels_last(x, self.weight, self.bias, self.eps))
    assert before.abs().max() > 0.1
    torch.testing.assert_close(torso(obs), before, rtol=1e-4, atol=1e-4)


def test_observations_are_left_alone() -> None:
    """The scaling writes over what it reads: a copy, even of observations that need no conversion."""
    torso = NatureTorso((4, 4, 4))
    obs = torch.rand(2, 4, 84, 84).contiguous(memory_format=torch.channels_last) * 255
    before = obs.clone()
    torso(obs)
    assert torch.equal(obs, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("bf16", [False, True])
def test_cpu_and_gpu_normalise_alike(bf16: bool) -> None:
    gpu = device_of("cuda")
    torso = NatureTorso((8, 8, 8), norm=True)
    obs = torch.randint(0, 256, (16, 4, 84, 84), dtype=torch.uint8)
    told = []
    for device in (torch.device("cpu"), gpu):
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            told.append(torso.to(device)(obs.to(device)).float().cpu())
    torch.testing.assert_close(told[1], told[0], rtol=0.05 if bf16 else 1e-4, atol=0.05 if bf16 else 1e-4)
    x = torch.randn(2, 8, 5, 5, device=gpu, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cuda", torch.bfloat16):
        out = ScreenNorm(8).to(gpu)(x)
    assert out.dtype == torch.bfloat16  # neither grown nor turned round
    assert out.is_contiguous(memory_format=torch.channels_last)
