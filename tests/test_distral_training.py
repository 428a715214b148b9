"""``polydistill distral TASK ...`` from end to end, on Catch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from polydistill import distral_training
from polydistill.distral_training import DISTILLED, DistralRecipe, distral
from polydistill.errors import UserError
from polydistill.evaluating import evaluate
from polydistill.evaluation.rows import Row, mean_scores, read_csv
from polydistill.evaluation.scores import format_drawn
from polydistill.policies import load
from polydistill.training.distral import Distral
from polydistill.training.distral_policy import DistralPolicy
from tests.command_line import typed

SMALL = {"hidden": 16, "lstm": 8, "num_envs": 4, "unroll": 5}


def recipe(**changes: Any) -> dict[str, Any]:
    return {"tasks": ["catch"], "settings": SMALL, "total_steps": 400, "episodes": 3, **changes}


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run(tmp_path: Path) -> None:
    said: list[str] = []
    outcome = distral(recipe(), tmp_path / "run", say=said.append, command="polydistill distral catch")
    assert outcome.finished
    assert set(outcome.scores) == set(outcome.distilled) == {"catch"}
    rows = read_csv(tmp_path / "run/scores.csv", Row)
    assert [(r.variant, r.episode) for r in rows] == [
        *(("KL+ent_2col", k) for k in range(3)), *((DISTILLED, k) for k in range(3)),
    ]  # fmt: skip
    assert {r.control_steps for r in rows} == {400}
    last = records(tmp_path / "run")[-1]
    assert last["control_steps"] == 400
    assert {"policy", "value", "distill", "coupling"} <= last["losses"].keys()
    info = json.loads((tmp_path / "run/run.json").read_text())
    assert info["finished"]
    assert info["command"] == "polydistill distral catch"
    assert "400/400 control steps of each task" in "\n".join(said)
    with pytest.raises(UserError, match="add --resume to continue it or --overwrite"):
        distral(recipe(), tmp_path / "run")
    alone = distral(recipe(settings={**SMALL, "agent": "A3C"}), tmp_path / "run", overwrite=True, say=said.append)
    assert not alone.distilled
    assert {r.variant for r in read_csv(tmp_path / "run/scores.csv", Row)} == {"A3C"}


def test_stopped_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Distral.run

    def interrupted(self: Distral) -> Any:
        for k, metrics in enumerate(original(self)):
            if k == 7:
                import signal

                signal.raise_signal(signal.SIGINT)
            yield metrics

    said: list[str] = []
    monkeypatch.setattr(Distral, "run", interrupted)
    stopped = distral(recipe(), tmp_path / "run", say=said.append)
    assert not stopped.finished
    assert not (tmp_path / "run/scores.csv").exists()
    assert "stopped after 160 control steps" in said[-1]
    monkeypatch.setattr(Distral, "run", original)
    with pytest.raises(UserError, match=r"settings.agent is 'A3C', but the run in .* has 'KL\+ent_2col'"):
        distral(recipe(settings={**SMALL, "agent": "A3C"}), tmp_path / "run", resume=True)
    done = distral(recipe(), tmp_path / "run", resume=True, say=said.append)
    assert done.finished
    assert any("resumed" in text and "after 160 control steps" in text for text in said)
    assert [r["control_steps"] for r in records(tmp_path / "run")] == [160, 400]
    assert len(json.loads((tmp_path / "run/run.json").read_text())["resumed"]) == 1


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["catch", "catch-mirror"], "catch-mirror has the actions RIGHT, NOOP, LEFT, but catch LEFT, NOOP, RIGHT"),
        (["catch", "gym:CartPole-v1"], "gym:CartPole-v1 has the actions"),
        (["catch", "catch"], "named twice"),
        (["catch", "gym:Pendulum-v1"], "Pendulum-v1 has continuous actions, but catch discrete ones: one policy needs"),
        (["gym:Pendulum-v1", "catch"], "catch has discrete actions, but gym:Pendulum-v1 continuous ones"),
        (["gym:Pendulum-v1", "gym:MountainCarContinuous-v0"], "has the actions MountainCarContinuous-v0:a0, but"),
        (["gym:Pendulum-v1?gg=1"], "Pendulum-v1 does not take these options"),
        (["doom:arena"], "unknown task 'doom:arena'; there are doom:mazes-1 to -8"),
        (["catch", "--agent", "A4C"], "'KL_2col' or 'KL+ent_2col' (found 'A4C')"),
        (["catch", "--beta", "0"], "settings.beta: Input should be greater than 0"),
        (["catch", "--set", "settings.unrol=3"], "unknown key 'settings.unrol'; did you mean 'unroll'?"),
        (["catch", "--alpha", "0.5"], "--alpha goes only with two-rooms"),
        (["two-rooms", "--agent", "A3C"], "--agent does not go with two-rooms"),
        (["two-rooms", "catch"], "two-rooms stands alone"),
        (["catch", "--resume"], "nothing to resume"),
    ],
)
def test_bad_input(
    flags: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert typed(monkeypatch, "distral", *flags, "--out", "x") == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x").exists()


PENDULUMS = [f"gym:Pendulum-v1?g={g}" for g in (5, 10)]


def test_continuous_actions_from_the_command_line_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def polydistill(*arguments: str) -> str:
        assert typed(monkeypatch, *arguments) == 0
        return capsys.readouterr().out

    run = tmp_path / "run"
    small = [f"settings.{key}={value}" for key, value in {**SMALL, "num_envs": 2}.items()]
    told = polydistill("distral", *PENDULUMS, "--steps", "20", "--out", str(run), "--set", "episodes=3", *small)
    assert f"report: {run / 'report.html'}" in told
    assert f"policies: {run / 'policies.json'}" in told
    rows = read_csv(run / "scores.csv", Row)
    assert [(r.variant, r.steps) for r in rows] == [*[("KL+ent_2col", 200)] * 6, *[("distilled", 200)] * 6]
    final, alone = mean_scores(rows[:6]), mean_scores(rows[6:])
    again = json.loads(polydistill("evaluate", str(run), "--episodes", "3", "--json"))
    assert {name: task["score"] for name, task in again["tasks"].items()} == pytest.approx(final)
    assert {name: task["score"] for name, task in again["distilled"].items()} == pytest.approx(alone)
    assert again["protocol"] == {"name": "drawn", "episodes": 3, "num_envs": 3, "seed": 1_000_000}
    table = polydistill("evaluate", str(run), "--episodes", "2").splitlines()
    assert table[1].split() == ["task", "score", "95", "%", "interval", "distilled", "95", "%", "interval"]
    assert [line.split()[0] for line in table[3:6]] == [*PENDULUMS, "mean"]
    page = (run / "report.html").read_text()
    assert "KL+ent_2col has learnt 2 tasks together" in page
    (run / "report.html").unlink()
    assert polydistill("report", str(run)) == f"{run / 'report.html'}\n"
    assert (run / "report.html").read_text() == page
    policy = load(run)
    assert isinstance(policy, DistralPolicy)
    action, _ = policy.predict(np.zeros(3, np.float32), task=PENDULUMS[1])
    assert action.shape == (1,)
    assert abs(action[0]) <= 2


def test_a_run_without_a_distilled_policy_is_evaluated(tmp_path: Path) -> None:
    distral(recipe(settings={**SMALL, "agent": "A3C_multitask"}), tmp_path / "run", say=lambda _: None)
    found = evaluate(tmp_path / "run", episodes=3)
    assert found.distilled is None
    assert {r.variant for r in found.rows} == {"A3C_multitask"}
    assert [r.score for r in found.rows] == [r.score for r in read_csv(tmp_path / "run/scores.csv", Row)]
    assert format_drawn(found.summary, None).splitlines()[0].split() == ["task", "score", "95", "%", "interval"]
    for flags, told in (
        ({"protocol": "sticky"}, "draw their actions in full episodes: leave protocol sticky out"),
        ({"steps": 100}, "leave steps out"),
        ({"starts": tmp_path}, "a bundle of starts goes with protocol starts"),
        ({"protocol": "none"}, "'noop', 'sticky' or 'starts'"),
    ):
        with pytest.raises(UserError, match=told):
            evaluate(tmp_path / "run", **flags)  # type: ignore[arg-type]


def test_names_of_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polydistill.envs.catch.SUITES", {"catch:every": ("catch",)}, raising=False)
    said: list[str] = []
    distral(recipe(tasks=["catch:every"], total_steps=20), tmp_path / "run", say=said.append)
    assert yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())["tasks"] == ["catch"]
    longer = recipe(tasks=["catch:every"], total_steps=40)
    assert distral(longer, tmp_path / "run", resume=True, say=said.append).finished
    assert json.loads((tmp_path / "run/policies.json").read_text())["control_steps"] == 40


def test_a_recipe_has_tasks() -> None:
    with pytest.raises(UserError, match="tasks"):
        DistralRecipe.parse({"tasks": []}, "recipe")
    assert distral_training.PROTOCOL == "drawn"
