"""The figure of trained teachers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from polydistill.errors import UserError
from polydistill.evaluation.rows import write_csv
from polydistill.evaluation.teacher_scores import TeacherScore
from polydistill.reporting.teachers import read_curve, teacher_curves, write_teacher_curves
from polydistill.training.teach import COLUMNS


def curve(folder: Path, name: str, *rows: tuple[int, float | str, float | str]) -> Path:
    """Control steps, training return, evaluation."""
    lines = [",".join(COLUMNS), *(f"{steps},,0.5,0.05,0.1,,{training},{score}" for steps, training, score in rows)]
    path = folder / f"{name}.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_curve_is_read(tmp_path: Path) -> None:
    found = read_curve(curve(tmp_path, "pong-nature", (100, "", -21.0), (200, -20.5, ""), (300, -20.0, -18.0)))
    assert (found.game, found.variant) == ("pong", "nature")
    np.testing.assert_array_equal(found.training, [[200, -20.5], [300, -20.0]])
    np.testing.assert_array_equal(found.evaluations, [[100, -21.0], [300, -18.0]])
    assert read_curve(curve(tmp_path, "ms_pacman", (1, 1, 1))).variant == ""


def test_a_panel_per_game_and_a_line_per_training(tmp_path: Path) -> None:
    assert teacher_curves(tmp_path) is None
    curve(tmp_path, "freeway", (100, "", ""))
    assert teacher_curves(tmp_path) is None
    curve(tmp_path, "pong-fast", (100, -20.0, -19.0), (200, -18.0, 3.25))
    curve(tmp_path, "pong-nature", (100, -20.5, -20.0), (200, -20.0, -17.5))
    alone = teacher_curves(tmp_path)
    assert alone is not None
    assert 'aria-label="Last evaluations: pong fast 3.25, pong nature -17.5"' in alone
    assert {"fast", "nature", "pong", "control steps"} <= set(re.findall(r">([^<>\n]+)</text>", alone))
    random = TeacherScore("freeway", "freeway", "noop", 30, 0, 28.0, 27.5, 28.5, 0.5, 0, 28.0)
    write_csv(tmp_path / "scores.csv", [random], TeacherScore)
    curve(tmp_path, "freeway", (100, 3.0, 21.0))
    both = teacher_curves(tmp_path)
    assert both is not None
    assert "freeway 21, pong fast 3.25" in both
    assert ("var(--random)" in both, "var(--random)" in alone) == (True, False)
    assert write_teacher_curves(tmp_path) == tmp_path / "curves.svg"


@pytest.mark.parametrize("text", ["control_steps,evaluation\n1,2\n", ",".join(COLUMNS) + "\n1,,,,,,x,\n"])
def test_a_damaged_curve_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "pong.csv").write_text(text)
    with pytest.raises(UserError, match=r"pong.csv: not the curve of a training"):
        teacher_curves(tmp_path)
