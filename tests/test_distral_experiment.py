"""An experiment with tasks and a grid: which runs it has, and two agents from the file to the README."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from polydistill.algorithms.distral import AGENTS
from polydistill.distral_training import DistralRecipe
from polydistill.errors import UserError
from polydistill.evaluation.distral_results import AgentScore, ReturnPoint
from polydistill.evaluation.rows import read_csv
from polydistill.experiments import Choice, Experiment, load_experiment, plan_runs
from tests.command_line import children_here, refused, typed

EXPERIMENT: dict[str, Any] = {
    "about": "Two agents.",
    "tasks": ["catch"],
    "overrides": {
        "total_steps": 400, "episodes": 2, "settings.hidden": 8, "settings.lstm": 4, "settings.num_envs": 4,
        "settings.unroll": 5,
    },
    "variants": {
        "A3C": {"kind": "distral", "settings.agent": "A3C"},
        "KL": {"kind": "distral", "settings.agent": "KL_2col", "settings.coupling": 0.1},
    },
    "grid": {"settings.beta": [30, 300], "settings.learning_rate": [0.0002, 0.0008]},
    "seeds": [1, 2],
    "paper_order": {"source": "A paper", "claims": [{"says": "x", "measure": "final", "order": ["KL > A3C"]}]},
}  # fmt: skip


def write(folder: Path, **changes: Any) -> None:
    content = {k: v for k, v in {**EXPERIMENT, **changes}.items() if v is not None}
    (folder / "mazes.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is started; it runs in this process, which saves importing torch for each."""
    return children_here(monkeypatch)


def names(**choice: Any) -> list[str]:
    return [run.folder.name for run in plan_runs(load_experiment("mazes.yaml")[1], Path("runs"), Choice(**choice))]


def test_every_point_of_the_grid_is_a_run_per_agent_and_seed(place: Path) -> None:
    points = [f"beta={b}-learning_rate={r}" for b in (30, 300) for r in ("0.0002", "0.0008")]
    assert names() == [f"{v}-{p}-s{s}" for s in (1, 2) for p in points for v in ("A3C", "KL")]
    assert names(variants=("KL",), seeds=(7,)) == [f"KL-{p}-s7" for p in points]
    assert names(shard=(1, 2), seeds=(1,)) == [f"KL-{p}-s1" for p in points]
    assert len(names(tasks=("catch",))) == 16
    write(place, grid=None)
    assert names(seeds=(3,)) == ["A3C-s3", "KL-s3"]
    write(place, grid={"settings.beta": [30], "other.beta": [1]})
    with pytest.raises(UserError, match="unknown key 'other'"):
        names()


def test_a_run_is_a_command_of_its_own(place: Path) -> None:
    _, experiment = load_experiment("mazes.yaml")
    choice = Choice(variants=("KL",), steps=900, seeds=(5,), settings={"settings.hidden": 6})
    run = plan_runs(experiment, Path("runs"), choice)[1]
    assert run.command == (
        "polydistill distral catch --out runs/KL-beta=30-learning_rate=0.0008-s5 --seed 5 --set total_steps=900 "
        "episodes=2 settings.hidden=6 settings.lstm=4 settings.num_envs=4 settings.unroll=5 settings.agent=KL_2col "
        "settings.coupling=0.1 settings.beta=30 settings.learning_rate=0.0008"
    )
    assert str(run) == "KL, catch, beta=30 learning_rate=0.0008, seed 5"
    assert isinstance(run.settings, DistralRecipe)
    assert (run.settings.tasks, run.settings.seed, run.settings.total_steps) == (("catch",), 5, 900)
    assert (run.settings.settings.beta, run.settings.settings.coupling, run.settings.settings.hidden) == (30, 0.1, 6)


def test_two_agents_from_the_file_to_the_readme(
    place: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(place, grid={"settings.beta": [300]}, seeds=[1])
    assert typed(monkeypatch, "experiment", "mazes.yaml") == 0
    assert len(calls) == 2
    assert "| KL | beta=" in capsys.readouterr().out
    results = place / "results/mazes"
    assert {p.name for p in results.iterdir()} == {
        "README.md", "scores.csv", "curves.csv", "paper.csv", "command.txt", "curves.svg", "robustness.svg",
    }  # fmt: skip
    rows = read_csv(results / "scores.csv", AgentScore)
    assert [(r.variant, r.settings, r.control_steps) for r in rows] == [(v, "beta=300", 400) for v in ("A3C", "KL")]
    assert [math.isnan(r.distilled) for r in rows] == [True, False]
    assert {p.control_steps for p in read_csv(results / "curves.csv", ReturnPoint)} == {400}
    text = (results / "README.md").read_text()
    assert text.startswith("# mazes\n\nTwo agents.\n\n<!-- table:. -->\n| agent | best settings |")
    assert "| x | final score | " in text
    assert "(curves.svg)" in text
    assert "(robustness.svg)" in text
    noted = [s for s in (results / "command.txt").read_text().splitlines() if s[:1] not in ("#", "")]
    assert [s.startswith("polydistill distral catch --out runs/mazes/") for s in noted] == [True] * 2
    before = {p: p.read_bytes() for p in results.iterdir()}
    calls.clear()
    assert typed(monkeypatch, "experiment", "mazes.yaml") == 0
    assert calls == []
    assert {p: p.read_bytes() for p in results.iterdir()} == before
    # The learning rate falls over all steps: a finished run cannot go on to more of them.
    assert typed(monkeypatch, "experiment", "mazes.yaml", "--steps", "500") == 2
    assert "A3C-beta=300-s1 was made with total_steps 400, not 500: remove it" in capsys.readouterr().err
    run = place / "runs/mazes/KL-beta=300-s1/run.json"
    run.write_text(run.read_text().replace('"finished": "', '"finished": null, "was": "'))
    assert typed(monkeypatch, "experiment", "mazes.yaml", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "cut       KL, catch, beta=300, seed 1\n" in said
    assert "mazes: 2 runs, 1 finished" in said
    assert calls == []


@pytest.mark.parametrize(
    ("changes", "flags", "match"),
    [
        ({"teachers": [["zoo/catch"]]}, [], "an experiment has teachers or tasks: name one of them"),
        ({"tasks": None}, [], "an experiment has teachers or tasks"),
        ({"recipe": "rusu"}, [], "recipe does not go with tasks: leave it out"),
        ({"reach": [90]}, [], "reach does not go with tasks"),
        ({"variants": {"A3C": {}}}, [], "variants.A3C: kind distral goes with tasks, other kinds with teachers"),
        ({"variants": {"A3C": {"kind": "distral", "recipe": "x"}}}, [], "variants.A3C: kind distral goes with tasks"),
        ({"tasks": ["cach"]}, [], "unknown task 'cach'; did you mean 'catch'?"),
        ({"tasks": ["catch", "catch"]}, [], "catch is named twice"),
        ({"grid": {"settings.bta": [1]}}, [], "unknown key 'settings.bta'; did you mean 'beta'?"),
        ({"grid": {"settings.beta": []}}, [], "grid.settings.beta: name some values, each of them once"),
        ({"grid": {"settings.beta": [3, 3]}}, [], "grid.settings.beta: name some values, each of them once"),
        ({"grid": {"settings.agent": ["A3C"]}}, [], "grid.settings.agent: it is set elsewhere"),
        ({"grid": {"settings.hidden": [8]}}, [], "grid.settings.hidden: it is set elsewhere"),
        ({"grid": {"seed": [1, 2]}}, [], "grid.seed: it is set elsewhere"),
        ({}, ["--set", "settings.beta=3"], "settings.beta: the experiment's grid has it"),
        ({"grid": {"total_steps": [1, 2]}, "overrides": {}}, ["--steps", "9"], "total_steps: the experiment's grid"),
        ({}, ["--only", "KLL"], "--only KLL: not in this experiment"),
        ({}, ["--tasks", "pong"], "--tasks pong: not in this experiment; known: catch"),
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
    write(place, **changes)
    assert typed(monkeypatch, "experiment", "mazes.yaml", *flags) == 2
    refused(place, calls, capsys.readouterr().err, match)


@pytest.mark.parametrize(
    ("claim", "match"),
    [
        ({"order": ["KL > A3"]}, "paper_order: no variant 'A3'"),
        ({"order": ["KL, A3C"]}, "write A, B > C, D"),
        ({"order": ["KL > "]}, "write A, B > C, D"),
        ({"measure": "speed"}, "Input should be 'learning', 'final', 'all runs' or 'distilled'"),
    ],
)
def test_a_claim_is_about_variants(place: Path, claim: dict[str, Any], match: str) -> None:
    whole = {"says": "x", "measure": "final", "order": ["KL > A3C"], **claim}
    write(place, paper_order={"source": "A paper", "claims": [whole]})
    with pytest.raises(UserError, match=match):
        load_experiment("mazes.yaml")


def test_grid_and_claims_go_with_tasks_alone() -> None:
    with pytest.raises(UserError, match="grid does not go with teachers: leave it out"):
        Experiment.parse({"recipe": "rusu", "teachers": [["x"]], "variants": {"a": {}}, "grid": {"b": [1]}}, "here")
    with pytest.raises(UserError, match=r"variants\.a: kind distral goes with tasks"):
        Experiment.parse({"recipe": "rusu", "teachers": [["x"]], "variants": {"a": {"kind": "distral"}}}, "here")


def test_the_shipped_one_has_the_papers_agents_and_claims() -> None:
    _, experiment = load_experiment("teh-mazes")
    assert list(experiment.variants) == list(AGENTS)
    assert [own["settings.agent"] for own in experiment.variants.values()] == list(AGENTS)
    assert experiment.paper_order is not None
    counts = [len({(p.above, p.below) for p in experiment.paper_order.pairs() if p.says == c.says})
              for c in experiment.paper_order.claims]  # fmt: skip
    assert counts == [12, 12, 2, 2, 2, 12, 6, 4, 2]
