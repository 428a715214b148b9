"""What the verbs have in common: how their flags look, and the command that was typed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg


def flag(metavar: str) -> Any:
    """A flag that may be left out: what happens then stands in its text, or the recipe says."""
    return arg(metavar=metavar, help_behavior_hint="")


Set = Annotated[tuple[str, ...], flag("KEY=VALUE ...")]
Text = Annotated[str | None, flag("NAME")]
Int = Annotated[int | None, flag("N")]
Float = Annotated[float | None, flag("X")]
File = Annotated[Path | None, flag("PATH")]
Switch = Annotated[bool, arg(help_behavior_hint="")]


def command() -> str:
    """What was typed, for the run's record."""
    return shlex.join(["polydistill", *sys.argv[1:]])


def kickstart(teacher: Path | None, weight: float | None, steps: int | None) -> dict[str, Any]:
    """The settings behind the flags of kickstarting; those that were not typed are left out."""
    typed = {"teacher": str(teacher) if teacher is not None else None, "weight": weight, "steps": steps}
    return {f"kickstart.{key}": value for key, value in typed.items() if value is not None}
