"""``polydistill multitask`` from end to end: the run's files, stopping and going on, bad input, real Atari."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import polydistill
from polydistill.algorithms.dqn import DQNSettings
from polydistill.errors import UserError
from polydistill.evaluation.experiment import add_run
from polydistill.multitask import MultitaskRecipe, make_parts, multitask
from polydistill.policies import of_student
from polydistill.recipe import read, resolve, shipped
from polydistill.reporting.page import write_report
from polydistill.training.callbacks import Callback, Record
from polydistill.training.learner import NotFiniteError
from polydistill.training.multi import MultitaskRun
from polydistill.training.multi_records import Lines
from tests.command_line import typed
from tests.distilling import NAMES, exact_teacher, states, write_teacher

ZOO = Path(__file__).resolve().parent.parent / "zoo"


def small(**changes: Any) -> dict[str, Any]:
    recipe: dict[str, Any] = {
        "tasks": list(NAMES),
        "student": {"kind": "controllers", "options": {"hidden": 32, "head": 16}, "bf16": False},
        "dqn": {
            "num_envs": 4, "minibatch": 8, "capacity": 2_000, "learning_starts": 80, "update_period": 8,
            "target_period": 160, "learning_rate": 1e-3, "epsilon_steps": 400,
        },
        "total_steps": 400,
        "memory": "20MB",
        "evaluation": {"every": 20, "episodes": 2, "final_episodes": 3},
        "device": "cpu",
    }  # fmt: skip
    for key, value in changes.items():
        recipe[key] = {**recipe.get(key, {}), **value} if isinstance(value, dict) else value
    return recipe


class Watcher(Callback):
    """Keeps records and messages; stops the run after ``last`` updates."""

    def __init__(self, last: int = 10**9):
        self.last, self.records, self.messages = last, list[Record](), list[str]()

    def on_step(self, updates: int) -> bool:
        return updates < self.last

    def on_log(self, record: Record) -> None:
        self.records.append(record)

    def on_evaluation(self, record: Record) -> None:
        self.records.append(record)

    def on_message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Watcher, Any]:
    root, watcher = tmp_path_factory.mktemp("multitask"), Watcher()
    against = [str(write_teacher(root / NAMES[0], NAMES[0], scores={"noop": {"mean": 6.5}, "random": -3.0}))]
    result = multitask(small(against=against), root / "run", callbacks=[watcher], command="a command", inspect=False)
    return root / "run", watcher, result


def test_a_run_folder_is_that_of_a_distillation(run: tuple[Path, Watcher, Any]) -> None:
    out, watcher, result = run
    assert result.finished
    assert {p.name for p in out.iterdir()} == {
        "recipe.yaml", "run.json", "metrics.jsonl", "scores.csv", "teacher_scores.csv", "summary.json", "checkpoints",
        "student.safetensors", "config.json",
    }  # fmt: skip
    info = json.loads((out / "run.json").read_text())
    assert info["command"] == "a command"
    assert info["algorithm"] == "multi-task DQN"
    assert info["finished"] >= info["started"]
    assert [t["name"] for t in info["tasks"]] == list(NAMES)
    assert [bool(t["teacher"]) for t in info["tasks"]] == [True, False]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[:-1] == watcher.records
    train, evals = ([x for x in lines if x["kind"] == kind] for kind in ("train", "eval"))
    assert train[-1]["updates"] == 40  # (400 - 80) / 8, of both games at once
    assert train[-1]["control_steps"] == 792  # an update every other control step, the last but one included
    assert train[-1]["tasks"]["catch"].keys() == {
        "loss", "q_mean", "return", "memory", "memory_bytes", "epsilon", "control_steps", "updates"
    }  # fmt: skip
    assert [train[-1]["tasks"][n]["control_steps"] for n in NAMES] == [396, 396]
    assert [e["updates"] for e in evals] == [20, 40, 40]
    assert evals[-1]["final"]
    assert evals[0]["tasks"]["catch"]["teacher"] == 6.5  # from the card
    assert evals[0]["tasks"]["catch-wind"]["teacher"] is None
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert {(r["updates"], r["control_steps"], r["seed"]) for r in rows} == {("40", "800", "1")}
    assert len(rows) == 6
    assert len(list(csv.DictReader((out / "teacher_scores.csv").open()))) == 3
    score = result.summary.tasks["catch"]
    assert np.isfinite([score.teacher, score.percent]).all()
    assert np.isnan(result.summary.tasks["catch-wind"].percent)


def test_the_readers_of_a_run_read_it(run: tuple[Path, Watcher, Any], tmp_path: Path) -> None:
    out, _, result = run
    page = write_report(out, tmp_path / "report.html").read_text()
    assert "catch-wind" in page
    assert "cannot be read" not in page
    added = add_run(out, tmp_path / "experiment", "multi-dqn")
    assert [(r.variant, r.task, r.updates, r.control_steps) for r in added] == [
        ("multi-dqn", n, 40, 800) for n in NAMES
    ]
    loaded = polydistill.load(out)
    for name in NAMES:
        obs = states(name)
        np.testing.assert_array_equal(loaded.outputs(name)(obs), result.policy.outputs(name)(obs))
    again = polydistill.evaluate(out, episodes=3, device="cpu")
    assert again.summary.tasks["catch"].score == result.summary.tasks["catch"].score
    assert again.summary.tasks["catch"].teacher == result.summary.tasks["catch"].teacher


@pytest.mark.parametrize("switch", ["lockstep", "episode"])
def test_a_stopped_run_goes_on_counting(tmp_path: Path, switch: str) -> None:
    recipe = small(switch=switch, student={"kind": "mimic", "options": {"hidden": 32}}, evaluation={"every": 10})
    assert not multitask(recipe, tmp_path / "x", callbacks=[Watcher(last=14)], inspect=False).finished
    first = json.loads(next((tmp_path / "x" / "checkpoints").iterdir()).joinpath("state.json").read_text())
    assert first["updates"] == 14
    assert json.loads((tmp_path / "x" / "run.json").read_text())["finished"] is None
    stopped = (tmp_path / "x" / "student.safetensors").read_bytes()
    assert multitask({**recipe, "total_steps": 81}, tmp_path / "x", resume=True, inspect=False).finished  # no step left
    assert (tmp_path / "x" / "student.safetensors").read_bytes() == stopped
    with (tmp_path / "x" / "metrics.jsonl").open("a") as file:  # as if it was killed some time after the checkpoint
        file.write(json.dumps({"kind": "train", "updates": 15, "late": True}) + "\n")
    with pytest.raises(UserError, match=r"dqn.minibatch is 4, but the run in .* has 8"):
        multitask(small(**{**recipe, "dqn": {"minibatch": 4}}), tmp_path / "x", resume=True)
    watcher = Watcher()
    longer = {**recipe, "total_steps": 480}
    assert multitask(longer, tmp_path / "x", resume=True, callbacks=[watcher], command="again", inspect=False).finished
    assert watcher.messages[0] == f"resumed {tmp_path / 'x'} after {first['control_steps']:,} control steps"
    lines = [json.loads(line) for line in (tmp_path / "x" / "metrics.jsonl").read_text().splitlines()]
    assert not any("late" in x for x in lines)
    updates = [x["updates"] for x in lines if not x.get("final")]
    assert updates == sorted(updates)
    assert len({(x["kind"], x["updates"]) for x in lines if not x.get("final")}) == len(updates)
    last = [x for x in lines if x["kind"] == "train"][-1]
    final = lines[-1]
    assert final["final"]
    assert final["control_steps"] == 960  # what filled the memories again does not count
    if switch == "lockstep":
        assert final["updates"] == (480 - 80) // 8  # as many as without a stop
    played = [t["control_steps"] for t in last["tasks"].values()]
    assert sum(played) == last["control_steps"]
    assert all(now > before for now, before in zip(played, first["task_steps"], strict=True))
    learnt = [t["updates"] for t in last["tasks"].values()]
    assert learnt == [last["updates"]] * 2 if switch == "lockstep" else sum(learnt) == last["updates"]
    info = json.loads((tmp_path / "x" / "run.json").read_text())
    assert [s["command"] for s in info["resumed"]][1:] == ["again"]
    assert info["command"] == "again"
    assert info["refilled_control_steps"] >= 80


def test_states_and_videos_show_q_values_sharpened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a teacher; the softmax of Q-values as they are would show a uniform policy."""
    shown: list[tuple[Any, ...]] = []
    embedded: list[Any] = []
    monkeypatch.setattr(
        "polydistill.multitask.inspect_task", lambda task, theirs, ours, **k: shown.append((task, theirs, ours, k))
    )
    monkeypatch.setattr("polydistill.multitask.embed", lambda student, values, **k: embedded.extend(values))
    teacher = exact_teacher("catch-wind")
    result = multitask(small(total_steps=120), tmp_path / "x", teachers=[teacher])
    ((task, theirs, ours, settings),) = shown
    obs = states("catch-wind")[:5]
    assert task == teacher.task
    assert settings["tau"] == 0.01
    np.testing.assert_array_equal(theirs(obs), teacher(torch.from_numpy(obs)).values.numpy())
    np.testing.assert_allclose(ours(obs), 100 * result.policy.outputs("catch-wind")(obs), rtol=1e-5)
    assert [v is not None for v in embedded] == [False, True]
    multitask(small(total_steps=120, evaluation={"inspect": False}), tmp_path / "y", teachers=[teacher])
    assert len(shown) == 1


def test_the_recipe_alone_decides(tmp_path: Path) -> None:
    found, returns = [], []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        watcher = Watcher()
        recipe = small(seed=seed, total_steps=240, dqn={"epsilon_end": 1.0}, evaluation={"every": 0})
        result = multitask(recipe, tmp_path / name, callbacks=[watcher], inspect=False)
        found.append(result.policy.outputs(NAMES[0])(states(NAMES[0])))
        returns.append([watcher.records[-1]["tasks"][n]["return"] for n in NAMES])  # of random play
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert returns[0] == returns[1] != returns[2]


def test_a_loss_that_is_not_a_number_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MultitaskRun, "log_seconds", 0.0)
    recipe = small(dqn={"learning_rate": 1e30}, evaluation={"every": 0})
    with pytest.raises(NotFiniteError, match=r"start again with a smaller dqn\.learning_rate"):
        multitask(recipe, tmp_path / "x", inspect=False)
    assert not (tmp_path / "x" / "student.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tasks": ["catsh"]}, "unknown task 'catsh'; did you mean 'catch'?"),
        ({"tasks": ["catch", "catch"]}, "task 'catch' is named twice"),
        ({"tasks": []}, "tasks: Tuple should have at least 1 item"),
        ({"against": ["nowhere"]}, "no teacher at nowhere"),
        ({"student": {"kind": "task_head"}}, "unknown student 'task_head': did you mean 'task_heads'?"),
        ({"student": {"kind": "mimic"}}, "student 'mimic' has no setting 'head'"),
        ({"student": {"kind": "net"}}, "unknown student 'net': did you mean 'net3'?"),
        ({"student": {"options": {"head": 0}}}, "do not make a controllers: head is 0, and sizes are whole numbers"),
        ({"student": {"kind": "task_torsos", "options": {}}}, "task_torsos has layers that do not learn"),
        ({"switch": "game"}, "switch: Input should be 'lockstep' or 'episode'"),
        ({"dqn": {"lr": 1}}, "unknown key 'dqn.lr'"),
        ({"dqn": {"capacity": 3}}, "cannot hold one step of 4 environments"),
        ({"total_steps": 80}, "total_steps 80 ends before dqn.learning_starts 80"),
        ({"memory": "900TB"}, "this machine has"),
        ({"evaluation": {"protocol": "human"}}, "evaluation.protocol: Input should be"),
        ({"device": "cude"}, "--device cude: not available here"),
    ],
)
def test_bad_input_writes_nothing(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match.replace("?", r"\?")) as error:
        multitask(small(**changes), tmp_path / "x")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_teacher_of_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a teacher of catch-wide, which is not among the tasks: catch, catch-wind"):
        multitask(small(), tmp_path / "x", teachers=[exact_teacher("catch-wide")])
    assert not list(tmp_path.iterdir())


def test_a_task_with_a_teacher_is_the_teachers() -> None:
    """Its observation profile included: student and teacher are scored on the same pixels."""
    teacher = exact_teacher("catch-mirror")
    parts = make_parts(MultitaskRecipe.parse(small(tasks=["catch", "catch-mirror"]), "x"), [teacher])
    assert parts.suite.tasks[1] is teacher.task


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    multitask = partial(typed, monkeypatch, "multitask")
    monkeypatch.chdir(tmp_path)
    write_teacher(tmp_path / "zoo" / "catch", "catch")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(small(against=["zoo/pong"])))
    flags = ["--tasks", *NAMES, "--student", "task_heads", "--steps", 160, "--seed", 3, "--out", "x", "--threads", 1]
    threads = torch.get_num_threads()
    try:
        assert multitask("r.yaml", *flags, "--against", "zoo/catch", "--set", "dqn.double=true") == 0
        out, err = capsys.readouterr()
        assert "report: x/report.html" in out
        assert "320 control steps" in err
        recipe = yaml.safe_load((tmp_path / "x" / "recipe.yaml").read_text())
        assert (recipe["tasks"], recipe["against"]) == (list(NAMES), ["zoo/catch"])
        assert (recipe["student"]["kind"], recipe["student"]["options"]) == ("task_heads", {})
        assert (recipe["total_steps"], recipe["seed"], recipe["dqn"]["double"]) == (160, 3, True)
        assert multitask("r.yaml", *flags) == 2  # there is a run already
        assert "add --resume to continue it or --overwrite to replace it" in capsys.readouterr().err
        assert multitask("r.yaml", *flags, "--overwrite") == 0  # the recipe's teachers are not of these games
        assert yaml.safe_load((tmp_path / "x" / "recipe.yaml").read_text())["against"] == []
        for flags_of in (["--student", "net3"], ["--set", "student.kind=net3"]):
            more = ["--tasks", "catch", "--steps", 160, "--threads", 1, "--out", "sized", "--overwrite"]
            assert multitask("r.yaml", *more, *flags_of) == 0
            student = yaml.safe_load((tmp_path / "sized" / "recipe.yaml").read_text())["student"]
            assert (student["kind"], student["options"]) == ("mimic", {"channels": [16, 16, 16], "hidden": 64})
    finally:
        torch.set_num_threads(threads)


def test_lines_say_what_a_person_wants_to_know(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(1_000, every=0.0)
    task = {"return": None, "score": 2.0, "teacher": None}
    record: dict[str, Any] = {
        "control_steps": 400, "control_steps_per_s": 100.0, "updates": 7, "updates_per_s": 3.0, "loss": 0.25,
        "tasks": {"pong": {**task, "return": -20.5}, "freeway": {**task, "teacher": 28.0}},
    }  # fmt: skip
    lines.on_log(record)
    lines.on_evaluation(record)
    assert capsys.readouterr().err.splitlines() == [
        "400/1,000 control steps | 100/s | 3.0 updates/s | loss 0.2500 | return pong -20.5 | 6s left",
        "evaluation after 7 updates: pong 2.0, freeway 2.0 (teacher 28.0)",
    ]


def test_shipped_recipes_parse_and_the_papers_is_the_papers() -> None:
    recipes = {}
    for name, text in shipped("multitask").items():
        content, where = read(name, "multitask")
        recipes[name] = resolve(MultitaskRecipe, content, where)
        assert recipes[name].tasks == ("pong", "freeway", "breakout")
        assert text.startswith("#")
    assert recipes.keys() == {"multi-dqn", "small"}
    paper = recipes["multi-dqn"]
    assert paper.dqn == DQNSettings()  # single-task DQN's, Mnih et al. 2015
    assert (paper.switch, paper.student.kind, paper.total_steps) == ("episode", "controllers", 50_000_000)


def test_real_atari(tmp_path: Path) -> None:
    """Two games with unequal action sets and one shared output: it trains, and every action exists."""
    recipe = small(
        tasks=["breakout", "freeway"], student={"kind": "mimic", "options": {"hidden": 64}}, evaluation={"every": 0},
        dqn={"epsilon_start": 0.2, "epsilon_end": 0.2},
    )  # fmt: skip
    before = of_student(make_parts(MultitaskRecipe.parse(recipe, "x")).student, tmp_path)
    screen = np.random.default_rng(0).integers(0, 256, (1, 4, 84, 84), dtype=np.uint8)
    started = {name: before.outputs(name)(screen) for name in recipe["tasks"]}
    watcher = Watcher(last=20)
    result = multitask(recipe, tmp_path / "x", callbacks=[watcher], inspect=False)
    assert not result.finished
    loaded = polydistill.load(tmp_path / "x")
    for name, values in started.items():
        assert values.shape == (1, {"breakout": 4, "freeway": 3}[name])
        assert not np.array_equal(loaded.outputs(name)(screen), values)
    tasks = watcher.records[-1]["tasks"]
    assert [tasks[n]["updates"] for n in recipe["tasks"]] == [20, 20]
    assert [tasks[n]["memory"] for n in recipe["tasks"]] == [80 + 8 * 20 - 4] * 2  # the 80th step counts
