"""Hierarchical prioritised replay, H-PR (Yin & Pan 2017): partitions by the teacher's value, ranks inside each.

A partition is drawn in proportion to the experiences it holds, so the states drawn are spread as the states collected;
in it, the r-th largest priority is drawn in proportion to r^-alpha (eq. 6). ``prob`` is the product (eq. 7), hence
``importance_weights(draw.prob, len(sampler), beta)`` is eq. 8. What the paper leaves open is a setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polydistill.errors import UserError
from polydistill.replay.arrivals import Arrivals
from polydistill.replay.hierarchical_settings import HierarchicalSettings
from polydistill.replay.partitions import Partitions, Telemetry, Window
from polydistill.replay.ranked_queues import RankedQueues
from polydistill.replay.samplers.base import Draw
from polydistill.replay.slots import as_numbers, as_slots, require_range, whole
from polydistill.replay.state import State, nest, require, unnest


class Hierarchical:
    """One rank-based queue per partition of the teacher's value.

    Args:
        capacity: Experiences kept at most, in all partitions together.
        slots: Slot numbers are 0 .. slots - 1.
        settings: Everything else.

    Raises:
        UserError: fewer experiences than partitions.
    """

    def __init__(self, capacity: int, slots: int, settings: HierarchicalSettings) -> None:
        p = settings.partitions
        if capacity < p:
            raise UserError(
                f"sampler hierarchical: a memory of {capacity:,} experiences cannot be shared by {p:,} partitions: "
                "give a larger memory.capacity (or --memory) or fewer partitions"
            )
        self.capacity, self.slots, self.settings = capacity, slots, settings
        self._arrivals = Arrivals(capacity, p) if settings.eviction == "oldest" else None
        self._queues = RankedQueues(
            p, settings.each(capacity), slots, settings.alpha, settings.insertion, settings.staleness
        )
        self._partitions = Partitions(p, *settings.value_range) if settings.value_range else None
        self._grows = settings.grows
        self._drops = p > 1 and settings.value_range is not None and settings.out_of_range == "drop"
        self._value = np.zeros(slots if self._grows else 0)  # of each slot, to find its partition when the range grows
        self._age = np.zeros(slots if self._grows else 0, np.int64)  # number of its arrival
        self._arrived = 0
        self._window = Window(p, settings.window) if settings.partition_counts == "window" else None
        self._telemetry = Telemetry(p)
        self._weigh()

    # ------------------------------------------------------------------ storing
    def put(self, slots: np.ndarray, value: np.ndarray, priority: np.ndarray | None = None) -> np.ndarray:
        """Take in free slots, each into the partition of its value.

        Returns:
            Slots evicted: the oldest of every partition that overflows, or of all; and, where values outside the range
            are dropped or let it grow, those that find no place.

        Raises:
            UserError: a value or priority that is no sane number. Nothing is changed.
        """
        slots = as_slots(slots)
        n = len(slots)
        value = as_numbers(value, n, "values").astype(np.float64, copy=False)
        outside = self._outside(value)
        first = self._queues.first(slots, priority)
        if not n:
            return np.zeros(0, np.int64)
        if self._arrivals is not None and n > self.capacity:
            parts = [slice(i, i + self.capacity) for i in range(0, n, self.capacity)]
            return np.concatenate([self.put(slots[part], value[part], first[part]) for part in parts])
        partitions, homeless = self._partitions, [np.zeros(0, np.int64)]
        if partitions is None or (outside is not None and self._grows):
            partitions, outside = self._grow(value, homeless), None
        elif outside is not None and self._drops:
            self._telemetry.drop(partitions.of(value[outside]))
            homeless.append(slots[outside])
            slots, value, first, outside = slots[~outside], value[~outside], first[~outside], None
        if self._grows:
            self._value[slots], self._age[slots] = value, self._arrived + np.arange(len(slots))
            self._arrived += len(slots)
        partition = partitions.of(value)
        if self._arrivals is not None:
            homeless += self._make_room(self._arrivals, partition)
        gone = self._queues.put(slots, partition, first)
        if self._window is not None:
            self._window.push(value, partitions)
        self._telemetry.put(partition, outside)
        if len(gone) < len(slots) or self._window is not None or len(homeless) > 1:
            self._weigh()
        return np.concatenate([*homeless, gone]) if len(homeless) > 1 else gone

    def _outside(self, value: np.ndarray) -> np.ndarray | None:
        """Which values, float64 [n], lie outside the range: bool [n] or None. Raises UserError for NaN and inf."""
        outside = None if self._partitions is None or not len(value) else self._partitions.outside(value)
        if (self._partitions is None or outside is not None) and not np.isfinite(value).all():
            raise UserError("the value of a state is NaN or infinite; nothing was changed")
        return outside

    def _make_room(self, arrivals: Arrivals, partition: np.ndarray) -> list[np.ndarray]:
        """Let the oldest of all leave, for experiences that go into these partitions, int64 [n]."""
        missing = len(arrivals) + len(partition) - self.capacity
        gone = [self._queues.take(arrivals.pop(missing))] if missing > 0 else []
        arrivals.push(partition)
        return gone

    def _grow(self, value: np.ndarray, homeless: list[np.ndarray]) -> Partitions:
        """Widen the range to hold these values, and move everything stored into its new partition."""
        old = self._partitions
        partitions = old.around(value) if old else Partitions(self.settings.partitions, value.min(), value.max())
        slots = self.filled()
        slots = slots[self._age[slots].argsort()]
        partition = partitions.of(self._value[slots])
        homeless.append(self._queues.rearrange(slots, partition))
        if self._arrivals is not None:
            self._arrivals.replace(partition)
        if self._window is not None:
            self._window.recount(partitions)
        self._partitions = partitions
        return partitions

    def drop(self, n: int) -> np.ndarray:
        """Evict ``n``: each time the oldest of the fullest partition, so that the rare ones keep what they have.

        With ``eviction: oldest`` the oldest of all.
        """
        n = whole(n)
        gone = self._queues.drop(n) if self._arrivals is None else self._queues.take(self._arrivals.pop(n))
        self._weigh()
        return gone

    def _weigh(self) -> None:
        counts = self._queues.count
        if self._window is not None:
            lately = np.where(counts > 0, self._window.count, 0)
            counts = lately if lately.any() else counts
        self._ends = counts.cumsum()
        self._share = counts / max(int(self._ends[-1]), 1)

    # ------------------------------------------------------------------ drawing
    def draw(self, rng: np.random.Generator, n: int) -> Draw:
        """Draw ``n`` slots with replacement. Raises UserError when nothing is stored."""
        if not len(self._queues):
            raise UserError("the memory is empty: collect before drawing")

        slots, prob, partition = self._queues.draw(rng, whole(n), self._share, self._choose)
        self._telemetry.draw(partition)
        return Draw(slots, prob)

    def _choose(self, rng: np.random.Generator, k: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        each = self.settings.draw_partition == "sample"
        if self.settings.partitions == 1:
            return np.zeros(k * n, np.int64), rng.random(k * n)
        which = self._ends.searchsorted(rng.random(k * n if each else k) * self._ends[-1], "right")
        return which if each else np.repeat(which, n), rng.random(k * n)

    def update(self, slots: np.ndarray, priority: np.ndarray) -> None:
        """New priorities. Raises UserError for bad priorities and for slots that are not stored; nothing is changed."""
        self._queues.update(slots, priority)

    # ------------------------------------------------------------------ telling
    def note_loss(self, slots: np.ndarray, loss: np.ndarray) -> None:
        """Losses, float [n], of slots drawn, for ``loss_share`` of the telemetry; it changes no draw.

        Raises:
            UserError: numbers that are no slots, or another number of losses.
        """
        slots = as_slots(slots)
        loss = as_numbers(loss, len(slots), "losses").astype(np.float64, copy=False)
        require_range(slots, self.slots)
        partition = self._queues.queue(slots)
        here = partition >= 0  # not evicted since
        self._telemetry.loss(partition[here], loss[here])

    def telemetry(self) -> dict[str, np.ndarray]:
        """Per partition; counters and rates are since the last call.

        Returns:
            ``edges`` float64 [p + 1]; ``fill`` (N_j), ``put``, ``draws``, ``dropped`` (not stored, being outside the
            range: by nearest partition) int64 [p]; ``probability`` (P_j), ``mean_priority``, ``outside_rate`` (share of
            what was put that lay outside the range: the clamp rate), ``loss_share`` float64 [p]. Takes about 10 ms for
            a million experiences.
        """
        p = self.settings.partitions
        return {
            "edges": np.zeros(p + 1) if self._partitions is None else self._partitions.edges.copy(),
            "fill": self._queues.count.copy(),
            "probability": self._share.copy(),
            "mean_priority": self._queues.mean_priority(),
            **self._telemetry.take(),
        }

    def filled(self) -> np.ndarray:
        """Filled slots, partition after partition, oldest first in each."""
        return self._queues.filled()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        window = 0 if self._window is None else self._window.nbytes
        arrivals = 0 if self._arrivals is None else self._arrivals.nbytes
        return self._queues.nbytes + self._value.nbytes + self._age.nbytes + window + arrivals

    def __len__(self) -> int:
        return len(self._queues)

    # ------------------------------------------------------------------ state
    def state(self) -> State:
        """Queues, priorities, range and window; not the telemetry."""
        low, high = (np.inf, -np.inf) if self._partitions is None else (self._partitions.low, self._partitions.high)
        own: State = {"range": np.array([low, high]), "value": self._value.copy(), "age": self._age.copy()}
        own["arrived"] = np.array(self._arrived, np.int64)
        window = {} if self._window is None else nest("window", self._window.state())
        arrivals = {} if self._arrivals is None else nest("arrivals", self._arrivals.state())
        return own | window | arrivals | nest("ranked", self._queues.state())

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace what is here by a saved state. Raises UserError where it does not fit or is damaged."""
        where = "sampler hierarchical"
        like = self.state()
        require(state, {name: like[name] for name in like if not name.startswith("ranked.")}, where)
        low, high = state["range"].tolist()
        mine = self._partitions
        if not self._grows and mine is not None and (low, high) != (mine.low, mine.high):
            raise UserError(
                f"{where}: the saved memory has the value range {low:g} to {high:g}, this one {mine.low:g} to "
                f"{mine.high:g}"
            )
        saved = Hierarchical(self.capacity, self.slots, self.settings)  # all of it is loaded, or nothing
        saved._queues.load_state(unnest("ranked", state), where)
        if saved._arrivals is not None:
            saved._arrivals.load_state(unnest("arrivals", state), where)
        finite = np.isfinite([low, high]).all() and low <= high
        saved._partitions = Partitions(self.settings.partitions, low, high) if finite else None
        saved._value, saved._age = state["value"].copy(), state["age"].copy()
        saved._arrived = int(state["arrived"])
        try:
            if saved._window is not None:
                saved._window.load_state(unnest("window", state), saved._partitions)
            saved._check_order()
        except AssertionError as broken:
            raise UserError(f"{where}: the saved state is damaged ({broken})") from None
        saved._weigh()
        saved._telemetry = self._telemetry
        vars(self).update(vars(saved))

    def check(self) -> None:
        """Raise AssertionError if an invariant broke."""
        self._queues.check()
        self._check_order()

    def _check_order(self) -> None:
        """That range, values, ages and the order of arrival belong to what is stored."""
        slots = self.filled()
        if self._partitions is None and len(slots):
            raise AssertionError("hierarchical: experiences without a range of values")
        if self._arrivals is not None and not np.array_equal(self._arrivals.count(), self._queues.count):
            raise AssertionError("hierarchical: the order of arrival counts other partitions")
        if self._grows and self._partitions is not None:
            age = self._age[slots]
            if len(np.unique(age)) < len(age) or not ((age >= 0) & (age < self._arrived)).all():
                raise AssertionError("hierarchical: two experiences of one age, or one of none")
            if not np.array_equal(self._partitions.of(self._value[slots]), self._queues.queue(slots)):
                raise AssertionError("hierarchical: a slot is in another partition than its value")


def nbytes(capacity: int, slots: int, **settings: Any) -> int:
    """Bytes that :func:`make` would hold. Raises UserError for a bad setting."""
    s = HierarchicalSettings.parse(settings, "sampler hierarchical")
    queues = RankedQueues.bytes_of(s.partitions, s.each(capacity), slots)
    arrivals = Arrivals.bytes_of(capacity) if s.eviction == "oldest" else 0
    window = Window.bytes_of(s.window) if s.partition_counts == "window" else 0
    return queues + arrivals + window + (2 * 8 * slots if s.grows else 0)  # a value and an age of each slot


def make(
    capacity: int,
    slots: int,
    partitions: int = 5,  # Yin & Pan 2017
    alpha: float = 0.7,  # not given; Schaul et al. 2016, table 3, rank-based
    value_range: Sequence[float] | None = None,
    out_of_range: str = "clamp",
    partition_counts: str = "memory",
    window: int = 100_000,
    insertion: str = "exact",
    staleness: float = 0.001,
    draw_partition: str = "sample",
    eviction: str = "partition",
) -> Hierarchical:
    """A :class:`Hierarchical`; :class:`HierarchicalSettings` explains the settings. Raises UserError for a bad one."""
    given = {
        "partitions": partitions,
        "alpha": alpha,
        "value_range": value_range,
        "out_of_range": out_of_range,
        "partition_counts": partition_counts,
        "window": window,
        "insertion": insertion,
        "staleness": staleness,
        "draw_partition": draw_partition,
        "eviction": eviction,
    }
    return Hierarchical(capacity, slots, HierarchicalSettings.parse(given, "sampler hierarchical"))
