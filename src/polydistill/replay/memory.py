"""The distillation memory of one task: what was seen, and what the teacher said about it, asked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polydistill.errors import UserError
from polydistill.replay import samplers
from polydistill.replay.experiences import Experiences
from polydistill.replay.samplers.base import Draw, Sampler
from polydistill.replay.stacks import Stacks
from polydistill.replay.state import State, require_batch

#: Above this float32 cannot tell Q-values one apart: no teacher, but a run that diverged.
LARGEST_VALUE = float(2**24)


@dataclass(frozen=True)
class Batch:
    """Experiences gathered.

    Attributes:
        obs: [B, *obs_shape], exactly what the environment gave.
        teacher: float32 [B, A] on the suite's action axis; 0 where the task has no such action.
        value: float32 [B], max_a Q_teacher(s, a).
        features: [B, F] as they were stored; None in a memory without features.
    """

    obs: np.ndarray
    teacher: np.ndarray
    value: np.ndarray
    features: np.ndarray | None = None


class Memory:
    """Experiences (observation, teacher outputs, value) of one task.

    Args:
        stacks: Where observations are stored.
        sampler: What is drawn and what leaves; it has at least ``capacity + stacks.streams`` slots.
        actions: Axis indices of the task's actions, in the order of the teacher's outputs.
        axis: Length ``A`` of the suite's action axis.
        budget_bytes: Experiences leave when more bytes than this are held; None: no limit but the capacity.
        features: Shape and dtype of one experience's features, where a student's frozen layers need not read the same
            observation twice; ``gather`` then leaves observations alone.

    Raises:
        UserError: the budget cannot hold even the empty index.
    """

    def __init__(
        self,
        stacks: Stacks,
        sampler: Sampler,
        actions: Sequence[int],
        axis: int,
        budget_bytes: int | None = None,
        features: tuple[int, np.typing.DTypeLike] | None = None,
    ) -> None:
        self.stacks, self.sampler, self.axis = stacks, sampler, axis
        self._actions = np.array(actions, np.int64)
        columns: dict[str, tuple[np.typing.DTypeLike, tuple[int, ...]]] = {
            "teacher": (np.float32, (len(actions),)),
            "value": (np.float32, ()),
        }
        if features is not None:
            columns["features"] = (features[1], (features[0],))
        self._table = Experiences(stacks, sampler, stacks.stack, columns, budget_bytes)

    def __len__(self) -> int:
        return len(self.sampler)

    @property
    def capacity(self) -> int:
        """Experiences kept at most."""
        return self.sampler.capacity

    @property
    def keeps_features(self) -> bool:
        """Whether features are stored, and given back in place of observations."""
        return "features" in self._table.columns

    @property
    def nbytes(self) -> int:
        """Bytes held, everything included."""
        return self._table.nbytes

    def append(
        self,
        obs: np.ndarray,
        teacher: np.ndarray,
        value: np.ndarray | None = None,
        start: np.ndarray | None = None,
        priority: np.ndarray | None = None,
        features: np.ndarray | None = None,
    ) -> np.ndarray:
        """Store one experience of each environment.

        Args:
            obs: [N, *obs_shape], N = the number of streams.
            teacher: float32 [N, n_actions], the task's own actions only.
            value: float32 [N]; None: the largest teacher output.
            start: bool [N], true for the first observation of an episode (see :meth:`Stacks.write`).
            priority: float [N], the first priority; None leaves it to the sampler.
            features: [N, F], for a memory that keeps them.

        Returns:
            Their slots, int64 [N].

        Raises:
            UserError: a wrong shape, or a teacher output, value or priority that is no sane number. Nothing is stored.
        """
        n = self.stacks.streams
        require_batch(obs, self.stacks.frames.dtype, (n, *self.stacks.obs_shape), "observation batch")
        require_batch(teacher, np.dtype(np.float32), (n, len(self._actions)), "teacher outputs")
        _require_sane(teacher, "teacher output")
        value = teacher.max(1) if value is None else value
        _require_sane(value, "value of a state")
        if priority is not None:
            _require_priority(priority)
        columns = {"teacher": teacher, "value": value} | ({} if features is None else {"features": features})
        return self._table.put(self.stacks.write(obs, start), columns, value, priority)

    def gather(self, slots: np.ndarray, out: np.ndarray | None = None) -> Batch:
        """Experiences of filled slots.

        Args:
            slots: int64 [B].
            out: contiguous [B, *obs_shape] to write the observations into; [B, F] for the features of a memory that
                keeps them, whose ``Batch.obs`` is empty.
        """
        teacher = np.zeros((len(slots), self.axis), np.float32)
        teacher[:, self._actions] = self._table.columns["teacher"].take(slots, axis=0)
        value = self._table.columns["value"].take(slots)
        if self.keeps_features:
            kept = self._table.columns["features"].take(slots, axis=0, out=out)
            return Batch(self.stacks.read(self._table.ids[:0]), teacher, value, kept)
        return Batch(self._table.observations(slots, out=out), teacher, value)

    def sample(self, rng: np.random.Generator, n: int, out: np.ndarray | None = None) -> tuple[Draw, Batch]:
        """Draw ``n`` experiences and gather them. Raises UserError when nothing is stored."""
        draw = self.sampler.draw(rng, n)
        return draw, self.gather(draw.slots, out)

    def update(self, slots: np.ndarray, priority: np.ndarray) -> None:
        """New priorities [n] for slots drawn since the last ``append``.

        Raises:
            UserError: NaN, infinite or negative; nothing is changed.
        """
        _require_priority(priority)
        self.sampler.update(slots, priority)

    def state(self) -> State:
        """Everything, as raw arrays: the same appends and draws after ``load_state`` give the same results."""
        return self._table.state()

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace what is here by a saved state. Raises UserError where it does not fit."""
        self._table.load_state(state)

    def check(self) -> None:
        """Raise AssertionError if an invariant broke. Slow."""
        self._table.check()


def make_memory(
    capacity: int,
    stacks: Stacks,
    actions: Sequence[int],
    axis: int,
    sampler: str = "uniform",
    budget_bytes: int | None = None,
    features: tuple[int, np.typing.DTypeLike] | None = None,
    **settings: Any,
) -> Memory:
    """A memory of ``capacity`` experiences with a sampler by name; ``settings`` are the sampler's.

    Raises:
        UserError: unknown sampler or setting, or a capacity that cannot hold one step of every environment.
    """
    if capacity < stacks.streams:
        raise UserError(
            f"a memory of {capacity:,} experiences cannot hold one step of {stacks.streams} environments: "
            "give a larger capacity or fewer environments"
        )
    chosen = samplers.make(sampler, capacity, capacity + stacks.streams, **settings)
    return Memory(stacks, chosen, actions, axis, budget_bytes, features)


def _require_sane(values: np.ndarray, what: str) -> None:
    sane = np.abs(values) <= LARGEST_VALUE  # false for NaN
    if not sane.all():
        bad = values[~sane]
        raise UserError(f"{what} {bad.flat[0]} refused: {bad.size} of {values.size} are NaN, infinite or above 2^24")


def _require_priority(priority: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        stored = np.asarray(priority).astype(np.float32)  # as it will be: a larger number becomes infinite
    if not (np.isfinite(stored) & (stored >= 0)).all():
        raise UserError("a priority is NaN, infinite or negative: nothing was changed")
