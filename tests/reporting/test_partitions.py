"""Which states were met: histograms from the evaluations' records, partitions from the sampler's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polydistill.errors import UserError
from polydistill.reporting import page
from polydistill.reporting.data import RunData
from polydistill.reporting.partitions import density, met_in, partition_edges, partition_rows, value_histogram


def evaluation(updates: int, counts: list[int], percent: float, key: str = "visited") -> dict[str, Any]:
    values = {"low": 0.0, "high": 4.0, "counts": counts}
    return {"kind": "eval", "updates": updates, "tasks": {"pong": {"percent": percent, key: values}}}


def train(loss: float | None, **told: list[Any]) -> dict[str, Any]:
    return {"kind": "train", "tasks": {"pong": {"loss": loss, "partitions": told}}}


@pytest.fixture
def data() -> RunData:
    run = RunData(Path())
    run.evals = [
        evaluation(100, [6, 2, 1, 1], 20.0),
        evaluation(200, [0, 0, 0, 5], 50.0),
        evaluation(300, [1, 1, 2, 6], 99.0),
    ]
    run.train = [
        train(
            2.0, edges=[0.0, 2.0, 4.0], fill=[50, 50], put=[50, 50], draws=[10, 10], mean_priority=[1.0, 1.0],
            loss_share=[0.9, 0.1], outside_rate=[0.5, 0.0], dropped=[50, 0],
        ),
        train(
            0.5, edges=[0.0, 2.0, 4.0], fill=[1500, 500], put=[150, 0], draws=[50, 10], mean_priority=[0.25, None],
            loss_share=[0.2, 0.8], outside_rate=[0.0, 0.0], dropped=[0, 0],
        ),
        {"kind": "train", "tasks": {"pong": {}}},
    ]  # fmt: skip
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


def test_states_collected_are_shown_as_such_where_the_evaluations_were_not_noted(data: RunData) -> None:
    """Runs from before ``visited`` have ``values``: of the newest states collected, exploration and all."""
    assert met_in(data) == "visited"
    data.evals = [evaluation(u, c, 50.0, "values") for u, c in ((100, [1, 1, 1, 1]), (200, [0, 0, 0, 4]))]
    assert met_in(data) == "values"
    assert "after 100 updates" in str(value_histogram(data, "pong"))
    data.evals.append(evaluation(300, [4, 0, 0, 0], 50.0))  # resumed by a newer version: one compares nothing
    assert met_in(data) == "values"
    assert "after 300" not in str(value_histogram(data, "pong"))
    data.evals.append(evaluation(400, [0, 4, 0, 0], 50.0))
    assert met_in(data) == "visited"
    assert "after 300 updates" in str(value_histogram(data, "pong"))
    assert "after 100" not in str(value_histogram(data, "pong"))


def test_counters_are_summed_over_the_run(data: RunData) -> None:
    """Draws 60 and 20 of 80. Loss: 2 x 20 draws shared 0.9 : 0.1, 0.5 x 60 shared 0.2 : 0.8, so 36 + 6 of 70.

    Of the first partition 25 of the 200 put were clamped, and of the 250 that came 50 were dropped. What is stored and
    its priority are the newest.
    """
    assert partition_edges(data, "pong").tolist() == [0, 2, 4]
    low, high = partition_rows(data, "pong")
    assert low == {
        "range": "0 to 2", "fill": 1500, "draws": "75.0", "priority": "0.25", "loss": "60.0", "outside": "12.5",
        "dropped": "20.0",
    }  # fmt: skip
    assert high == {
        "range": "2 to 4", "fill": 500, "draws": "25.0", "priority": "–", "loss": "40.0", "outside": "0.0",
        "dropped": "0.0",
    }  # fmt: skip
    data.train = []
    assert partition_rows(data, "pong") == []


def test_where_the_range_grew_counting_begins_anew(data: RunData) -> None:
    data.train[0]["tasks"]["pong"]["partitions"]["edges"] = [0.0, 1.0, 2.0]
    low, high = partition_rows(data, "pong")
    assert (low["draws"], low["loss"], low["outside"]) == ("83.3", "20.0", "0.0")
    assert (high["draws"], high["loss"], high["outside"]) == ("16.7", "80.0", "–")


def test_older_files(data: RunData) -> None:
    """``dropped`` was one number for all partitions; what a record lacks is not known of the run."""
    for record in data.train[:2]:
        record["tasks"]["pong"]["partitions"]["dropped"] = [0]
    assert [r["dropped"] for r in partition_rows(data, "pong")] == ["0.0", "0.0"]
    data.train[0]["tasks"]["pong"]["partitions"]["dropped"] = [50]
    assert [r["dropped"] for r in partition_rows(data, "pong")] == ["–", "–"]
    for record in data.train[:2]:
        record["tasks"]["pong"].pop("loss")
        for key in ("put", "dropped"):
            record["tasks"]["pong"]["partitions"].pop(key)
    low = partition_rows(data, "pong")[0]
    assert low == {
        "range": "0 to 2", "fill": 1500, "draws": "75.0", "priority": "0.25", "loss": "–", "outside": "–",
        "dropped": "–",
    }  # fmt: skip
    data.train[1]["tasks"]["pong"]["partitions"]["draws"] = [None]
    assert [r["draws"] for r in partition_rows(data, "pong")] == ["–", "–"]


def test_a_record_without_an_update_adds_no_loss(data: RunData) -> None:
    told = data.train[0]["tasks"]["pong"]
    told["loss"], told["partitions"]["draws"], told["partitions"]["loss_share"] = None, [0, 0], [0.0, 0.0]
    assert [r["loss"] for r in partition_rows(data, "pong")] == ["20.0", "80.0"]


def test_the_page_says_which_states_and_of_which_time(data: RunData) -> None:
    text = " ".join(page.render(data).split())
    assert "the student met in the <span" in text
    assert "one state of every 4 control steps" in text
    assert "with the exploration of that time" not in text
    assert "draws, loss, and what of the experiences that came was clamped or dropped" in text
    assert "<td>60.0</td><td>12.5</td><td>20.0</td>" in text
    for line in data.evals:
        line["tasks"]["pong"]["values"] = line["tasks"]["pong"].pop("visited")
    text = " ".join(page.render(data).split())
    assert "with the exploration of that time" in text
    assert "the student met in the <span" not in text


def test_the_picture_alone(data: RunData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "read_run", lambda run: data)
    out = page.write_states(tmp_path, "pong", tmp_path / "states.svg")
    assert "after 300 updates (99 % of teacher)" in out.read_text()
    assert out.read_text().startswith("<svg")
    with pytest.raises(UserError, match=r"no task 'pog'; did you mean 'pong'\?"):
        page.write_states(tmp_path, "pog", tmp_path / "states.svg")
    data.evals = data.evals[:1]
    with pytest.raises(UserError, match="fewer than two evaluations"):
        page.write_states(tmp_path, "pong", tmp_path / "no.svg")
    assert not (tmp_path / "no.svg").exists()
