"""Sizes typed in, and what a machine refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polydistill.errors import UserError
from polydistill.replay import samplers, sizing
from polydistill.replay.memory import make_memory
from polydistill.replay.sizing import frame_bytes, human, index_bytes, machine_memory, parse_size, plan_capacity
from polydistill.replay.stacks import Stacks
from polydistill.tasks import Task


@pytest.mark.parametrize(
    "text, size",
    [
        ("8GB", 8 * 10**9),
        ("8gb", 8 * 10**9),
        ("8g", 8 * 10**9),
        ("8GiB", 8 * 2**30),
        ("1.5 MB", 1_500_000),
        ("512 KiB", 2**19),
        ("1024", 1024),
        ("1024B", 1024),
        (77, 77),
    ],
)
def test_parse_size(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "8 apples", "-1GB", "0", "0.4", "1e9", "8GBB", "nan", "8 G B"])
def test_no_size(text: str) -> None:
    with pytest.raises(UserError, match="8GB"):
        parse_size(text)


def test_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "machine_memory", lambda: (24 * 10**9, 20 * 10**9))
    plan = plan_capacity(9 * 10**9, n_tasks=3, bytes_per_experience=1_000)
    assert (plan.capacity, plan.budget_bytes, plan.expected_bytes) == (3_000_000, 3 * 10**9, 9 * 10**9)
    plan = plan_capacity(9 * 10**9, n_tasks=3, bytes_per_experience=1_000, wanted=540_000)
    assert (plan.capacity, plan.expected_bytes) == (540_000, 1_620_000_000)
    assert plan_capacity(10**6, 1, 1_000, wanted=10).capacity == 10
    with pytest.raises(UserError, match=r"need 21 GB.*20 GB free of 24 GB"):
        plan_capacity(21 * 10**9, n_tasks=3)
    with pytest.raises(UserError, match="holds 3 experiences"):
        plan_capacity(10_000, n_tasks=3, bytes_per_experience=1_000)


def test_plan_with_a_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 bytes an experience and a sampler of 5,000 + 250 each: 9,995,000 bytes are left, for 7,996 of them."""
    monkeypatch.setattr(sizing, "machine_memory", lambda: (24 * 10**9, 20 * 10**9))

    def plan(size: int, wanted: int | None = None) -> sizing.Plan:
        return plan_capacity(size, 2, 1_000, wanted, lambda capacity: 5_000 + 250 * capacity)

    found = plan(20_000_000)
    assert (found.capacity, found.budget_bytes, found.expected_bytes) == (7_996, 10**7, 2 * 10**7)
    assert found.sampler_bytes == 2 * (5_000 + 250 * 7_996)
    assert plan(20_000_000 - 2).capacity == 7_995
    assert plan(20_000_000, 10_000).capacity == 7_996
    found = plan(20_000_000, 4_000)
    assert (found.capacity, found.expected_bytes, found.sampler_bytes) == (4_000, 2 * 5_005_000, 2 * 1_005_000)
    with pytest.raises(UserError, match=r"^--memory 2\.4 MB holds 956 experiences for each of 2 tasks: .* 2\.5 MB$"):
        plan(2_400_000)
    with pytest.raises(UserError, match="holds 0 experiences"):
        plan(10_000)


@pytest.mark.parametrize("name", ["uniform", "proportional", "ranked", "hierarchical"])
def test_what_is_planned_fits(name: str) -> None:
    """Frames that compress to (almost) nothing: a memory of the planned capacity is full, and as large as planned."""
    n, actions = 4, tuple(range(6))
    options: dict[str, Any] = {"value_range": (0.0, 1.0)} if name == "hierarchical" else {}
    per = 6 + index_bytes(4, 6, sampler=0)  # a frame is an eighth of a chunk
    plan = plan_capacity(1_500_000, 1, per, None, lambda c: samplers.nbytes(name, c, c + n, **options))
    kept = make_memory(
        plan.capacity, Stacks((4, 2, 2), stack=4, streams=n), actions, 18, name, plan.budget_bytes, **options
    )
    rng, obs = np.random.default_rng(0), np.ones((n, 4, 2, 2), np.uint8)
    for t in range(plan.capacity // n + 1):
        obs = np.concatenate([obs[:, 1:], np.full((n, 1, 2, 2), t % 251 + 2, np.uint8)], axis=1)
        value = (np.arange(n) + t * n).astype(np.float32) % 5 / 5 + 0.1  # every partition as often as any other
        kept.append(obs, rng.random((n, 6)).astype(np.float32), value)
    assert len(kept) > 0.99 * plan.capacity
    assert kept.nbytes == pytest.approx(plan.expected_bytes, rel=0.03)


def test_an_index_that_leaves_no_room_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "make", None)

    def size(capacity: int) -> int:
        return samplers.nbytes("hierarchical", capacity, capacity + 16, value_range=(0.0, 1.0))

    with pytest.raises(
        UserError, match=r"^--memory 500 kB holds \d+ experiences for each of 10 tasks: give at least .*$"
    ):
        plan_capacity(500_000, 10, 500, 1_000_000, size)
    with pytest.raises(
        UserError, match=r"^the memories need 1000 TB, but this machine has .*: give a smaller --memory$"
    ):
        plan_capacity(10**15, 10, 500, 10**12, size)


def test_machine_memory() -> None:
    total, free = machine_memory()
    assert 10**8 < free <= total


def test_control_group_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/sys/fs/cgroup/memory.max": "1000000\n", "/sys/fs/cgroup/memory.current": "400000\n"}
    monkeypatch.setattr(sizing, "_read", lambda path: files.get(path, ""))
    assert machine_memory() == (1_000_000, 600_000)
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    total, free = machine_memory()
    assert total == free > 1_000_000


def test_human() -> None:
    assert [human(x) for x in (8 * 10**9, 12 * 10**9, 1_500_000, 37_000, 12)] == [
        "8.0 GB",
        "12 GB",
        "1.5 MB",
        "37 kB",
        "12 bytes",
    ]


def test_index_bytes_are_those_of_a_memory() -> None:
    """Frames that compress to (almost) nothing leave the index: predicted within 5 %, open buffers aside."""
    n, capacity, actions = 4, 20_000, tuple(range(6))
    kept = make_memory(capacity, Stacks((4, 2, 2), stack=4, streams=n), actions, 18)
    obs = np.ones((n, 4, 2, 2), np.uint8)
    for t in range(capacity // n):
        obs = np.concatenate([obs[:, 1:], np.full((n, 1, 2, 2), t % 251 + 2, np.uint8)], axis=1)
        kept.append(obs, np.zeros((n, 6), np.float32))
    payload = kept.stacks.frames._payload_bytes
    header = 33 * capacity / 8  # a bytes object's own, which index_bytes counts
    index = (kept.nbytes - payload + header) / capacity
    assert index_bytes(4, 6) == pytest.approx(index, rel=0.05)


def test_frame_bytes() -> None:
    """Screens are compressed, 450 bytes each; anything else is counted as it is."""
    assert frame_bytes(Task("pong", "atari", ("NOOP",), (4, 84, 84), stack=4)) == 450
    assert frame_bytes(Task("pole", "gymnasium", ("0", "1"), (4,), "float32")) == 16
    assert frame_bytes(Task("room", "doom", ("LEFT",), (3, 84, 84))) == 21_168
