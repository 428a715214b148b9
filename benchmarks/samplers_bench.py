"""The prioritised samplers at the paper's size: one minibatch against cpprb's, how the cost grows, what comes late.

cpprb (Cython, a proportional sum tree) stores one number of four bytes per experience here, so that neither side pays
for frames. Both give 32 experiences with what importance weights need, and take 32 new priorities. All is on one thread
and timed by its processor clock, because a measurement is shorter than another process's turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.timing import Row, row
from polydistill.ops.ranks import hierarchical_probability
from polydistill.replay import samplers
from polydistill.replay.samplers.hierarchical import Hierarchical
from polydistill.replay.samplers.ranked import Ranked

BATCH = 32
COPIES = 16  # of a game, which put their experiences at once
STEPS = 128  # minibatches of one measurement
PAPER = 1_000_000  # five partitions of 200,000


class Load:
    """A full sampler and what happens to it, priorities and values made up beforehand."""

    def __init__(self, name: str, capacity: int, **settings: Any) -> None:
        self.rng = np.random.default_rng(0)
        self.sampler = samplers.make(name, capacity, capacity + COPIES, **settings)
        value, first = self.rng.random(capacity), self.rng.random(capacity)
        self.free = np.arange(capacity, capacity + COPIES)
        for i in range(0, capacity, capacity // 10):
            part = slice(i, i + capacity // 10)
            gone = self.sampler.put(np.arange(capacity)[part], value[part], first[part])
            self.free = np.concatenate([self.free, gone])
        self.priority = (self.rng.random((STEPS, BATCH)) ** 4).astype(np.float32)
        self.value = self.rng.random((STEPS, COPIES))
        self.minibatches()  # the first changes are the slowest

    def minibatches(self) -> None:
        """Draw and update."""
        for priority in self.priority:
            draw = self.sampler.draw(self.rng, BATCH)
            self.sampler.update(draw.slots, priority)

    def with_puts(self) -> None:
        """Four experiences put per minibatch, as Yin & Pan do."""
        for i, priority in enumerate(self.priority):
            if i % (COPIES // 4) == 0:
                new, self.free = self.free[:COPIES], self.free[COPIES:]
                gone = self.sampler.put(new, self.value[i], priority[:COPIES])
                self.free = np.concatenate([self.free, gone])
            draw = self.sampler.draw(self.rng, BATCH)
            self.sampler.update(draw.slots, priority)


class Peer:
    """The same for cpprb."""

    def __init__(self, capacity: int) -> None:
        from cpprb import PrioritizedReplayBuffer

        rng = np.random.default_rng(0)
        self.buffer = PrioritizedReplayBuffer(capacity, {"slot": {"dtype": np.int32}}, alpha=0.7)
        for i in range(0, capacity, capacity // 10):
            self.buffer.add(slot=np.arange(i, i + capacity // 10), priorities=rng.random(capacity // 10))
        self.priority = (rng.random((STEPS, BATCH)) ** 4).astype(np.float32)
        self.new = np.arange(COPIES)
        self.minibatches()

    def minibatches(self) -> None:
        """Draw and update."""
        for priority in self.priority:
            drawn = self.buffer.sample(BATCH, beta=0.5)
            self.buffer.update_priorities(drawn["indexes"], priority)

    def with_puts(self) -> None:
        """Four experiences put per minibatch."""
        for i, priority in enumerate(self.priority):
            if i % (COPIES // 4) == 0:
                self.buffer.add(slot=self.new, priorities=priority[:COPIES])
            drawn = self.buffer.sample(BATCH, beta=0.5)
            self.buffer.update_priorities(drawn["indexes"], priority)


def measure(name: str, ours: Callable[[], None], reference: Callable[[], None], want: str, repeats: int) -> Row:
    """Microseconds per minibatch, in turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for side, call in zip(seconds, (ours, reference), strict=True):
            began = time.thread_time()
            call()
            side.append(time.thread_time() - began)
    a, b = (float(np.mean(side)) for side in seconds)  # the mean: now and then an index is laid out anew
    return row(name, a / STEPS * 1e6, b / STEPS * 1e6, "us / minibatch", want)


def growth(capacities: Sequence[int], smallest: int, repeats: int) -> list[Row]:
    """How the cost grows with what is stored, a row for each rule of how late a priority may be.

    By the rule of a share, a large memory draws several minibatches at once and a small one each by itself: that row
    says what a user pays, not how the index grows. Where nothing may be late, both do the same work.
    """
    found = []
    for staleness, rule, want in ((0.0, "no priority late", ""), (0.001, "0.001 drawn at once", "<= 1.50")):
        settings: dict[str, Any] = {"value_range": (0, 1), "staleness": staleness}
        small = Load("hierarchical", smallest, **settings)
        for capacity in capacities:
            name = f"H-PR of {capacity:,} / of {smallest:,}, {rule}: draw, update"
            large = Load("hierarchical", capacity, **settings)
            found.append(measure(name, large.minibatches, small.minibatches, want, repeats))
            del large  # before the next one is made
    return found


def lateness(name: str, capacity: int, pools: int = 200, **settings: Any) -> tuple[float, float, float]:
    """How late priorities count where several minibatches are drawn at once; the same numbers on every machine.

    Each minibatch of 32 is drawn and gets 32 new priorities, as in :class:`Load`; a pool is what was drawn at once.

    Returns:
        Minibatches in a pool; the share of draws that meet an experience whose priority changed since its pool was
        drawn; and the total variation between the law of a pool's last minibatch and the law of its moment, a mean over
        the first ten pools.
    """
    load = Load(name, capacity, **settings)
    sampler, changed = load.sampler, np.zeros(capacity + COPIES, bool)
    assert isinstance(sampler, Ranked | Hierarchical)
    queues, alpha = sampler._queues, sampler.settings.alpha

    def used_up() -> bool:
        return queues._next == len(queues._ahead[0])

    def law() -> np.ndarray:
        prob = np.zeros(capacity + COPIES)
        prob[queues._ranking.order()] = hierarchical_probability(queues.count, alpha)
        return prob

    while not used_up():
        sampler.draw(load.rng, BATCH)
    drawn, late, variation = 0, 0, []
    for pool in range(pools):
        then, last = law() if pool < 10 else None, False
        changed[:] = False
        while not last:
            draw = sampler.draw(load.rng, BATCH)
            last = used_up()
            if last and then is not None:
                variation.append(0.5 * float(np.abs(law() - then).sum()))
            drawn, late = drawn + BATCH, late + int(np.count_nonzero(changed[draw.slots]))
            sampler.update(draw.slots, load.rng.random(BATCH) ** 4)
            changed[draw.slots] = True
    return drawn / BATCH / pools, late / drawn, float(np.mean(variation))


def late_rows() -> list[Row]:
    """Two rows for each size that ``RankedQueues`` states."""
    found = []
    for title, name, capacity, settings in (
        ("H-PR 5 x 200,000", "hierarchical", PAPER, {"value_range": (0, 1)}),
        ("H-PR 5 x 40,000", "hierarchical", PAPER // 5, {"value_range": (0, 1)}),
        ("ranked 1,000,000", "ranked", PAPER, {}),
    ):
        at_once, share, variation = lateness(name, capacity, **settings)
        about = f"{title}, {at_once:.0f} minibatches at once"
        found += [
            row(f"{about}: % of draws with a late priority", 100 * share, 100, "%", "<= 0.010"),
            row(f"{about}: total variation of the last's law, %", 100 * variation, 100, "%", "<= 0.020"),
        ]
    return found


def samplers_at_paper_size(repeats: int = 30) -> list[Row]:
    """Microseconds per minibatch; the rows against cpprb are left out where it is not installed."""
    found: list[Row] = []
    hpr = Load("hierarchical", PAPER, value_range=(0, 1))
    if find_spec("cpprb"):
        peer = Peer(PAPER)
        exact = Load("hierarchical", PAPER, value_range=(0, 1), staleness=0)
        proportional = Load("proportional", PAPER)
        found += [
            measure(name, ours, reference, want, repeats)
            for name, ours, reference, want in (
                ("H-PR 5 x 200,000: draw, update / cpprb 1,000,000", hpr.minibatches, peer.minibatches, "<= 1.00"),
                ("H-PR: draw, update, put 4 / the same in cpprb", hpr.with_puts, peer.with_puts, "<= 1.00"),
                ("H-PR, no priority late / cpprb", exact.minibatches, peer.minibatches, ""),
                ("proportional 1,000,000 / cpprb", proportional.minibatches, peer.minibatches, ""),
            )
        ]
    found += growth((100_000, PAPER, 10_000_000), 10_000, repeats)
    found += late_rows()
    size = hpr.sampler.nbytes / PAPER
    return [*found, row("H-PR: bytes per experience / those of its frame", size, 450, "bytes", "<= 0.10")]
