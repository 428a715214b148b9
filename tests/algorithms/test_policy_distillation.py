"""Policy Distillation's recipes against the paper (Rusu et al. 2016)."""

from __future__ import annotations

from pathlib import Path

import pytest

from polydistill import nets
from polydistill.nets.student import count
from polydistill.recipe import DistillRecipe, read
from polydistill.replay.sizing import parse_size
from tests.nets.test_parameter_counts import TODAY, XITARI, suite


@pytest.mark.parametrize(("name", "hours"), [("rusu", 500), ("rusu-multi", 500), ("rusu-ten", 34_000)])
def test_the_recipes_are_the_papers(name: str, hours: int) -> None:
    """App. A: an hour of play at 15 Hz, 10,000 updates after it, ten hours in each memory, and so many hours in all."""
    recipe = DistillRecipe.parse(read(name)[0], name)
    assert (recipe.schedule.collect, recipe.schedule.updates) == (54_000, 10_000)
    assert recipe.schedule.collect == 15 * 3600
    assert recipe.memory.capacity == 540_000
    assert recipe.schedule.total_updates == hours * 10_000
    assert recipe.schedule.games == "random"
    assert (recipe.objective.loss, recipe.objective.temperature) == ("kl", 0.01)
    assert (recipe.behaviour.who, recipe.memory.sampler) == ("teacher", "uniform")
    assert {recipe.behaviour.epsilon(n) for n in (0, 10_000, 10**8)} == {0.05}
    assert recipe.learner.optimizer == "rmsprop"
    assert 1e-4 <= recipe.learner.learning_rate <= 1e-3
    assert 1e-3 <= recipe.learner.max_learning_rate <= 0.1
    sizes = {"channels": [32, 64, 64], "hidden": 512}
    if name == "rusu-ten":
        sizes = {"channels": [64, 64, 64], "hidden": 1500}
    assert recipe.student.options == (sizes if name == "rusu" else {**sizes, "head": 128})
    assert recipe.student.kind == ("mimic" if name == "rusu" else "controllers")


def test_the_ten_games_and_the_size_of_their_student() -> None:
    """Table 2 and Table A2, with the actions of the paper's emulator and with today's."""
    recipe = DistillRecipe.parse(read("rusu-ten")[0], "rusu-ten")
    games = [Path(teacher).name for teacher in recipe.teachers]
    assert sorted(games) == sorted(XITARI)
    assert recipe.memory.capacity * 10 * 2_000 <= parse_size(recipe.memory.size)
    for actions, expected in ((XITARI, 6_756_721), (TODAY, 6_757_108)):
        assert count(nets.make(recipe.student.kind, suite(actions, games), **recipe.student.options)) == expected
