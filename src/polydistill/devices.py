"""Which device a name means."""

from __future__ import annotations

import torch

from polydistill.errors import UserError


def device_of(name: str) -> torch.device:
    """``auto`` is the GPU when there is one. There float32 means float32: TF32 is switched off for the whole process.

    Raises:
        UserError: a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: not available here ({str(error).splitlines()[0]})") from None
    if device.type == "cuda":
        # cuDNN's convolutions read ten bits of a float32's mantissa by default: with tau = 0.01 that is another teacher
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    return device
