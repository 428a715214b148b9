"""The laws of rank-based replay against numbers typed in, and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from polydistill.ops.ranks import (
    hierarchical_probability,
    partition_edges,
    partition_of,
    power_sums,
    rank_probability,
)
from polydistill.ops.weights import importance_weights


def test_rank_law_of_four() -> None:
    """N = 4, alpha = 0.7, beta = 0.5 (Schaul et al., section 3.3 and 3.4)."""
    prob = rank_probability(4, 0.7)
    np.testing.assert_allclose(prob, [0.4068407166, 0.2504398377, 0.1885556421, 0.1541638035], atol=5e-11)
    weights = importance_weights(prob, 4, 0.5)
    np.testing.assert_allclose(weights, [0.6155722067, 0.7845840979, 0.9042144481, 1.0], atol=5e-11)


def test_rank_law_of_many() -> None:
    np.testing.assert_allclose(power_sums(200_000, 0.7)[-1], 126.99572471, atol=5e-9)
    np.testing.assert_allclose(power_sums(1_000_000, 0.7)[-1], 207.5407576, atol=5e-8)
    prob = rank_probability(200_000, 0.7)
    np.testing.assert_allclose(prob[0], 0.00787428, atol=5e-9)
    np.testing.assert_allclose(prob[-1], 1.5328e-6, atol=5e-11)
    weights = importance_weights(prob, 200_000, 0.5)
    np.testing.assert_allclose(weights.max() / weights.min(), 71.67381, atol=5e-6)
    np.testing.assert_allclose(prob.sum(), 1.0, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0, 2.5])
def test_power_sums_by_their_definition(alpha: float) -> None:
    expected = [sum((t + 1) ** -alpha for t in range(r + 1)) for r in range(12)]
    np.testing.assert_allclose(power_sums(12, alpha), expected, rtol=1e-14)


def test_alpha_zero_is_uniform_and_all_weights_are_one() -> None:
    prob = rank_probability(7, 0.0)
    np.testing.assert_allclose(prob, np.full(7, 1 / 7), rtol=1e-15)
    np.testing.assert_allclose(importance_weights(prob, 7, 0.5), np.ones(7), rtol=1e-15)
    np.testing.assert_array_equal(importance_weights(rank_probability(7, 0.7), 7, 0.0), np.ones(7))


def test_hierarchical_law_of_two_partitions() -> None:
    """Counts (2, 3), alpha = 0.7, beta = 0.5: Yin & Pan, eq. 6, 7 and 8."""
    counts = np.array([2, 3])
    np.testing.assert_allclose(rank_probability(2, 0.7), [0.6189757387, 0.3810242613], atol=5e-11)
    np.testing.assert_allclose(rank_probability(3, 0.7), [0.4809923225, 0.2960855054, 0.2229221721], atol=5e-11)
    prob = hierarchical_probability(counts, 0.7)
    expected = [0.2475902955, 0.1524097045, 0.2885953935, 0.1776513032, 0.1337533033]
    np.testing.assert_allclose(prob, expected, atol=5e-11)
    np.testing.assert_allclose(prob.sum(), 1.0, atol=1e-15)
    weights = [0.8987692158, 1.1455358556, 0.8324732755, 1.0610376603, 1.2228205810]
    np.testing.assert_allclose((1 / (5 * prob)) ** 0.5, weights, atol=5e-11)
    inside = np.concatenate([1 / (2 * rank_probability(2, 0.7)), 1 / (3 * rank_probability(3, 0.7))])
    np.testing.assert_allclose(inside**0.5, weights, atol=5e-11)  # the other form of eq. 8
    np.testing.assert_allclose(importance_weights(prob, 5, 0.5), np.array(weights) / 1.2228205810, atol=5e-11)


def test_weights_of_a_partition_do_not_see_the_others() -> None:
    """Eq. 8 before the division by the largest: one partition grows from 3 to 300 experiences."""
    few, many = hierarchical_probability(np.array([2, 3]), 0.7), hierarchical_probability(np.array([2, 300]), 0.7)
    np.testing.assert_allclose((5 * few[:2]) ** -0.5, (302 * many[:2]) ** -0.5, rtol=1e-14)


@pytest.mark.parametrize("counts", [[12], [3, 9], [0, 5, 0, 1, 6], [1] * 12])
def test_alpha_zero_is_uniform_for_every_p(counts: list[int]) -> None:
    np.testing.assert_allclose(hierarchical_probability(np.array(counts), 0.0), np.full(12, 1 / 12), rtol=1e-15)


def test_one_experience_a_partition_is_uniform() -> None:
    prob = hierarchical_probability(np.ones(6, int), 0.7)
    np.testing.assert_allclose(prob, np.full(6, 1 / 6), rtol=1e-15)


def test_full_correction_gives_the_mean_of_the_memory() -> None:
    """beta = 1, not normalised: E[w x] = mean(x), by enumeration."""
    x = np.random.default_rng(0).normal(size=17)
    prob = hierarchical_probability(np.array([4, 1, 0, 12]), 0.7)
    np.testing.assert_allclose((prob * (1 / (17 * prob)) * x).sum(), x.mean(), atol=1e-15)


def test_partitions_of_values() -> None:
    """V_min = 0, V_max = 10, p = 5; partitions 1, 1, 2, 5, 1, 5 in the paper's numbers."""
    edges = partition_edges(0.0, 10.0, 5)
    np.testing.assert_array_equal(edges, [0, 2, 4, 6, 8, 10])
    found = partition_of(np.array([0.0, 2.0, 2.0001, 10.0, -3.0, 14.0]), edges)
    np.testing.assert_array_equal(found + 1, [1, 1, 2, 5, 1, 5])
    value = np.random.default_rng(0).uniform(-5, 15, 1000)
    np.testing.assert_array_equal(partition_of(value, edges), np.clip(np.ceil(value / 2), 1, 5) - 1)


def test_partitions_without_width() -> None:
    np.testing.assert_array_equal(partition_of(np.array([2.0, 3.0, 4.0]), partition_edges(3.0, 3.0, 5)), [0, 0, 0])
    np.testing.assert_array_equal(partition_of(np.array([-1.0, 9.0]), partition_edges(0.0, 1.0, 1)), [0, 0])
