"""Yin & Pan's experiments (2017): the paper's size where it is claimed, one recipe, and small ones beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polydistill.commands import PlannedRun
from polydistill.experiments import load_experiment, plan_runs
from polydistill.recipe import DistillRecipe, shipped
from tests.command_line import typed
from tests.distilling import as_if_taught

ROOT = Path(__file__).resolve().parent.parent
TEN = [
    "beam_rider", "breakout", "enduro", "freeway", "ms_pacman", "pong", "qbert", "seaquest", "space_invaders",
    "riverraid",
]  # fmt: skip
FOUR = ["breakout", "freeway", "pong", "qbert"]
THREE = ["pong", "freeway", "breakout"]
UNIFORM: tuple[Any, ...] = ("uniform", {}, 500_000)


def hpr(p: int) -> tuple[str, dict[str, Any], int]:
    return "hierarchical", {"partitions": p, "alpha": 0.7, "eviction": "partition"}, 200_000 * p


PAPER = {
    "yin-pan-architectures-paper": (TEN, {"DIST": UNIFORM, "AMN": UNIFORM, "proposed": UNIFORM}),
    "yin-pan-sampling-paper": (
        FOUR,
        {"uniform": UNIFORM, "PR": ("ranked", {"alpha": 0.7}, 500_000), "H-PR": hpr(5)},
    ),
    "yin-pan-partitions-paper": (FOUR, {f"p = {p}": hpr(p) for p in (5, 10, 15)}),
}


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[PlannedRun]:
    monkeypatch.chdir(ROOT)
    as_if_taught(monkeypatch)
    return plan_runs(load_experiment(request.param)[1], Path("runs"))


@pytest.mark.parametrize(("name", "planned"), [(name, name) for name in PAPER], indirect=["planned"])
def test_the_papers_size(name: str, planned: list[PlannedRun]) -> None:
    tasks, variants = PAPER[name]
    assert [(run.variant, run.seed) for run in planned] == [(v, s) for s in (1, 2, 3) for v in variants]
    for run in planned:
        assert isinstance(s := run.settings, DistillRecipe)
        assert list(run.tasks) == tasks
        assert s.teachers == tuple(f"zoo/{task}" for task in tasks)
        assert (s.memory.sampler, s.memory.options, s.memory.capacity) == variants[run.variant]
        assert (s.schedule.total_updates, s.schedule.collect, s.schedule.updates) == (4_000_000, 4, 1)
        assert (s.behaviour.epsilon_start, s.behaviour.epsilon_end, s.behaviour.epsilon_steps) == (1.0, 0.1, 1_000_000)
        assert (s.evaluation.every, s.learner.optimizer) == (25_000, "rmsprop")
    kinds = {run.variant: run.settings.student.kind for run in planned if isinstance(run.settings, DistillRecipe)}
    assert set(kinds.values()) == (
        {"task_heads", "mimic", "task_torsos"} if "architectures" in name else {"task_torsos"}
    )


def test_the_ten_games_and_their_scores_are_the_papers() -> None:
    """Table 1, % of teacher: the means over games, which the paper calls geometric, are 92.4, 93.5 and 103.8."""
    paper = load_experiment("yin-pan-architectures-paper")[1].paper
    assert paper is not None
    assert list(paper.percent) == TEN
    means = {v: sum(row[v] for row in paper.percent.values()) / 10 for v in ("DIST", "AMN", "proposed")}
    assert means == pytest.approx({"DIST": 92.41, "AMN": 93.45, "proposed": 103.8})


SMALL = {
    "yin-pan-sampling": {
        "uniform": ("uniform", {}),
        "ranked": ("ranked", {"alpha": 0.7}),
        "H-PR": ("hierarchical", {"partitions": 5, "alpha": 0.7, "eviction": "oldest"}),
        "H-PR-own-queues": ("hierarchical", {"partitions": 5, "alpha": 0.7, "eviction": "partition"}),
    },
    "yin-pan-partitions": {
        f"p = {p}": ("hierarchical", {"partitions": p, "alpha": 0.7, "eviction": "oldest"}) for p in (5, 10, 15)
    },
    "yin-pan-architectures": {v: ("uniform", {}) for v in ("DIST", "AMN", "proposed")},
}


@pytest.mark.parametrize(("name", "planned"), [(name, name) for name in SMALL], indirect=["planned"])
def test_the_small_ones(name: str, planned: list[PlannedRun]) -> None:
    experiment = load_experiment(name)[1]
    assert experiment.reach == (50, 75, 90)
    assert [(run.variant, run.seed) for run in planned] == [(v, s) for s in (1, 2) for v in SMALL[name]]
    for run in planned:
        assert isinstance(s := run.settings, DistillRecipe)
        assert list(run.tasks) == THREE
        assert (s.memory.sampler, s.memory.options, s.memory.capacity) == (*SMALL[name][run.variant], 50_000)
        assert s.schedule.total_updates == 16_000
        assert run.folder.name == f"{run.variant}-pong+freeway+breakout-s{run.seed}"


def test_every_recipe_says_the_same_of_the_papers_updates() -> None:
    """Four million minibatch updates; control steps of a game are four times as many."""
    texts = {**shipped(), **shipped("experiments")}
    ours = {name: text for name, text in texts.items() if name.startswith("yin-pan") or name in ("default", "demo")}
    assert len(ours) == 10
    for name, text in ours.items():
        lines = [line for line in text.splitlines() if "total_updates" in line]
        assert all("4,000,000" in line or "4_000_000" in line for line in lines), name
        assert "4 million control steps" not in " ".join(text.split()), name


@pytest.mark.parametrize("name", list(PAPER))
def test_what_is_missing_is_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert typed(monkeypatch, "experiment", name, "--dry-run") == 2
    err = capsys.readouterr().err
    assert f"`polydistill teach --tasks {' '.join(PAPER[name][0])}`" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
