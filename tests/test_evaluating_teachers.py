"""`polydistill evaluate` of teachers: one table, the random policy and the card's score beside each, kept as CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polydistill.envs.catch import catch_task
from polydistill.evaluation.protocol import Protocol, evaluate_task
from polydistill.evaluation.rows import Row, mean_scores
from polydistill.evaluation.scores import summarise
from polydistill.evaluation.teacher_scores import TeacherScore, format_teachers, teacher_score
from tests.distilling import write_teacher
from tests.test_cli import Call, assert_refused, call, place  # noqa: F401

NOOP: dict[str, Any] = {"name": "noop", "epsilon": 0.05, "episodes": 4, "steps": None, "seed": 1_000_000}

TABLE = """
teacher         score   95 % interval  random  random from  on its card
-----------------------------------------------------------------------
pong             17.9    [17.1, 18.7]   -20.7         card         18.1
space_invaders  612.5  [580.0, 650.0]   148.0     30 games            -
river           12345  [11000, 14000]    1338         card        12000

Protocol noop: epsilon 0.05, 4 episodes per task. random: the uniformly random
policy's score, as the teacher's card says or from so many games played now.
"""


def score(name: str, mean: float, low: float, high: float, random: float, games: int, card: float) -> TeacherScore:
    return TeacherScore(name, name, "noop", 4, 1_000_000, mean, low, high, random, games, card)


def test_table_golden_text() -> None:
    scores = [
        score("pong", 17.91, 17.1, 18.7, -20.7, 0, 18.12),
        score("space_invaders", 612.5, 580.0, 650.0, 148.0, 30, float("nan")),
        score("river", 12345.0, 11000.0, 14000.0, 1338.0, 0, 12000.0),
    ]
    assert format_teachers(scores, NOOP) == TABLE.strip("\n")


def test_a_row_from_games() -> None:
    rows = [Row("teacher", "pong", 0, 0, 0, "noop", i, 100, s) for i, s in enumerate([10.0, 20.0, 18.0, 20.0])]
    summary = summarise(rows, [], {"pong": -20.0}, protocol=NOOP)
    made = teacher_score("mine", summary, random_episodes=30, card=None)
    assert (made.teacher, made.task, made.protocol, made.episodes, made.seed) == ("mine", "pong", "noop", 4, 1_000_000)
    assert made.score == 17.0
    assert 10 <= made.low < 17 < made.high <= 20
    assert (made.random, made.random_from) == (-20.0, "30 games")
    assert np.isnan(made.card)


def card(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(content | changes))


def test_several_teachers_are_one_table(call: Call, place: Path) -> None:  # noqa: F811
    card(place / "zoo/catch", scores={"noop": {"mean": 4.25}, "random": -1.5})
    code, out, err = call("evaluate", "zoo/catch", "zoo/catch-wind", "--episodes", 4)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("catch")] == ["catch", "catch-wind"]
    assert lines[2].split()[-3:] == ["-1.5", "card", "4.2"]
    assert lines[3].split()[-3:] == ["30", "games", "-"]
    assert out.count("Protocol noop") == 1
    assert "teacher over" not in out

    code, out, _ = call("evaluate", "zoo/catch", "zoo/catch-wind", "--episodes", 4, "--json")
    first, second = json.loads(out)
    assert first["card"] == {"score": 4.25, "random_from": "card"}
    assert second["card"] == {"score": None, "random_from": "30 games"}
    assert first["tasks"]["catch"]["random"] == -1.5
    played = evaluate_task(catch_task("catch-wind"), None, Protocol(episodes=30))
    assert second["tasks"]["catch-wind"]["random"] == mean_scores(played)["catch-wind"]


def test_scores_are_kept_and_measured_again(call: Call, place: Path) -> None:  # noqa: F811
    card(place / "zoo/catch", scores={"noop": {"mean": 4.25}, "random": -1.5})
    flags = ("--episodes", 4, "--out", "results/teachers")
    code, out, err = call("evaluate", "zoo/catch", "zoo/catch-wind", *flags)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "kept: results/teachers"
    with (place / "results/teachers/scores.csv").open() as file:
        first = list(csv.DictReader(file))
    assert [(r["teacher"], r["task"], r["episodes"], r["random_episodes"], r["card"]) for r in first] == [
        ("catch", "catch", "4", "0", "4.25"),
        ("catch-wind", "catch-wind", "4", "30", ""),
    ]
    assert first[0]["random"] == "-1.5"
    command = (place / "results/teachers/command.txt").read_text()
    assert command.count("polydistill evaluate zoo/catch zoo/catch-wind --episodes 4 --out results/teachers") == 2
    assert command.startswith("# catch, noop\n# commit ")

    (place / "results/teachers/README.md").write_text("Words.\n\n<!-- table:.#teachers -->\n<!-- /table -->\n")
    code, out, err = call("evaluate", "zoo/catch-wind", "--episodes", 6, "--out", "results/teachers")
    assert (code, err) == (0, "")
    with (place / "results/teachers/scores.csv").open() as file:
        again = list(csv.DictReader(file))
    assert [r["episodes"] for r in again] == ["4", "6"]
    assert again[0] == first[0]
    command = (place / "results/teachers/command.txt").read_text()
    assert command.count("--episodes 4") == command.count("--episodes 6") == 1
    readme = (place / "results/teachers/README.md").read_text()
    assert readme.startswith("Words.\n\n<!-- table:.#teachers -->\n| teacher | protocol | games | score |")
    assert "(30 games) | – |" in readme
    assert "| -1.5 (card) | 4.2 |" in readme


def test_what_cannot_be_kept_is_said_before_anything_is_played(
    call: Call,  # noqa: F811
    place: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("polydistill.evaluating.evaluate_task", lambda *a, **k: pytest.fail("it was played"))
    both = ("evaluate", "zoo/catch", "zoo/catch-wind")
    assert_refused(call, place, "--out recipe.yaml is a file", *both, "--out", "recipe.yaml")
    (place / "scores.csv").write_text("variant,task\n")
    assert_refused(call, place, "scores.csv: expected the columns teacher,task,protocol", *both, "--out", ".")
    assert_refused(call, place, "no policy at none", "evaluate", "zoo/catch", "none")
    assert_refused(call, place, "no policy at none", "evaluate", "zoo/catch", "none", "--out", "x")
    write_teacher(place / "other" / "catch", "catch")
    assert_refused(call, place, "two teachers are called catch", "evaluate", "zoo/catch", "other/catch", "--out", "x")


def test_a_teacher_that_was_trained_here(call: Call, place: Path) -> None:  # noqa: F811
    """Beside its card stands the training's run.json, which lists one task and no teachers."""
    (place / "zoo/catch/run.json").write_text(json.dumps({"command": "x", "versions": {}, "task": {"name": "catch"}}))
    code, out, err = call("evaluate", "zoo/catch", "--episodes", 4)
    assert (code, err) == (0, "")
    assert out.startswith("zoo/catch\nteacher")
    (place / "zoo/catch/run.json").write_text("[]")
    assert_refused(call, place, "zoo/catch/run.json: damaged", "evaluate", "zoo/catch", "--episodes", 4)
