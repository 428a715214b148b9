"""How soon a variant was how good: from an experiment's evaluations during training."""

from __future__ import annotations

from pathlib import Path

import pytest

from polydistill.errors import UserError
from polydistill.evaluation.curves import CURVES, CurvePoint, least_gap, reach, reach_table
from polydistill.evaluation.rows import write_csv
from polydistill.evaluation.tables import close, fill_tables, opening
from polydistill.ops.scores import first_reaching

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


def test_the_table(tmp_path: Path) -> None:
    write_csv(tmp_path / CURVES, POINTS, CurvePoint)
    readme = tmp_path / "README.md"
    readme.write_text(f"{opening('.#reach-90')}\n{close()}\n")
    assert fill_tables(readme)
    text = readme.read_text()
    assert "| updates to 90 % of teacher | uniform | H-PR |" in text
    assert "| pong | 3,000 | 1,500 |" in text
    assert "| qbert | 4,000 (1 of 2) | 2,500 |" in text
    assert "| **all tasks**, the last one | 4,000 (1 of 2) | 2,500 |" in text
    assert "1,000 updates apart" in text
    assert "never" in reach_table(tmp_path, 100)
    readme.write_text(f"{opening('.#rich-90')}\n{close()}\n")
    with pytest.raises(UserError, match="no table"):
        fill_tables(readme)


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
    assert "was as good; evaluations are 1,000 updates apart at least. From" in reach_table(tmp_path, 90)
    write_csv(tmp_path / CURVES, at("a", "pong", 1, 5), CurvePoint)
    assert "was as good. From" in reach_table(tmp_path, 90)


def test_without_evaluations(tmp_path: Path) -> None:
    write_csv(tmp_path / CURVES, [], CurvePoint)
    with pytest.raises(UserError, match="no evaluations yet"):
        reach_table(tmp_path, 90)
