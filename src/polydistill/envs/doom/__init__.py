"""First-person tasks in ViZDoom: ``doom:mazes-1`` to ``-8``, ``doom:nav-1`` to ``-4``, ``doom:tag-1`` to ``-8``.

They stand in for the DeepMind Lab suites of Teh et al. 2017 (Distral). Engine and data come from pip (ViZDoom: MIT and
ZDoom's own licences; its Freedoom data: BSD); the levels are generated here.
"""

from __future__ import annotations

import difflib

from polydistill.envs.base import EnvOptions
from polydistill.envs.doom.actions import ACTIONS
from polydistill.envs.doom.game import SIDE, vizdoom
from polydistill.envs.doom.levels import SPECS
from polydistill.envs.doom.vec import DoomVec
from polydistill.errors import UserError
from polydistill.tasks import Task


def resolve(name: str, profile: str) -> Task:
    """The task of ``doom:mazes-1``; ``profile`` concerns Atari alone.

    Raises:
        UserError: no such task (the nearest name is suggested), or ViZDoom is missing.
    """
    short = name.removeprefix("doom:").removeprefix("doom-")
    if short not in SPECS:
        near = difflib.get_close_matches(short, SPECS, n=1)
        known = "there are doom:mazes-1 to -8, doom:nav-1 to -4, doom:tag-1 to -8"
        raise UserError(f"unknown task {name!r}; " + (f"did you mean 'doom:{near[0]}'?" if near else known))
    vizdoom()
    return Task(
        name=f"doom:{short}",
        kind="doom",
        action_meanings=tuple(ACTIONS[SPECS[short].suite]),
        obs_shape=(3, SIDE, SIDE),
    )


def make(task: Task, num_envs: int, options: EnvOptions) -> DoomVec:
    """An environment for ``task``.

    Raises:
        UserError: sticky actions were asked for, or ViZDoom is missing.
    """
    if options.sticky:
        raise UserError(f"task {task.name!r} has no sticky actions: they exist for Atari games alone")
    return DoomVec(task, num_envs, threads=options.threads, max_frames=options.max_frames)
