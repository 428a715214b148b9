"""Policy Distillation's recipes against the paper (SPEC 2.1 to 2.3)."""

from __future__ import annotations

import pytest

from polydistill.recipe import DistillRecipe, read


@pytest.mark.parametrize("name", ["rusu", "rusu-multi"])
def test_the_recipes_are_the_papers(name: str) -> None:
    """App. A: an hour of play at 15 Hz, 10,000 updates after it, ten hours in each memory, 500 hours in all."""
    recipe = DistillRecipe.parse(read(name)[0], name)
    assert (recipe.schedule.collect, recipe.schedule.updates) == (54_000, 10_000)
    assert recipe.schedule.collect == 15 * 3600
    assert recipe.memory.capacity == 540_000
    assert recipe.schedule.total_updates == 500 * 10_000
    assert recipe.schedule.games == "random"
    assert (recipe.objective.loss, recipe.objective.temperature) == ("kl", 0.01)
    assert (recipe.behaviour.who, recipe.memory.sampler) == ("teacher", "uniform")
    assert {recipe.behaviour.epsilon(n) for n in (0, 10_000, 10**8)} == {0.05}
    assert recipe.learner.optimizer == "rmsprop"
    assert 1e-4 <= recipe.learner.learning_rate <= 1e-3
    assert 1e-3 <= recipe.learner.max_learning_rate <= 0.1
    sizes = {"channels": [32, 64, 64], "hidden": 512}
    assert recipe.student.options == (sizes if name == "rusu" else {**sizes, "head": 128})
    assert recipe.student.kind == ("mimic" if name == "rusu" else "controllers")
