"""Networks by name: a file here that defines ``make``, or an entry point of group ``polydistill.nets``."""

from __future__ import annotations

import inspect
from typing import Any

from polydistill import plugins
from polydistill.nets.student import PolicyOutput, Student
from polydistill.tasks import Suite

__all__ = ["PolicyOutput", "Student", "make", "names", "settings", "ships"]

GROUP = "polydistill.nets"

#: What the project itself passes to a network.
OURS = ("self", "suite", "torsos", "bf16")


def names() -> list[str]:
    """Students a user may name."""
    return plugins.names(__name__, GROUP)


def settings(name: str) -> dict[str, Any]:
    """A network's own settings and their defaults.

    Raises:
        UserError: unknown name.
    """
    parameters = inspect.signature(_build(name)).parameters
    return {key: p.default for key, p in parameters.items() if key not in OURS}


def ships(name: str) -> bool:
    """Whether a network is one of this package.

    Raises:
        UserError: unknown name.
    """
    return str(_build(name).__module__).startswith(f"{__name__}.")


def make(name: str, suite: Suite, *, bf16: bool = False, torsos: Any = None, **options: Any) -> Student:
    """Build a student; ``torsos`` (one per task, or a function that makes them) go to a network that takes them.

    Raises:
        UserError: unknown name or option.
    """
    build = _build(name)
    plugins.check_options(build, options, OURS, f"student {name!r}")
    if "torsos" in inspect.signature(build).parameters:
        options = {**options, "torsos": torsos() if callable(torsos) else torsos}
    student: Student = build(suite, bf16=bf16, **options)
    return student


def _build(name: str) -> Any:
    return plugins.factory(__name__, GROUP, name, "student")
