"""Training that begins with a teacher's weights: its card counts them in, and they are not lost for worse ones."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from polydistill.errors import UserError
from polydistill.teaching import teach
from polydistill.training import checkpoint
from polydistill.training import teach as teach_module
from polydistill.training.stopping import Stop
from polydistill.training.teach import Teaching
from tests.training.test_teach import quiet, stop_after

ROOT = Path(__file__).resolve().parents[2]

#: Evaluations decide nothing here: two episodes of each. Weights stay as they are.
SMALL: dict[str, Any] = {
    "network.hidden": 16,
    "settings.num_envs": 8,
    "settings.rollout": 8,
    "settings.minibatch": 64,
    "settings.learning_rate": 1e-12,
    "total_steps": 640,
    "evaluation.every": 640,
    "evaluation.episodes": 2,
    "evaluation.final_episodes": 2,
}

WITH = {"command": "polydistill teach", "commit": "0123abc", "machine": {"cpu": "Some CPU"}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "first"
    assert teach("catch", out, overrides=SMALL, say=quiet)
    change(out, hours=1.5, trained_with=WITH)
    return out


@pytest.fixture
def first(trained: Path, tmp_path: Path) -> Path:
    """A teacher that took 640 control steps and, its card says, 1.5 hours; without a checkpoint, like a shipped one."""
    (tmp_path / "first").mkdir()
    for name in ("card.json", "teacher.safetensors"):
        shutil.copy(trained / name, tmp_path / "first")
    return tmp_path / "first"


def card_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "card.json").read_text())
    return found


def change(folder: Path, **entries: Any) -> None:
    (folder / "card.json").write_text(json.dumps(card_of(folder) | entries))


def curve_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "curve.csv").open() as file:
        return list(csv.DictReader(file))


def same(a: Path, b: Path) -> bool:
    left, right = (load_file(folder / "teacher.safetensors") for folder in (a, b))
    return all(torch.equal(left[k], right[k]) for k in left)


def test_the_card_counts_what_the_weights_took(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, out = card_of(first), tmp_path / "second"
    told: list[str] = []
    with monkeypatch.context() as patch:
        stop_after(patch, 2)  # one before the first step, one after 640 more
        longer = {**SMALL, "total_steps": 1_280}
        assert not teach("catch", out, overrides=longer, start=first, say=told.append)
    assert f"catch: goes on from {first} with its 640 control steps" in told
    assert teach("catch", out, overrides=longer, resume=True, say=quiet)  # the flag need not be typed again

    after = card_of(out)
    assert before["control_steps"] == 640
    assert after["control_steps"] == 640 + 1_280
    assert after["updates"] == 3 * before["updates"]
    assert 1.5 <= after["hours"] < 1.6
    assert [phase["from_control_steps"] for phase in after["phases"]] == [0, 640, 1_280]
    assert ["started_from" in phase for phase in after["phases"]] == [False, True, False]
    assert after["phases"][1]["started_from"] == str(first)
    assert after["phases"][0]["command"] == before["phases"][0]["command"]
    assert after["phases"][0]["trained_with"] == WITH  # a card says this of its last training only
    assert same(first, out)

    rows = curve_of(out)
    assert [int(row["control_steps"]) for row in rows if row["evaluation"]] == [640, 1_280, 1_920]
    assert all(1.5 <= float(row["hours"]) < 1.6 for row in rows)
    assert int(rows[-1]["updates"]) == after["updates"]


def test_a_trained_network_explores_as_little_as_in_the_end(first: Path, tmp_path: Path) -> None:
    def begins(out: Path) -> tuple[float, float]:
        settings = yaml.safe_load((out / "recipe.yaml").read_text())["settings"]
        return settings["epsilon_start"], settings["epsilon_end"]

    short = {**SMALL, "total_steps": 64}
    assert teach("catch", tmp_path / "a", overrides=short, start=first, say=quiet)
    assert begins(tmp_path / "a") == (0.05, 0.05)
    asked = {**short, "settings.epsilon_start": 0.5}
    assert teach("catch", tmp_path / "b", overrides=asked, start=first, say=quiet)
    assert begins(tmp_path / "b") == (0.5, 0.05)
    assert teach("catch", tmp_path / "c", overrides=short, say=quiet)
    assert begins(tmp_path / "c") == (1.0, 0.05)


def test_a_finished_teacher_is_trained_further_where_it_is(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, listing = (first / "teacher.safetensors").read_bytes(), sorted(p.name for p in first.iterdir())
    with pytest.raises(UserError, match=r"finished after 640 control steps: give more --steps than that, or --start-f"):
        teach("catch", first, overrides=SMALL, resume=True, say=quiet)
    with pytest.raises(UserError, match=r"hidden.weight: expected \(32, 64\), found \(16, 64\)"):
        teach("catch", first, overrides={**SMALL, "network.hidden": 32, "total_steps": 960}, resume=True, say=quiet)
    assert sorted(p.name for p in first.iterdir()) == listing
    longer = {**SMALL, "total_steps": 1_920}
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert not teach("catch", first, overrides=longer, resume=True, say=quiet)
    assert (first / "teacher.safetensors").read_bytes() == weights  # until there is another
    assert checkpoint.held(first / "checkpoint")
    assert teach("catch", first, overrides=longer, resume=True, say=quiet)
    card = card_of(first)
    assert (first / "teacher.safetensors").read_bytes() == weights  # nothing was learnt
    assert card["control_steps"] == 1_920  # all of them, the first 640 too
    assert [phase["from_control_steps"] for phase in card["phases"]] == [0, 640, 1_280]
    assert [int(row["control_steps"]) for row in curve_of(first) if row["evaluation"]] == [640, 1_280, 1_920]
    assert card["phases"][1]["started_from"] == str(first)
    assert 1.5 <= card["hours"] < 1.6
    assert yaml.safe_load((first / "recipe.yaml").read_text())["settings"]["epsilon_start"] == 0.05


@pytest.mark.parametrize("better", [True, False])
def test_the_weights_it_began_with_are_kept_if_nothing_better_comes(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better: bool
) -> None:
    scores = iter([2.0, 3.0 if better else 1.0])
    monkeypatch.setattr("polydistill.training.teach.mean_scores", lambda rows: {"catch": next(scores, 0.0)})
    learns = {**SMALL, "settings.learning_rate": 1e-2}
    assert teach("catch", tmp_path / "second", overrides=learns, start=first, say=quiet)
    assert same(first, tmp_path / "second") != better


def test_other_pixels_are_another_teacher(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "zoo/pong", tmp_path / "pong", ignore=lambda *_: {"checkpoint"})
    change(tmp_path / "pong", task=card_of(tmp_path / "pong")["task"] | {"obs_profile": "nature"})
    with pytest.raises(UserError) as error:
        teach("pong", tmp_path / "x", overrides={"settings.num_envs": 1}, start=tmp_path / "pong", say=quiet)
    assert str(error.value).endswith(
        "a teacher of pong that sees pixels of the profile nature, not ale as this recipe: add --set profile=nature"
    )
    assert not (tmp_path / "x").exists()


def test_hours_are_those_of_training_with_all_its_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one too; the final games are not among them."""
    clock, evaluate = [0.0], Teaching._evaluate

    def slow(self: Teaching, stop: Stop) -> float:
        clock[0] += 3600
        return evaluate(self, stop)

    def scored(*args: Any) -> None:
        clock[0] += 1e6

    monkeypatch.setattr(teach_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(Teaching, "_evaluate", slow)
    monkeypatch.setattr(teach_module, "score_card", scored)
    assert teach("catch", tmp_path / "t", overrides={**SMALL, "total_steps": 1_280}, say=quiet)
    assert card_of(tmp_path / "t")["hours"] == 2.0
