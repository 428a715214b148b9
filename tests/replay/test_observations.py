"""The memory of observations alone: exact, first in first out, and empty after ``clear``."""

from __future__ import annotations

import numpy as np
import pytest

from polydistill.envs.catch import CatchVec, catch_task
from polydistill.errors import UserError
from polydistill.replay.observations import Observations
from polydistill.tasks import Task

TASK = catch_task("catch")


def played(steps: int, copies: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    env, rng = CatchVec(TASK, copies), np.random.default_rng(1)
    shown = [(env.reset(7), np.ones(copies, bool))]
    for _ in range(steps - 1):
        step = env.step(rng.integers(0, 3, copies))
        shown.append((step.obs, step.ended))
    return shown


def rows(obs: np.ndarray) -> set[bytes]:
    return {o.tobytes() for o in obs}


def test_what_is_drawn_was_seen_and_the_oldest_leave_first() -> None:
    memory, shown = Observations(TASK, 3, 60, "1MB"), played(100)
    rng = np.random.default_rng(0)
    for i, (obs, start) in enumerate(shown):
        memory.append(obs, start)
        memory.check()
        newest = np.concatenate([o for o, _ in shown[max(0, i - 19) : i + 1]])
        assert len(memory) == len(newest)
        drawn = memory.sample(rng, 200)
        assert drawn.dtype == np.uint8
        assert rows(drawn) <= rows(newest)
    assert rows(memory.sample(rng, 2_000)) == rows(newest)
    assert memory.shown == 300
    assert memory.nbytes > 0


def test_cleared_it_is_as_new() -> None:
    memory = Observations(TASK, 3, 60, "1MB")
    empty = memory.nbytes
    for obs, start in played(50):
        memory.append(obs, start)
    memory.clear()
    memory.check()
    assert (len(memory), memory.shown, memory.nbytes) == (0, 0, empty)
    with pytest.raises(UserError, match="empty"):
        memory.sample(np.random.default_rng(0), 1)
    obs, start = played(1)[0]
    memory.append(obs, start)
    assert rows(memory.sample(np.random.default_rng(0), 20)) == rows(obs)


def test_stacks_of_frames_come_back_bit_for_bit() -> None:
    task = Task("stacked", "other", ("a", "b"), (4, 6, 6), stack=4)
    memory, rng = Observations(task, 1, 50, "1MB"), np.random.default_rng(2)
    obs = np.zeros((1, 4, 6, 6), np.uint8)
    seen = set()
    for _ in range(30):
        obs = np.concatenate([obs[:, 1:], rng.integers(0, 255, (1, 1, 6, 6)).astype(np.uint8)], axis=1)
        memory.append(obs, np.zeros(1, bool))
        seen.add(obs.tobytes())
    assert rows(memory.sample(rng, 1_000)) == seen


def test_it_holds_at_least_one_step() -> None:
    with pytest.raises(UserError, match="a memory of 2 observations cannot hold one of each of 3 copies of catch"):
        Observations(TASK, 3, 2, "1MB")
    with pytest.raises(UserError, match="this machine has"):
        Observations(TASK, 3, 60, "900TB")
