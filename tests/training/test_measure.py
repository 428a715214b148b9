from itertools import count
from typing import Any

import numpy as np
import pytest
import torch

from polydistill import build
from polydistill.envs.catch import CatchVec, catch_task
from polydistill.envs.suite import make_env, resolve_task
from polydistill.errors import UserError
from polydistill.teachers.base import Teacher
from polydistill.training import measure
from tests.distilling import Exact, exact_teacher, parts_of, small


def test_an_emulators_speed_counts_every_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr(measure.time, "perf_counter", lambda: 0.02 * next(ticks))
    env = make_env(resolve_task("catch"), 4)
    played: list[np.ndarray] = []
    step = env.step
    monkeypatch.setattr(env, "step", lambda actions: (played.append(actions), step(actions))[1])
    # 64 vector steps at least, although the second is over after 50 looks at the clock; the 65th look ends it
    assert measure.emulator_rate(env, seed=0, seconds=1.0) == pytest.approx(64 * 4 / 1.3)
    assert len(played) == 64
    assert set(np.concatenate(played)) == set(range(env.task.n_actions))
    env.close()


@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.6, 1.0])
def test_a_measured_teacher_explores_as_it_is_told(epsilon: float, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, env = exact_teacher("catch"), CatchVec(catch_task("catch"), 16)
    differs: list[np.ndarray] = []
    asked: list[np.ndarray] = []
    answer, step = teacher.net.forward, env.step
    monkeypatch.setattr(teacher.net, "forward", lambda obs: (asked.append(obs.numpy()), answer(obs))[1])
    monkeypatch.setattr(
        env,
        "step",
        lambda actions: (
            differs.append(actions != answer(torch.from_numpy(asked[-1])).argmax(1).numpy()),
            step(actions),
        )[1],
    )
    told = {} if epsilon == 0.05 else {"epsilon": epsilon}  # which is the default
    measure.value_range(teacher, env, 3_200, np.random.default_rng(0), 3, **told)
    share, expected = np.concatenate(differs).mean(), epsilon * 2 / 3  # a random action of three may be the best one
    assert len(differs) == 200
    assert abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / 3_200)


def test_the_recipe_says_how_teachers_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(build, "value_range", lambda *x: told.append(x) or (0.0, 1.0))
    memory = {"sampler": "hierarchical", "measure_steps": 123, "measure_epsilon": 0.25}
    parts = parts_of(small(memory=memory))
    said: list[str] = []
    build.actors(parts, said.append)
    assert [text.split(":")[0] for text in said] == [
        f"the teacher plays 123 control steps of {t.task.name}" for t in parts.teachers
    ]
    assert [(x[0], x[2], x[5]) for x in told] == [(t, 123, 0.25) for t in parts.teachers]
    defaults = parts_of(small()).recipe.memory
    assert (defaults.measure_steps, defaults.measure_epsilon, defaults.refresh) == (50_000, 0.05, "before")


class Once(Exact):
    """One output of one copy is bad, once, 20 vector steps into the game."""

    def __init__(self, name: str, bad: float):
        super().__init__(name)
        self.bad, self.asked = bad, 0

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        values = super().forward(obs)
        self.asked += 1
        if self.asked == 22:  # the first time it was checked
            values[1, 2] = self.bad
        return values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_teacher_that_is_not_finite_once_is_named(bad: float) -> None:
    teacher = Teacher(catch_task("catch"), Once("catch", bad))
    with pytest.raises(UserError, match=r"^the teacher of catch says NaN or infinity after 80 control steps"):
        measure.value_range(teacher, CatchVec(teacher.task, 4), 400, np.random.default_rng(0), 3)
