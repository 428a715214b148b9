"""H-PR: Yin & Pan's equations, every setting the paper leaves open, and the memory around it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest

from polydistill.errors import UserError
from polydistill.ops.ranks import hierarchical_probability
from polydistill.ops.weights import importance_weights
from polydistill.replay import samplers
from polydistill.replay.memory import Memory, make_memory
from polydistill.replay.samplers.hierarchical import Hierarchical
from polydistill.replay.stacks import Stacks
from tests.replay.test_ranked import chi_square


def make(capacity: int, **settings: Any) -> Hierarchical:
    sampler = samplers.make("hierarchical", capacity, capacity + 16, **settings)
    assert isinstance(sampler, Hierarchical)
    return sampler


def holding(counts: list[int], capacity: int = 1_000, **settings: Any) -> tuple[Hierarchical, np.ndarray, np.ndarray]:
    """So many experiences in each partition of [0, p]; their slots' partitions, and priorities in a random order."""
    partition = np.repeat(np.arange(len(counts)), counts)
    priority = np.random.default_rng(0).permutation(len(partition)) + 1.0
    sampler = make(capacity, partitions=len(counts), value_range=(0, len(counts)), **settings)
    for slots in np.array_split(np.arange(len(partition)), max(1, len(partition) // 16)):
        sampler.put(slots, partition[slots] + 0.5, priority[slots])
    return sampler, partition, priority


def law(partition: np.ndarray, priority: np.ndarray, alpha: float = 0.7) -> np.ndarray:
    """P_j(k) of every slot, by eq. 6 and 7."""
    prob = np.zeros(len(partition))
    prob[np.lexsort((-priority, partition))] = hierarchical_probability(np.bincount(partition), alpha)
    return prob


def every_prob(sampler: Hierarchical, n: int) -> np.ndarray:
    """The probability of every slot, seen in draws."""
    prob = np.zeros(n)
    for seed in range(20):
        draw = sampler.draw(np.random.default_rng(seed), 1_000)
        prob[draw.slots] = draw.prob
    assert (prob > 0).all()
    return prob


def test_golden_probabilities_and_weights() -> None:
    """Counts (2, 3), alpha 0.7, beta 0.5; the slots are numbered by partition and rank."""
    sampler = make(10, partitions=2, value_range=(0, 2))
    sampler.put(np.arange(5), np.array([0.5, 0.5, 1.5, 1.5, 1.5]), np.array([0.2, 0.1, 0.9, 0.05, 0.01]))
    prob = every_prob(sampler, 5)
    np.testing.assert_allclose(prob, [0.2475902955, 0.1524097045, 0.2885953935, 0.1776513032, 0.1337533033], atol=5e-11)
    weights = np.array([0.8987692158, 1.1455358556, 0.8324732755, 1.0610376603, 1.2228205810])
    np.testing.assert_allclose((1 / (5 * prob)) ** 0.5, weights, atol=5e-11)
    np.testing.assert_allclose(importance_weights(prob, len(sampler), 0.5), weights / weights.max(), atol=5e-11)
    inside = prob / np.array([0.4, 0.4, 0.6, 0.6, 0.6])
    np.testing.assert_allclose((1 / (np.array([2, 2, 3, 3, 3]) * inside)) ** 0.5, weights, atol=5e-11)


@pytest.mark.parametrize("counts", [[100, 0, 7, 1, 250], [30] * 10, [200]])
def test_a_hundred_thousand_draws_follow_the_exact_law(counts: list[int]) -> None:
    sampler, partition, priority = holding(counts, capacity=250 * len(counts))
    prob, rng = law(partition, priority), np.random.default_rng(1)
    count = np.zeros(len(prob))
    for _ in range(3_125):
        draw = sampler.draw(rng, 32)
        count += np.bincount(draw.slots, minlength=len(prob))
    np.testing.assert_allclose(draw.prob, prob[draw.slots], rtol=1e-12)
    assert abs(chi_square(count, prob)) < 4.5


def test_partitions_are_drawn_by_their_counts_and_ranks_alone_would_not() -> None:
    """Partition 0 has the large priorities. H-PR draws it by its share of the memory, rank-based replay more often."""
    counts = np.array([40, 100, 60])
    partition = np.repeat(np.arange(3), counts)
    priority = np.random.default_rng(0).random(200) + 2.0 * (partition == 0)
    share = {}
    for p in (3, 1):
        sampler = make(300, partitions=p, value_range=(0, 3))
        sampler.put(np.arange(200), partition + 0.5, priority)
        rng, count = np.random.default_rng(0), np.zeros(3)
        for _ in range(1_000):
            count += np.bincount(partition[sampler.draw(rng, 100).slots], minlength=3)
        share[p] = count
    assert abs(chi_square(share[3], counts / 200)) < 4.5
    assert share[1][0] > 1.5 * share[3][0]
    assert chi_square(share[1], counts / 200) > 1_000


@pytest.mark.parametrize("staleness", [0.0, 0.1])
def test_one_partition_is_rank_based_replay_draw_for_draw(staleness: float) -> None:
    """Through 500 puts with evictions, drops and updates: the same slots and probabilities from equal generators."""
    one = samplers.make("ranked", 300, 316, staleness=staleness)
    two = make(300, partitions=1, value_range=(0, 1), staleness=staleness)
    rng, free, rngs = np.random.default_rng(0), list(range(316)), [np.random.default_rng(1), np.random.default_rng(1)]
    for i in range(500):
        n = int(rng.integers(1, 17))
        slots, free = np.array(free[:n]), free[n:]
        value, priority = rng.normal(size=n), rng.random(n)
        gone = [s.put(slots, value, priority).tolist() for s in (one, two)]
        gone = [g + s.drop(int(i % 50 == 0)).tolist() for g, s in zip(gone, (one, two), strict=True)]
        assert gone[0] == gone[1]
        free += gone[0]
        draws = [s.draw(g, 8) for s, g in zip((one, two), rngs, strict=True)]
        np.testing.assert_array_equal(draws[0].slots, draws[1].slots)
        np.testing.assert_array_equal(draws[0].prob, draws[1].prob)
        new = rng.random(8)
        for s in (one, two):
            s.update(draws[0].slots, new)


def test_one_experience_a_partition_is_uniform() -> None:
    sampler, _, _ = holding([1] * 40, capacity=40)
    draw = sampler.draw(np.random.default_rng(0), 2_000)
    np.testing.assert_allclose(draw.prob, np.full(2_000, 1 / 40), rtol=1e-14)
    np.testing.assert_allclose(importance_weights(draw.prob, 40, 0.5), np.ones(2_000), rtol=1e-13)
    assert abs(chi_square(np.bincount(draw.slots, minlength=40), np.full(40, 1 / 40))) < 4.5


@pytest.mark.parametrize("counts", [[60], [10, 50], [5, 0, 25, 20, 10], [1] * 60])
def test_alpha_zero_is_uniform_for_every_p(counts: list[int]) -> None:
    sampler, _, _ = holding(counts, alpha=0)
    np.testing.assert_allclose(every_prob(sampler, 60), np.full(60, 1 / 60), rtol=1e-14)


def test_another_partition_leaves_the_weights_alone() -> None:
    """Eq. 8 before the division by the largest, and its other form, while partition 1 grows from 3 to 200."""
    sampler, _, _ = holding([20, 3])
    before = every_prob(sampler, 23)
    sampler.put(np.arange(23, 220), np.full(197, 1.5), np.random.default_rng(1).random(197))
    after = np.zeros(220)
    for seed in range(400):
        draw = sampler.draw(np.random.default_rng(seed), 100)
        after[draw.slots] = draw.prob
    np.testing.assert_allclose((220 * after[:20]) ** -0.5, (23 * before[:20]) ** -0.5, rtol=1e-12)


def test_full_correction_gives_the_mean_of_the_memory() -> None:
    """beta = 1, not normalised: by enumeration, and in 200,000 draws."""
    sampler, _, _ = holding([20, 3, 50])
    x = np.random.default_rng(1).normal(size=73)
    prob = every_prob(sampler, 73)
    np.testing.assert_allclose((prob * (1 / (73 * prob)) * x).sum(), x.mean(), atol=1e-15)
    draw = sampler.draw(np.random.default_rng(2), 200_000)
    seen = x[draw.slots] / (73 * draw.prob)
    assert abs(seen.mean() - x.mean()) < 5 * seen.std() / 200_000**0.5


def test_values_go_into_their_partitions() -> None:
    """V_min = 0, V_max = 10, p = 5; outside values are clamped and counted."""
    sampler = make(50, value_range=(0, 10))
    value = np.array([0.0, 2.0, 2.0001, 10.0, -3.0, 14.0])
    sampler.put(np.arange(6), value)
    told = sampler.telemetry()
    np.testing.assert_array_equal(told["fill"], [3, 1, 0, 0, 2])
    np.testing.assert_array_equal(told["edges"], [0, 2, 4, 6, 8, 10])
    np.testing.assert_allclose(told["outside_rate"], [1 / 3, 0, 0, 0, 1 / 2])
    assert sampler.filled().tolist() == [0, 1, 4, 2, 3, 5]


def test_values_outside_are_dropped_if_asked() -> None:
    sampler = make(50, value_range=(0, 10), out_of_range="drop")
    assert sampler.put(np.arange(6), np.array([0.0, 2.0, 2.0001, 10.0, -3.0, 14.0])).tolist() == [4, 5]
    assert sampler.put(np.array([4]), np.array([10.0001])).tolist() == [4], "all of a batch"
    assert sorted(sampler.filled().tolist()) == [0, 1, 2, 3]
    assert sampler.telemetry()["dropped"].tolist() == [1, 0, 0, 0, 2], "by the nearest partition"
    assert not sampler.telemetry()["dropped"].any(), "counted since the last call"
    sampler.check()


@pytest.mark.parametrize("measured", [True, False])
def test_the_range_grows_and_everything_moves(measured: bool) -> None:
    """Against partitions made from scratch of the values held; with a range of its own, or measured on what is put."""
    settings: dict[str, Any] = {"value_range": (-1, 1), "out_of_range": "expand"} if measured else {}
    rng, sampler = np.random.default_rng(0), make(5_000, **settings)
    values, free, changes = np.zeros(5_016), list(range(5_016)), 0
    for i in range(600):
        n = int(rng.integers(1, 9))
        slots, free = np.array(free[:n]), free[n:]
        values[slots] = rng.normal(size=n) * (1 + i / 100)
        edges = sampler.telemetry()["edges"]
        free += sampler.put(slots, values[slots], rng.random(n)).tolist()
        now = sampler.telemetry()
        changes += not np.array_equal(edges, now["edges"])
        held = sampler.filled()
        assert now["edges"][0] <= values[held].min()
        assert values[held].max() <= now["edges"][-1]
        width = (now["edges"][-1] - now["edges"][0]) / 5
        expected = np.clip(np.ceil((values[held] - now["edges"][0]) / width), 1, 5).astype(int) - 1
        np.testing.assert_array_equal(now["fill"], np.bincount(expected, minlength=5))
        if i % 100 == 0:
            sampler.check()
            sampler.update(sampler.draw(rng, 4).slots, rng.random(4))
    assert 10 < changes < 100
    assert len(held) + len(free) == 5_016


def test_growing_keeps_the_order_of_arrival() -> None:
    """Two partitions of three places; after the range doubles, everything is in the first, and its oldest leave."""
    sampler = make(6, partitions=2, value_range=(0, 2), out_of_range="expand")
    sampler.put(np.array([5, 3, 0, 1]), np.array([1.5, 0.5, 1.5, 0.5]), np.array([4.0, 3.0, 2.0, 1.0]))
    assert sampler.put(np.array([2]), np.array([4.0])).tolist() == [5]
    assert sampler.filled().tolist() == [3, 0, 1, 2]
    assert sampler.draw(np.random.default_rng(0), 50).prob.max() == pytest.approx(0.75 / (1 + 2**-0.7 + 3**-0.7))
    sampler.check()


def test_a_window_counts_what_came_lately() -> None:
    """Partition 0 is full and gets nothing more: the memory counts all it holds, the window what came of late."""
    share = {}
    for counts in ("memory", "window"):
        sampler = make(100, partitions=2, value_range=(0, 2), partition_counts=counts, window=60)
        sampler.put(np.arange(50), np.full(50, 0.5))
        for i in range(7):
            sampler.put(np.arange(50 + 5 * i, 55 + 5 * i), np.full(5, 1.5))
        told = sampler.telemetry()
        share[counts] = told["probability"]
        np.testing.assert_array_equal(told["fill"], [50, 35])
        draw = sampler.draw(np.random.default_rng(0), 40_000)
        np.testing.assert_allclose((draw.slots < 50).mean(), told["probability"][0], atol=0.01)
        prob = np.zeros(85)
        prob[draw.slots] = draw.prob
        np.testing.assert_allclose(prob.sum(), 1.0)
    np.testing.assert_allclose(share["memory"], [50 / 85, 35 / 85])
    np.testing.assert_allclose(share["window"], [25 / 60, 35 / 60])


def test_a_window_against_a_list() -> None:
    rng, came = np.random.default_rng(0), []
    sampler = make(40, partitions=4, value_range=(0, 4), partition_counts="window", window=33)
    free = list(range(56))
    for i in range(300):
        n = int(rng.integers(1, 17))
        slots, free = np.array(free[:n]), free[n:]
        value = rng.uniform(0, 4, n)
        free += sampler.put(slots, value).tolist()
        if i % 7 == 0:
            free += sampler.drop(5).tolist()
        came = [*came, *value.astype(int).tolist()][-33:]
        fill = sampler.telemetry()["fill"]
        lately = np.bincount(came, minlength=4) * (fill > 0)
        expected = lately if lately.any() else fill
        np.testing.assert_allclose(sampler._share, expected / max(expected.sum(), 1))


def test_one_partition_for_a_whole_minibatch() -> None:
    sampler, partition, priority = holding([40, 100, 60], draw_partition="minibatch")
    rng, prob, count = np.random.default_rng(0), law(partition, priority), np.zeros(3)
    for _ in range(3_000):
        draw = sampler.draw(rng, 16)
        (chosen,) = set(partition[draw.slots].tolist())
        count[chosen] += 1
        np.testing.assert_allclose(draw.prob, prob[draw.slots], rtol=1e-12)
    assert abs(chi_square(count, np.array([0.2, 0.5, 0.3]))) < 4.5


def test_each_partition_evicts_its_own_oldest() -> None:
    sampler = make(6, partitions=2, value_range=(0, 2))
    assert sampler.put(np.array([7, 1, 4]), np.array([0.5, 1.5, 0.5])).tolist() == []
    assert sampler.put(np.array([2, 9]), np.array([0.5, 0.5])).tolist() == [7]
    assert sampler.put(np.array([3, 5, 6]), np.array([1.5, 1.5, 1.5])).tolist() == [1]
    assert sampler.filled().tolist() == [4, 2, 9, 3, 5, 6]
    assert sampler.put(np.arange(10, 18), np.full(8, 0.5)).tolist() == [4, 2, 9, 10, 11, 12, 13, 14]


def test_the_oldest_of_all_leaves_if_asked() -> None:
    """Partitions 0, 1, 1, 0, 0, then 1, 1: the first two leave; then one of partition 1 leaves for a byte budget."""
    sampler = make(5, partitions=2, value_range=(0, 2), eviction="oldest")
    assert sampler.put(np.arange(5), np.array([0.5, 1.5, 1.5, 0.5, 0.5])).tolist() == []
    assert sorted(sampler.put(np.array([5, 6]), np.array([1.5, 1.5])).tolist()) == [0, 1]
    assert sampler.filled().tolist() == [3, 4, 2, 5, 6]
    np.testing.assert_allclose(sampler.telemetry()["probability"], [0.4, 0.6])
    assert sampler.drop(1).tolist() == [2]
    assert sampler.put(np.array([0]), np.array([0.5])).tolist() == []
    sampler.check()


@pytest.mark.parametrize("out_of_range", ["clamp", "drop", "expand"])
def test_with_the_oldest_leaving_it_holds_what_a_uniform_memory_holds(out_of_range: str) -> None:
    sampler = make(60, value_range=(-1, 1), out_of_range=out_of_range, eviction="oldest")
    rng, free, held = np.random.default_rng(0), list(range(76)), []
    for i in range(600):
        n = int(rng.integers(1, 16))
        slots, free = free[:n], free[n:]
        value = rng.normal(size=n) * (1 + i / 200)
        gone = sampler.put(np.array(slots), value, rng.random(n)).tolist()
        free += gone
        held += [s for s, v in zip(slots, value, strict=True) if out_of_range != "drop" or abs(v) <= 1]
        if i % 40 == 39:
            fewer = sampler.drop(7).tolist()
            assert sorted(fewer) == sorted(held[max(0, len(held) - 60) :][:7])
            free, held = free + fewer, held[max(0, len(held) - 60) + 7 :]
        held = held[-60:]
        assert sorted(sampler.filled().tolist()) == sorted(held)
        sampler.update(sampler.draw(rng, 4).slots, rng.random(4))
        sampler.check()


def test_a_byte_budget_takes_from_the_fullest() -> None:
    """So that rare values keep what they have."""
    sampler, partition, _ = holding([2, 9, 6])
    gone = sampler.drop(5)
    np.testing.assert_array_equal(np.bincount(partition[gone], minlength=3), [0, 4, 1])
    np.testing.assert_array_equal(np.sort(gone), [2, 3, 4, 5, 11])
    assert len(sampler.drop(100)) == 12
    assert len(sampler) == 0
    with pytest.raises(UserError, match="empty"):
        sampler.draw(np.random.default_rng(0), 1)


def test_telemetry() -> None:
    sampler, partition, priority = holding([20, 0, 40])
    draws = [sampler.draw(np.random.default_rng(seed), 50) for seed in range(300)]
    drawn = partition[np.concatenate([draw.slots for draw in draws])]
    sampler.note_loss(np.array([0, 1, 25]), np.array([0.5, 0.25, 0.25], np.float32))
    told = sampler.telemetry()
    np.testing.assert_array_equal(told["put"], [20, 0, 40])
    np.testing.assert_array_equal(told["draws"], np.bincount(drawn, minlength=3))
    np.testing.assert_allclose(told["probability"], [1 / 3, 0, 2 / 3])
    np.testing.assert_allclose(told["mean_priority"], [priority[:20].mean(), 0, priority[20:].mean()])
    np.testing.assert_allclose(told["loss_share"], [0.75, 0, 0.25])
    again = sampler.telemetry()
    for name in ("put", "draws", "loss_share", "outside_rate"):
        assert not again[name].any(), "counted since the last call"
    np.testing.assert_array_equal(again["fill"], [20, 0, 40])
    sampler.drop(60)
    sampler.note_loss(np.array([0]), np.ones(1))
    assert not sampler.telemetry()["loss_share"].any(), "of what was evicted nothing is known"


def test_what_cannot_be_partitioned_is_refused() -> None:
    with pytest.raises(UserError, match=r"V_min equals V_max.*'ranked'"):
        make(100, value_range=(3.0, 3.0))
    refused = {(2, 1): "the smaller first", (0, np.nan): "finite number", (-np.inf, 0): "finite number"}
    for broken, match in refused.items():
        with pytest.raises(UserError, match=match):
            make(100, value_range=broken)
    with pytest.raises(UserError, match="4 experiences cannot be shared by 5 partitions"):
        make(4)
    with pytest.raises(UserError, match="31 bits"):
        samplers.make("hierarchical", 2**21, 2**21, partitions=2_000)
    other = make(100, value_range=(0, 10))
    with pytest.raises(UserError, match="value range 0 to 1, this one 0 to 10"):
        other.load_state(make(100, value_range=(0, 1)).state())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("settings", [{}, {"value_range": (0, 1)}, {"value_range": (0, 1), "out_of_range": "drop"}])
def test_bad_values_change_nothing(bad: float, settings: dict[str, Any]) -> None:
    sampler = make(100, **settings)
    sampler.put(np.arange(4), np.linspace(0, 1, 4))
    before = sampler.state()
    with pytest.raises(UserError, match="value of a state is NaN or infinite"):
        sampler.put(np.array([5, 6]), np.array([0.5, bad]), np.full(2, 9.0))
    with pytest.raises(UserError, match="1 values for 2 experiences"):
        sampler.put(np.array([5, 6]), np.zeros(1))
    after = sampler.state()
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_a_bad_value_in_a_batch_above_the_capacity_changes_nothing() -> None:
    """Where the oldest of all leave, such a batch is put in parts, and the bad value stands in the last."""
    for settings in ({}, {"value_range": (0, 1)}, {"value_range": (0, 1), "out_of_range": "drop"}):
        sampler = make(10, eviction="oldest", **settings)
        before = sampler.state()
        with pytest.raises(UserError, match="value of a state is NaN or infinite"):
            sampler.put(np.arange(12), np.append(np.linspace(0, 1, 11), np.nan))
        after = sampler.state()
        assert all(np.array_equal(before[key], after[key]) for key in before)
        assert sorted(sampler.put(np.arange(12), np.linspace(0, 1, 12)).tolist()) == [0, 1]


@pytest.mark.parametrize(
    "settings",
    [
        {"staleness": 0.5},
        {"partition_counts": "window", "window": 40},
        {"out_of_range": "expand", "value_range": (-1, 1)},
        {"draw_partition": "minibatch", "staleness": 0.5},
        {"eviction": "oldest", "value_range": (-1, 1)},
        {"eviction": "oldest", "out_of_range": "expand", "value_range": (-1, 1)},
    ],
)
def test_resumed_draws_are_identical(settings: dict[str, Any]) -> None:
    one, two = make(100, **settings), make(100, **settings)
    rng, free = np.random.default_rng(0), list(range(116))
    for i in range(200):
        if i == 101:
            two.load_state(one.state())
            two.check()
            rngs = [np.random.default_rng(1), np.random.default_rng(1)]
        n = int(rng.integers(1, 9))
        slots, free = np.array(free[:n]), free[n:]
        value, priority = rng.normal(size=n) * (1 + i / 20), rng.random(n)
        gone = [sampler.put(slots, value, priority).tolist() for sampler in ((one, two) if i > 100 else (one,))]
        assert gone[0] == gone[-1]
        free += gone[0]
        if i > 100:
            draws = [sampler.draw(g, 4) for sampler, g in zip((one, two), rngs, strict=True)]
            np.testing.assert_array_equal(draws[0].slots, draws[1].slots)
            np.testing.assert_array_equal(draws[0].prob, draws[1].prob)
            for sampler in (one, two):
                sampler.update(draws[0].slots, value[:1].repeat(4) ** 2)
        else:
            one.update(one.draw(rng, 4).slots, rng.random(4))


@pytest.mark.parametrize(("budget", "eviction"), [(None, "partition"), (95_000, "partition"), (80_000, "oldest")])
def test_in_a_memory_with_partitions_that_evict_at_different_times(
    fake_env: Callable[..., Any], budget: int | None, eviction: str
) -> None:
    """What is gathered is what was put, frame references are right, and every partition stays within its share."""
    rng, n, capacity = np.random.default_rng(0), 4, 200
    stacks = Stacks((4, 16, 16), stack=4, streams=n)
    kept: Memory = make_memory(
        capacity, stacks, (0, 3, 5), 7, "hierarchical", budget, value_range=(0.0, 5.0), eviction=eviction
    )
    said: dict[int, tuple[bytes, np.ndarray]] = {}
    for t, step in enumerate(islice(fake_env(rng, n, side=16).steps(), 1_500)):
        teacher = rng.normal(size=(n, 3)).astype(np.float32) + np.float32(rng.choice([0.0, 2.0, 4.0]))
        slots = kept.append(step.obs, teacher, start=step.start, priority=rng.random(n))
        said |= {slot: (obs.tobytes(), q) for slot, obs, q in zip(slots.tolist(), step.obs, teacher, strict=True)}
        draw, batch = kept.sample(rng, 8)
        for slot, obs, q in zip(draw.slots.tolist(), batch.obs, batch.teacher[:, [0, 3, 5]], strict=True):
            assert said[slot][0] == obs.tobytes()
            np.testing.assert_array_equal(said[slot][1], q)
        kept.update(draw.slots, rng.random(8))
        if t % 250 == 0:
            kept.check()
    kept.check()
    sampler = kept.sampler
    assert isinstance(sampler, Hierarchical)
    fill = sampler.telemetry()["fill"]
    assert eviction == "oldest" or fill.max() <= capacity // 5
    assert budget is None or (kept.nbytes <= budget and len(kept) < capacity)
