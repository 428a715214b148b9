"""Training that begins with a teacher's weights: where they come from, and what that teacher took before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from polydistill.errors import UserError
from polydistill.nets.store import load_weights
from polydistill.tasks import Task
from polydistill.teachers.zoo import CARD, WEIGHTS, load_teacher
from polydistill.training import checkpoint

CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Taken:
    """What was spent on weights before a training began with them."""

    control_steps: int = 0
    updates: int = 0
    hours: float = 0.0


@dataclass(frozen=True)
class Beginning:
    """The teacher that a training goes on from.

    Attributes:
        folder: Where it is.
        taken: What it took, all its phases together.
        phases: Those on its card; the last one says with which commit and machine, for a new card says only its own.
        here: It stands in the folder of the training itself, whose ``--steps`` then count all of its steps.
    """

    folder: Path
    taken: Taken
    phases: list[dict[str, Any]]
    here: bool


def find_source(out: Path, start: Path | None, resume: bool) -> Path | None:
    """The teacher whose weights a training in ``out`` begins, or began, with; None for fresh weights.

    On a resume that is a finished teacher without a checkpoint in ``out`` itself, as those that are shipped; or what
    the run's own ``run.json`` says.

    Args:
        start: What the user names.
    """
    if start is not None or not resume:
        return start
    if (out / CARD).is_file() and not checkpoint.held(out / CHECKPOINT):
        return out
    try:
        noted = json.loads((out / "run.json").read_text()).get("started_from")
    except (OSError, ValueError, AttributeError):
        return None
    return Path(noted) if isinstance(noted, str) else None


def start_from(net: nn.Module, task: Task, folder: Path, here: bool = False) -> Beginning:
    """Give a fresh network the weights of a teacher.

    Args:
        here: See :class:`Beginning`.

    Raises:
        UserError: a teacher of another task, with other pixels, or of another network; or its card is damaged.
    """
    teacher = load_teacher(folder)
    theirs = teacher.task
    if theirs.name != task.name:
        raise UserError(f"--start-from {folder}: a teacher of {theirs.name}, not of {task.name}")
    if theirs != task:
        raise UserError(
            f"--start-from {folder}: a teacher of {task.name} that sees pixels of the profile {theirs.obs_profile}, "
            f"not {task.obs_profile} as this recipe: add --set profile={theirs.obs_profile}"
        )
    load_weights(net, folder / WEIGHTS)
    card = teacher.card
    try:
        phases = [dict(phase) for phase in card.get("phases") or [{"from_control_steps": 0}]]
        if "trained_with" in card:
            phases[-1].setdefault("trained_with", card["trained_with"])
        taken = Taken(int(card.get("control_steps", 0)), int(card.get("updates", 0)), float(card.get("hours", 0)))
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / CARD}: damaged ({error}); copy the teacher again") from None
    return Beginning(folder, taken, phases, here)
