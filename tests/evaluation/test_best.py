"""End and best of a training, as Actor-Mimic's Table 1 has them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from polydistill.errors import UserError
from polydistill.evaluation.best import best_table, end_and_best
from polydistill.evaluation.curves import CURVES, CurvePoint
from polydistill.evaluation.paper_numbers import PAPER, PAPER_BEST, PaperNumber
from polydistill.evaluation.rows import write_csv
from polydistill.evaluation.tables import close, fill_tables, opening


def points(percents: list[float], seed: int = 1, variant: str = "AMN", task: str = "pong") -> list[CurvePoint]:
    return [
        CurvePoint(variant, task, seed, 100 * k, 400 * k, p / 5, 0.0, 1.0, 20.0, p) for k, p in enumerate(percents, 1)
    ]


def test_the_last_tenth_and_the_best_by_hand() -> None:
    curve = [10.0] * 8 + [95.0, 40.0] * 6  # 20 evaluations: the last two are 95 and 40
    assert end_and_best(points(curve), "AMN", "pong") == (67.5, 95.0)
    both = points(curve) + points([20.0, 30.0, 10.0], seed=2)  # of three, the last one
    assert end_and_best(both, "AMN", "pong") == (pytest.approx((67.5 + 10) / 2), pytest.approx((95 + 30) / 2))
    assert end_and_best(list(reversed(both)), "AMN", "pong") == end_and_best(both, "AMN", "pong")
    assert all(map(math.isnan, end_and_best(both, "AMN", "qbert")))
    assert end_and_best([*both, *points([math.nan], seed=3)], "AMN", "pong") == end_and_best(both, "AMN", "pong")


def test_the_table_stands_in_a_readme(tmp_path: Path) -> None:
    made = points([10.0, 80.0, 60.0]) + points([5.0], variant="M|DQN") + points([7.0], task="freeway")
    write_csv(tmp_path / CURVES, made, CurvePoint)
    (tmp_path / "README.md").write_text(f"{opening('.#best')}\n{close()}\n")
    assert fill_tables(tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text()
    assert "| end / best, % of teacher | AMN | M\\|DQN |" in text
    assert "| pong | 60.0 / 80.0 | 5.0 / 5.0 |" in text
    assert "| freeway | 7.0 / 7.0 | – |" in text


def test_the_papers_column_stands_beside_ours(tmp_path: Path) -> None:
    made = [p for v in ("AMN", "DQN") for t in ("pong", "qbert", "freeway") for p in points([10.0, 60.0], 1, v, t)]
    write_csv(tmp_path / CURVES, made, CurvePoint)
    mean = [PaperNumber("pong", "AMN", 78.01, "Table 1"), PaperNumber("pong", "DQN", 50.0, "Table 1")]
    write_csv(tmp_path / PAPER, mean, PaperNumber)
    assert "paper" not in best_table(tmp_path).splitlines()[0]  # no best of theirs: nothing to stand beside ours
    best = [PaperNumber("pong", "AMN", 93.25, "Table 1"), PaperNumber("qbert", "AMN", 80.0, "Table 1")]
    write_csv(tmp_path / PAPER_BEST, best, PaperNumber)
    lines = best_table(tmp_path).splitlines()
    assert lines[0] == "| end / best, % of teacher | AMN | AMN, paper | DQN |"
    assert lines[1] == "| --- | ---: | ---: | ---: |"
    assert lines[2] == "| pong | 60.0 / 60.0 | 78.0 / 93.2 | 60.0 / 60.0 |"
    assert lines[3] == "| qbert | 60.0 / 60.0 | – / 80.0 | 60.0 / 60.0 |"
    assert lines[4] == "| freeway | 60.0 / 60.0 | – | 60.0 / 60.0 |"
    assert lines[-1].endswith("Paper, best in % of its teachers' best: Table 1 ([paper_best.csv](paper_best.csv)).")


def test_nothing_to_show_is_one_line(tmp_path: Path) -> None:
    write_csv(tmp_path / CURVES, [], CurvePoint)
    with pytest.raises(UserError, match="no evaluations yet"):
        best_table(tmp_path)
