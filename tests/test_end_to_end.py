"""Real Atari, real teachers, the whole path: always on."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import polydistill
from polydistill import build
from polydistill.recipe import DistillRecipe, read, resolve
from polydistill.reporting.page import write_report
from polydistill.training.distil import distil

ZOO = Path(__file__).resolve().parent.parent / "zoo"


def recipe(*games: str, **overrides: Any) -> DistillRecipe:
    content, where = read("demo")
    small = {
        "teachers": [str(ZOO / game) for game in games],
        "schedule.warmup": 400,
        "schedule.total_updates": 60,
        "memory.size": "100MB",
        "memory.capacity": 5_000,
        "evaluation.every": 0,
        "threads": 1,
        "device": "cpu",
    }
    return resolve(DistillRecipe, content, where, small | overrides)


def test_updates_happen_weights_move_and_agreement_with_real_teachers_rises() -> None:
    # H-PR draws what the student does worst: agreement in its minibatches is no measure of agreement.
    uniform: dict[str, Any] = {"memory.sampler": "uniform", "memory.options": {}}
    quick = {"learner.optimizer": "adam", "learner.learning_rate": 5e-4, "learner.warmup_updates": 0}
    parts = build.parts(recipe("pong", "breakout", **uniform, **quick))
    actors, learner = build.actors(parts), build.learner(parts)
    rectangle, rng = build.rectangle(parts, actors), build.sampler_stream(parts.recipe)
    before = {k: v.clone() for k, v in parts.student.state_dict().items()}
    teachers = [{k: v.clone() for k, v in t.net.state_dict().items()} for t in parts.teachers]
    agreement, losses = [], []
    for _, loss in zip(range(60), distil(actors, learner, rectangle, parts.recipe.schedule, rng), strict=False):
        agreement.append(loss.metrics["agreement"].numpy())
        losses.append(float(loss.per_example.detach().mean()))
    assert learner.updates == 60
    assert learner.skipped == 0
    moved = {k for k, v in parts.student.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {k for k in before if not k.startswith("torsos")}  # the convolutions are the teachers'
    for teacher, weights in zip(parts.teachers, teachers, strict=True):
        assert all(torch.equal(v, weights[k]) for k, v in teacher.net.state_dict().items())
    first, last = np.mean(agreement[:5], axis=0), np.mean(agreement[-10:], axis=0)
    assert (last > first + 0.1).all(), (first, last)
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])
    for actor in actors:
        assert len(actor.memory) >= 400
        actor.memory.check()
        actor.env.close()


def test_distil_evaluate_report(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = {"evaluation.final_episodes": 2, "evaluation.every": 30, "evaluation.episodes": 1}
    result = polydistill.distill(recipe("breakout", **options), out)
    assert result.finished
    assert result.summary is not None
    score = result.summary.tasks["breakout"]
    assert score.teacher > score.random
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert np.mean([float(r["score"]) for r in rows]) == pytest.approx(score.score)
    kinds = [json.loads(line)["kind"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert kinds.count("eval") == 2  # one while training, one at the end
    page = write_report(out).read_text()
    assert "breakout" in page
    action, _ = polydistill.load(out).predict(np.zeros((4, 84, 84), np.uint8), task="breakout")
    assert action.shape == ()
    assert 0 <= int(action) < 4


def test_two_runs_with_one_seed_are_equal() -> None:
    def weights(seed: int) -> torch.Tensor:
        parts = build.parts(recipe("breakout", seed=seed))
        actors, learner = build.actors(parts), build.learner(parts)
        rectangle, rng = build.rectangle(parts, actors), build.sampler_stream(parts.recipe)
        for _ in zip(range(8), distil(actors, learner, rectangle, parts.recipe.schedule, rng), strict=False):
            pass
        for actor in actors:
            actor.env.close()
        return torch.cat([p.detach().flatten() for p in parts.student.parameters()])

    first = weights(5)
    assert torch.equal(first, weights(5))
    assert not torch.equal(first, weights(6))
