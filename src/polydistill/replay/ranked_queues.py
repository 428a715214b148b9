"""Queues in which the oldest leaves and the r-th largest priority is drawn: what the rank-based samplers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from polydistill.errors import UserError
from polydistill.replay.priorities import Insertion, Priorities, sane_largest
from polydistill.replay.queues import Queues
from polydistill.replay.rank_law import RankLaw, rank_law
from polydistill.replay.ranking import Ranking
from polydistill.replay.slots import as_numbers, as_slots, require_free, require_stored
from polydistill.replay.state import State, nest, require, unnest

#: Minibatches drawn at once, a row each: slots int64 [k, n], their probabilities float64, and their queues int64.
Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]

#: (generator, k, n) -> of each slot of k minibatches of n: its queue, int64 [k * n], and a number uniform in [0, 1).
Choose = Callable[[np.random.Generator, int, int], tuple[np.ndarray, np.ndarray]]


class RankedQueues:
    """``queues`` first-in first-out queues; in each, the law ``rank ** -alpha`` over exact ranks.

    **Staleness.** The fixed cost of NumPy calls is most of the cost of a minibatch, so several minibatches are drawn at
    once: as many as hold ``staleness`` times the experiences stored, but no more than hold the likeliest experience
    once on average. Priorities and experiences that come meanwhile count from the next such draw on. Where that is less
    than two minibatches, each is drawn by itself and nothing is late. An evicted experience is never drawn, and
    ``prob`` is the probability with which a slot was in fact drawn.

    Measured (``make bench ONLY=samplers``) with 32 draws and 32 new priorities a minibatch: 19 minibatches at once in 5
    queues of 200,000 (6 in one queue of a million, 6 in 5 of 40,000); 0.9 % of the draws (0.5 %, 0.7 %) meet an
    experience whose priority changed since; the law of the last of them differs from the law of the moment by 1.8 % in
    total variation (0.9 %, 1.7 %).

    Args:
        queues: Number of queues.
        capacity: Of each queue.
        slots: Slot numbers are 0 .. slots - 1.
        alpha: Exponent of the law.
        insertion: What new experiences start with.
        staleness: See above; 0: nothing is ever late.

    Attributes:
        count: int64 [queues], slots in each; read only.
    """

    def __init__(
        self, queues: int, capacity: int, slots: int, alpha: float, insertion: Insertion, staleness: float
    ) -> None:
        self.capacity, self.slots, self.staleness = capacity, slots, staleness
        self._queues = Queues(queues, capacity)
        self._ranking = Ranking(slots, queues)
        self._priorities = Priorities(insertion)
        self._law = rank_law(capacity, alpha)
        self.count = self._queues.count
        self._ahead: Drawn = (np.zeros((0, 0), np.int64), np.zeros((0, 0)), np.zeros((0, 0), np.int64))
        self._next = 0  # the first of them that was not handed out
        self._watched = np.zeros(slots, bool)  # slots in them
        self._counted()

    def __len__(self) -> int:
        return self._stored

    # ------------------------------------------------------------------ storing
    def first(self, slots: np.ndarray, priority: np.ndarray | None) -> np.ndarray:
        """Check what ``put`` will be given and return the first priorities, float32 [n]. Nothing is changed.

        Raises:
            UserError: a bad priority, or a slot that is no slot, is not free or comes twice.
        """
        n = len(slots)
        require_free(slots, self._stored, self.slots, self._ranking.is_stored)
        return self._priorities.first(n, None if priority is None else as_numbers(priority, n, "priorities"))

    def put(self, slots: np.ndarray, queue: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Append slots, oldest first, each to its queue, int64 [n], with a first priority from :meth:`first`.

        Returns:
            Slots evicted, int64 [m].
        """
        n = len(slots)
        if n > self.capacity:
            parts = [slice(i, i + self.capacity) for i in range(0, n, self.capacity)]
            return np.concatenate([self.put(slots[part], queue[part], first[part]) for part in parts])
        gone = self._queues.push(slots, queue)
        self._ranking.insert(slots.copy(), queue, first)
        self._leave(gone)
        if len(gone) < n:  # else every queue lost as many as it took in
            self._counted()
        return gone

    def drop(self, n: int) -> np.ndarray:
        """Evict ``n`` slots, each time the oldest of the fullest queue."""
        gone = self._queues.drop(n)
        self._leave(gone)
        self._counted()
        return gone

    def take(self, each: np.ndarray) -> np.ndarray:
        """Evict the oldest ``each[j]`` slots of queue j, int64 [queues]."""
        gone = self._queues.take(each)
        self._leave(gone)
        self._counted()
        return gone

    def _leave(self, gone: np.ndarray) -> None:
        if len(gone):
            if np.count_nonzero(self._watched[gone]):
                self._forget_ahead()
            self._ranking.remove(gone)

    def rearrange(self, slots: np.ndarray, queue: np.ndarray) -> np.ndarray:
        """Put everything stored, ``slots`` int64 [n] oldest first, into other queues, int64 [n].

        Returns:
            Slots evicted because their new queue is full.
        """
        self._forget_ahead()
        priority = self._priority()
        self._queues.clear()
        step = self.capacity
        gone = [self._queues.push(slots[i : i + step], queue[i : i + step]) for i in range(0, len(slots), step)]
        self._order(priority)
        return np.concatenate(gone) if gone else slots

    def _priority(self) -> np.ndarray:
        """Of every slot, float32 [slots]; 0 where it is free."""
        slots, priority = self.filled(), np.zeros(self.slots, np.float32)
        priority[slots] = self._ranking.priority(slots)
        return priority

    def _order(self, priority: np.ndarray) -> None:
        slots, queue = self._queues.filled()
        self._ranking.clear()
        self._ranking.insert(slots, queue, priority[slots])
        self._counted()

    def _counted(self) -> None:
        self._stored = len(self._queues)
        self._start = self.count.cumsum() - self.count
        self._total = np.maximum(self._law.totals(self.count), 1.0)  # no division by 0 for empty queues

    # ------------------------------------------------------------------ drawing
    def draw(self, rng: np.random.Generator, n: int, weight: np.ndarray, choose: Choose) -> Drawn:
        """One minibatch.

        Args:
            n: Slots in it.
            weight: Probability of each queue, float64 [queues]; 0 for an empty one.
            choose: See :data:`Choose`.

        Returns:
            slots int64 [n], their probability (that of the queue included) float64 [n], their queues int64 [n].
        """
        if self._next == len(self._ahead[0]) or self._ahead[0].shape[1] != n:
            self._draw_ahead(rng, n, weight, choose)
        slots, prob, queue = self._ahead
        row = self._next
        self._next += 1
        return slots[row], prob[row], queue[row]

    def _draw_ahead(self, rng: np.random.Generator, n: int, weight: np.ndarray, choose: Choose) -> None:
        self._forget_ahead()
        k, at_once = 1, self.staleness * self._stored
        if at_once >= 2 * n > 0:
            held = weight > 0
            once = (self._total[held] / weight[held]).min()  # the likeliest slot of so many is drawn once on average
            k = max(1, int(min(at_once, once)) // n)
        queue, u = choose(rng, k, n)
        ranks = self._law.ranks(u * self._total[queue])
        prob = self._law.powers(ranks) * (weight / self._total)[queue]
        slots = self._ranking.select(ranks + self._start[queue])
        self._ahead = slots.reshape(k, n), prob.reshape(k, n), queue.reshape(k, n)
        self._next = 0
        if k > 1:
            self._watched[slots] = True

    def _forget_ahead(self) -> None:
        self._watched[self._ahead[0]] = False
        self._next = len(self._ahead[0])

    def update(self, slots: np.ndarray, priority: np.ndarray) -> None:
        """New priorities. Raises UserError for bad priorities and for slots that are not stored; nothing is changed."""
        slots = as_slots(slots)
        priority = as_numbers(priority, len(slots), "priorities")
        require_stored(slots, self.slots, self._ranking.is_stored)
        self._ranking.update(slots.copy(), self._priorities.checked(priority))

    # ------------------------------------------------------------------ asking
    def queue(self, slots: np.ndarray) -> np.ndarray:
        """Queues of slots, int64 [n]; -1 where a slot is not stored."""
        return self._ranking.group(slots)

    def mean_priority(self) -> np.ndarray:
        """Of each queue, float64 [queues]; 0 where it is empty. Reads everything: 10 ms for a million."""
        return self._ranking.priority_sums() / np.maximum(self.count, 1)

    def filled(self) -> np.ndarray:
        """Filled slots, queue after queue, oldest first in each."""
        return self._queues.filled()[0]

    @staticmethod
    def bytes_of(queues: int, capacity: int, slots: int) -> int:
        """``nbytes`` of what the constructor would make."""
        return Queues.bytes_of(queues, capacity) + Ranking.bytes_of(slots) + RankLaw.bytes_of(capacity) + slots

    @property
    def nbytes(self) -> int:
        """Bytes held; the table of the law is counted though equal samplers of a process share it."""
        return self._queues.nbytes + self._ranking.nbytes + self._law.nbytes + self._watched.nbytes

    # ------------------------------------------------------------------ state
    def state(self) -> State:
        """Queues, priorities and what is drawn ahead; the order follows from them."""
        ahead = [column[self._next :].copy() for column in self._ahead]
        own: State = {"priority": self._priority(), "largest": np.array(self._priorities.largest)}
        own |= dict(zip(("ahead_slots", "ahead_prob", "ahead_queue"), ahead, strict=True))
        return own | nest("queues", self._queues.state())

    def load_state(self, state: Mapping[str, np.ndarray], where: str) -> None:
        """Replace what is here by a saved state. Raises UserError where it does not fit or is damaged."""
        shape = state["ahead_slots"].shape if "ahead_slots" in state else (0, 0)
        like: State = {"priority": np.zeros(self.slots, np.float32), "largest": np.zeros(())}
        like |= {"ahead_slots": np.zeros(shape, np.int64), "ahead_prob": np.zeros(shape)}
        require(state, like | {"ahead_queue": np.zeros(shape, np.int64)}, where)
        saved, checking = Queues(self._queues.queues, self.capacity), Priorities("exact")
        saved.load_state(unnest("queues", state), self.slots, where)
        priority = checking.checked(state["priority"])
        largest = sane_largest(state["largest"], where, at_least=checking.largest)
        ahead = state["ahead_slots"].copy(), state["ahead_prob"].copy(), state["ahead_queue"].copy()
        self._require_drawn(ahead, saved, where)
        # Nothing is refused from here on.
        self._forget_ahead()
        self._queues, self.count = saved, saved.count
        self._order(priority)
        self._priorities.largest = largest
        self._ahead, self._next = ahead, 0
        self._watched[ahead[0]] = True

    def _require_drawn(self, ahead: Drawn, queues: Queues, where: str) -> None:
        """Raise UserError unless these can have been drawn from what stands in these queues."""
        slots, prob, queue = ahead
        where_stored = np.full(self.slots, -1, np.int64)
        stored, of = queues.filled()
        where_stored[stored] = of
        sane = slots.ndim == 2 and bool(((slots >= 0) & (slots < self.slots)).all())
        if not (sane and (queue >= 0).all() and (where_stored[slots] == queue).all() and _probabilities(prob)):
            raise UserError(f"{where}: the saved state is damaged (what it drew ahead is not stored)")

    def check(self) -> None:
        """Raise AssertionError if an invariant broke. Slow."""
        self._queues.check(self.slots)
        self._ranking.check()
        slots, queue = self._queues.filled()
        _true(np.array_equal(np.sort(slots), np.sort(self._ranking.order())), "queues and order hold different slots")
        _true(np.array_equal(self._ranking.group(slots), queue), "a slot is ordered in another queue than its own")
        _true(self._stored == len(slots), "slots miscounted")
        ahead = self._ahead[0][self._next :].reshape(-1)
        _true(bool(self._watched[ahead].all()), "a slot drawn ahead is not watched")
        _true(bool(np.isin(ahead, slots).all()), "a slot drawn ahead is not stored")


def _probabilities(prob: np.ndarray) -> bool:
    return bool(((prob > 0) & (prob <= 1)).all())


def _true(condition: object, broken: str) -> None:
    if not condition:
        raise AssertionError(f"ranked queues: {broken}")
