"""Settings for every test."""

from __future__ import annotations

import os
import zlib

import pytest
from hypothesis import settings

# No deadline: the machine may be shared. In CI the examples are the same every time.
settings.register_profile("polydistill", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("polydistill")


def pytest_configure() -> None:
    """Give each parallel worker one torch thread: two pools of spinning threads slow each other more than tenfold."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        import torch

        torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test draws the same weights every time, whatever ran before it: before its fixtures, seeded by its name."""
    import torch

    torch.manual_seed(zlib.crc32(item.nodeid.encode()))
