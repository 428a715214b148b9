"""Which device a name means."""

from __future__ import annotations

import torch

from polydistill.errors import UserError


def device_of(name: str) -> torch.device:
    """``auto`` is the GPU when there is one.

    Raises:
        UserError: a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: not available here ({str(error).splitlines()[0]})") from None
    return device
