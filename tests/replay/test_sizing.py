"""Sizes typed in, and what a machine refuses."""

from __future__ import annotations

import numpy as np
import pytest

from polydistill.errors import UserError
from polydistill.replay import sizing
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
