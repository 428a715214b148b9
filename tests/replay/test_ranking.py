"""The order structure and the FIFO queues against sorting everything anew."""

from __future__ import annotations

import numpy as np
import pytest

from polydistill.errors import UserError
from polydistill.replay.queues import Queues
from polydistill.replay.rank_law import RankLaw
from polydistill.replay.ranking import Ranking
from polydistill.replay.sum_tree import SumTree


def priorities(rng: np.random.Generator, n: int) -> np.ndarray:
    """Ties, zeros, denormal numbers and huge ones among ordinary ones."""
    kind = rng.integers(5, size=n)
    choices = [rng.random(n), np.round(rng.random(n), 1), np.zeros(n), rng.random(n) * 1e-42, rng.random(n) ** 9 * 3e38]
    return np.choose(kind, choices).astype(np.float32)


@pytest.mark.parametrize("groups", [1, 5])
def test_every_rank_against_sorting(groups: int) -> None:
    """Batches of 1 to 2,000 changes over 6,000 slots, some aimed at one place of the order so that blocks split."""
    rng, slots = np.random.default_rng(groups), 6_000
    ranking = Ranking(slots, groups)
    group, priority = np.full(slots, -1), np.zeros(slots, np.float32)
    blocks = set()
    for i in range(400):
        n = int(rng.choice([1, 8, 32, 300, 2_000]))
        free, stored = np.flatnonzero(group < 0), np.flatnonzero(group >= 0)
        kind = rng.random()
        if kind < 0.4 and len(free) >= n:
            chosen = rng.permutation(free)[:n]
            priority[chosen], group[chosen] = priorities(rng, n), rng.integers(groups, size=n)
            ranking.insert(chosen, group[chosen], priority[chosen])
        elif kind < 0.55 and len(stored) >= n:
            chosen = rng.permutation(stored)[:n]
            group[chosen] = -1
            ranking.remove(chosen)
        elif len(stored):
            chosen = rng.choice(stored, n)  # with repetitions: the last one counts
            new = priorities(rng, n) if kind < 0.8 else np.full(n, rng.random(), np.float32)
            ranking.update(chosen, new)
            for slot, value in zip(chosen.tolist(), new, strict=True):
                priority[slot] = value
        stored = np.flatnonzero(group >= 0)
        assert len(ranking) == len(stored)
        if len(stored) and rng.random() < 0.7:
            expected = stored[np.lexsort((stored, -priority[stored].astype(float), group[stored]))]
            ranks = rng.integers(len(stored), size=int(rng.choice([1, 32, 3_000])))
            np.testing.assert_array_equal(ranking.select(ranks), expected[ranks])
            np.testing.assert_array_equal(ranking.order(), expected)
            np.testing.assert_array_equal(ranking.priority(stored), priority[stored])
            np.testing.assert_array_equal(ranking.group(np.arange(slots)), group)
            sums = np.bincount(group[stored], priority[stored], groups)
            np.testing.assert_allclose(ranking.priority_sums(), sums, rtol=1e-6)
        blocks.add(ranking._blocks)
        if i % 20 == 0:
            ranking.check()
    assert len(blocks) > 20, "no block was ever split"


def test_a_million_changes_that_nobody_asks_for_are_not_hoarded() -> None:
    ranking = Ranking(100)
    ranking.insert(np.arange(100), np.zeros(100, int), np.ones(100, np.float32))
    for i in range(2_000):
        ranking.update(np.arange(32), np.full(32, i, np.float32))
        assert sum(map(len, ranking._changed)) <= 132
    ranking.check()


def test_an_index_of_31_bits() -> None:
    with pytest.raises(UserError, match="31 bits"):
        Ranking(2**30, 4)


@pytest.mark.parametrize("queues", [1, 4])
def test_queues_against_lists(queues: int) -> None:
    rng, capacity = np.random.default_rng(queues), 9
    kept, twin = Queues(queues, capacity), [[] for _ in range(queues)]
    fresh = 0
    for i in range(3_000):
        if rng.random() < 0.8:
            n = int(rng.integers(capacity + 1))
            slots, queue = (fresh + np.arange(n)) % 1_000, rng.integers(queues, size=n)
            fresh += n
            gone = kept.push(slots, queue)
            out: list[list[int]] = [[] for _ in range(queues)]
            for s, j in zip(slots.tolist(), queue.tolist(), strict=True):
                twin[j].append(s)
                if len(twin[j]) > capacity:
                    out[j].append(twin[j].pop(0))
            assert gone.tolist() == [s for j in range(queues) for s in out[j]]
        else:
            n = int(rng.integers(12))
            left = []
            for _ in range(min(n, sum(map(len, twin)))):
                j = max(range(queues), key=lambda j: (len(twin[j]), -j))
                left.append(twin[j].pop(0))
            assert sorted(kept.drop(n).tolist()) == sorted(left)
        assert kept.count.tolist() == [len(q) for q in twin]
        slots, queue = kept.filled()
        assert slots.tolist() == [s for q in twin for s in q]
        assert queue.tolist() == [j for j, q in enumerate(twin) for _ in q]
        if i % 100 == 0:
            kept.check(1_000)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 0.999, 1.0, 1.5, 4.0])
@pytest.mark.parametrize("n", [1, 3, 5_000, 40_000])
def test_guessed_ranks_are_those_of_the_table(alpha: float, n: int) -> None:
    """At both ends of every rank's interval, and in between, for a queue shorter than the table too."""
    law = RankLaw(n, alpha)
    sums = np.cumsum(np.arange(1, n + 1) ** -alpha)
    assert law._guesses == (n > 30_000 and alpha not in (1.0, 4.0)), "the fast way is not tried, or not given up"
    lower, ranks = np.concatenate([[0.0], sums[:-1]]), np.arange(n)
    wide = sums > lower  # with a large alpha the last ranks have no width left in float64
    np.testing.assert_array_equal(law.ranks(lower[wide]), ranks[wide])
    np.testing.assert_array_equal(law.ranks(np.nextafter(sums, 0.0)[wide]), ranks[wide])
    for stored in {1, (n + 1) // 2, n}:
        total = law.totals(np.array([stored]))[0]
        np.testing.assert_allclose(total, sums[stored - 1])
        largest = law.ranks(np.array([1 - 2.0**-53]) * total)
        assert largest[0] <= stored - 1
        x = np.random.default_rng(0).random(1_000) * total
        np.testing.assert_array_equal(law.ranks(x), np.searchsorted(sums, x, "right"))
    np.testing.assert_allclose(law.powers(ranks), np.arange(1, n + 1) ** -alpha)


def test_sum_tree_against_cumulative_sums() -> None:
    rng, slots = np.random.default_rng(0), 1_000
    tree, mass = SumTree(slots), np.zeros(slots)
    for i in range(500):
        n = int(rng.choice([1, 32]))
        chosen, new = rng.integers(slots, size=n), rng.random(n) * rng.choice([0.0, 1.0, 1e-12, 1e9], n)
        tree.set(chosen, new)
        for slot, value in zip(chosen.tolist(), new.tolist(), strict=True):
            mass[slot] = value
        np.testing.assert_array_equal(tree.get(np.arange(slots)), mass)
        if mass.any():
            np.testing.assert_allclose(tree.total, mass.sum(), rtol=1e-13)
            found = tree.find(rng.random(3_000) * tree.total)
            assert (mass[found] > 0).all()
            x = np.cumsum(mass)[mass > 0] - mass[mass > 0] / 2  # the middle of every slot's interval
            sure = mass[mass > 0] > 1e-9 * mass.sum()
            np.testing.assert_array_equal(tree.find(x[sure]), np.flatnonzero(mass)[sure])
            assert mass[tree.find(np.array([0.0, np.nextafter(tree.total, 0)]))].all()
        if i % 50 == 0:
            tree.check()
