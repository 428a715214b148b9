"""Samplers by name: a file here that defines ``make`` is one; so is an entry point of ``polydistill.samplers``."""

from __future__ import annotations

import inspect
from typing import Any

from polydistill import plugins
from polydistill.errors import UserError
from polydistill.replay.samplers.base import Draw, Sampler

__all__ = ["Draw", "Sampler", "make", "names", "nbytes", "takes"]

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


def nbytes(name: str, capacity: int, slots: int, **settings: Any) -> int:
    """Bytes that a sampler's arrays will take, without making them: those of its index, not those of what it indexes.

    A sampler that says nothing about its size is measured on a thousand experiences.

    Raises:
        UserError: unknown name or setting.
    """
    build = plugins.factory(__name__, GROUP, name, "sampler")
    plugins.check_options(build, settings, ("capacity", "slots"), f"sampler {name!r}")
    size = getattr(inspect.getmodule(build), "nbytes", None)
    if size is not None:
        parameters = inspect.signature(build).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        return int(size(capacity=capacity, slots=slots, **{**defaults, **settings}))
    few = 1_000 + slots - capacity
    small: Sampler = build(capacity=1_000, slots=few, **settings)
    return -(-small.nbytes * slots // few)


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
