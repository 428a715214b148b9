"""The laws of rank-based replay (Schaul et al. 2016, section 3.3; Yin & Pan 2017, eq. 6 and 7), in float64.

Ranks are 0-based here: rank 0 is the largest priority. N is the number of experiences in a queue.
"""

from __future__ import annotations

import numpy as np


def power_sums(n: int, alpha: float) -> np.ndarray:
    """Sums of (t + 1)^-alpha over t = 0 .. r, for ranks r = 0 .. n - 1: float64 ``[n]``."""
    return np.asarray(np.cumsum(np.arange(1, n + 1, dtype=np.float64) ** -alpha))


def rank_probability(n: int, alpha: float) -> np.ndarray:
    """P(r) = (r + 1)^-alpha / sum_t (t + 1)^-alpha, float64 ``[n]`` (Schaul et al. eq. 1, p = 1 / rank; YP eq. 6)."""
    power = np.arange(1, n + 1, dtype=np.float64) ** -alpha
    return np.asarray(power / power.sum())


def hierarchical_probability(counts: np.ndarray, alpha: float) -> np.ndarray:
    """P_j(k) = N_j / sum N * P_{j[k]}, float64 ``[sum N]``: partition after partition, by rank in each (YP eq. 7).

    Args:
        counts: int ``[p]``, N_j: experiences in each partition; some may be empty.
        alpha: 0 = every experience equally often, whatever p.
    """
    share = counts / counts.sum()
    return np.concatenate([s * rank_probability(int(n), alpha) for s, n in zip(share, counts, strict=True)])


def partition_edges(low: float, high: float, p: int) -> np.ndarray:
    """Edges of p partitions of equal width, float64 ``[p + 1]``: [V_1, V_2], (V_2, V_3], ..., (V_p, V_{p+1}] (YP)."""
    return np.linspace(low, high, p + 1)


def partition_of(value: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """0-based partition of each value, int64 ``[...]``: clip(ceil((V - V_min) / w), 1, p) - 1 in Yin & Pan's numbers.

    An interval is closed on the right; a value outside the range belongs to the nearest partition. Where all edges are
    equal (w = 0), everything belongs to partition 0.
    """
    if edges[0] == edges[-1]:
        return np.zeros(np.shape(value), np.int64)
    return np.asarray(edges[1:-1].searchsorted(value, "left"))
