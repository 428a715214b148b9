"""Teachers and settings that a memory cannot take: one line that names the task, and no traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from polydistill import api, build
from polydistill.envs.catch import catch_task
from polydistill.errors import UserError
from polydistill.planning import plan
from polydistill.teachers.base import Teacher
from tests.distilling import NAMES, exact_teacher, fitted_net, parts_of, small, write_teacher


class Says(nn.Module):
    """The same of every state: zeros of the blank one that is asked first, then ``values``."""

    def __init__(self, *values: float):
        super().__init__()
        self.values, self.asked = torch.tensor(values), 0

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return (self.values if self.asked > 1 else torch.zeros_like(self.values)).repeat(len(obs), 1)


def refused(out: Path, second: Teacher, **memory: Any) -> str:
    """What a run with a sound teacher of catch and this one of catch-wind is told."""
    with pytest.raises(UserError) as told:
        api.distill(small(memory=memory), out, teachers=[exact_teacher(NAMES[0]), second])
    assert "\n" not in str(told.value)
    return str(told.value)


HPR: dict[str, Any] = {"sampler": "hierarchical", "measure_steps": 100}
N = catch_task(NAMES[1]).n_actions


def test_one_that_values_every_state_alike(tmp_path: Path) -> None:
    said = refused(tmp_path / "run", Teacher(catch_task(NAMES[1]), Says(*[1.5] * N)), **HPR)
    assert said.startswith("catch-wind: sampler hierarchical: value_range: V_min equals V_max")
    assert "found (1.5, 1.5)" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_that_is_not_finite_in_play(tmp_path: Path, bad: float) -> None:
    def teacher() -> Teacher:
        return Teacher(catch_task(NAMES[1]), Says(*[0.5] * (N - 1), bad))

    said = refused(tmp_path / "run", teacher(), **HPR)
    assert said.startswith("the teacher of catch-wind says NaN or infinity after 0 control steps of its own play")
    assert not (tmp_path / "run").exists()
    for sampler in ("uniform", "ranked"):
        said = refused(tmp_path / sampler, teacher(), sampler=sampler)
        assert said.startswith(f"catch-wind: teacher output {bad} refused: 4 of {4 * N} are NaN, infinite or above")


def test_one_that_diverged(tmp_path: Path) -> None:
    said = refused(tmp_path / "run", Teacher(catch_task(NAMES[1]), Says(*[3e7] * N)))
    assert said.startswith("catch-wind: teacher output 30000000.0 refused")


def logits_teacher(name: str) -> Teacher:
    return Teacher(catch_task(name), fitted_net(name), "logits")


def test_policy_logits_are_no_values_to_divide(tmp_path: Path) -> None:
    said = refused(tmp_path / "run", logits_teacher(NAMES[1]), **HPR)
    assert said == (
        "sampler hierarchical needs Q-values, but the teacher of catch-wind gives logits: use the sampler ranked"
    )
    assert not (tmp_path / "run").exists()
    for sampler in ("uniform", "ranked", "proportional"):
        parts_of(small(memory={"sampler": sampler}), [logits_teacher(n) for n in NAMES])


def test_a_plan_refuses_them_too(tmp_path: Path) -> None:
    folder = write_teacher(tmp_path / "teacher", NAMES[0], kind="logits")
    recipe = parts_of(small(memory=HPR)).recipe.model_copy(update={"teachers": (str(folder),)})
    with pytest.raises(UserError, match="needs Q-values, but the teacher of catch gives logits"):
        plan(recipe)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"capacity": 3}, r"^sampler 'hierarchical' has no setting 'capacity': .*memory\.capacity in a recipe"),
        ({"slots": 3}, "^sampler 'hierarchical' has no setting 'slots'"),
        ({"stacks": 3}, "^sampler 'hierarchical' has no setting 'stacks'"),
        ({"partition_counts": "window", "window": 10**14}, r"^--memory 50 MB holds 0 experiences .* 1600 TB$"),
    ],
)
def test_settings_no_sampler_takes(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parts_of(small(memory={**HPR, "options": options}))


def test_a_student_that_diverged_is_named_by_its_task() -> None:
    parts = parts_of(small(memory={"sampler": "ranked"}))
    actor = build.actors(parts)[1]
    with torch.no_grad():
        next(iter(parts.student.parameters())).fill_(torch.nan)
    with pytest.raises(UserError, match=r"^catch-wind: a priority is NaN"):
        actor.step()
    assert len(actor.memory) == 0
