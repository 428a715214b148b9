"""``polydistill distral TASK ...`` from end to end, on Catch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from polydistill import cli, distral_training
from polydistill.distral_training import DISTILLED, DistralRecipe, distral
from polydistill.errors import UserError
from polydistill.evaluation.rows import Row, read_csv
from polydistill.training.distral import Distral

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
    monkeypatch.setattr(sys, "argv", ["polydistill", "distral", *flags, "--out", "x"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_recipe_has_tasks() -> None:
    with pytest.raises(UserError, match="tasks"):
        DistralRecipe.parse({"tasks": []}, "recipe")
    assert distral_training.PROTOCOL == "drawn"
