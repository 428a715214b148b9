"""``polydistill teach --shadow-student`` from end to end on Catch: curve, student's folder, resume, bad input."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polydistill
from polydistill.errors import UserError
from polydistill.evaluation import protocol as evaluation
from polydistill.evaluation.rows import append_csv, read_csv, read_rows
from polydistill.reporting.page import write_report
from polydistill.teaching import teach
from polydistill.training import shadow as shadow_module
from polydistill.training import teach as teach_module
from polydistill.training.online import CURVE, Point
from tests.training.test_teach import SMALL, quiet, stop_after

FOLLOWED: dict[str, Any] = {
    **SMALL,
    "total_steps": 12_000,
    "evaluation.every": 2_000,
    "evaluation.episodes": 5,
    "evaluation.final_episodes": 10,
    "shadow.student": "net2",
    "shadow.options": {"hidden": 32},
    "shadow.learning_starts": 500,
    "shadow.learning_rate": 3e-3,
    "shadow.max_learning_rate": 3e-2,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training that was stopped and resumed once."""
    out = tmp_path_factory.mktemp("run") / "catch"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        assert not teach("catch", out, overrides=FOLLOWED, say=quiet)
    stopped = read_csv(out / CURVE, Point)
    assert len(stopped) == 2
    assert polydistill.load(out / "student").suite.tasks[0].name == "catch"  # there while the learner still learns
    assert (out / "shadow.svg").is_file()
    append_csv(out / CURVE, [replace(stopped[-1], control_steps=99_999)], Point)  # written after the checkpoint
    assert teach("catch", out, overrides=FOLLOWED, resume=True, say=quiet)
    assert read_csv(out / CURVE, Point)[:2] == stopped
    return out


def test_the_curve(finished: Path) -> None:
    points = read_csv(finished / CURVE, Point)
    steps = [p.control_steps for p in points]
    assert len(steps) == 6
    assert steps == sorted(set(steps))
    best = -math.inf
    for p in points:
        assert p.swapped == (p.learner > best)
        best = max(best, p.learner)
        assert p.best == best
    assert math.isnan(points[0].student)
    assert points[0].updates == 0
    waited = points[0].control_steps
    assert points[1].updates == (points[1].control_steps - waited) // 16
    assert all(math.isfinite(p.student) and math.isfinite(p.loss) for p in points[1:])
    assert points[-1].student > points[1].student
    assert points[-1].agreement > 0.6


def test_the_students_folder_is_that_of_a_finished_run(finished: Path) -> None:
    out = finished / "student"
    rows, theirs = read_rows(out / "scores.csv"), read_rows(out / "teacher_scores.csv")
    card = json.loads((finished / "card.json").read_text())
    assert {r.variant for r in rows} == {"student"}
    assert len(rows) == len(theirs) == 10
    assert np.mean([r.score for r in theirs]) == pytest.approx(card["scores"]["noop"]["mean"])
    assert rows[0].teacher_score == pytest.approx(card["scores"]["noop"]["mean"])
    assert rows[0].updates == read_csv(finished / CURVE, Point)[-1].updates
    assert rows[0].control_steps == card["control_steps"]
    ours = polydistill.evaluate(out, episodes=10)  # plays the teacher too: it knows where that is
    assert [r.score for r in ours.rows] == [r.score for r in rows]
    assert ours.summary.tasks["catch"].teacher == pytest.approx(rows[0].teacher_score)
    assert "One network" in write_report(out).read_text()
    info = json.loads((out / "run.json").read_text())
    assert info["student"]["kind"] == "net2"
    assert info["student"]["parameters"] == polydistill.nets.student.count(_student(out))


def _student(out: Path) -> Any:
    from polydistill.nets.store import load_student

    return load_student(out)


def test_learner_and_student_play_the_same_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played: dict[str, list[evaluation.Protocol]] = {"learner": [], "student": []}

    def recorded(who: str) -> Callable[..., Any]:
        def play(task: Any, greedy: Any, protocol: evaluation.Protocol, **rest: Any) -> Any:
            played[who].append(protocol)
            return evaluation.evaluate_task(task, greedy, protocol, **rest)

        return play

    monkeypatch.setattr(teach_module, "evaluate_task", recorded("learner"))
    monkeypatch.setattr(shadow_module, "evaluate_task", recorded("student"))
    short = {**FOLLOWED, "total_steps": 4_000, "shadow.seeds": [4, 7]}
    assert teach("catch", tmp_path / "t", overrides=short, say=quiet)
    learner = [played["learner"][i] for i in (1, 2)]  # the second evaluation and the final one; then random play
    assert played["student"] == [learner[0], learner[0], learner[1], learner[1]]
    assert learner[0].seed != learner[1].seed
    points = read_csv(tmp_path / "t" / CURVE, Point)
    assert [p.seed for p in points] == [4, 7, 4, 7]
    one, two = (_student(tmp_path / "t" / name).state_dict() for name in ("student", "student-seed7"))
    assert not np.array_equal(one["fc.weight"], two["fc.weight"])


@pytest.mark.parametrize("had", [False, True])
def test_a_resume_has_the_student_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, had: bool) -> None:
    stop_after(monkeypatch, 1)
    first = {k: v for k, v in FOLLOWED.items() if had or not k.startswith("shadow")}
    then = {k: v for k, v in FOLLOWED.items() if not had or not k.startswith("shadow")}
    assert not teach("catch", tmp_path / "t", overrides=first, say=quiet)
    message = "has a shadow student: add --shadow-student net2" if had else "no shadow student: leave net2 out"
    with pytest.raises(UserError, match=message):
        teach("catch", tmp_path / "t", overrides=then, resume=True, say=quiet)
    if had:
        with pytest.raises(UserError, match=r"shadow.options.hidden is 16, but the run in .* has 32"):
            teach("catch", tmp_path / "t", overrides={**first, "shadow.options": {"hidden": 16}}, resume=True)


def test_a_resume_has_the_seed_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(monkeypatch, 1)
    assert not teach("catch", tmp_path / "t", overrides=FOLLOWED, seed=1, say=quiet)
    curve, saved = (tmp_path / "t" / CURVE).read_bytes(), sorted((tmp_path / "t" / "checkpoint").rglob("*"))
    with pytest.raises(UserError, match=r"a shadow student in .* has seed 1, not 2: give the seed that") as error:
        teach("catch", tmp_path / "t", overrides=FOLLOWED, seed=2, resume=True, say=quiet)
    assert "\n" not in str(error.value)
    assert (tmp_path / "t" / CURVE).read_bytes() == curve
    assert sorted((tmp_path / "t" / "checkpoint").rglob("*")) == saved


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"shadow.student": "net9"}, "unknown student 'net9': did you mean 'net"),
        (
            {"shadow.student": "net1", "shadow.seed": 2},
            "recipe fast, shadow: unknown key 'seed'; did you mean 'seeds'?",
        ),
        ({"shadow.temperature": 0.1}, "recipe fast, shadow: 'student' is missing"),
        ({"shadow.student": "net1", "shadow.size": "900TB"}, "this machine has"),
    ],
)
def test_bad_input_writes_nothing(tmp_path: Path, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        teach("catch", tmp_path / "t", overrides={**SMALL, **overrides}, say=quiet)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
