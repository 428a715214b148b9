"""Names of sizes: the compressed students of Rusu et al. (2016, App. B, Table A1) and Actor-Mimic's large network."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from polydistill import nets
from polydistill.errors import UserError
from polydistill.nets.student import Student
from polydistill.plugins import nearest
from polydistill.tasks import Suite

#: The network whose options :data:`SIZES` are.
KIND = "mimic"

#: A name that a user types -> options of the network ``mimic``. With one Atari game and its 18 outputs they have
#: 427,874, 113,346 and 61,954 parameters: 25 %, 7 % and 4 % of the DQN. ``amn-large`` is what Parisotto et al. (2016,
#: App. D) train on 13 games and transfer: 35,216,146 parameters.
SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "net1": {"channels": [16, 32, 32], "hidden": 256},
        "net2": {"channels": [16, 16, 16], "hidden": 128},
        "net3": {"channels": [16, 16, 16], "hidden": 64},
        "amn-large": {"channels": [256, 512, 512, 512], "hidden": [2048, 1024]},
    }
)


def resolve_student(name: str, options: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """The network behind a size's name or behind a network's own name, and its options.

    Args:
        options: Go on top of the size's.

    Raises:
        UserError: neither a size nor a network; the nearest name is suggested.
    """
    if name in SIZES:
        return KIND, {**SIZES[name], **(options or {})}
    known = nets.names()
    if name not in known:
        raise UserError(f"unknown student {name!r}: {nearest(name, [*SIZES, *known])}")
    return name, dict(options or {})


def make_named(
    name: str,
    suite: Suite,
    options: Mapping[str, Any] | None = None,
    *,
    bf16: bool = False,
    torsos: Any = None,
    where: str = "student options",
) -> tuple[str, Student]:
    """Build the student a user names; returns its network's name (what ``save_student`` wants) and the student.

    Args:
        options: Go on top of the size's.
        bf16, torsos: As in :func:`polydistill.nets.make`.
        where: What the options are called where they were written.

    Raises:
        UserError: unknown name or option, or options that make no network.
    """
    kind, chosen = resolve_student(name, options)
    wrong = _not_a_size(kind, chosen)
    if wrong is not None:
        reason = f"{wrong} is {chosen[wrong]!r}, and sizes are whole numbers above 0"
        raise UserError(f"{where} {chosen} do not make a {kind}: {reason}")
    try:
        return kind, nets.make(kind, suite, bf16=bf16, torsos=torsos, **chosen)
    except (TypeError, ValueError, IndexError, RuntimeError, MemoryError) as error:
        raise UserError(f"{where} {chosen} do not make a {kind}: {_reason(kind, error)}") from error


def _not_a_size(kind: str, options: Mapping[str, Any]) -> str | None:
    """The first option that has to be a size and is none. Of the networks that come with this package: elsewhere a
    zero may mean something."""
    if not nets.ships(kind):
        return None
    sizes = [key for key, default in nets.settings(kind).items() if _is_size(default)]
    return next((key for key in sizes if key in options and not _is_size(options[key])), None)


def _is_size(value: object) -> bool:
    """A whole number above 0, or some of them."""
    several = value if isinstance(value, list | tuple) else (value,)
    return len(several) > 0 and all(type(n) is int and n > 0 for n in several)


def _reason(kind: str, error: Exception) -> str:
    """What an exception says, if its words are a network's own; torch's and Python's mean nothing to a user."""
    if isinstance(error, ValueError):
        return f"{error!s:.200}"
    if isinstance(error, MemoryError) or "allocate" in str(error):
        return "this machine has not the memory for them"
    return "its own settings are " + ", ".join(f"{key} {default}" for key, default in nets.settings(kind).items())
