"""Proportional replay: the law against numbers typed in, zero masses, no drift, a twin."""

from __future__ import annotations

import numpy as np

from polydistill.ops.weights import importance_weights
from polydistill.replay import samplers
from tests.replay.test_ranked import chi_square


def test_golden_probabilities_of_four() -> None:
    """Priorities 1 to 4, alpha 0.6: p^0.6 = 1, 1.515717, 1.933182, 2.297397, sum 6.746295; weights with beta 0.4."""
    sampler = samplers.make("proportional", 4, 5, epsilon=1e-12)
    sampler.put(np.arange(4), np.zeros(4), np.array([1.0, 2.0, 3.0, 4.0]))
    draw = sampler.draw(np.random.default_rng(0), 500)
    weights = importance_weights(draw.prob, 4, 0.4)
    law = [0.1482295026, 0.2246739128, 0.2865546130, 0.3405419716]
    weight = [1.0, 0.8467453124, 0.7682293564, 0.7169776240]
    prob = np.zeros(4)
    prob[draw.slots] = draw.prob
    np.testing.assert_allclose(prob, law, atol=1e-10)
    for slot in range(4):
        np.testing.assert_allclose(weights[draw.slots == slot], weight[slot], atol=1e-10)


def test_a_hundred_thousand_draws_follow_the_exact_law() -> None:
    n, rng = 2_000, np.random.default_rng(0)
    priority = (rng.random(n) ** 4).astype(np.float32)
    sampler = samplers.make("proportional", n, n + 1)
    sampler.put(np.arange(n), np.zeros(n), priority)
    law = (priority.astype(float) + 1e-6) ** 0.6
    law /= law.sum()
    count = np.zeros(n)
    for _ in range(1_000):
        draw = sampler.draw(rng, 100)
        np.testing.assert_allclose(draw.prob, law[draw.slots], rtol=1e-12)
        count += np.bincount(draw.slots, minlength=n)
    assert abs(chi_square(count, law)) < 4.5
    assert chi_square(count, np.full(n, 1 / n)) > 100


def test_alpha_zero_is_uniform() -> None:
    sampler = samplers.make("proportional", 30, 31, alpha=0)
    sampler.put(np.arange(30), np.zeros(30), np.arange(30.0))
    np.testing.assert_allclose(sampler.draw(np.random.default_rng(0), 100).prob, np.full(100, 1 / 30), rtol=1e-14)


def test_a_priority_of_zero_is_drawn_now_and_then() -> None:
    sampler = samplers.make("proportional", 2, 3, alpha=1, epsilon=0.01)
    sampler.put(np.arange(2), np.zeros(2), np.array([0.0, 0.98]))
    draw = sampler.draw(np.random.default_rng(0), 10_000)
    np.testing.assert_allclose(draw.prob[draw.slots == 0], 0.01, rtol=1e-6)
    assert 60 < (draw.slots == 0).sum() < 150


def test_sums_do_not_drift() -> None:
    """After 10,000 updates between very different sizes, the total is the sum of the masses to the last digits."""
    rng, sampler = np.random.default_rng(0), samplers.make("proportional", 1_000, 1_001)
    sampler.put(np.arange(1_000), np.zeros(1_000), np.ones(1_000))
    for _ in range(10_000):
        sampler.update(rng.integers(1_000, size=8), rng.choice([1e-6, 1.0, 1e12], 8))
    sampler.update(np.arange(1_000), np.full(1_000, 1e-3))
    draw = sampler.draw(rng, 100)
    np.testing.assert_allclose(draw.prob, 1e-3, rtol=1e-12)
    sampler.check()


def test_against_a_slow_twin() -> None:
    """Slots in order, cumulative sums: the same slots from the same numbers, except where rounding may decide."""
    rng, capacity = np.random.default_rng(1), 300
    sampler, mass, age = samplers.make("proportional", capacity, capacity + 8), np.zeros(capacity + 8), []
    free = list(range(capacity + 8))
    for i in range(3_000):
        n = int(rng.integers(1, 9))
        if rng.random() < 0.4 and len(free) >= n:
            new, free = free[:n], free[n:]
            first = rng.choice([0.0, 1.0, rng.random()], n)
            gone = sampler.put(np.array(new), np.zeros(n), first).tolist()
            age, mass[new] = age + new, (np.float32(first).astype(float) + 1e-6) ** 0.6
            assert gone == age[: max(0, len(age) - capacity)]
        elif rng.random() < 0.1:
            gone = sampler.drop(n).tolist()
            assert gone == age[:n]
        else:
            gone = []
            if age:
                state = rng.bit_generator.state
                draw = sampler.draw(rng, 16)
                rng.bit_generator.state = state
                ends, x = mass.cumsum(), rng.random(16) * mass.sum()
                sure = np.abs(x[:, None] - ends).min(axis=1) > 1e-9
                np.testing.assert_array_equal(draw.slots[sure], ends.searchsorted(x, "right")[sure])
                np.testing.assert_allclose(draw.prob, mass[draw.slots] / mass.sum(), rtol=1e-12)
                new_priority = rng.random(16).astype(np.float32)
                sampler.update(draw.slots, new_priority)
                for slot, p in zip(draw.slots.tolist(), new_priority.astype(float).tolist(), strict=True):
                    mass[slot] = (p + 1e-6) ** 0.6
        age, free = [slot for slot in age if slot not in set(gone)], free + gone
        mass[gone] = 0
        assert len(sampler) == len(age)
        if i % 200 == 0:
            sampler.check()
            assert sampler.filled().tolist() == age
