"""Which states were met: histograms from the evaluations' records, partitions from the sampler's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polydistill.reporting.data import RunData
from polydistill.reporting.partitions import density, partition_edges, partition_rows, value_histogram


def evaluation(updates: int, counts: list[int], percent: float) -> dict[str, Any]:
    values = {"low": 0.0, "high": 4.0, "counts": counts}
    return {"kind": "eval", "updates": updates, "tasks": {"pong": {"percent": percent, "values": values}}}


@pytest.fixture
def data() -> RunData:
    run = RunData(Path())
    run.evals = [
        evaluation(100, [6, 2, 1, 1], 20.0),
        evaluation(200, [0, 0, 0, 5], 50.0),
        evaluation(300, [1, 1, 2, 6], 99.0),
    ]
    told = {
        "edges": [0.0, 2.0, 4.0], "fill": [1500, 500], "draws": [30, 10], "mean_priority": [0.25, 0.125],
        "loss_share": [0.9, None], "outside_rate": [0.5, 0.0], "dropped": [0],
    }  # fmt: skip
    run.train = [{"kind": "train", "tasks": {"pong": {"partitions": told}}}, {"kind": "train", "tasks": {"pong": {}}}]
    return run


def test_first_and_last_evaluation_are_drawn(data: RunData) -> None:
    plot = value_histogram(data, "pong")
    assert plot is not None
    for said in (
        "after 100 updates (20 % of teacher)",
        "after 300 updates (99 % of teacher)",
        "middle value 0",
        "middle value 3",
    ):
        assert said in plot
    assert "after 200" not in plot


def test_a_wide_bin_is_no_higher_for_being_wide() -> None:
    assert density(np.array([50.0, 50.0]), np.array([0.0, 1.0, 3.0])).tolist() == [50.0, 25.0]


def test_one_evaluation_compares_nothing(data: RunData) -> None:
    data.evals = data.evals[:1]
    assert value_histogram(data, "pong") is None
    data.evals = [{"kind": "eval", "tasks": {"pong": {"score": 1.0}}}] * 3  # of a run before there were histograms
    assert value_histogram(data, "pong") is None


def test_partitions_of_the_last_record_that_has_them(data: RunData) -> None:
    assert partition_edges(data, "pong").tolist() == [0, 2, 4]
    low, high = partition_rows(data, "pong")
    assert low == {
        "range": "0 to 2", "fill": 1500, "draws": "75.0", "priority": "0.25", "loss": "90.0", "outside": "50.0",
    }  # fmt: skip
    assert (high["range"], high["loss"]) == ("2 to 4", "–")
    data.train = []
    assert partition_rows(data, "pong") == []
