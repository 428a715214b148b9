"""Jump-start, area, ratio, steps to threshold: typed-in numbers; and the table that an experiment's README has."""

from __future__ import annotations

from pathlib import Path

import pytest

from polydistill.errors import UserError
from polydistill.evaluation.curves import CURVES, CurvePoint
from polydistill.evaluation.rows import write_csv
from polydistill.evaluation.tables import close, fill_tables, opening
from polydistill.evaluation.transfer_measures import (
    About,
    _grid,
    jump_start,
    mean_score,
    score_at,
    steps_to,
    transfer_ratio,
    transfer_table,
)  # fmt: skip
from polydistill.reporting.transfer import transfer_curves, write_transfer

NAN = float("nan")
UP = [(0, 2.0), (100, 4.0), (300, 10.0)]
FLAT = [(0, 1.0), (300, 1.0)]


def test_score_at() -> None:
    assert [score_at(UP, x) for x in (0, 50, 100, 200, 300)] == [2.0, 3.0, 4.0, 7.0, 10.0]
    assert [str(score_at(UP, x)) for x in (-1, 301)] == ["nan", "nan"]
    assert str(score_at([], 0)) == "nan"


def test_jump_start() -> None:
    assert jump_start(UP, FLAT) == 1.0
    assert jump_start(FLAT, UP) == -1.0
    assert str(jump_start(UP[1:], FLAT)) == "nan"


def test_area_per_step() -> None:
    assert mean_score(UP, 300) == pytest.approx((3 * 100 + 7 * 200) / 300)  # 5.6667
    assert mean_score(UP, 200) == pytest.approx((3 * 100 + 5.5 * 100) / 200)  # 4.25: cut between two evaluations
    assert mean_score(FLAT, 100) == 1.0
    assert str(mean_score(UP, 301)) == "nan"
    assert str(mean_score(UP, 0)) == "nan"


def test_transfer_ratio() -> None:
    assert transfer_ratio(6, 4) == 0.5
    assert transfer_ratio(2, 4) == -0.5
    assert str(transfer_ratio(2, 0)) == str(transfer_ratio(2, -4)) == "nan"


def test_steps_to() -> None:
    assert steps_to(UP, 4.0) == 100
    assert steps_to(UP, 4.1) == 300
    assert str(steps_to(UP, 11)) == "nan"


def curve(variant: str, seed: int, scores: list[float], task: str = "catch") -> list[CurvePoint]:
    return [CurvePoint(variant, task, seed, i, 100 * i, x, NAN, NAN, 10.0, 10 * x) for i, x in enumerate(scores)]


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    points = [
        *curve("AMN", 1, [2, 4, 6]), *curve("AMN", 2, [0, 4, 8]),
        *curve("random", 1, [0, 1, 4]), *curve("random", 2, [0, 3, 6, 9]),
        *curve("source", 1, [9, 9, 9], "catch-wind"),
    ]  # fmt: skip
    write_csv(tmp_path / CURVES, points, CurvePoint)
    About("catch", ("AMN", "random", "late"), "random", "A paper", (1, 2), {"AMN": (18.35, 102.1)}).write(tmp_path)
    return tmp_path


def test_the_table(experiment: Path) -> None:
    lines = transfer_table(experiment).splitlines()
    assert lines[0] == "| catch, control steps | 0 | 100 | 200 |"
    assert lines[2] == "| AMN | **1.0 ± 1.4** | **4.0 ± 0.0** | **7.0 ± 1.4** |"
    assert lines[3] == "| random | 0.0 ± 0.0 | 2.0 ± 1.4 | 5.0 ± 1.4 |"  # up to the last step that all have
    measures = lines.index("|  | jump-start | mean score | transfer ratio | steps to 5.0 |")
    # areas: AMN 4 and 4, random 1.5 and 3 (mean curve 0, 2, 5: 2.25); 4 / 2.25 - 1 = 0.78
    assert lines[measures + 2] == "| AMN | 1.0 ± 1.4 | 4.0 ± 0.0 | +0.78 | 200 |"
    assert lines[measures + 3] == "| random | – | 2.2 ± 1.1 | – | 200 (1 of 2) |"
    assert lines[-4:] == ["| --- | ---: | ---: |", "| AMN | 18.4 | 102.1 |", "", "A paper."]


def test_the_papers_numbers_stand_beside_ours(tmp_path: Path) -> None:
    """At its control steps, as far as our curves go; between evaluations on a straight line."""
    steps = [0, 300_000, 700_000, 1_000_400]
    made = [
        CurvePoint(v, "catch", 1, i, x, y, NAN, NAN, 10.0, 10 * y)
        for v, scores in (("AMN", [2, 4, 6, 7.001]), ("new", [0, 1, 5, 5]), ("random", [0, 0, 1, 2]))
        for i, (x, y) in enumerate(zip(steps, scores, strict=True))
    ]
    write_csv(tmp_path / CURVES, made, CurvePoint)
    told: dict[str, tuple[float, ...]] = {"AMN": (18.35, 102.1), "random": (1.182, 5.278)}
    About("catch", ("AMN", "new", "random"), "random", "A paper", (1, 2), told).write(tmp_path)
    lines = transfer_table(tmp_path).splitlines()
    assert lines[0] == "| catch, control steps | 0 | 300,000 | 700,000 | 1,000,000 | 1,000,000, paper |"
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: |"
    assert lines[2] == "| AMN | **2.0** | **4.0** | **6.0** | **7.0** | 18.4 |"
    assert lines[3] == "| new | 0.0 | 1.0 | 5.0 | 5.0 | – |"
    assert lines[4] == "| random | 0.0 | 0.0 | 1.0 | 2.0 | 1.2 |"
    assert "bold: the best of ours; between two evaluations on a straight line." in transfer_table(tmp_path)
    About("catch", ("AMN", "new", "random"), "random", "A paper", (2,), {"AMN": (102.1,)}).write(tmp_path)
    assert transfer_table(tmp_path).splitlines()[0] == "| catch, control steps | 0 | 300,000 | 700,000 | 1,000,400 |"


def test_many_numbers_of_a_paper_leave_the_table_narrow() -> None:
    steps = [50_000.0 * k for k in range(201)]  # to 10 million
    fixed = [1e6 * k for k in (1, 3, 5, 7, 8, 10)]
    assert _grid(steps, fixed) == [0.0, *fixed]
    assert _grid(steps, [1e6]) == [0.0, 1e6, 2.5e6, 5e6, 7.5e6, 1e7]
    assert _grid(steps[:21], []) == [0.0, 2e5, 4e5, 6e5, 8e5, 1e6]


def test_the_table_stands_in_a_readme(experiment: Path) -> None:
    readme = experiment / "README.md"
    readme.write_text(f"{opening('.#transfer')}\n{close()}\n")
    assert fill_tables(readme)
    assert "| AMN | 1.0 ± 1.4 | 4.0 ± 0.0 | +0.78 | 200 |" in readme.read_text()
    assert not fill_tables(readme)
    (experiment / "transfer.json").write_text("{")
    with pytest.raises(UserError, match=r"transfer.json: missing or damaged"):
        fill_tables(readme)


def test_the_picture(experiment: Path) -> None:
    picture = transfer_curves(experiment)
    assert picture is not None
    assert 'aria-label="catch, last evaluation: AMN 7.0, random 5.0"' in picture
    assert (path := write_transfer(experiment)) is not None
    assert path.read_text().startswith("<svg xmlns=")
    About("pong", ("AMN",), "AMN").write(experiment)
    assert write_transfer(experiment) is None
    assert transfer_table(experiment) == "No evaluation of pong yet."
