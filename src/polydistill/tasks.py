"""Tasks, suites and the action axis they share."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np

from polydistill.errors import UserError
from polydistill.plugins import nearest

#: The ALE's actions in the order of their codes: index == code.
ATARI_AXIS: tuple[str, ...] = (
    "NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPLEFT", "DOWNRIGHT", "DOWNLEFT",
    "UPFIRE", "RIGHTFIRE", "LEFTFIRE", "DOWNFIRE", "UPRIGHTFIRE", "UPLEFTFIRE", "DOWNRIGHTFIRE", "DOWNLEFTFIRE",
)  # fmt: skip

#: Fields that are lists -> what of.
_ITEMS: dict[str, type] = {"action_meanings": str, "obs_shape": int, "action_low": float, "action_high": float}


@dataclass(frozen=True)
class Task:
    """One thing to play, described without opening it.

    Attributes:
        name: What the user types, e.g. ``pong`` (a ROM id), ``gym:CartPole-v1`` or ``catch``.
        kind: Which environment adapter opens it: ``atari``, ``gymnasium``, ``catch``, or a plug-in's name.
        action_meanings: The task's own actions, in the order of a teacher's outputs; no two alike. Of a task whose
            actions are numbers, what each number means.
        obs_shape: Shape of one observation, frame stack included (Atari: ``(4, 84, 84)``).
        obs_dtype: NumPy name of the observation's dtype.
        obs_profile: How pixels were made: ``ale`` (grey, then maximum of two frames), ``nature`` (maximum on
            RGB, then grey), ``raw`` for anything that is not an Atari screen.
        stack: Number of frames along the first axis of an observation; 1 where there is no stack.
        action_low, action_high: Bounds of each number of a continuous action; empty where actions are discrete.

    Raises:
        ValueError: no name, no action, two actions with one meaning, an unknown dtype, a stack that is not the
            first axis, or bounds that are not finite, not in order or not one pair per number.
    """

    name: str
    kind: str
    action_meanings: tuple[str, ...]
    obs_shape: tuple[int, ...]
    obs_dtype: str = "uint8"
    obs_profile: str = "raw"
    stack: int = 1
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a task needs a name")
        if not self.action_meanings or len(set(self.action_meanings)) < len(self.action_meanings):
            raise ValueError(f"{self.name}: actions need meanings, no two alike; found {self.action_meanings}")
        if any(n < 1 for n in self.obs_shape):
            raise ValueError(f"{self.name}: an observation of shape {self.obs_shape} is empty")
        if self.stack < 1 or (self.stack > 1 and self.obs_shape[:1] != (self.stack,)):
            raise ValueError(f"{self.name}: a stack of {self.stack} is not the first axis of {self.obs_shape}")
        low, high = self.action_low, self.action_high
        if self.continuous and not (len(low) == len(high) == len(self.action_meanings)):
            raise ValueError(f"{self.name}: bounds {low} to {high} are not one pair for each of {self.action_meanings}")
        if not all(math.isfinite(b - a) and a < b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"{self.name}: actions need finite bounds, low < high; found {low} to {high}")
        try:
            np.dtype(self.obs_dtype)
        except TypeError:
            raise ValueError(f"{self.name}: unknown dtype {self.obs_dtype!r}") from None

    @property
    def continuous(self) -> bool:
        """Whether an action is a point of the box from ``action_low`` to ``action_high``."""
        return bool(self.action_low or self.action_high)

    @property
    def n_actions(self) -> int:
        """How many actions there are to choose from.

        Raises:
            UserError: there is no end of them, the task is continuous.
        """
        self.require_discrete()
        return len(self.action_meanings)

    def require_discrete(self) -> None:
        """Refuse a continuous task.

        Raises:
            UserError: it is one.
        """
        if self.continuous:
            raise UserError(
                f"{self.name!r} has continuous actions, from {list(self.action_low)} to {list(self.action_high)}: only "
                "polydistill distral learns those, everything else needs discrete ones"
            )

    def batch(self, observation: np.ndarray) -> tuple[np.ndarray, bool]:
        """One observation ``[*obs_shape]`` or several ``[B, *obs_shape]`` as a batch, and whether it was one.

        The batch has the task's dtype and is contiguous and writable, as torch wants it.

        Raises:
            UserError: another shape, or another kind of number.
        """
        given, dtype = np.asarray(observation), np.dtype(self.obs_dtype)
        single = given.shape == self.obs_shape
        if not single and given.shape[1:] != self.obs_shape:
            inner = ", ".join(map(str, self.obs_shape))
            raise UserError(f"{self.name}: expected observations {self.obs_shape} or (B, {inner}), found {given.shape}")
        if not np.can_cast(given.dtype, dtype, "same_kind"):
            raise UserError(f"{self.name}: expected {dtype} observations, found {given.dtype}")
        return np.require(given[None] if single else given, dtype, ["C", "W"]), single

    def to_dict(self) -> dict[str, Any]:
        """The task as JSON values, without bounds where it has none; :meth:`from_dict` undoes it."""
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        return {key: v for key, v in values.items() if v or key not in ("action_low", "action_high")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "task") -> Self:
        """The task written by :meth:`to_dict` and read back from ``where`` (a file's name, for the message).

        Raises:
            UserError: an unknown key (the nearest one is suggested), a missing key, or a value of the wrong type.
        """
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}"
                raise UserError(f"{where}: unknown key {key!r}{hint}")
        missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in values]
        if missing:
            raise UserError(f"{where}: {missing[0]!r} is missing")
        read: dict[str, Any] = {}
        for key, value in values.items():
            item = _ITEMS.get(key)
            single = int if key == "stack" else str
            if item is not None:
                good = isinstance(value, list | tuple) and all(type(v) is item for v in value)
            else:
                good = type(value) is single
            if not good:
                wanted = f"a list of {item.__name__}" if item is not None else single.__name__
                raise UserError(f"{where}: {key} must be {wanted}; found {value!r}")
            read[key] = tuple(value) if item is not None else value
        try:
            return cls(**read)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None


def place_of(task: str | None, tasks: Sequence[Task], where: object) -> int:
    """Position of the task a user means; None means the only one. ``where``: what plays them, for the message.

    Raises:
        UserError: no task has that name, or None was given and there are several.
    """
    names = [t.name for t in tasks]
    if task is None and len(names) > 1:
        raise UserError(f"{where} plays {', '.join(names)}: say which with task=")
    if task is not None and task not in names:
        raise UserError(f"{where} does not play {task!r}: {nearest(task, names)}")
    return 0 if task is None else names.index(task)


@dataclass(frozen=True)
class Suite:
    """Tasks that one student plays, with one action axis made of action *meanings*.

    The axis is the 18 ALE actions when every task is an Atari game; otherwise the tasks' meanings, each once,
    in order of first appearance. Kinds may be mixed. Observations may differ in shape and dtype from task to task: a
    network then keeps one encoder per shape, and only from the features on is a minibatch a rectangle.

    Raises:
        UserError: there is no task, two tasks have one name, or one has continuous actions.
    """

    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        if not self.tasks:
            raise UserError("a suite needs at least one task: name one with --tasks or --teachers")
        names = [t.name for t in self.tasks]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise UserError(f"task {twice[0]!r} is named twice: each task has one teacher and one memory")
        for task in self.tasks:
            task.require_discrete()

    @cached_property
    def axis(self) -> tuple[str, ...]:
        """Action meanings of the shared axis, length ``A``."""
        if all(t.kind == "atari" for t in self.tasks):
            return ATARI_AXIS
        return tuple(dict.fromkeys(m for t in self.tasks for m in t.action_meanings))

    @cached_property
    def actions(self) -> tuple[tuple[int, ...], ...]:
        """Per task: the axis index of each of its own actions."""
        where = {m: i for i, m in enumerate(self.axis)}
        return tuple(tuple(where[m] for m in t.action_meanings) for t in self.tasks)

    @cached_property
    def valid(self) -> np.ndarray:
        """Bool ``[G, A]``, read-only: which actions of the axis each task has."""
        mask = self._own >= 0
        mask.flags.writeable = False
        return mask

    @cached_property
    def _own(self) -> np.ndarray:
        """int64 ``[G, A]``: a task's own index of each axis action, -1 where it has none."""
        table = np.full((len(self.tasks), len(self.axis)), -1, dtype=np.int64)
        for row, axis_indices in zip(table, self.actions, strict=True):
            row[list(axis_indices)] = np.arange(len(axis_indices))
        return table

    def to_own(self, g: int, axis_actions: np.ndarray) -> np.ndarray:
        """Axis indices, any shape, as task ``g``'s own indices (int64, same shape): what its environment takes.

        Raises:
            ValueError: an index outside the axis, or an action that the task does not have.
        """
        chosen = np.asarray(axis_actions)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self.axis)):
            raise ValueError(f"axis indices run from 0 to {len(self.axis) - 1}, found {chosen.min()} to {chosen.max()}")
        own: np.ndarray = self._own[g][chosen]
        if (own < 0).any():
            meaning = self.axis[int(chosen[own < 0].flat[0])]
            raise ValueError(f"task {self.tasks[g].name!r} has no action {meaning!r}")
        return own

    def to_axis(self, g: int, own_actions: np.ndarray) -> np.ndarray:
        """Task ``g``'s own indices, any shape, as axis indices (int64, same shape).

        Raises:
            ValueError: an index that the task does not have.
        """
        chosen = np.asarray(own_actions)
        n = self.tasks[g].n_actions
        if chosen.size and (chosen.min() < 0 or chosen.max() >= n):
            name = self.tasks[g].name
            raise ValueError(f"task {name!r}: actions run from 0 to {n - 1}, found {chosen.min()} to {chosen.max()}")
        return np.asarray(self.actions[g], dtype=np.int64)[chosen]

    def scatter(self, g: int, values: np.ndarray, fill: float) -> np.ndarray:
        """Values of task ``g``'s own actions ``[..., n_g]`` laid out on the axis ``[..., A]``, ``fill`` elsewhere.

        Raises:
            ValueError: the last axis is not the task's number of actions.
        """
        task = self.tasks[g]
        if values.shape[-1:] != (task.n_actions,):
            raise ValueError(f"task {task.name!r} has {task.n_actions} actions, found values of shape {values.shape}")
        out = np.full((*values.shape[:-1], len(self.axis)), fill, dtype=values.dtype)
        out[..., list(self.actions[g])] = values
        return out

    def index(self, name: str) -> int:
        """Position of the task called ``name``.

        Raises:
            UserError: no task has that name.
        """
        for i, task in enumerate(self.tasks):
            if task.name == name:
                return i
        raise UserError(f"no task {name!r} in this suite; it has {', '.join(t.name for t in self.tasks)}")

    def __len__(self) -> int:
        return len(self.tasks)
