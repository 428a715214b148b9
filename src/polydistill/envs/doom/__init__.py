"""First-person tasks: ``doom:mazes-1`` to ``-8``, ``small-1`` to ``-4``, ``nav-1`` to ``-4``, ``tag-1`` to ``-8``.

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

#: Names of whole suites, ``doom:mazes``, -> their tasks.
SUITES: dict[str, tuple[str, ...]] = {}
for _name in SPECS:
    _suite = f"doom:{_name.rpartition('-')[0]}"
    SUITES[_suite] = (*SUITES.get(_suite, ()), f"doom:{_name}")


def resolve(name: str, profile: str) -> Task:
    """The task of ``doom:mazes-1``; ``profile`` concerns Atari alone.

    Raises:
        UserError: no such task (the nearest name is suggested), or ViZDoom is missing.
    """
    short = name.removeprefix("doom:").removeprefix("doom-")
    if short not in SPECS:
        known = "there are " + ", ".join(f"{suite}-1 to -{len(tasks)}" for suite, tasks in SUITES.items())
        if f"doom:{short}" in SUITES:
            raise UserError(f"{name!r} is a whole suite, and one task is wanted here: {known}")
        near = difflib.get_close_matches(short, SPECS, n=1)
        raise UserError(f"unknown task {name!r}; {known}" + (f"; did you mean 'doom:{near[0]}'?" if near else ""))
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
