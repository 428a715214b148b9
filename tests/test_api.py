"""Distil, evaluate and load from Python."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import polydistill
from polydistill import api
from polydistill.errors import UserError
from polydistill.planning import plan
from polydistill.recipe import DistillRecipe
from polydistill.training.callbacks import Callback, Record
from polydistill.training.learner import Learner
from polydistill.training.track import TensorBoard
from tests.distilling import NAMES, exact_teacher, fitted_teacher, small, states, write_teacher


class Seen(Callback):
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.records: list[Record] = []
        self.paths: list[Path] = []
        self.ends = 0

    def on_step(self, updates: int) -> None:
        self.steps.append(updates)

    def on_log(self, record: Record) -> None:
        self.records.append(record)

    def on_evaluation(self, record: Record) -> None:
        self.records.append(record)

    def on_checkpoint(self, path: Path) -> None:
        self.paths.append(path)

    def on_end(self) -> None:
        self.ends += 1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Seen, api.Result]:
    """One run with teachers from folders, evaluations, TensorBoard."""
    root = tmp_path_factory.mktemp("api")
    teachers = [str(write_teacher(root / n, n)) for n in NAMES]
    seen, out = Seen(), root / "run"
    recipe = {"teachers": teachers, **small("task_torsos", evaluation={"every": 25})}
    board = TensorBoard(out / "tensorboard")
    result = polydistill.distill(recipe, out, callbacks=[seen, board], command="a command", inspect=False)
    return out, seen, result


def test_a_run_folder_holds_everything(run: tuple[Path, Seen, api.Result]) -> None:
    out, _, result = run
    assert result.finished
    assert result.folder == out
    assert {p.name for p in out.iterdir()} == {
        "recipe.yaml", "run.json", "metrics.jsonl", "scores.csv", "teacher_scores.csv", "summary.json", "checkpoints",
        "student.safetensors", "config.json", "tensorboard",
    }  # fmt: skip
    info = json.loads((out / "run.json").read_text())
    assert info["command"] == "a command"
    assert info["finished"] >= info["started"]
    assert info["student"]["kind"] == "task_torsos"
    assert info["student"]["trainable"] < info["student"]["parameters"]
    assert [t["name"] for t in info["tasks"]] == list(NAMES)
    saved = DistillRecipe.parse(yaml.safe_load((out / "recipe.yaml").read_text()), "saved")
    assert saved.schedule.total_updates == 60
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["task"] for r in rows] == ["catch", "catch", "catch-wind", "catch-wind"]
    assert {(r["variant"], r["updates"], r["control_steps"], r["seed"]) for r in rows} == {
        ("student", "60", "880", "1")
    }
    assert all(r["teacher_score"] for r in rows)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["tasks"].keys() == set(NAMES)
    assert result.summary is not None
    assert result.summary.tasks["catch"].episodes == 2


def test_callbacks_see_every_step_evaluation_and_checkpoint(run: tuple[Path, Seen, api.Result]) -> None:
    out, seen, _ = run
    assert seen.steps == list(range(1, 61))
    assert seen.ends == 1
    assert seen.paths[-1] == out / "checkpoints" / "0000000060"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[:-1] == seen.records
    assert lines[-1]["final"]
    evaluations = [r for r in lines if r["kind"] == "eval"]
    assert [r["updates"] for r in evaluations] == [25, 50, 60]
    assert evaluations[0]["tasks"]["catch"].keys() == {"score", "low", "high", "teacher", "percent", "visited"}


def test_tensorboard_has_the_tags_people_look_for(run: tuple[Path, Seen, api.Result]) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = loader.EventAccumulator(str(run[0] / "tensorboard"))
    board.Reload()
    tags = set(board.Tags()["scalars"])
    assert {"losses/loss", "charts/learning_rate", "charts/SPS", "charts/updates_per_second"} <= tags
    for name in NAMES:
        assert {f"losses/{name}/kl", f"charts/{name}/agreement", f"eval/{name}/score"} <= tags
    assert [e.step for e in board.Scalars("eval/catch/score")] == [25, 50]
    assert board.Scalars("losses/loss")[-1].step == 60


def test_the_student_that_is_loaded_is_the_one_that_was_trained(run: tuple[Path, Seen, api.Result]) -> None:
    out, _, result = run
    loaded = polydistill.load(out)
    for name in NAMES:
        obs = states(name)
        np.testing.assert_array_equal(loaded.outputs(name)(obs), result.policy.outputs(name)(obs))


def test_evaluating_a_run_plays_its_teachers_too(run: tuple[Path, Seen, api.Result]) -> None:
    told: list[str] = []
    done = polydistill.evaluate(run[0], episodes=3, device="cpu", on_task=told.append)
    assert told == list(NAMES)
    for name in NAMES:
        score = done.summary.tasks[name]
        assert score.episodes == 3
        assert np.isfinite(score.teacher)
        assert score.teacher > score.random
    again = polydistill.evaluate(run[0], episodes=3, device="cpu")
    assert [r.score for r in again.rows] == [r.score for r in done.rows]
    alone = polydistill.evaluate(run[2].policy, episodes=3, teachers=False, device="cpu")
    assert [r.score for r in alone.rows] == [r.score for r in done.rows]
    assert np.isnan(alone.summary.tasks["catch"].percent)


def test_evaluating_a_teacher(run: tuple[Path, Seen, api.Result]) -> None:
    done = polydistill.evaluate(run[0].parent / "catch", steps=200, device="cpu")
    assert done.summary.tasks.keys() == {"catch"}
    assert done.summary.tasks["catch"].score > done.summary.tasks["catch"].random
    with pytest.raises(UserError, match="give either episodes or steps, not both"):
        polydistill.evaluate(run[0].parent / "catch", steps=200, episodes=3)
    with pytest.raises(UserError, match=r"name: Input should be 'noop', 'sticky' or 'starts' \(found 'human'\)"):
        polydistill.evaluate(run[0].parent / "catch", protocol="human")


def test_a_damaged_run_or_a_teacher_that_moved(run: tuple[Path, Seen, api.Result], tmp_path: Path) -> None:
    for name in ("config.json", "student.safetensors"):
        (tmp_path / name).write_bytes((run[0] / name).read_bytes())
    info = json.loads((run[0] / "run.json").read_text())
    info["tasks"][0]["teacher"] = str(tmp_path / "gone")
    (tmp_path / "run.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="no teacher at"):
        polydistill.evaluate(tmp_path, episodes=1)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run.json: damaged"):
        polydistill.evaluate(tmp_path, episodes=1)


def test_teachers_made_in_python_and_going_on(tmp_path: Path) -> None:
    teachers = [exact_teacher(n) for n in NAMES]

    class Stop(Callback):
        def on_step(self, updates: int) -> bool:
            return updates < 20

    recipe = small("mimic")
    stopped = polydistill.distill(recipe, tmp_path / "x", teachers=teachers, callbacks=[Stop()], inspect=False)
    assert not stopped.finished
    assert stopped.summary is None
    info = json.loads((tmp_path / "x" / "run.json").read_text())
    assert info["finished"] is None
    assert polydistill.load(tmp_path / "x").suite.tasks == tuple(t.task for t in teachers)
    before = {p.name: p.read_bytes() for p in (tmp_path / "x").iterdir() if p.is_file()}
    with pytest.raises(UserError, match=r"learner.batch_size is 8, but the run in .* has 16"):
        polydistill.distill(
            small("mimic", learner={"batch_size": 8}), tmp_path / "x", teachers=teachers, resume=True, inspect=False
        )
    assert {p.name: p.read_bytes() for p in (tmp_path / "x").iterdir() if p.is_file()} == before
    done = polydistill.distill(recipe, tmp_path / "x", teachers=teachers, resume=True, command="again", inspect=False)
    assert done.finished
    info = json.loads((tmp_path / "x" / "run.json").read_text())
    assert [s["command"] for s in info["resumed"]] == ["again"]
    assert info["command"] == "again"  # another one than the first, whose result is this run from its beginning
    assert len(info["sittings"]) == 2
    assert info["refilled_control_steps"] > 0
    assert info["tasks"][0]["teacher"] is None
    rows = [json.loads(line) for line in (tmp_path / "x" / "metrics.jsonl").read_text().splitlines()]
    updates = [r["updates"] for r in rows if not r.get("final")]
    assert updates == sorted(set(updates))
    assert updates[-1] == 60


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"memory": {"sampler": "unifrm"}}, "unknown sampler 'unifrm': did you mean 'uniform'?"),
        ({"memory": {"options": {"capacity": 3}}}, "has no setting 'capacity': that is the memory's"),
        ({"memory": {"options": {"alpha": 3}}}, "sampler 'uniform' has no setting 'alpha'"),
        ({"memory": {"capacity": 2}}, "cannot hold one step of 4 environments"),
        ({"memory": {"size": "900TB"}}, "give a smaller --memory"),
        ({"memory": {"size": "much"}}, "is no memory size"),
        ({"student": {"kind": "mimik"}}, "unknown student 'mimik': did you mean 'mimic'?"),
        ({"student": {"options": {"hiden": 3}}}, "has no setting 'hiden': did you mean 'hidden'?"),
        ({"student": {"options": {"hidden": -3}}}, "do not make a mimic"),
        ({"student": {"options": {"bf16": True}}}, "do not make a mimic"),
        ({"student": {"kind": "task_torsos", "options": {}}}, "no convolutions to copy: use --student mimic"),
        ({"evaluation": {"protocol": "human"}}, "evaluation.protocol: Input should be 'noop', 'sticky' or 'starts'"),
        ({"device": "cude"}, "--device cude: not available here"),
        ({"learner": {"learning_rate": float("inf")}}, "learner.learning_rate: Input should be a finite number"),
        ({"objective": {"temperature": float("inf")}}, "objective.temperature: Input should be a finite number"),
        ({"learner": {"max_grad_norm": -1}}, "learner.max_grad_norm: Input should be greater than 0"),
        ({"learner": {"batch_size": 10**12}}, "minibatches need .*: give a smaller --batch-size"),
        ({"learner": {"batch_siz": 3}}, "unknown key 'learner.batch_siz'; did you mean 'batch_size'?"),
        ({"schedul": {}}, "unknown key 'schedul'; did you mean 'schedule'?"),
    ],
)
def test_bad_input_writes_nothing(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match) as error:
        polydistill.distill(small("mimic", **changes), tmp_path / "x", teachers=[exact_teacher(n) for n in NAMES])
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_recipe_may_be_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown recipe 'rusuu': did you mean 'rusu'"):
        polydistill.distill("rusuu", tmp_path / "x")
    (tmp_path / "mine.yaml").write_text("teachers: [none]\n")
    with pytest.raises(UserError, match="none"):
        polydistill.distill(tmp_path / "mine.yaml", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_student_that_diverged_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(self: Any, batch: Any) -> Any:
        torch.nn.init.constant_(self.parameters[0], float("nan"))
        return learn(self, batch)

    learn = Learner.step
    monkeypatch.setattr(Learner, "step", diverge)
    few = small("mimic", schedule={"total_updates": 10})  # fewer than the learner's patience
    with pytest.raises(UserError, match=r"student.safetensors: .* holds NaN or infinite weights, so training did not"):
        polydistill.distill(few, tmp_path / "x", teachers=[exact_teacher(n) for n in NAMES], inspect=False)
    assert not (tmp_path / "x" / "student.safetensors").exists()


def test_a_folder_that_holds_a_run_is_refused_before_anything_is_measured(
    run: tuple[Path, Seen, api.Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*args: Any) -> None:
        raise AssertionError("a teacher was measured")

    monkeypatch.setattr("polydistill.build.actors", measured)
    with pytest.raises(UserError, match="holds a run"):
        api.distill(small(memory={"sampler": "hierarchical"}), run[0], teachers=[exact_teacher("catch")])


def test_mse_needs_q_values(tmp_path: Path) -> None:
    teachers = [exact_teacher("catch", "logits"), fitted_teacher("catch-wind")]
    with pytest.raises(UserError, match="loss mse needs Q-values, but the teacher of catch gives logits"):
        polydistill.distill(small(objective={"loss": "mse"}), tmp_path / "x", teachers=teachers)
    with pytest.raises(UserError, match="task 'catch' is named twice"):
        polydistill.distill(small(), tmp_path / "x", teachers=[exact_teacher("catch")] * 2)


def test_a_plan_says_what_would_run_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    teachers = [str(write_teacher(tmp_path / n, n, scores={"noop": {"mean": 4.0}})) for n in NAMES]
    before = sorted(tmp_path.rglob("*"))
    said = plan(DistillRecipe.parse({"teachers": teachers, **small("controllers")}, "x"))
    assert sorted(tmp_path.rglob("*")) == before
    assert "controllers" in said
    assert "catch-wind: 2 actions" in said
    assert "scores 4.0" in said
    assert "20 kB of it for sampling (uniform)" in said
    assert "60 updates of 2 x 16 samples, 440 control steps per task" in said
