"""Memory against a slow twin that keeps every observation whole."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest

from polydistill.errors import UserError
from polydistill.replay.memory import Memory, make_memory
from polydistill.replay.stacks import Stacks

ACTIONS, AXIS = (0, 3, 5), 7


def memory(capacity: int, streams: int, budget: int | None = None, chunk: int = 8, side: int = 4) -> Memory:
    stacks = Stacks((4, side, side), stack=4, streams=streams, chunk=chunk)
    return make_memory(capacity, stacks, ACTIONS, AXIS, budget_bytes=budget)


def teacher(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(size=(n, len(ACTIONS))).astype(np.float32)


def test_uniform_against_twin_with_eviction(fake_env: Callable[..., Any]) -> None:
    """20,000 experiences of ragged episodes through 200 places; told about starts or not, it makes no difference."""
    rng, n = np.random.default_rng(0), 4
    kept = memory(200, n)
    twin: list[tuple[int, np.ndarray, np.ndarray]] = []  # (slot, observation, teacher), oldest first
    for t, step in enumerate(islice(fake_env(rng, n).steps(), 5_000)):
        said = teacher(rng, n)
        slots = kept.append(step.obs, said, start=step.start if t % 2 else None)
        twin = (twin + list(zip(slots.tolist(), step.obs, said, strict=True)))[-200:]
        assert len(kept) == len(twin)
        if t % 50 == 0:
            picks = rng.integers(len(twin), size=16)
            batch = kept.gather(np.array([twin[i][0] for i in picks]))
            np.testing.assert_array_equal(batch.obs, np.stack([twin[i][1] for i in picks]))
            said = np.stack([twin[i][2] for i in picks])
            np.testing.assert_array_equal(batch.teacher[:, ACTIONS], said)
            np.testing.assert_array_equal(batch.value, said.max(1))
            assert not np.delete(batch.teacher, ACTIONS, axis=1).any()
        if t % 250 == 0:
            kept.check()
    kept.check()
    batch = kept.gather(np.array([slot for slot, _, _ in twin]))
    np.testing.assert_array_equal(batch.obs, np.stack([obs for _, obs, _ in twin]))


def test_resumed_memory_goes_on_alike(fake_env: Callable[..., Any]) -> None:
    """Saved in the middle and loaded into a fresh one: the same slots, draws and bytes afterwards, under a budget."""
    rng, n = np.random.default_rng(3), 3
    steps = list(islice(fake_env(rng, n, side=16).steps(), 900))
    said = [teacher(rng, n) for _ in steps]
    budget = 60_000
    one, two = memory(400, n, budget, side=16), memory(400, n, budget, side=16)
    for step, q in zip(steps[:450], said[:450], strict=True):
        one.append(step.obs, q)
    two.load_state(one.state())
    rngs = [np.random.default_rng(5), np.random.default_rng(5)]
    for step, q in zip(steps[450:], said[450:], strict=True):
        slots = [m.append(step.obs, q) for m in (one, two)]
        draws = [m.sample(g, 8) for m, g in zip((one, two), rngs, strict=True)]
        assert np.array_equal(*slots)
        assert np.array_equal(draws[0][0].slots, draws[1][0].slots)
        assert np.array_equal(draws[0][1].obs, draws[1][1].obs)
        assert one.nbytes == two.nbytes
    two.check()
    a, b = one.state(), two.state()
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[key], b[key]) for key in a)
    assert all(array.dtype.kind in "iufb" for array in a.values()), "raw numbers only"


def test_budget_evicts_the_oldest_until_it_fits(fake_env: Callable[..., Any]) -> None:
    rng, n, budget = np.random.default_rng(0), 2, 500_000
    kept = memory(100_000 // 64, n, budget, side=32)
    newest = []
    for step in islice(fake_env(rng, n, side=32, end=0.01).steps(), 1_500):
        newest.append((kept.append(step.obs, teacher(rng, n)), step.obs))
        assert kept.nbytes <= budget
    kept.check()
    assert 50 < len(kept) < kept.capacity
    for slots, obs in newest[-(len(kept) // n) :]:
        np.testing.assert_array_equal(kept.gather(slots).obs, obs)


def test_a_budget_that_is_too_small_keeps_the_newest_step(fake_env: Callable[..., Any]) -> None:
    rng, n = np.random.default_rng(0), 2
    budget = memory(64, n, side=32).nbytes + 1
    kept = memory(64, n, budget, side=32)
    for step in islice(fake_env(rng, n, side=32).steps(), 100):
        slots = kept.append(step.obs, teacher(rng, n))
        np.testing.assert_array_equal(kept.gather(slots).obs, step.obs)
        assert len(kept) >= n
        assert len(kept) == n or kept.nbytes <= budget
    kept.check()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("where", ["teacher", "value"])
def test_insane_numbers_are_refused_and_nothing_is_stored(bad: float, where: str, fake_env: Callable[..., Any]) -> None:
    rng, n = np.random.default_rng(0), 3
    kept = memory(10, n)
    step = next(fake_env(rng, n).steps())
    kept.append(step.obs, teacher(rng, n))
    before = kept.state()
    said, value = teacher(rng, n), np.zeros(n, np.float32)
    (said if where == "teacher" else value)[1] = bad
    with pytest.raises(UserError, match="refused"):
        kept.append(step.obs, said, value)
    after = kept.state()
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_bad_shapes_are_refused_with_expected_and_found() -> None:
    kept, good = memory(10, 3), np.zeros((3, 4, 4, 4), np.uint8)
    with pytest.raises(UserError, match=r"uint8 \[3, 4, 5, 4\], expected uint8 \[3, 4, 4, 4\]"):
        kept.append(np.zeros((3, 4, 5, 4), np.uint8), np.zeros((3, 3), np.float32))
    with pytest.raises(UserError, match=r"float32 \[3, 18\], expected float32 \[3, 3\]"):
        kept.append(good, np.zeros((3, 18), np.float32))
    with pytest.raises(UserError, match="float64"):
        kept.append(good.astype(float), np.zeros((3, 3), np.float32))
    assert len(kept) == 0


@pytest.mark.parametrize("bad", [np.nan, -1.0, np.inf])
def test_bad_priorities_are_refused(bad: float) -> None:
    kept = memory(10, 1)
    slots = kept.append(np.zeros((1, 4, 4, 4), np.uint8), np.zeros((1, 3), np.float32))
    with pytest.raises(UserError, match="priority"):
        kept.update(slots, np.array([bad]))


@pytest.mark.parametrize("bad", [np.nan, -1.0, 1e300])  # 1e300 is infinite as a float32
def test_an_experience_with_a_bad_priority_takes_nothing(bad: float) -> None:
    rng, stacks = np.random.default_rng(0), Stacks((4, 4, 4), stack=4, streams=1)
    kept: Memory = make_memory(4, stacks, (0, 1, 2), 3, "ranked", alpha=0.7)
    for _ in range(8):
        with pytest.raises(UserError, match="priority"):
            kept.append(np.zeros((1, 4, 4, 4), np.uint8), np.zeros((1, 3), np.float32), priority=np.array([bad]))
    assert len(kept) == 0
    kept.append(rng.integers(0, 255, (1, 4, 4, 4), dtype=np.uint8), np.zeros((1, 3), np.float32), priority=np.ones(1))
    kept.check()
    with pytest.raises(ValueError, match="free"):
        kept._table.put(np.zeros((99, 4), np.int64), {}, np.zeros(99), np.ones(99))
    kept.check()


def test_an_empty_memory_cannot_be_drawn_from() -> None:
    with pytest.raises(UserError, match="empty"):
        memory(10, 1).sample(np.random.default_rng(0), 4)


def test_refused_sizes() -> None:
    with pytest.raises(UserError, match="cannot hold one step of 4 environments"):
        memory(3, 4)
    with pytest.raises(UserError, match="before its first frame"):
        memory(100_000, 4, budget=1_000_000)


def test_an_episode_start_stores_one_frame() -> None:
    """AtariVectorEnv fills the stack with zeros at a reset: one new frame, not four."""
    kept, obs = memory(100, 1), np.zeros((1, 4, 4, 4), np.uint8)
    zeros_only = len(kept.stacks.frames)
    for t in range(10):
        obs[0, -1] = 10 + t
        kept.append(obs, np.zeros((1, 3), np.float32), start=np.ones(1, bool))
    assert len(kept.stacks.frames) == zeros_only + 10


def test_out_is_written_in_place(fake_env: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    kept, steps = memory(50, 2), fake_env(rng, 2).steps()
    for step in islice(steps, 20):
        slots = kept.append(step.obs, teacher(rng, 2))
    out = np.zeros((5, 2, 4, 4, 4), np.uint8)
    batch = kept.gather(slots, out=out[3])
    assert batch.obs is not None
    np.testing.assert_array_equal(out[3], kept.gather(slots).obs)
    assert not out[:3].any()


def test_observations_that_are_no_images() -> None:
    """A float vector without a stack, bit for bit."""
    rng = np.random.default_rng(0)
    kept = make_memory(64, Stacks((5,), stack=1, dtype=np.float32, streams=3), (0, 1), 2)
    newest = []
    for _ in range(200):
        obs = rng.normal(size=(3, 5)).astype(np.float32)
        obs[rng.random((3, 5)) < 0.1] = -0.0
        newest.append((kept.append(obs, rng.normal(size=(3, 2)).astype(np.float32)), obs))
    for slots, obs in newest[-21:]:
        assert np.array_equal(kept.gather(slots).obs.view(np.uint32), obs.view(np.uint32))
    kept.check()
