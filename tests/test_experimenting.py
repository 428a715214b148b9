"""An experiment's runs: which there are, which are made, and what is kept of them."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import polydistill
from polydistill import api, distral_training, multitask, transferring
from polydistill.commands import _text
from polydistill.errors import UserError
from polydistill.evaluation.curves import CurvePoint
from polydistill.evaluation.paper_numbers import PaperNumber
from polydistill.evaluation.rows import read_csv
from polydistill.evaluation.tables import Result
from polydistill.experimenting import run_experiment
from polydistill.experiments import Choice, counts_steps, load_experiment, plan_runs, transfers_of
from polydistill.recipe import parse_assignment, shipped
from polydistill.reporting import page
from polydistill.reporting.experiment import _line, curves, finals
from polydistill.training.callbacks import Callback
from tests.command_line import children_here, refused, typed
from tests.distilling import NAMES, as_if_taught, small, write_teacher

ROOT = Path(__file__).resolve().parent.parent

EXPERIMENT: dict[str, Any] = {
    "about": "Two losses.",
    "recipe": "recipe.yaml",
    "overrides": {"learner.learning_rate": 1e-3, "learner.max_learning_rate": 1e-5, "student.options": {"hidden": 16}},
    "variants": {"mse": {"objective.loss": "mse"}, "kl": {"objective.loss": "kl"}},
    "teachers": [["zoo/catch"], ["zoo/catch-wind"]],
    "seeds": [1, 2],
    "best": True,
    "negative_transfer": True,
    "paper": {"source": "A paper", "percent": {"catch": {"kl": 99.0}}},
}


def write(folder: Path, experiment: dict[str, Any]) -> None:
    (folder / "losses.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two teachers, a recipe for them, and an experiment."""
    for name in NAMES:
        write_teacher(tmp_path / "zoo" / name, name)
    recipe = {"teachers": ["zoo/catch"], **small(schedule={"total_updates": 10}, evaluation={"every": 5})}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    write(tmp_path, EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is started; it runs in this process, which saves importing torch for each; without videos and reports."""
    monkeypatch.setattr(api, "_inspect", lambda *_: None)
    monkeypatch.setattr(page, "write_report", lambda folder: folder)
    return children_here(monkeypatch)


def names(*choices: Choice) -> list[str]:
    _, experiment = load_experiment("losses.yaml")
    return [run.folder.name for choice in choices for run in plan_runs(experiment, Path("runs"), choice)]


def test_every_run_is_made_once_and_kept(
    place: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(monkeypatch, "experiment", "losses.yaml", "--seeds", "1") == 0
    folders = ["mse-catch-s1", "kl-catch-s1", "mse-catch-wind-s1", "kl-catch-wind-s1"]
    assert [Path(c[c.index("--out") + 1]).name for c in calls] == folders
    results = place / "results" / "losses"
    assert {p.name for p in results.iterdir()} == {
        "README.md", "scores.csv", "curves.csv", "paper.csv", "command.txt", "curves.svg", "percent.svg",
    }  # fmt: skip
    rows = read_csv(results / "scores.csv", Result)
    assert [(r.variant, r.task) for r in rows] == [(v, t) for v in ("mse", "kl") for t in NAMES]
    assert {r.updates for r in rows} == {10}
    assert rows[0].parameters > 0
    text = (results / "README.md").read_text()
    assert text.startswith("# losses\n\nTwo losses.\n\n")
    assert "| task | teacher | mse | kl | kl, paper |" in text
    assert "| end / best, % of teacher | mse | kl |" in text
    assert "| at the end, % of teacher | mse | kl |" in text
    assert "![% of teacher at the end" in text
    assert f"results: {Path('results/losses/README.md')}" in capsys.readouterr().out
    before = {p: p.read_bytes() for p in results.iterdir()}
    calls.clear()
    assert typed(monkeypatch, "experiment", "losses.yaml", "--seeds", "1") == 0
    assert calls == []
    assert {p: p.read_bytes() for p in results.iterdir()} == before
    write(place, {**EXPERIMENT, "reach": [50, 90]})  # what is told of finished runs may change without training
    assert typed(monkeypatch, "experiment", "losses.yaml", "--seeds", "1") == 0
    assert calls == []
    text = (results / "README.md").read_text()
    tables = ("updates to 50 % of teacher", "updates to 90 % of teacher", "mean % of teacher over training")
    assert all(f"| {title} | mse | kl |" in text for title in tables)
    assert {p.name: p.read_bytes() for p in results.iterdir() if p.name != "README.md"} == {
        p.name: content for p, content in before.items() if p.name != "README.md"
    }


def test_the_noted_command_makes_the_run_again(
    place: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = [
        "--only",
        "kl",
        "--tasks",
        "catch-wind",
        "--seeds",
        "5",
        "--updates",
        "7",
        "--set",
        "learner.batch_size=8",
    ]
    assert typed(monkeypatch, "experiment", "losses.yaml", *choice) == 0
    noted = [s for s in (place / "results/losses/command.txt").read_text().splitlines() if s and s[0] != "#"]
    assert len(noted) == 1
    assert noted[0].startswith("polydistill distill recipe.yaml --teachers zoo/catch-wind")
    first = place / "runs/losses/kl-catch-wind-s5"
    program, *arguments = shlex.split(noted[0])
    assert program == "polydistill"
    arguments[arguments.index("--out") + 1] = "again"
    assert typed(monkeypatch, *arguments) == 0
    assert (place / "again/recipe.yaml").read_text() == (first / "recipe.yaml").read_text()
    assert (place / "again/scores.csv").read_text() == (first / "scores.csv").read_text()
    saved = yaml.safe_load((first / "recipe.yaml").read_text())
    assert saved["schedule"]["total_updates"] == 7
    expected = {"batch_size": 8, "learning_rate": 1e-3, "max_learning_rate": 1e-5}
    assert saved["learner"] | expected == saved["learner"]
    assert (saved["student"]["options"], saved["seed"], saved["objective"]["loss"]) == ({"hidden": 16}, 5, "kl")


@pytest.mark.parametrize(
    "value", [1e-5, 0.5, 3, True, None, "1e-05", "a: b", [1, 2], {"channels": [16, 32], "norm": False}, ["x" * 90] * 3]
)
def test_a_setting_is_read_as_it_was_written(value: Any) -> None:
    assert parse_assignment(f"key={_text(value)}") == ("key", value)
    assert "\n" not in _text(value)


def test_a_cut_run_goes_on(place: Path, calls: list[list[str]]) -> None:
    class Stop(Callback):
        def on_step(self, updates: int) -> bool:
            return updates < 4

    _, experiment = load_experiment("losses.yaml")
    planned = plan_runs(experiment, Path("runs"), Choice(("kl",), ("catch",), (1,)))
    assert planned[0].state() == "new"
    polydistill.distill(planned[0].settings, planned[0].folder, callbacks=[Stop()], inspect=False)  # type: ignore[arg-type]
    assert planned[0].state() == "cut"
    assert run_experiment(experiment, planned, Path("results")) == 0
    assert [c[-1] for c in calls] == ["--resume"]
    assert planned[0].state() == "finished"
    lines = [json.loads(line) for line in (planned[0].folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["updates"] for r in lines if r["kind"] == "eval"] == [5, 10]


def test_a_run_that_fails_does_not_stop_the_others(
    place: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "runs/losses/mse-catch-s1").mkdir(parents=True)
    (place / "runs/losses/mse-catch-s1/mine.txt").write_text("not a run")
    assert typed(monkeypatch, "experiment", "losses.yaml", "--seeds", "1", "--tasks", "catch") == 2
    assert len(calls) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == ("polydistill: 1 of 2 runs failed: mse, catch, seed 1 (exit code 2); the same command continues")
    assert [r.variant for r in read_csv(place / "results/losses/scores.csv", Result)] == ["kl"]


def test_which_runs(place: Path) -> None:
    everything = names(Choice())
    assert everything == [f"{v}-{t}-s{s}" for s in (1, 2) for t in NAMES for v in ("mse", "kl")]
    assert names(Choice(variants=("kl",), tasks=("catch",), seeds=(7,))) == ["kl-catch-s7"]
    halves = [names(Choice(shard=(i, 2))) for i in (0, 1)]
    assert halves == [everything[0::2], everything[1::2]]
    assert names(Choice(shard=(2, 2))) == halves[0]  # counting from one works as well


def test_a_group_of_teachers_is_one_run(place: Path) -> None:
    changed = {**EXPERIMENT, "teachers": [["zoo/catch", "zoo/catch-wind"]], "seeds": [1]}
    write(place, changed)
    assert names(Choice(variants=("kl",), tasks=("catch-wind",))) == ["kl-catch+catch-wind-s1"]
    _, experiment = load_experiment("losses.yaml")
    assert "--teachers zoo/catch zoo/catch-wind --out" in plan_runs(experiment, Path("runs"))[0].command


def test_another_network_and_sampler_drop_the_recipes_options(place: Path) -> None:
    changed = {"variants": {"c": {"student.kind": "controllers", "memory.sampler": "uniform"}}, "overrides": {}}
    write(place, {**EXPERIMENT, **changed, "paper": None})
    _, experiment = load_experiment("losses.yaml")
    run = plan_runs(experiment, Path("runs"))[0]
    assert run.settings.model_dump()["student"] == {"kind": "controllers", "options": {}, "bf16": False}
    assert "--student controllers --sampler uniform" in run.command
    assert "--set" not in run.command


def test_a_run_with_other_settings_is_refused_before_anything_starts(
    place: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["experiment", "losses.yaml", "--only", "kl", "--seeds", "1"]
    assert typed(monkeypatch, *arguments, "--tasks", "catch-wind") == 0
    calls.clear()
    assert typed(monkeypatch, *arguments, "--updates", "9") == 2
    assert calls == []
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        "polydistill: runs/losses/kl-catch-wind-s1 was made with schedule.total_updates 10, not 9: "
        "remove it or choose another folder"
    )
    recipe = place / "runs/losses/kl-catch-wind-s1/recipe.yaml"
    saved = yaml.safe_load(recipe.read_text())
    del saved["learner"]["anneal"]  # as if the setting were newer than the run
    saved["device"] = "cuda"
    recipe.write_text(yaml.safe_dump(saved))
    assert typed(monkeypatch, *arguments, "--tasks", "catch-wind") == 0
    (recipe.parent / "run.json").write_text("{")
    assert typed(monkeypatch, *arguments, "--tasks", "catch-wind") == 2
    assert "run.json or recipe.yaml is damaged" in capsys.readouterr().err


def test_finished_runs_go_on_to_more_updates(
    place: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["experiment", "losses.yaml", "--only", "kl", "--seeds", "1", "--tasks", "catch-wind"]
    assert typed(monkeypatch, *arguments) == 0
    assert typed(monkeypatch, *arguments, "--updates", "25") == 0
    assert "--resume" in calls[-1]
    assert "runs/losses/kl-catch-wind-s1 goes on" in capsys.readouterr().out
    results = read_csv(place / "results/losses/scores.csv", Result)
    assert [r.updates for r in results] == [25]  # the shorter run's row is replaced
    # A learning rate that falls to 0 at the end was another one: such a run cannot be made longer.
    recipe = place / "runs/losses/kl-catch-wind-s1/recipe.yaml"
    saved = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**saved, "learner": {**saved["learner"], "anneal": True}}))
    annealed = [*arguments, "--set", "learner.anneal=true", "--updates", "30"]
    assert typed(monkeypatch, *annealed) == 2
    assert "was made with schedule.total_updates 25, not 30" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "flags", "match"),
    [
        ({"variant": {}}, [], "unknown key 'variant'; did you mean 'variants'?"),
        ({"variants": {}}, [], "variants: Dictionary should have at least 1 item"),
        ({"variants": {"kl": {"kind": "multitsk"}}}, [], "no kind 'multitsk'; did you mean 'multitask'?"),
        ({"variants": {"kl": {"objective.los": 1}}}, [], "unknown key 'objective.los'; did you mean 'loss'?"),
        (
            {"paper": {"source": "x", "percent": {"catch": {"lk": 1}}}},
            [],
            "paper.percent.catch: no variant 'lk'; known: mse, kl",
        ),
        (
            {"paper": {"source": "x", "percent": {}, "best": {"catch": {"kk": 1}}}},
            [],
            "paper.best.catch: no variant 'kk'; known: mse, kl",
        ),
        ({"variants": {"a": {"student.kind": "mimi"}}, "paper": None}, [], "variants.a: unknown student 'mimi': did"),
        (
            {"variants": {"a": {"student.options": {"hiden": 8}}}, "overrides": {}, "paper": None},
            [],
            "variants.a: student 'mimic' has no setting 'hiden': did you mean 'hidden'?",
        ),
        (
            {"variants": {"a": {"kind": "multitask", "recipe": "small", "student.kind": "task_torsos"}}, "paper": None},
            [],
            "variants.a: task_torsos has layers that do not learn: use controllers, mimic or task_heads",
        ),
        ({"recipe": "nope"}, [], "unknown recipe 'nope'"),
        ({"teachers": [["zoo/catc"]]}, [], "no teacher at zoo/catc"),
        ({"teachers": [["zoo/catch"], ["zoo/catch", "zoo/catch-wind"]]}, [], "catch is named twice"),
        ({}, ["--only", "k"], "--only k: not in this experiment"),
        ({}, ["--tasks", "pong"], "--tasks pong: not in this experiment; known: catch, catch-wind"),
        ({}, ["--shard", "3/2"], "write I/N"),
        ({}, ["--updates", "0"], "schedule.total_updates"),
        ({}, ["--set", "seeed=1"], "unknown key 'seeed'"),
    ],
)
def test_mistakes_are_one_line_and_start_nothing(
    place: Path,
    calls: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    flags: list[str],
    match: str,
) -> None:
    write(place, {**EXPERIMENT, **changes})
    assert typed(monkeypatch, "experiment", "losses.yaml", *flags) == 2
    refused(place, calls, capsys.readouterr().err, match)


def test_an_unknown_experiment_names_the_known() -> None:
    with pytest.raises(UserError, match="unknown recipe 'rusu-loses': did you mean 'rusu-losses'"):
        load_experiment("rusu-loses")


@pytest.mark.parametrize("name", sorted(shipped("experiments")))
def test_the_commands_of_shipped_experiments_say_what_was_planned(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    as_if_taught(monkeypatch)
    seen: list[Any] = []

    def caught(recipe: Any, out: Path, **_: Any) -> api.Result:
        seen.append((recipe, out))
        return api.Result(out, False, None, None)  # type: ignore[arg-type]

    monkeypatch.setattr(api, "distill", caught)
    monkeypatch.setattr(multitask, "multitask", caught)
    monkeypatch.setattr(transferring, "transfer", lambda recipe, out, **_: seen.append((recipe, out)))
    monkeypatch.setattr(distral_training, "distral", caught)
    stem, experiment = load_experiment(name)
    if any(task.startswith("doom") for task in experiment.tasks):
        pytest.importorskip("vizdoom")
    planned = plan_runs(experiment, Path("runs") / stem)
    groups, grid = experiment.teachers or (experiment.tasks,), experiment.grid.values()
    assert len(planned) == len(experiment.variants) * len(groups) * len(experiment.seeds) * math.prod(map(len, grid))
    for run in planned:
        assert typed(monkeypatch, *run.arguments) == 130
        assert seen.pop() == (run.settings, run.folder)


@pytest.mark.parametrize(
    ("name", "task", "percents"),
    [
        ("rusu-losses", "breakout", {"mse": 33.9, "nll": 77.6, "kl": 94.7}),  # Rusu et al. 2016, Table 1
        ("rusu-losses", "freeway", {"mse": 99.4, "nll": 101.4, "kl": 103.5}),
        ("rusu-losses", "pong", {"mse": 94.4, "nll": 94.9, "kl": 100.9}),
        ("rusu-compression", "breakout", {"net1": 105.6, "net2": 98.1, "net3": 78.6}),  # Table B1
        ("rusu-compression", "pong", {"net1": 100.6, "net2": 103.7, "net3": 96.9}),
        ("rusu-multi", "freeway", {"multi-dqn": 90.3, "nll": 102.7, "kl": 102.0}),  # Table B2
        ("rusu-multi", "pong", {"multi-dqn": 74.1, "nll": 91.4, "kl": 104.4}),
        ("parisotto-multitask", "breakout", {"AMN-policy": 127.0}),  # Parisotto et al. 2016, Table 1, mean row
        ("parisotto-multitask", "pong", {"AMN-policy": 78.01}),
    ],
)
def test_the_papers_numbers(name: str, task: str, percents: dict[str, float]) -> None:
    paper = load_experiment(name)[1].paper
    assert paper is not None
    assert paper.percent[task] == percents


def test_actor_mimics_best() -> None:
    """Parisotto et al. 2016, Table 1, last row; Freeway is not among its games."""
    paper = load_experiment("parisotto-multitask")[1].paper
    assert paper is not None
    assert paper.best == {"breakout": {"AMN-policy": 97.98}, "pong": {"AMN-policy": 93.25}}
    assert paper.percent.keys() == paper.best.keys()


def test_actor_mimics_transfer() -> None:
    """Parisotto et al. 2016, Table 2, Breakout, after 1 to 10 million control steps."""
    told = load_experiment("parisotto-transfer")[1].paper_curves
    assert told is not None
    assert told.millions == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    assert told.scores == {
        "random": (1.182, 5.278, 29.13, 102.3, 202.8, 212.8, 252.9, 211.8, 243.5, 258.7),
        "AMN-policy": (18.35, 102.1, 216.0, 271.1, 308.6, 286.3, 284.6, 318.8, 281.6, 311.3),
        "AMN-feature": (16.23, 119.0, 153.7, 191.8, 172.6, 233.9, 248.5, 178.8, 235.6, 225.5),
    }


def test_actor_mimic_and_its_baselines_are_evaluated_and_updated_alike() -> None:
    """20 evaluations, so that the last tenth is two; as many updates of DQN as its control steps allow."""
    runs = plan_runs(load_experiment("parisotto-multitask")[1], Path("runs"), Choice(seeds=(1,)))
    assert len(runs) == 4
    for run in runs:
        own = run.settings.model_dump()
        if run.variant.startswith("AMN"):
            schedule = own["schedule"]
            updates = schedule["total_updates"]
            steps = schedule["warmup"] + updates * schedule["collect"] // schedule["updates"]
        else:
            assert own["switch"] == "lockstep"
            steps = own["total_steps"]
            updates = (steps - own["dqn"]["learning_starts"]) // own["dqn"]["update_period"]
        assert steps == 82_000
        assert 19_000 < updates <= 20_000
        assert -(-updates // own["evaluation"]["every"]) == 20


def test_transfers_differ_in_what_they_begin_with_alone() -> None:
    _, experiment = load_experiment("parisotto-transfer")
    runs = {run.variant: run for run in plan_runs(experiment, Path("runs"), Choice(seeds=(1,)))}
    assert {runs[v].settings.model_dump()["total_steps"] for v in transfers_of(experiment)} == {600_000}
    heads = {v: runs[v].settings.model_dump()["hand_over"]["head"] for v in ("AMN-policy", "AMN-policy-reinit")}
    assert heads == {"AMN-policy": "keep18", "AMN-policy-reinit": "reinit"}
    one, other = (runs[v].settings.model_dump() for v in heads)
    assert {key for key in one if one[key] != other[key]} == {"hand_over"}


BASELINE: dict[str, Any] = {
    "tasks": ["pong"],  # replaced by the experiment's
    "student": {"kind": "controllers", "options": {"hidden": 16, "head": 8}, "bf16": False},
    "dqn": {"num_envs": 4, "minibatch": 8, "capacity": 500, "learning_starts": 40, "update_period": 8},
    "total_steps": 200,
    "memory": "20MB",
    "evaluation": {"every": 0, "episodes": 1, "final_episodes": 2},
}


def test_a_baseline_is_another_verb_and_stands_beside(
    place: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multitask, "_inspect", lambda *_: None)
    (place / "dqn.yaml").write_text(yaml.safe_dump(BASELINE))
    variants = {"kl": {}, "dqn": {"kind": "multitask", "recipe": "dqn.yaml", "dqn.minibatch": 4}}
    both = [["zoo/catch", "zoo/catch-wind"]]
    write(place, {**EXPERIMENT, "variants": variants, "teachers": both, "seeds": [1]})
    _, experiment = load_experiment("losses.yaml")
    kl, dqn = plan_runs(experiment, Path("runs"), Choice(updates=3, steps=160, settings={"device": "cpu"}))
    assert dqn.command == (
        "polydistill multitask dqn.yaml --tasks catch catch-wind --against zoo/catch zoo/catch-wind "
        "--out runs/dqn-catch+catch-wind-s1 --seed 1 --set dqn.minibatch=4 total_steps=160"
    )
    assert kl.settings.model_dump()["schedule"]["total_updates"] == 3
    assert kl.settings.model_dump()["device"] == "cpu"
    assert run_experiment(experiment, [kl, dqn], Path("results")) == 0
    assert [run.state() for run in (kl, dqn)] == ["finished", "finished"]
    rows = read_csv(Path("results/scores.csv"), Result)
    assert [(r.variant, r.task) for r in rows] == [(v, t) for v in ("kl", "dqn") for t in NAMES]
    assert rows[2].control_steps == 2 * 160
    (line,) = [r for r in Path("results/README.md").read_text().splitlines() if r.startswith("| updates /")]
    assert line.split(" | ")[3] == "–"
    assert line.endswith(f"| {rows[2].updates:,} / 320 |")


def test_a_signal_stops_the_run_with_a_checkpoint(place: Path) -> None:
    _, experiment = load_experiment("losses.yaml")
    planned = plan_runs(experiment, Path("runs"), Choice(updates=1_000_000, settings={"evaluation.every": 20}))
    first, said = planned[0].folder, []

    def signal_when_it_learns() -> None:
        end = time.monotonic() + 100
        while not (first / "metrics.jsonl").exists() and time.monotonic() < end:  # an evaluation after 20 updates
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    sender = threading.Thread(target=signal_when_it_learns)
    sender.start()
    assert run_experiment(experiment, planned, Path("results"), said.append) == 130
    sender.join()
    assert said[1:] == ["stopped; the same command continues"]
    assert signal.getsignal(signal.SIGTERM) is before
    assert planned[0].state() == "cut"
    assert len(list((first / "checkpoints").iterdir())) == 1
    assert [p.name for p in first.parent.iterdir()] == [first.name]  # no other run was begun
    assert not (place / "results").exists()


def point(variant: str, task: str, seed: int, updates: int, percent: float) -> CurvePoint:
    return CurvePoint(variant, task, seed, updates, 0, percent, percent - 1, percent + 1, 100.0, percent)


def test_a_curve_is_the_mean_over_tasks_at_common_updates() -> None:
    points = [
        point("kl", "a", 1, 0, 0.0), point("kl", "a", 1, 10, 100.0), point("kl", "a", 1, 20, 60.0),
        point("kl", "b", 1, 0, 40.0), point("kl", "b", 1, 20, 80.0), point("kl", "b", 1, 30, 90.0),
        point("kl", "a", 2, 0, 10.0), point("kl", "a", 2, 20, 30.0),
        point("kl", "b", 2, 0, 20.0), point("kl", "b", 2, 20, 40.0),
        point("kl", "a", 3, 0, 1.0), point("kl", "a", 3, 20, 1.0),  # has no b yet: would shift the mean
        point("kl", "a", 1, 5, float("nan")),
    ]  # fmt: skip
    line = _line(points)
    assert line is not None
    x, seeds = line
    assert x.tolist() == [0, 10, 20]
    assert seeds.tolist() == [[20.0, 80.0, 70.0], [15.0, 25.0, 35.0]]
    assert _line([point("kl", "a", 1, 0, float("nan"))]) is None
    picture = curves([*points, point("mse", "a", 1, 0, 10.0), point("mse", "a", 1, 20, 11.0)])
    assert picture is not None
    assert 'aria-label="At the last update: kl 52 %, mse 11 %"' in picture
    assert curves([]) is None


def test_variants_with_other_updates_stand_over_control_steps() -> None:
    def at(variant: str, updates: int, steps: int, percent: float) -> CurvePoint:
        return CurvePoint(variant, "a", 1, updates, steps, percent, 0.0, 1.0, 100.0, percent)

    points = [at("kl", 10, 400, 50.0), at("kl", 20, 800, 90.0), at("dqn", 100, 400, 10.0), at("dqn", 200, 800, 30.0)]
    line = _line(points[2:], by_steps=True)
    assert line is not None
    assert line[0].tolist() == [400, 800]
    over = {by_steps: curves(points, by_steps) or "" for by_steps in (False, True)}
    assert 'aria-label="At the last control step: kl 90 %, dqn 30 %"' in over[True]
    assert (">updates<" in over[False], ">control steps of a run<" in over[False]) == (True, False)
    assert (">updates<" in over[True], ">control steps of a run<" in over[True]) == (False, True)
    kinds = {name: counts_steps(load_experiment(name)[1]) for name in ("rusu-losses", "rusu-multi", "yin-pan-sampling")}
    assert kinds == {"rusu-losses": False, "rusu-multi": True, "yin-pan-sampling": False}


def test_the_last_picture_tells_every_variant() -> None:
    def result(variant: str, task: str, seed: int, percent: float) -> Result:
        return Result(variant, task, seed, 20, 0, "noop", percent, 100.0, percent)

    rows = [result("kl", "a", 1, 90.0), result("kl", "a", 2, 80.0), result("mse", "a", 1, -5.0)]
    picture = finals(rows, [point("kl", "a", 1, 20, 90.0)], [PaperNumber("a", "kl", 95.0, "A paper")])
    assert picture is not None
    assert 'aria-label="At the end: a kl 85 %; a mse -5 %"' in picture
    assert "hollow: the paper" in picture
    assert "hollow" not in (finals(rows, []) or "")
    assert finals([result("kl", "a", 1, float("nan"))], []) is None
