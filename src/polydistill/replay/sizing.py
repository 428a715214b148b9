"""How many experiences fit into the memory a user gives, computed and refused before anything is allocated."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from polydistill.errors import UserError
from polydistill.tasks import Task

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

#: Compressed bytes of one frame of trained play; Freeway, the largest of our three games, stays below.
FRAME_BYTES = 450


def parse_size(text: str | int) -> int:
    """Bytes in ``8GB``, ``500 MiB``, ``1.5g`` or ``1024``; GB is 10^9, GiB is 2^30, case does not matter.

    Raises:
        UserError: no size, or less than one byte.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?)?b?\s*", str(text).lower())
    size = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if size < 1:
        raise UserError(f"{text!r} is no memory size: write for example 8GB, 500MB or 2GiB")
    return size


def frame_bytes(task: Task) -> int:
    """Bytes of one frame in a memory: of a compressed screen of Atari, of an uncompressed observation elsewhere."""
    return FRAME_BYTES if task.kind == "atari" else math.prod(task.obs_shape) * np.dtype(task.obs_dtype).itemsize


def index_bytes(stack: int, n_actions: int, sampler: int = 5) -> int:
    """Bytes per experience beside its compressed frame: ids, slot, outputs, value, sampler, frame index.

    ``sampler``: the uniform one's; 0 where :func:`plan_capacity` is told what the sampler takes.
    """
    return 4 * stack + 4 + 4 * n_actions + 4 + sampler + 12


@dataclass(frozen=True)
class Plan:
    """What will be allocated.

    Attributes:
        capacity: Experiences per task at most.
        budget_bytes: Bytes per task at most; experiences leave early when frames compress worse than expected.
        expected_bytes: Bytes of all tasks together, full, at ``bytes_per_experience``, samplers included.
        sampler_bytes: Those of all tasks' samplers, where they were told apart.
    """

    capacity: int
    budget_bytes: int
    expected_bytes: int
    sampler_bytes: int = 0


def plan_capacity(
    budget_bytes: int,
    n_tasks: int,
    bytes_per_experience: int = FRAME_BYTES + index_bytes(4, 18),
    wanted: int | None = None,
    sampler_bytes: Callable[[int], int] = lambda capacity: 0,
) -> Plan:
    """Share a budget between tasks.

    Args:
        budget_bytes: For all memories together; what the environments and networks need comes on top.
        n_tasks: Number of memories.
        bytes_per_experience: Expected, index included.
        wanted: Capacity per task that the recipe asks for; the plan's is at most this.
        sampler_bytes: Capacity -> bytes of one task's sampler that are not in ``bytes_per_experience``
            (``samplers.nbytes``).

    Raises:
        UserError: the budget is more than the machine has free, or does not hold 1,000 experiences per task.
    """
    require_memory(budget_bytes)

    def need(capacity: int) -> int:
        return capacity * bytes_per_experience + sampler_bytes(capacity)

    fits = _largest(need, budget_bytes // n_tasks, budget_bytes // n_tasks // bytes_per_experience)
    if fits < 1000 and (wanted is None or fits < wanted):
        raise UserError(
            f"--memory {human(budget_bytes)} holds {fits:,} experiences for each of {n_tasks} tasks: give at least "
            f"{human(n_tasks * need(1000))}"
        )
    capacity = fits if wanted is None else min(wanted, fits)
    return Plan(capacity, budget_bytes // n_tasks, n_tasks * need(capacity), n_tasks * sampler_bytes(capacity))


def _largest(need: Callable[[int], int], budget: int, most: int) -> int:
    """The largest number up to ``most`` whose need is within the budget; 0 where none is."""
    if need(most) <= budget:
        return most
    fits, above = 0, most
    while above - fits > 1:
        middle = (fits + above) // 2
        fits, above = (middle, above) if need(middle) <= budget else (fits, middle)
    return fits


def require_memory(need: int, what: str = "the memories", instead: str = "a smaller --memory") -> None:
    """Refuse a need larger than what this machine has free.

    Args:
        need: Bytes.
        what: Whose need, in the plural.
        instead: What the user may give.

    Raises:
        UserError: naming the need, what is free and what the machine has.
    """
    total, free = machine_memory()
    if need > free:
        raise UserError(
            f"{what} need {human(need)}, but this machine has {human(free)} free of {human(total)}: give {instead}"
        )


def machine_memory() -> tuple[int, int]:
    """Bytes of RAM this process may use, and how many of them are free: the machine's or its control group's."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = total
    meminfo = _read("/proc/meminfo")
    if found := re.search(r"MemAvailable:\s+(\d+) kB", meminfo):
        free = int(found[1]) * 1024
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        limit, used = _read(limit_file).strip(), _read(used_file).strip()
        if limit.isdigit() and used.isdigit() and int(limit) < total:
            total, free = int(limit), min(free, max(0, int(limit) - int(used)))
    return total, free


def human(size: int) -> str:
    """``8.0 GB``, ``512 MB``, ``37 kB``."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}" if size < 10 * scale else f"{size / scale:.0f} {unit}"
    return f"{size} bytes"


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
