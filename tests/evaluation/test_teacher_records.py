"""Curves of trained teachers, kept under results/teachers/ in the form in which training writes them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from polydistill.errors import UserError
from polydistill.evaluation.teacher_records import keep_curve
from polydistill.training.teach import COLUMNS
from tests.test_cli import Call, assert_refused, call, listing  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
HEAD = ",".join(COLUMNS)


def teacher(folder: Path, rows: list[str], *phases: dict[str, Any], cut: str = "", finished: bool = True) -> Path:
    """A trained teacher's card and curve."""
    folder.mkdir(parents=True)
    card = {"task": {"name": "pong"}, "phases": phases, "scores": {"noop": {"mean": 1.0}} if finished else {}}
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "curve.csv").write_text("\n".join([HEAD, *rows, cut]))
    return folder


def rows(*steps: int, word: str = "", score: str = "") -> list[str]:
    return [f"{n},{2 * n},0.5,0.05,0.1,{word},1.5,{score}" for n in steps]


def test_a_curve_is_copied_as_it_is(tmp_path: Path) -> None:
    run = teacher(tmp_path / "run", rows(100, 200), {"from_control_steps": 0}, cut="300,60")
    out = tmp_path / "results" / "teachers"
    assert keep_curve(run, out) == (out / "pong.csv", 2)
    assert (out / "pong.csv").read_text() == "\n".join([HEAD, *rows(100, 200)]) + "\n"
    again = teacher(tmp_path / "again", rows(50), {"from_control_steps": 0}, {"from_control_steps": 30})
    assert keep_curve(again, out) == (out / "pong.csv", 1)  # another training of the game, from its beginning
    assert (out / "pong.csv").read_text() == "\n".join([HEAD, *rows(50)]) + "\n"
    assert keep_curve(again, out, "pong-nature")[0] == out / "pong-nature.csv"
    for name in ("../pong", "a/b", str(tmp_path / "c")):
        with pytest.raises(UserError, match="a name without folders"):
            keep_curve(again, out, name)
    assert sorted(p.name for p in out.iterdir()) == ["pong-nature.csv", "pong.csv"]


def test_a_training_that_went_on_from_a_teacher_goes_on_from_its_curve(tmp_path: Path) -> None:
    out = tmp_path / "teachers"
    out.mkdir()
    (out / "pong.csv").write_text("\n".join([HEAD, *rows(100, 200, 300, word="old")]) + "\n")
    phases = [{"from_control_steps": 0}, {"from_control_steps": 100, "started_from": "a"}, {"from_control_steps": 150}]
    run = teacher(tmp_path / "run", rows(200, 400), *phases[:1], {**phases[1], "from_control_steps": 200}, *phases[2:])
    joined = "\n".join([HEAD, *rows(100, 200, word="old"), *rows(200, 400)]) + "\n"
    for _ in range(2):  # a second time changes nothing
        assert keep_curve(run, out)[1] == 4
        assert (out / "pong.csv").read_text() == joined


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("control_steps,loss\n100,1\n", "pong.csv: its columns are not those of .*curve.csv; move it away"),
        ("damaged\n", "pong.csv: not the curve of a training"),
        (f"{HEAD}\n100,2\n", "pong.csv: not the curve of a training .expected 8 cells, found 2"),
    ],
)
def test_a_kept_file_of_another_form_is_left_alone(tmp_path: Path, content: str, match: str) -> None:
    (tmp_path / "pong.csv").write_text(content)
    run = teacher(tmp_path / "run", rows(400), {"from_control_steps": 200, "started_from": "a"})
    with pytest.raises(UserError, match=match):
        keep_curve(run, tmp_path)
    assert (tmp_path / "pong.csv").read_text() == content


def test_only_a_finished_teacher_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="not the card of a finished teacher"):
        keep_curve(teacher(tmp_path / "a", rows(1), {"from_control_steps": 0}, finished=False), out)
    with pytest.raises(UserError, match=r"curve.csv: no rows"):
        keep_curve(teacher(tmp_path / "b", [], {"from_control_steps": 0}, cut="1,2"), out)
    (tmp_path / "b" / "curve.csv").unlink()
    with pytest.raises(UserError, match=r"curve.csv: not the curve of a training .*No such file"):
        keep_curve(tmp_path / "b", out)
    assert not out.exists()


def test_typed(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    teacher(Path("zoo/pong"), rows(100, 200), {"from_control_steps": 0})
    code, out, err = call("record", "zoo/pong", "results/teachers")
    assert (code, err) == (0, "")
    assert out == "zoo/pong: 2 rows -> results/teachers/pong.csv\n"
    code, out, _ = call("record", "zoo/pong", "results/teachers", "--variant", "pong-2")
    assert out == "zoo/pong: 2 rows -> results/teachers/pong-2.csv\n"
    assert list(listing(tmp_path / "results")) == ["teachers", "teachers/pong-2.csv", "teachers/pong.csv"]
    teacher(Path("zoo/freeway"), rows(100, score="21.5"), {"from_control_steps": 0})
    assert call("record", "zoo/freeway", "results/teachers", "--variant", "freeway")[0] == 0
    assert "freeway 21.5" in Path("results/teachers/curves.svg").read_text()
    Path("zoo/pong/curve.csv").unlink()
    assert_refused(call, tmp_path, "zoo/pong/curve.csv: not the curve", "record", "zoo/pong", "results/teachers")


def test_every_shipped_teacher_has_its_curve_in_that_form() -> None:
    for path in sorted((ROOT / "zoo").glob("*/card.json")):
        card = json.loads(path.read_text())
        with (ROOT / "results/teachers" / f"{path.parent.name}.csv").open() as file:
            lines = list(csv.reader(file))
        assert lines[0] == list(COLUMNS)
        steps = [int(line[0]) for line in lines[1:]]
        assert steps == sorted(steps)
        assert 0.99 * card["control_steps"] < steps[-1] <= card["control_steps"]
