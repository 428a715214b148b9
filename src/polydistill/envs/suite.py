"""From the name a user types to a task, and from a task to an environment.

An adapter is a module (or any object) with two functions, :class:`Adapter`. The adapter ``x`` owns the names ``x``,
``x:...`` and ``x-...``; what no adapter owns is an Atari game. A file ``envs/x.py`` is one; another package adds its
own through the entry-point group ``polydistill.envs``, where the entry point's name is ``x``.
"""

from __future__ import annotations

import difflib
import pkgutil
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

from polydistill.envs.base import MAX_FRAMES, EnvOptions, VecEnv
from polydistill.errors import UserError
from polydistill.tasks import Task

ENTRY_POINT_GROUP = "polydistill.envs"

_ALIASES = {"gym": "gymnasium"}


class Adapter(Protocol):
    """One kind of environment. It may also have ``SUITES``, names of whole suites -> names of their tasks."""

    def resolve(self, name: str, profile: str) -> Task:
        """The task called ``name``, its ``kind`` the adapter's name. UserError if there is none."""

    def make(self, task: Task, num_envs: int, options: EnvOptions) -> VecEnv:
        """``num_envs`` copies of ``task``. UserError for an option that would silently not be obeyed."""


@lru_cache(maxsize=1)
def _built_in() -> frozenset[str]:
    package = import_module("polydistill.envs")
    return frozenset(module.name for module in pkgutil.iter_modules(package.__path__)) - {"base", "suite"}


def _plug_ins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _adapter(kind: str) -> Adapter:
    module: Any
    if kind in _built_in():
        module = import_module(f"polydistill.envs.{kind}")
    else:
        plug_ins = _plug_ins()
        if kind not in plug_ins:
            known = ", ".join(sorted(_built_in() | set(plug_ins)))
            raise UserError(f"no environment adapter {kind!r}: is its package installed? There are {known}")
        module = _load(plug_ins[kind])
    adapter: Adapter = module
    return adapter


def _load(point: EntryPoint) -> Any:
    try:
        loaded = point.load()
    except Exception as error:  # whatever a stranger's module raises
        raise UserError(f"plug-in {point.name!r} ({point.value}) does not load: {error}") from error
    if not (callable(getattr(loaded, "resolve", None)) and callable(getattr(loaded, "make", None))):
        raise UserError(f"plug-in {point.name!r} ({point.value}) lacks resolve(name, profile) or make(task, ...)")
    return loaded


def resolve_task(name: str, *, profile: str = "ale", continuous: bool = False) -> Task:
    """The task that a user calls ``name``: ``pong``, ``catch``, ``gym:CartPole-v1``.

    Args:
        profile: Observation profile of Atari games, ``ale`` or ``nature``; other tasks have no such choice.
        continuous: Whether the caller knows what to do with continuous actions.

    Raises:
        UserError: no such task (the nearest name is suggested), its package is missing, or it has continuous actions
            and the caller wants discrete ones.
    """
    if (adapter := _owner(name)) is not None:
        task = adapter.resolve(name, profile)
        if not continuous:
            task.require_discrete()
        return task
    from polydistill.envs import atari
    from polydistill.envs.catch import VARIANTS

    others = [*VARIANTS, *_plug_ins()]
    if near := difflib.get_close_matches(name, others, n=1, cutoff=0.75):
        raise UserError(f"unknown task {name!r}; did you mean {near[0]!r}?")
    known = atari.games()
    if name in known:
        return atari.atari_task(name, profile)
    raise UserError(f"unknown task {name!r}{_hint(name, known, others)}")


def expand(names: Sequence[str]) -> list[str]:
    """Names of tasks, where ``doom:mazes`` stands for every task of that suite, in its order.

    Raises:
        UserError: no such adapter; names of tasks are not looked at.
    """
    found: list[str] = []
    for name in names:
        suites: Mapping[str, Sequence[str]] = getattr(_owner(name), "SUITES", {})
        found += suites.get(name, (name,))
    return found


def _owner(name: str) -> Adapter | None:
    """The adapter of a task's or a suite's name; None: it is an Atari game's, or wrong."""
    head = re.split("[:-]", name, maxsplit=1)[0]
    kind = _ALIASES.get(head, head)
    return _adapter(kind) if kind in _built_in() or kind in _plug_ins() else None


def _hint(name: str, atari_games: tuple[str, ...], others: Sequence[str]) -> str:
    from polydistill.envs.atari import nearest_game
    from polydistill.envs.gymnasium import known_ids

    ids = known_ids()
    if name in ids:
        return f"; did you mean 'gym:{name}'?"
    if near := nearest_game(name, atari_games):
        return f"; did you mean {near!r}?"
    if close := difflib.get_close_matches(name, ids, n=1):
        return f"; did you mean 'gym:{close[0]}'?"
    return f"; name an Atari game such as 'space_invaders', {', '.join(others)}, or 'gym:<Gymnasium id>'"


def make_env(
    task: Task,
    num_envs: int,
    *,
    sticky: float = 0.0,
    threads: int = 0,
    noop_max: int = 30,
    max_frames: int = MAX_FRAMES,
) -> VecEnv:
    """``num_envs`` copies of ``task``; the settings are those of :class:`~polydistill.envs.base.EnvOptions`.

    Raises:
        UserError: a setting out of range, sticky actions for a task that has none, or a package is missing.
    """
    options = EnvOptions(sticky=sticky, threads=threads, noop_max=noop_max, max_frames=max_frames)
    return _adapter(task.kind).make(task, num_envs, options)
