"""The benchmark of a full memory really fills it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.memory_bench import COPIES, STRETCH, fill, made_up

EDGES = np.array([0.0, 2.0, 4.0, 6.0])


def test_every_other_copy_gets_values_for_the_partitions_that_are_not_full() -> None:
    value, counts = np.float32([1, 1, 1, 1, 1, 1]), np.array([5, 3, 4])
    assert made_up(value, counts, 5, EDGES, 0).tolist() == [1, 3, 1, 5, 1, 3]
    assert made_up(value, counts, 5, EDGES, STRETCH).tolist() == [1, 5, 1, 3, 1, 5]
    assert made_up(value, np.array([5, 5, 4]), 5, EDGES, STRETCH - 1).tolist() == [1, 5, 1, 5, 1, 5]
    assert made_up(value, np.array([5, 5, 5]), 5, EDGES, 0).tolist() == value.tolist()


def test_all_queues_are_full_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ale_py")
    found = fill("qbert", 500)  # there is no teacher of it: a wave of values
    assert all(entry["of_them_with_made_up_values"] == 0 for entry in found if entry["put"] <= 750)
    last = found[-1]
    assert (last["stored"], last["occupancy"]) == (500, 1)
    assert last["put"] >= 750 + COPIES
    assert last["of_them_with_made_up_values"] > 0
    assert last["process_bytes_per_counted_byte"] == pytest.approx(
        last["process_bytes_per_experience"] / last["bytes_per_experience"]
    )
    assert "process_bytes_per_counted_byte" in capsys.readouterr().out
