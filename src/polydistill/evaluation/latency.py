"""How long a network takes to answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from polydistill.tasks import Task

FORWARDS, SECONDS = 200, 3.0  # of a latency: so many, and no longer than this


def latency(
    values: Callable[[np.ndarray], np.ndarray],
    task: Task,
    batch: int,
    forwards: int = FORWARDS,
    seconds: float = SECONDS,
) -> float:
    """Median milliseconds from a batch of observations to the network's answers, on one thread of the processor.

    Args:
        values: ``[B, *obs_shape]`` -> what the network says.
        forwards: So many are timed, after ten that are not; fewer where they take longer than ``seconds``.
    """
    shape, rng = (batch, *task.obs_shape), np.random.default_rng(0)
    if np.issubdtype(np.dtype(task.obs_dtype), np.integer):
        obs = rng.integers(0, 256, shape).astype(task.obs_dtype)
    else:
        obs = rng.standard_normal(shape).astype(task.obs_dtype)
    threads, taken = torch.get_num_threads(), list[float]()
    torch.set_num_threads(1)
    try:
        for _ in range(10):
            values(obs)
        end = time.perf_counter() + seconds
        while len(taken) < forwards and time.perf_counter() < end:
            began = time.perf_counter()
            values(obs)
            taken.append(1000 * (time.perf_counter() - began))
    finally:
        torch.set_num_threads(threads)
    return median(taken)
