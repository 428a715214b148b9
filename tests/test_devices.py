"""Which device a name means, and what that does to float32."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from polydistill.devices import device_of

SWITCHES = (torch.backends.cudnn, torch.backends.cuda.matmul)


@pytest.fixture
def _tf32() -> Iterator[None]:
    before = [switch.allow_tf32 for switch in SWITCHES]
    for switch in SWITCHES:
        switch.allow_tf32 = True
    yield
    for switch, value in zip(SWITCHES, before, strict=True):
        switch.allow_tf32 = value


@pytest.mark.usefixtures("_tf32")
@pytest.mark.parametrize(
    ("name", "gpu", "expected"), [("auto", False, "cpu"), ("cpu", True, "cpu"), ("auto", True, "cuda")]
)
def test_float32_is_float32_on_a_gpu(name: str, gpu: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pretended one. TF32 reads ten bits of a float32's mantissa, and cuDNN's convolutions do so by default."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: None)
    assert device_of(name).type == expected
    assert [switch.allow_tf32 for switch in SWITCHES] == [expected == "cpu"] * 2
