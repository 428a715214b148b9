"""Rank-based replay: the law, a slow twin, staleness, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from benchmarks.samplers_bench import lateness
from polydistill.errors import UserError
from polydistill.ops.ranks import rank_probability
from polydistill.ops.weights import importance_weights
from polydistill.replay import samplers
from polydistill.replay.samplers import Sampler
from tests.replay.twins import SlowHierarchical

BAD_PRIORITIES = [np.nan, np.inf, -np.inf, -1e-3, 1e300]


def filled(name: str, n: int, **settings: object) -> tuple[Sampler, np.ndarray]:
    """A full sampler of n slots with values 0 .. n - 1, and their priorities, a random order of 1 .. n."""
    sampler = samplers.make(name, n, n + 8, **settings)
    priority = np.random.default_rng(n).permutation(n) + 1.0
    sampler.put(np.arange(n), np.arange(n), priority)
    return sampler, priority


def chi_square(count: np.ndarray, prob: np.ndarray) -> float:
    """Standardised: about normal(0, 1) where the counts follow ``prob``. Neighbours share cells of some 20 expected."""
    expected = prob * count.sum()
    cell = (expected.cumsum() / 20).astype(int)
    found, wanted = np.bincount(cell, count), np.bincount(cell, expected)
    found, wanted = found[wanted > 0], wanted[wanted > 0]
    return float(((found - wanted) ** 2 / wanted).sum() - len(wanted) + 1) / math.sqrt(2 * len(wanted))


@pytest.mark.parametrize("staleness", [0.0, 0.001])
def test_a_hundred_thousand_draws_follow_the_exact_law(staleness: float) -> None:
    n = 70_000 if staleness else 500
    sampler, priority = filled("ranked", n, staleness=staleness)
    rng, count = np.random.default_rng(1), np.zeros(n)
    draws = [sampler.draw(rng, 32) for _ in range(3_125)]
    rank = (n - priority).astype(int)  # 0 for the largest
    for draw in draws:
        count += np.bincount(rank[draw.slots], minlength=n)
    law = rank_probability(n, 0.7)
    for draw in draws[::100]:
        np.testing.assert_allclose(draw.prob, law[rank[draw.slots]], rtol=1e-12)
    assert abs(chi_square(count, law)) < 4.5
    uniform = np.full(n, 1 / n)
    assert chi_square(count, uniform) > 100, "the test could not tell the law from uniform draws"


def test_golden_probabilities_and_weights_of_four() -> None:
    sampler, priority = filled("ranked", 4)
    draw = sampler.draw(np.random.default_rng(0), 500)
    weights = importance_weights(draw.prob, 4, 0.5)
    law = [0.4068407166, 0.2504398377, 0.1885556421, 0.1541638035]
    weight = [0.6155722067, 0.7845840979, 0.9042144481, 1.0]
    for rank, slot in enumerate((-priority).argsort()):
        assert (draw.slots == slot).any()
        np.testing.assert_allclose(draw.prob[draw.slots == slot], law[rank], atol=5e-11)
        np.testing.assert_allclose(weights[draw.slots == slot], weight[rank], atol=5e-11)


def test_only_the_order_of_priorities_matters() -> None:
    one, priority = filled("ranked", 50)
    two = samplers.make("ranked", 50, 58)
    two.put(np.arange(50), np.zeros(50), priority * 1e-7)
    a, b = one.draw(np.random.default_rng(0), 200), two.draw(np.random.default_rng(0), 200)
    np.testing.assert_array_equal(a.slots, b.slots)
    np.testing.assert_array_equal(a.prob, b.prob)


def test_alpha_zero_is_uniform_with_weight_one() -> None:
    draw = filled("ranked", 40, alpha=0)[0].draw(np.random.default_rng(0), 500)
    np.testing.assert_allclose(draw.prob, np.full(500, 1 / 40), rtol=1e-14)
    np.testing.assert_allclose(importance_weights(draw.prob, 40, 0.5), np.ones(500), rtol=1e-13)


@pytest.mark.parametrize("name", ["ranked", "proportional"])
def test_stratified_draws_have_the_same_law_and_vary_less(name: str) -> None:
    """In every minibatch, each experience comes as often as expected, to within one draw on either side."""
    n, sampler = 64, filled(name, 30, draws="stratified")[0]
    rng, total, prob = np.random.default_rng(0), np.zeros(30), np.zeros(30)
    for draw in [sampler.draw(rng, n) for _ in range(500)]:
        prob[draw.slots] = draw.prob
        count = np.bincount(draw.slots, minlength=30)
        assert (np.abs(count - n * prob)[count > 0] < 2).all()
        total += count
    np.testing.assert_allclose(prob.sum(), 1.0)
    np.testing.assert_allclose(total / total.sum(), prob, atol=2e-3)


BETA = 0.5


def random_operations(partitions: int, eviction: str, operations: int, seed: int, staleness: float = 0.001) -> None:
    """The sampler and its twin under the same puts, updates, drops and draws.

    Equal in every slot they name, drawn, evicted or kept, in every probability, and in the weights of a minibatch.
    Where minibatches are drawn ahead (``staleness``), their law is the one of the moment when they were.
    """
    rng, capacity, batch = np.random.default_rng(seed), 60, 8
    slots, exact = 2 * capacity + batch, staleness * capacity < 2
    twin = SlowHierarchical(capacity, partitions, 0.7, -1.0, 1.0, eviction)
    fast: Sampler
    if partitions == 1 and eviction == "partition":
        fast = samplers.make("ranked", capacity, slots, staleness=staleness)
    else:
        settings: dict[str, Any] = {"partitions": partitions, "eviction": eviction, "staleness": staleness}
        fast = samplers.make("hierarchical", capacity, slots, value_range=(-1, 1), **settings)
    free, law, late = list(range(slots)), {}, 0
    for i in range(operations):
        kind, n = rng.random(), int(rng.integers(1, batch + 1))
        if kind < 0.35:
            n = (
                int(rng.integers(1, capacity + batch)) if kind < 0.005 else n
            )  # now and then more than there is room for
            new, free = free[:n], free[n:]
            value, first = rng.normal(size=n), rng.choice([0.0, 1.0, rng.random()], n)
            priority = None if rng.random() < 0.2 else first
            gone = fast.put(np.array(new), value, priority).tolist()
            assert set(gone) == twin.put(new, value, priority)
            free += gone
        elif kind < 0.4:
            n = capacity if kind < 0.351 else n
            gone = fast.drop(n).tolist()
            assert set(gone) == twin.drop(n)
            free += gone
        elif twin.priority:
            n = n if exact else 4  # a minibatch of another size begins anew
            state = rng.bit_generator.state
            draw = fast.draw(rng, n)
            if exact:
                after, rng.bit_generator.state = rng.bit_generator.state, state
                drawn, prob = twin.draw(rng, n)
                assert draw.slots.tolist() == drawn
                np.testing.assert_allclose(draw.prob, prob, rtol=1e-12)
                assert rng.bit_generator.state == after, "the twin took other numbers from the generator"
            else:
                fresh = fast._queues._next == 1  # type: ignore[attr-defined]
                law, late = (twin.law(BETA), late) if fresh else (law, late + 1)
                assert set(draw.slots.tolist()) <= set(twin.priority)
                np.testing.assert_allclose(draw.prob, [law[s][0] for s in draw.slots.tolist()], rtol=1e-12)
            new_priority = rng.choice([0.0, 0.5, rng.random()], n)
            fast.update(draw.slots, new_priority)
            twin.update(draw.slots.tolist(), new_priority)
        if i % 500 == 0:
            fast.check()
            assert fast.filled().tolist() == [slot for queue in twin.queues for slot in queue]
            if exact and twin.priority:
                same_law(fast, twin, i)
    fast.check()
    assert exact or late > operations / 10


def same_law(fast: Sampler, twin: SlowHierarchical, seed: int) -> None:
    """The probabilities of all that is stored, as far as 2,000 draws show them, and their weights."""
    law, draw = twin.law(BETA), fast.draw(np.random.default_rng(seed), 2_000)
    np.testing.assert_allclose(sum(prob for prob, _ in law.values()), 1.0, rtol=1e-12)
    prob, weight = np.array([law[slot] for slot in draw.slots.tolist()]).T
    np.testing.assert_allclose(draw.prob, prob, rtol=1e-12)
    np.testing.assert_allclose(importance_weights(draw.prob, len(fast), BETA), weight / weight.max(), rtol=1e-12)
    assert len(set(draw.slots.tolist())) > 0.9 * len(law)


TWINS = [(1, "partition"), (4, "partition"), (7, "oldest")]


@pytest.mark.parametrize("partitions, eviction", TWINS)
def test_ten_thousand_operations_against_the_twin(partitions: int, eviction: str) -> None:
    random_operations(partitions, eviction, 10_000, seed=partitions)


@pytest.mark.parametrize("partitions, eviction", TWINS)
def test_against_the_twin_when_drawn_ahead(partitions: int, eviction: str) -> None:
    random_operations(partitions, eviction, 2_000, seed=20 + partitions, staleness=0.9)


@pytest.mark.slow
@pytest.mark.parametrize("partitions, eviction", TWINS)
def test_a_million_operations_against_the_twin(partitions: int, eviction: str) -> None:
    random_operations(partitions, eviction, 1_000_000, seed=10 + partitions)


def test_a_new_priority_counts_at_once_where_nothing_may_be_late() -> None:
    sampler, priority = filled("ranked", 100_000, staleness=0)
    top, rng = int(priority.argmax()), np.random.default_rng(0)
    for i in range(20):
        sampler.update(np.array([top]), np.array([0.0 if i % 2 else 2e5]))
        draw = sampler.draw(rng, 5_000)
        at = draw.prob[draw.slots == top]
        assert len(at) == 0 if i % 2 else (at == draw.prob.max()).all()


def test_how_late_a_priority_may_be() -> None:
    """100,000 stored, a share of 0.001 late, 25 a minibatch: four at once; the fifth sees what was sent since."""
    sampler, priority = filled("ranked", 100_000, staleness=0.001)
    rng, law = np.random.default_rng(0), rank_probability(100_000, 0.7)
    for _ in range(3):
        rank = np.empty(100_000, int)
        rank[np.lexsort((np.arange(100_000), -priority))] = np.arange(100_000)
        for _ in range(4):
            draw = sampler.draw(rng, 25)
            np.testing.assert_allclose(draw.prob, law[rank[draw.slots]], rtol=1e-12)
            priority[draw.slots] = np.float32(rng.random(25) * 1e5)
            sampler.update(draw.slots, priority[draw.slots])
        sampler.check()


def test_the_likeliest_experience_is_not_drawn_over_and_over() -> None:
    """It bounds the minibatches drawn at once: expected draws of rank 0 before its new priority counts stay below 1."""
    sampler, priority = filled("ranked", 300_000, staleness=0.5)
    rng, top, drawn = np.random.default_rng(0), [], 0
    for _ in range(2_000):
        best = int(priority.argmax())
        draw = sampler.draw(rng, 8)
        drawn += int((draw.slots == best).sum())
        if sampler._queues._next == 1:
            top.append(best)
    per_pool = drawn / len(top)
    assert 0.6 < per_pool <= 1.3


def test_what_the_benchmark_calls_late() -> None:
    """Of a share of 0.05, 9 minibatches are drawn at once; the same numbers again; small memories have nothing late."""
    settings: dict[str, Any] = {"value_range": (0, 1), "staleness": 0.05}
    at_once, share, variation = lateness("hierarchical", 100_000, 5, **settings)
    assert at_once == 9
    assert 0.005 < share < 0.05
    assert 0.005 < variation < 0.05
    assert lateness("hierarchical", 100_000, 5, **settings) == (at_once, share, variation)
    assert lateness("hierarchical", 20_000, 5, value_range=(0, 1)) == (1, 0, 0)


def test_an_evicted_experience_is_never_drawn() -> None:
    sampler, _ = filled("ranked", 10_000, staleness=0.5)
    rng, free, held = np.random.default_rng(0), list(range(10_000, 10_008)), set(range(10_000))
    for i in range(1_500):
        draw = sampler.draw(rng, 4)
        assert set(draw.slots.tolist()) <= held
        new, free = free[:8], free[8:]
        free += sampler.put(np.array(new), np.zeros(8), rng.random(8) * 1e5).tolist()
        held = (held | set(new)) - set(free)
        if i % 300 == 0:
            sampler.check()


def test_resumed_in_the_middle_of_what_was_drawn_ahead() -> None:
    one, _ = filled("ranked", 100_000, staleness=0.001)
    rng = np.random.default_rng(0)
    for _ in range(6):
        draw = one.draw(rng, 25)
        one.update(draw.slots, rng.random(25))
    two = samplers.make("ranked", 100_000, 100_008, staleness=0.001)
    two.load_state(one.state())
    two.check()
    rngs = [np.random.default_rng(1), np.random.default_rng(1)]
    for _ in range(30):
        a, b = one.draw(rngs[0], 25), two.draw(rngs[1], 25)
        np.testing.assert_array_equal(a.slots, b.slots)
        np.testing.assert_array_equal(a.prob, b.prob)
        for sampler in (one, two):
            sampler.update(a.slots, np.arange(25.0))


@pytest.mark.parametrize("name", ["uniform", "ranked", "proportional", "hierarchical"])
@pytest.mark.parametrize("bad", BAD_PRIORITIES)
def test_bad_priorities_change_nothing(name: str, bad: float) -> None:
    sampler, _ = filled(name, 20)
    before = sampler.state()
    with pytest.raises(UserError, match=r"priority is .*nothing was changed"):
        sampler.update(np.array([1, 2]), np.array([1.0, bad]))
    with pytest.raises(UserError, match=r"priority is .*nothing was changed"):
        sampler.put(np.array([20, 21]), np.zeros(2), np.array([bad, 1.0]))
    sampler.check()
    after = sampler.state()
    assert all(np.array_equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", ["uniform", "ranked", "proportional", "hierarchical"])
def test_bad_slots_change_nothing(name: str) -> None:
    sampler, _ = filled(name, 20)
    sampler.drop(1)
    evicted = int(np.setdiff1d(np.arange(20), sampler.filled())[0])
    before = sampler.state()
    for slots in ([3, evicted], [-1], [28], [3, 10**6]):
        with pytest.raises(UserError, match="not stored"):
            sampler.update(np.array(slots), np.ones(len(slots)))
    for slots in ([21, 21], [5], [-1], [28]):
        with pytest.raises(UserError, match="slot"):
            sampler.put(np.array(slots), np.zeros(len(slots)))
    with pytest.raises(UserError, match="1 priorities for 2 experiences"):
        sampler.update(np.array([3, 4]), np.ones(1))
    with pytest.raises(UserError, match="3 priorities for 2 experiences"):
        sampler.put(np.array([21, 22]), np.zeros(2), np.full(3, 99.0))
    sampler.check()
    after = sampler.state()
    assert all(np.array_equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", ["ranked", "proportional", "hierarchical"])
def test_zero_of_either_sign_is_a_priority(name: str) -> None:
    sampler, _ = filled(name, 20)
    sampler.update(np.array([3, 4]), np.array([-0.0, 0.0]))
    sampler.check()
    assert len(sampler.draw(np.random.default_rng(0), 100).slots) == 100


@pytest.mark.parametrize("name", ["ranked", "proportional", "hierarchical"])
def test_first_priorities(name: str) -> None:
    """``exact`` takes the one handed in; ``max``, and none handed in, the largest so far, which is 1 at first."""
    for insertion, expected in (("exact", [0.5, 7.0, 7.0]), ("max", [1.0, 7.0, 7.0])):
        sampler = samplers.make(name, 10, 12, insertion=insertion)
        sampler.put(np.array([0]), np.zeros(1), np.array([0.5]))
        first = [float(priorities(sampler)[0])]
        sampler.update(np.array([0]), np.array([7.0]))
        sampler.put(np.array([1]), np.zeros(1), None)
        sampler.put(np.array([2]), np.zeros(1), np.array([7.0]))
        np.testing.assert_allclose([*first, *priorities(sampler)[1:3]], expected, rtol=1e-6)


def priorities(sampler: Sampler) -> np.ndarray:
    state = sampler.state()
    if "mass" in state:
        return np.asarray(state["mass"] ** (1 / 0.6) - 1e-6)
    return next(array for key, array in state.items() if key.endswith("priority"))


@pytest.mark.parametrize(
    "name, settings, told",
    [
        ("ranked", {"alpha": -0.1}, "alpha"),
        ("ranked", {"alpha": float("nan")}, "alpha"),
        ("ranked", {"draws": "segments"}, "draws"),
        ("ranked", {"staleness": 1}, "staleness"),
        ("ranked", {"insertion": "largest"}, "insertion"),
        ("proportional", {"alpha": "high"}, "alpha"),
        ("proportional", {"epsilon": 0}, "epsilon"),
        ("hierarchical", {"partitions": 0}, "partitions"),
        ("hierarchical", {"window": 0}, "window"),
        ("hierarchical", {"draw_partition": "batch"}, "draw_partition"),
        ("hierarchical", {"out_of_range": "ignore"}, "out_of_range"),
        ("hierarchical", {"partition_counts": "all"}, "partition_counts"),
        ("hierarchical", {"value_range": [1]}, "value_range"),
        ("hierarchical", {"partition": 3}, "did you mean 'partitions'"),
    ],
)
def test_bad_settings_are_named(name: str, settings: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=f"^sampler '?{name}.*{told}"):
        samplers.make(name, 100, 108, **settings)


@pytest.mark.parametrize("name", ["ranked", "proportional", "hierarchical"])
def test_damaged_states_are_refused(name: str) -> None:
    good = filled(name, 20)[0].state()
    fresh = samplers.make(name, 20, 28)
    for key, value in (("count", 1_000), ("pushed", -1), ("ring", 5), ("priority", -1.0), ("mass", np.nan)):
        state = {k: v.copy() for k, v in good.items()}
        hit = [k for k in state if k.endswith(key)]
        for k in hit:
            state[k][...] = value
        if hit:
            with pytest.raises(UserError, match=r"damaged|priority is"):
                fresh.load_state(state)
    fresh.check()
    assert len(fresh) == 0
    fresh.load_state(good)
    fresh.check()
