"""Samplers by name: a file here that defines ``make`` is one; so is an entry point of ``polydistill.samplers``."""

from __future__ import annotations

import inspect
from typing import Any

from polydistill import plugins
from polydistill.errors import UserError
from polydistill.replay.samplers.base import Draw, Sampler

__all__ = ["Draw", "Sampler", "make", "names", "takes"]

GROUP = "polydistill.samplers"


def names() -> list[str]:
    """Names a user may type, sorted."""
    return plugins.names(__name__, GROUP)


def takes(name: str, setting: str) -> bool:
    """Whether a sampler has a setting of this name.

    Raises:
        UserError: unknown sampler.
    """
    return setting in inspect.signature(plugins.factory(__name__, GROUP, name, "sampler")).parameters


def make(name: str, capacity: int, slots: int, **settings: Any) -> Sampler:
    """Build a sampler for ``capacity`` experiences in ``slots`` slots.

    Raises:
        UserError: unknown name or setting, or a capacity below 1.
    """
    build = plugins.factory(__name__, GROUP, name, "sampler")
    plugins.check_options(build, settings, ("capacity", "slots"), f"sampler {name!r}")
    if capacity < 1:
        raise UserError(f"a memory of {capacity} experiences holds nothing: give a larger --memory")
    sampler: Sampler = build(capacity=capacity, slots=slots, **settings)
    return sampler
