"""Samplers by name: a file here that defines ``make`` is one; so is an entry point of ``polydistill.samplers``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from polydistill import plugins
from polydistill.errors import UserError
from polydistill.replay import sizing
from polydistill.replay.samplers.base import Draw, Sampler
from polydistill.replay.slots import whole

__all__ = ["Draw", "Sampler", "make", "names", "nbytes", "takes"]

GROUP = "polydistill.samplers"

#: What ``make`` gets from whoever makes a memory, and no user sets.
RESERVED = ("capacity", "slots")

_MOST_SLOTS = 2**31 - 1  # slot numbers are kept in 32 bits


def names() -> list[str]:
    """Names a user may type, sorted."""
    return plugins.names(__name__, GROUP)


def takes(name: str, setting: str) -> bool:
    """Whether a sampler has a setting of this name.

    Raises:
        UserError: unknown sampler.
    """
    return setting in inspect.signature(plugins.factory(__name__, GROUP, name, "sampler")).parameters


def _factory(name: str, settings: Mapping[str, Any]) -> Any:
    """The ``make`` behind a name. Raises UserError for an unknown name or setting."""
    build = plugins.factory(__name__, GROUP, name, "sampler")
    for key in RESERVED:
        if key in settings:
            raise UserError(
                f"sampler {name!r} has no setting {key!r}: that is the memory's (memory.capacity in a recipe)"
            )
    plugins.check_options(build, settings, RESERVED, f"sampler {name!r}")
    return build


def nbytes(name: str, capacity: int, slots: int, /, **settings: Any) -> int:
    """Bytes that a sampler's arrays will take, without making them: those of its index, not those of what it indexes.

    A sampler that says nothing about its size is measured on a thousand experiences.

    Raises:
        UserError: unknown name or setting.
    """
    build = _factory(name, settings)
    size = getattr(inspect.getmodule(build), "nbytes", None)
    if size is not None:
        parameters = inspect.signature(build).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        return int(size(capacity=capacity, slots=slots, **{**defaults, **settings}))
    few = 1_000 + slots - capacity
    small: Sampler = build(capacity=1_000, slots=few, **settings)
    return -(-small.nbytes * slots // few)


def make(name: str, capacity: int, slots: int, /, **settings: Any) -> Sampler:
    """Build a sampler for ``capacity`` experiences in ``slots`` slots.

    Raises:
        UserError: unknown name or setting, a capacity below 1, fewer slots than that, or more than this machine holds.
    """
    build = _factory(name, settings)
    capacity, slots = whole(capacity, "a capacity"), whole(slots, "a number of slots")
    if capacity < 1:
        raise UserError(f"a memory of {capacity} experiences holds nothing: give a larger --memory")
    if slots < capacity:
        raise UserError(f"{slots:,} slots do not hold {capacity:,} experiences: give the capacity and one batch more")
    need = nbytes(name, capacity, slots, **settings)
    given = "".join(f", {key} {value}" for key, value in settings.items())
    what = f"the arrays of sampler {name!r} (capacity {capacity:,}{given})"
    sizing.require_memory(need, what, "smaller numbers")
    if slots > _MOST_SLOTS:
        raise UserError(f"{slots:,} slots are too many: their numbers have 31 bits; give a smaller capacity")
    try:
        sampler: Sampler = build(capacity=capacity, slots=slots, **settings)
    except MemoryError:  # what it takes while it is built
        raise UserError(f"{what} found no memory, {sizing.human(need)} and more: give smaller numbers") from None
    return sampler
