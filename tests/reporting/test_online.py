"""The figure of online distillation says what ``shadow.csv`` says."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from polydistill.errors import UserError
from polydistill.evaluation.rows import append_csv
from polydistill.reporting.online import online_curve, write_online
from polydistill.training.online import CURVE, Point

SCORES = [(3.0, 3.0, math.nan), (1.0, 3.0, 2.0), (5.0, 5.0, 2.5), (4.0, 5.0, 4.5)]


def run(folder: Path, *seeds: int) -> Path:
    folder.mkdir()
    for i, (learner, best, student) in enumerate(SCORES):
        points = [Point(1000 * (i + 1), learner, best, 0, s, 10 * i, student + s, 0.1, 0.9) for s in seeds]
        append_csv(folder / CURVE, points, Point)
    return folder


def lines(svg: str) -> list[list[tuple[float, float]]]:
    """Corners of every curve of more than one segment."""
    found = []
    for path in re.findall(r'<path d="(M [^"z]*?)"[^>]*style="fill: none', svg):
        corners = [(float(x), float(y)) for x, y in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path)]
        if len(corners) > 2:
            found.append(corners)
    return found


def test_learner_best_and_student(tmp_path: Path) -> None:
    svg = online_curve([run(tmp_path / "a", 0)])
    assert svg is not None
    for word in ("learner", "best so far", "student", "control steps of the learner"):
        assert f">{word}<" in svg
    assert "the learner&#x27;s last score is 4.0, its best 5.0, the last of the student 4.5" in svg
    learner, best, student = lines(svg)
    assert [len(c) for c in (learner, best, student)] == [4, 7, 3]  # the best is a staircase
    (x0, y0), (x1, y1), (_, y2), (_, y3) = learner
    unit = (y1 - y0) / (3.0 - 1.0)  # pixels a point, downwards
    assert y2 == pytest.approx(y1 - 4 * unit, abs=0.01)
    assert y3 == pytest.approx(y1 - 3 * unit, abs=0.01)
    assert best[0] == pytest.approx((x0, y0), abs=0.01)
    assert best[1][1] == pytest.approx(y0, abs=0.01)  # not lower after a worse score
    assert best[-1][1] == pytest.approx(y2, abs=0.01)
    assert student[0] == pytest.approx((x1, y1 - unit), abs=0.01)  # none before its first update
    assert student[-1][1] == pytest.approx(y1 - 3.5 * unit, abs=0.01)


def test_several_students_of_one_run_or_of_two(tmp_path: Path) -> None:
    one = online_curve([run(tmp_path / "a", 0, 1)])
    two = online_curve([run(tmp_path / "b", 0), run(tmp_path / "c", 1)])
    for svg in (one, two):
        assert svg is not None
        assert "student, seed 0" in svg
        assert "student, seed 1" in svg
        assert len(lines(svg)) == 4


def test_a_student_that_waits_is_not_drawn(tmp_path: Path) -> None:
    append_csv(tmp_path / CURVE, [Point(1000, 3.0, 3.0, 1, 0, 0, math.nan, math.nan, math.nan)], Point)
    svg = online_curve([tmp_path])
    assert svg is not None
    assert ">learner<" in svg
    assert ">student<" not in svg


def test_a_file_that_stands_alone(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", 0)
    text = write_online([folder], folder / "x.svg").read_text()
    assert text.startswith("<svg xmlns=")
    assert "--student: #" in text
    assert "prefers-color-scheme: dark" in text
    assert [p.name for p in folder.iterdir() if p.suffix == ".tmp"] == []


def test_nothing_to_draw_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no shadow.csv; was it trained with teach --shadow-student"):
        write_online([tmp_path], tmp_path / "x.svg")
    append_csv(tmp_path / CURVE, [], Point)
    with pytest.raises(UserError, match="no evaluation to draw yet"):
        write_online([tmp_path], tmp_path / "x.svg")
    with pytest.raises(UserError, match="cannot write the picture"):
        write_online([run(tmp_path / "a", 0)], tmp_path / CURVE / "x.svg")
