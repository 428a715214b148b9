"""How soon a variant was how good: from an experiment's evaluations during training."""

from __future__ import annotations

from pathlib import Path

import pytest

from polydistill.errors import UserError
from polydistill.evaluation.curves import (
    CURVES,
    CurvePoint,
    area_table,
    least_gap,
    mean_percent,
    noise,
    reach,
    reach_table,
)
from polydistill.evaluation.rows import write_csv
from polydistill.evaluation.tables import close, fill_tables, opening
from polydistill.ops.scores import first_reaching, mean_between

NAN = float("nan")


def curve(variant: str, task: str, seed: int, percents: list[float]) -> list[CurvePoint]:
    return [CurvePoint(variant, task, seed, 1000 * (i + 1), 0, 0.0, NAN, NAN, 10.0, x) for i, x in enumerate(percents)]


POINTS = [
    *curve("uniform", "pong", 1, [10, 50, 89.9, 95]),
    *curve("uniform", "pong", 2, [10, 90, 70, 95]),
    *curve("uniform", "qbert", 1, [10, 20, 30, 40]),
    *curve("uniform", "qbert", 2, [10, 20, 30, 91]),
    *curve("H-PR", "pong", 1, [95, 99, 99, 99]),
    *curve("H-PR", "pong", 2, [NAN, 99, 99, 99]),
    *curve("H-PR", "qbert", 1, [10, 95, 99, 99]),
    *curve("H-PR", "qbert", 2, [10, 20, 95, 99]),
]


def test_first_reaching() -> None:
    assert first_reaching([1, 2, 3], [5, 9, 7], 9) == 2
    assert first_reaching([1, 2, 3], [5, NAN, 7], 6) == 3
    assert str(first_reaching([1, 2, 3], [5, 6, 7], 8)) == "nan"
    assert str(first_reaching([], [], 8)) == "nan"
    with pytest.raises(ValueError, match="3 places and 2 values"):
        first_reaching([1, 2, 3], [1, 2], 0)


def test_the_first_evaluation_as_good_counts() -> None:
    assert reach(POINTS, "uniform", "pong", 90) == {1: 4000, 2: 2000}
    assert reach(POINTS, "H-PR", "pong", 90) == {1: 1000, 2: 2000}


def test_three_evaluations_in_a_row_are_harder_to_pass_by_luck() -> None:
    """uniform, pong, seed 1: means of three 49.97, 78.3; seed 2: 56.7, 85; H-PR, pong, seed 1: 97.7 after the third."""
    assert reach(POINTS, "uniform", "pong", 78, of=3) == {1: 4000, 2: 4000}
    assert reach(POINTS, "uniform", "pong", 49.9, of=3) == {1: 3000, 2: 3000}
    assert reach(POINTS, "uniform", "pong", 79, of=3) == pytest.approx({1: NAN, 2: 4000}, nan_ok=True)
    assert reach(POINTS, "H-PR", "pong", 90, of=3) == {1: 3000, 2: 4000}, "the second seed's first one is unknown"
    assert reach(POINTS, "H-PR", "pong", 90, of=5) == pytest.approx({1: NAN, 2: NAN}, nan_ok=True), "there are four"


def test_mean_between_two_places() -> None:
    """Trapezia: from 1 to 3 of (0, 0), (2, 4), (4, 0) it is 2 .. 4 .. 2, whose mean is 3."""
    x, y = [0, 2, 4], [0, 4, 0]
    assert mean_between(x, y, 1, 3) == 3
    assert mean_between(x, y, 0, 4) == 2
    assert mean_between([0, 1, 4], [0, 3, 0], 0, 4) == 1.5, "not the mean of the values"
    for begin, end in ((-1, 3), (1, 5), (3, 3), (3, 1)):
        assert str(mean_between(x, y, begin, end)) == "nan"
    assert str(mean_between([], [], 0, 1)) == "nan"
    assert str(mean_between(x, [0, NAN, 0], 0, 4)) == "nan"
    with pytest.raises(ValueError, match="3 places and 2 values"):
        mean_between([1, 2, 3], [1, 2], 1, 2)


def test_the_area_is_over_the_updates_that_all_have() -> None:
    """uniform, pong, seed 2, from 2,000 to 4,000: (80 + 82.5) / 2. H-PR's second seed has no number before 2,000."""
    assert mean_percent(POINTS, "uniform", "pong", 2000, 4000) == pytest.approx({1: 81.2, 2: 81.25})
    assert mean_percent(POINTS, "H-PR", "pong", 2000, 4000) == {1: 99, 2: 99}
    assert mean_percent(POINTS, "H-PR", "pong", 1000, 4000) == pytest.approx({1: 98.3333333, 2: NAN}, nan_ok=True)


def test_the_tables(tmp_path: Path) -> None:
    write_csv(tmp_path / CURVES, POINTS, CurvePoint)
    readme = tmp_path / "README.md"
    readme.write_text("".join(f"{opening(f'.#{part}')}\n{close()}\n" for part in ("reach-90", "reach-78", "area")))
    assert fill_tables(readme)
    ninety, seventy, area = readme.read_text().split("<!-- /table -->")[:3]
    for line in (
        "| updates to 90 % of teacher | uniform | H-PR |",
        "| pong, mean of three | never (0 of 2) | 3,500 (2 of 2) |",
        "| pong, first alone | 3,000 (2 of 2) | 1,500 (2 of 2) |",
        "| qbert, mean of three | never (0 of 2) | 4,000 (1 of 2) |",
        "| qbert, first alone | 4,000 (1 of 2) | 2,500 (2 of 2) |",
        "| **all tasks**, mean of three | never (0 of 2) | 4,000 (1 of 2) |",
        "| **all tasks**, first alone | 4,000 (1 of 2) | 2,500 (2 of 2) |",
    ):
        assert line in ninety.splitlines()
    assert "1,000 updates apart" in ninety
    assert "| pong, mean of three | 4,000 (2 of 2) | 3,500 (2 of 2) |" in seventy
    # pong: seed 1 (50, 89.9, 95) and seed 2 (90, 70, 95) from 2,000 on; qbert from 1,000 on
    assert area.strip().splitlines()[1:] == [
        "| mean % of teacher over training | uniform | H-PR |",
        "| --- | ---: | ---: |",
        "| pong | 81.2 ± 0.0 | 99.0 ± 0.0 |",
        "| qbert | 29.2 ± 6.0 | 69.7 ± 18.6 |",
        "| **mean over tasks** | 55.2 | 84.3 |",
        "",
        "Area under the curve of % of teacher over updates, by its length: pong 2,000 to 4,000, qbert 1,000 to 4,000 "
        "updates; mean ± standard deviation of 2 seeds. From [curves.csv](curves.csv).",
    ]
    readme.write_text(f"{opening('.#rich-90')}\n{close()}\n")
    with pytest.raises(UserError, match="no table"):
        fill_tables(readme)


def test_a_variant_without_a_task_has_no_area_and_no_mean(tmp_path: Path) -> None:
    points = [*curve("a", "pong", 1, [10, 20]), *curve("b", "pong", 1, [30, 40]), *curve("a", "qbert", 1, [NAN, 50])]
    write_csv(tmp_path / CURVES, points, CurvePoint)
    table = area_table(tmp_path).splitlines()
    assert table[2:5] == ["| pong | 15.0 | 35.0 |", "| qbert | – | – |", "| **mean over tasks** | – | – |"]
    assert table[-1].startswith("Area under the curve of % of teacher over updates, by its length: pong 1,000 to 2,000")
    assert "one seed." in table[-1]


def test_how_much_one_evaluation_says(tmp_path: Path) -> None:
    """Half the 95 % interval in % of teacher, of evaluations of at least half the level: 10, 20 and 40, not 100."""
    points = [
        CurvePoint("a", "pong", 1, i, 0, 0.0, low, high, teacher, percent)
        for i, (percent, low, high, teacher) in enumerate(
            [(50, 48, 50, 10.0), (60, 59, 60, 2.5), (99, 95, 103, 10.0), (39, 0, 20, 10.0)]
        )
    ]
    points += curve("a", "qbert", 1, [80, 90])  # without intervals
    assert noise(points, 80) == {"pong": 20.0}
    write_csv(tmp_path / CURVES, points, CurvePoint)
    told = "a single one is noisy: half its 95 % interval is 20.0 % of teacher in pong (median)."
    assert told in reach_table(tmp_path, 80)
    write_csv(tmp_path / CURVES, curve("a", "qbert", 1, [80, 90]), CurvePoint)
    assert "noisy" not in reach_table(tmp_path, 80)


def at(variant: str, task: str, seed: int, *updates: int) -> list[CurvePoint]:
    return [CurvePoint(variant, task, seed, u, 0, 0.0, NAN, NAN, 10.0, 50.0) for u in updates]


def test_evaluations_are_as_far_apart_as_those_of_one_run(tmp_path: Path) -> None:
    """Not those of different runs, nor a final one that comes an update after the last."""
    points = [*at("a", "pong", 1, 1000, 2000, 3000, 3001), *at("b", "pong", 1, 1004, 2004), *at("a", "pong", 2, 990)]
    assert least_gap(points) == 1000
    assert least_gap([*points, *at("a", "qbert", 1, 0, 400, 800)]) == 400
    assert least_gap(at("a", "pong", 1, 20_000, 20_001)) == least_gap(at("a", "pong", 1, 5)) == 0
    assert least_gap(at("a", "pong", 1, 1000, 3000)) == 2000
    assert least_gap([*at("a", "pong", 1, 1000, 3000), *at("a", "pong", 2, 1100, 3000)]) == 1900
    write_csv(tmp_path / CURVES, points, CurvePoint)
    assert "; evaluations are 1,000 updates apart at least. From" in reach_table(tmp_path, 90)
    write_csv(tmp_path / CURVES, at("a", "pong", 1, 5), CurvePoint)
    assert "apart" not in reach_table(tmp_path, 90)


def test_without_evaluations(tmp_path: Path) -> None:
    write_csv(tmp_path / CURVES, [], CurvePoint)
    for table in (lambda: reach_table(tmp_path, 90), lambda: area_table(tmp_path)):
        with pytest.raises(UserError, match="no evaluations yet"):
            table()
