"""Which games a network plays worse than its teacher."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from polydistill.errors import UserError
from polydistill.evaluation.curves import CURVES, CurvePoint
from polydistill.evaluation.negative_transfer import below, last_points, negative_transfer_table
from polydistill.evaluation.rows import write_csv
from polydistill.evaluation.tables import close, fill_tables, opening


def point(variant: str, task: str, seed: int, low: float, score: float, high: float, updates: int = 200) -> CurvePoint:
    return CurvePoint(variant, task, seed, updates, 4 * updates, score, low, high, 20.0, 5 * score)


def test_below_is_the_whole_interval() -> None:
    assert below(point("AMN", "pong", 1, 10, 15, 19.9))
    assert not below(point("AMN", "pong", 1, 10, 15, 20.0))
    assert not below(point("AMN", "pong", 1, 10, 15, math.nan))
    worse = CurvePoint("AMN", "pong", 1, 200, 800, -20.5, -21.0, -20.1, -20.0, math.nan)  # a teacher below 0
    assert below(worse)


def test_the_last_evaluation_of_each_seed_counts() -> None:
    early, late = point("AMN", "pong", 1, 1, 2, 3, updates=100), point("AMN", "pong", 1, 19, 20, 21)
    other = point("AMN", "pong", 2, 1, 2, 3)
    for order in ([early, late, other], [late, early, other]):
        assert last_points(order, "AMN", "pong") == [late, other]
    assert last_points([early], "AMN", "freeway") == last_points([early], "DIST", "pong") == []


def test_the_table_stands_in_a_readme(tmp_path: Path) -> None:
    made = [
        point("AMN", "pong", 1, 8, 10, 12), point("AMN", "pong", 2, 11, 12, 13),
        point("AMN", "freeway", 1, 18, 19, 21), point("AMN", "freeway", 2, 17, 18, 19),
        point("a|b", "pong", 1, 19, 21, 23), point("a|b", "pong", 1, 1, 2, 3, updates=100),
    ]  # fmt: skip
    write_csv(tmp_path / CURVES, made, CurvePoint)
    (tmp_path / "README.md").write_text(f"{opening('.#negative-transfer')}\n{close()}\n")
    assert fill_tables(tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text()
    assert "| at the end, % of teacher | AMN | a\\|b |" in text
    assert "| pong | 55.0 ▼ | 105.0 |" in text
    assert "| freeway | 92.5 (1 of 2) | – |" in text
    assert "| **▼**, tasks | 1 of 2 | 0 of 1 |" in text


def test_nothing_to_show_is_one_line(tmp_path: Path) -> None:
    write_csv(tmp_path / CURVES, [], CurvePoint)
    with pytest.raises(UserError, match="no evaluations yet"):
        negative_transfer_table(tmp_path)
