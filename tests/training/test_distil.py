"""The loop: exact counts, learning that happens, and equal runs from equal seeds."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
import torch

from polydistill import build
from polydistill.algorithms.actor_mimic import LOSSES as EVERY
from polydistill.algorithms.policy_distillation import LOSSES, Loss
from polydistill.errors import UserError
from polydistill.ops.gradients import priority
from polydistill.ops.policy import agreement
from polydistill.training.collect import Actor
from polydistill.training.distil import Rectangle, Schedule, distil
from polydistill.training.learner import Learner, Minibatch
from polydistill.training.records import telemetry
from tests.distilling import NAMES, copies, exact_teacher, parts_of, small, states
from tests.replay.test_ranked import priorities


class CountingActor:
    """Stands in for an actor: counts control steps, and when an update looks, what has been played."""

    def __init__(self, copies: int):
        self.env = self
        self.num_envs, self.control_steps = copies, 0

    def step(self) -> None:
        self.control_steps += self.num_envs


class CountingLearner:
    def __init__(self, actor: CountingActor):
        self.actor, self.at, self.updates = actor, [], 0

    def step(self, batch: object) -> Loss:
        self.at.append(self.actor.control_steps)
        return Loss(torch.zeros(1, 1))


class NoRectangle:
    def draw(self, rng: object, tasks: object = None, updates: int = 0) -> object:
        return tasks

    def prioritise(self, loss: Loss) -> None:
        return None


def updates_at(schedule: Schedule, copies: int, updates: int) -> list[int]:
    """Control steps played when each of the first updates was made."""
    actor: Any = CountingActor(copies)
    learner: Any = CountingLearner(actor)
    rectangle: Any = NoRectangle()
    loop = distil([actor], learner, rectangle, schedule, np.random.default_rng(0))
    assert sum(1 for _ in islice(loop, updates)) == updates
    return learner.at


@pytest.mark.parametrize("copies", [1, 2, 4, 8, 5, 16])
@pytest.mark.parametrize(("collect", "updates"), [(4, 1), (8, 1), (12, 5), (1, 3)])
def test_updates_keep_pace_with_control_steps(collect: int, updates: int, copies: int) -> None:
    """Whatever the number of copies, even when they play more at once than ``collect``: at most a round behind."""
    warmup = 40
    schedule = Schedule(warmup=warmup, collect=collect, updates=updates)
    at = updates_at(schedule, copies, 400)
    begin = -(-warmup // copies) * copies
    a_round = max(copies, collect)
    for i, steps in enumerate(at):
        due = begin + (i + 1) * collect / updates  # steps that pay for update i
        assert due <= steps < due + a_round + 1e-9, (i, steps)


def test_no_update_before_the_warmup() -> None:
    assert updates_at(Schedule(warmup=1_000, collect=4), 8, 1) == [1_008]
    assert updates_at(Schedule(warmup=1, collect=4), 4, 1) == [8]


def test_rusus_schedule() -> None:
    """54,000 control steps, then 10,000 updates (Rusu 2016): the recipe `rusu`, and a hundredth of it by one copy."""
    at = updates_at(Schedule(warmup=1, collect=54_000, updates=10_000), 10, 30_000)
    assert at == [54_010] * 10_000 + [108_010] * 10_000 + [162_010] * 10_000
    at = updates_at(Schedule(warmup=540, collect=540, updates=100), 1, 300)
    assert at == [1_080] * 100 + [1_620] * 100 + [2_160] * 100


def test_a_long_run_does_not_drift() -> None:
    """A tenth is no binary fraction: sums of it would lose an update."""
    at = updates_at(Schedule(warmup=1, collect=10), 1, 2_000)
    assert at == [1 + 10 * (i + 1) for i in range(2_000)]


def test_a_memory_smaller_than_the_warmup_does_not_hang() -> None:
    """Neither does one whose bytes run out before its places."""
    parts = parts_of(small(memory={"capacity": 50}, schedule={"warmup": 400}))
    learner, actors = begin(parts)[:2]
    next(iter(loop_of(parts, learner, actors)))
    assert [len(a.memory) for a in actors] == [50, 50]
    assert actors[0].control_steps == 404


def begin(parts: build.Parts) -> tuple[Learner, list[Actor]]:
    return build.learner(parts), build.actors(parts)


def loop_of(parts: build.Parts, learner: Learner, actors: list[Actor]) -> Any:
    rectangle = build.rectangle(parts, actors)
    return distil(actors, learner, rectangle, parts.recipe.schedule, build.sampler_stream(parts.recipe))


def agreements(parts: build.Parts) -> list[float]:
    """Per task over all states: how often student and teacher agree."""
    found = []
    for g, name in enumerate(NAMES):
        obs, own = torch.from_numpy(states(name)), list(parts.suite.actions[g])
        with torch.no_grad():
            logits = parts.student.act(obs, g)[:, own]
        found.append(float(agreement(parts.teachers[g](obs).values, logits).float().mean()))
    return found


@pytest.mark.parametrize("loss", ["kl", "nll", "mse"])
@pytest.mark.parametrize("student", ["task_torsos", "mimic", "controllers"])
def test_a_student_learns_two_games_at_once(student: str, loss: str) -> None:
    parts = parts_of(
        small(
            student,
            objective={"loss": loss, "temperature": 0.4},
            behaviour={"epsilon_end": 0.3},
            learner={"batch_size": 32, "learning_rate": 5e-3},
        )
    )
    before, first = copies(parts.student), agreements(parts)
    learner, actors = begin(parts)
    losses = [float(x.per_example.detach().mean()) for x in islice(loop_of(parts, learner, actors), 200)]
    last = agreements(parts)
    assert learner.updates == 200
    assert learner.skipped == 0
    moving = {k for k, p in parts.student.named_parameters() if p.requires_grad}
    assert all(not torch.equal(before[k], v) for k, v in parts.student.state_dict().items() if k in moving)
    assert np.mean(losses[-25:]) < 0.6 * np.mean(losses[:10])
    assert np.mean(last) > np.mean(first) + 0.08


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"kl", "nll", "mse"}))
def test_the_other_divergences_learn_too(loss: str) -> None:
    parts = parts_of(
        small(
            objective={"loss": loss, "temperature": 0.4},
            behaviour={"epsilon_end": 0.3},
            learner={"batch_size": 32, "learning_rate": 5e-3},
        )
    )
    first = agreements(parts)
    learner, actors = begin(parts)
    losses = [float(x.per_example.detach().mean()) for x in islice(loop_of(parts, learner, actors), 400)]
    assert np.mean(losses[-25:]) < 0.6 * np.mean(losses[:10])
    assert np.mean(agreements(parts)) > np.mean(first) + 0.08


class Script:
    """Actors whose episodes have given lengths, a learner that notes the order of things: ('play' | 'learn', task)."""

    def __init__(self, lengths: list[int]):
        self.log: list[tuple[str, int]] = []
        self.updates = 0
        self.actors = [ScriptedActor(self, g, n) for g, n in enumerate(lengths)]

    def draw(self, rng: object, tasks: list[int] | None = None, updates: int = 0) -> int:
        assert tasks is not None
        (task,) = tasks
        return task

    def step(self, batch: int) -> Loss:
        self.log.append(("learn", batch))
        return Loss(torch.zeros(1, 1), tasks=[batch])

    def prioritise(self, loss: Loss) -> None:
        return None

    def run(self, schedule: Schedule, updates: int) -> list[tuple[str, int]]:
        self_: Any = self
        loop = distil(self_.actors, self_, self_, schedule, np.random.default_rng(0))
        assert sum(1 for _ in islice(loop, updates)) == updates
        return self.log


class ScriptedActor(CountingActor):
    def __init__(self, script: Script, task: int, length: int):
        super().__init__(1)
        self.script, self.task, self.length, self.episodes = script, task, length, 0

    def step(self) -> None:
        super().step()
        self.script.log.append(("play", self.task))
        self.episodes = self.control_steps // self.length


def test_teachers_take_turns_and_each_update_sees_one_random_memory() -> None:
    """Rusu, App. A: an hour of one game, 10,000 updates; then an hour of the next."""
    log = Script([7, 7, 7]).run(Schedule(warmup=1, collect=50, updates=100, games="random"), 300)
    assert [g for what, g in log[3:] if what == "play"] == [0] * 50 + [1] * 50 + [2] * 50
    assert log[3:].index(("learn", log[3 + 50][1])) == 50
    rounds = [log[3 + 150 * k + 50 : 3 + 150 * (k + 1)] for k in range(3)]
    for learnt in rounds:
        counts = np.bincount([g for what, g in learnt if what == "learn"], minlength=3)
        assert counts.sum() == 100
        assert counts.min() > 15  # a third each, give or take


def test_games_switch_with_every_episode() -> None:
    """Rusu, section 3.3: the stores are learnt from one after the other, another one every episode."""
    log = Script([6, 2, 4]).run(Schedule(warmup=1, collect=2, updates=1, games="round_robin_episode"), 9)[3:]
    played = [g for what, g in log if what == "play"]
    assert (
        played[:17] == [0] * 5 + [1] * 1 + [2] * 3 + [0] * 6 + [1] * 2
    )  # the warm-up's step was of the first episodes
    for before, after in pairwise(log):
        if after[0] == "learn":
            assert after[1] == before[1]  # from the memory of the game that plays


def learned(student: str, tasks: list[int]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights before and after three updates on ``tasks`` of two, by the paper's RMSProp."""
    parts = parts_of(small(student, learner={"optimizer": "rmsprop"}))
    learner, actors = begin(parts)
    for actor in actors:
        for _ in range(20):
            actor.step()
    rectangle, before, draws = build.rectangle(parts, actors), copies(parts.student), np.random.default_rng(0)
    for _ in range(3):
        loss = learner.step(rectangle.draw(draws, tasks))
        assert loss.per_example.shape == (len(tasks), 16)
        rectangle.prioritise(loss)
    return before, copies(parts.student)


@pytest.mark.parametrize("game", [0, 1])
def test_an_update_on_one_game_leaves_the_other_controller_as_it_is(game: int) -> None:
    """Rusu et al. 2016: bit for bit, while the trunk moves."""
    before, after = learned("controllers", [game])
    for name, weights in after.items():
        own = not name.startswith(f"controllers.{1 - game}.")
        assert torch.equal(before[name], weights) != own, name


def test_one_game_of_the_rectangle_is_that_row_of_all() -> None:
    """The same draw, the same numbers: one game's minibatch is the joint one's row."""
    parts = parts_of(small("controllers"))
    learner, actors = begin(parts)
    for actor in actors:
        for _ in range(20):
            actor.step()
    rectangle = build.rectangle(parts, actors)
    alone = rectangle.draw(np.random.default_rng(5), [1])
    teacher, obs = alone.targets.values.clone(), alone.obs[0].clone()
    loss = learner.objective(parts.student(alone.obs, [1]), alone.targets).per_example[0]
    both = rectangle.draw(np.random.default_rng(5), [0, 1])
    assert [tuple(x.shape) for x in (alone.targets.valid, both.targets.valid)] == [(1, 1, 3), (2, 1, 3)]
    full = learner.objective(
        parts.student([both.obs[0], obs]), replace(both.targets, values=torch.cat([both.targets.values[:1], teacher]))
    )
    torch.testing.assert_close(full.per_example[1], loss)


def losses_of(seed: int, student: str = "task_torsos") -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    parts = parts_of(small(student, seed=seed))
    learner, actors = begin(parts)
    losses = [x.per_example.detach().clone() for x in islice(loop_of(parts, learner, actors), 40)]
    return losses, copies(parts.student)


@pytest.mark.parametrize("student", ["task_torsos", "mimic"])
def test_equal_seeds_make_equal_runs(student: str) -> None:
    one, weights = losses_of(1, student)
    again, weights_again = losses_of(1, student)
    other, _ = losses_of(2, student)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert all(torch.equal(weights[k], weights_again[k]) for k in weights)
    assert not torch.equal(one[0], other[0])


def drawn(actors: list[Actor], rectangle: Rectangle, seed: int = 0) -> Minibatch:
    return rectangle.draw(np.random.default_rng(seed))


def test_the_rectangle_is_what_the_teachers_said() -> None:
    teachers = [exact_teacher(n) for n in NAMES]
    parts = parts_of(small(), teachers)
    _, actors = begin(parts)
    for actor in actors:
        for _ in range(30):
            actor.step()
    batch = drawn(actors, build.rectangle(parts, actors))
    assert batch.targets.values.shape == (2, 16, len(parts.suite.axis))
    assert torch.equal(batch.weights, torch.ones(2, 16))  # uniform draws need no correction
    for g, obs in enumerate(batch.obs):
        own = list(parts.suite.actions[g])
        torch.testing.assert_close(batch.targets.values[g][:, own], teachers[g](obs).values, rtol=0, atol=0)
        assert obs.dtype == torch.uint8


def test_a_priority_that_is_not_finite_stays_out_of_the_memory() -> None:
    parts = parts_of(small())
    _, actors = begin(parts)
    for actor in actors:
        actor.step()
    rectangle = build.rectangle(parts, actors)
    drawn(actors, rectangle)
    sent: list[np.ndarray] = []
    for actor in actors:
        actor.memory.update = lambda slots, priority: sent.append(priority)  # type: ignore[method-assign]
    priority = torch.ones(2, 16)
    priority[0, 3] = torch.nan
    priority[1, :2] = torch.inf
    rectangle.prioritise(Loss(torch.zeros(2, 16), priority))
    assert [len(p) for p in sent] == [15, 14]
    assert all(np.isfinite(p).all() for p in sent)


def test_stopping_ends_it_between_two_control_steps() -> None:
    parts = parts_of(small())
    learner, actors = begin(parts)
    asked = []

    def stopping() -> bool:
        asked.append(actors[0].control_steps)
        return len(asked) > 10

    loop = distil(
        actors, learner, build.rectangle(parts, actors), parts.recipe.schedule, np.random.default_rng(0), stopping
    )
    assert list(loop) == []
    assert actors[0].control_steps == actors[1].control_steps == 40


def test_cached_features_change_nothing_but_the_time() -> None:
    """The frozen torsos' answers, kept, give the same losses and weights as asking them again."""
    results = []
    for cache in (False, True):
        parts = parts_of(small("task_torsos", memory={"cache_features": cache}))
        learner, actors = begin(parts)
        losses = [x.per_example.detach().clone() for x in islice(loop_of(parts, learner, actors), 40)]
        results.append((losses, copies(parts.student), actors[0].memory))
    (plain, weights, memory), (cached, weights_cached, memory_cached) = results
    assert (memory.keeps_features, memory_cached.keeps_features) == (False, True)
    for a, b in zip(plain, cached, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # another order of the same sums
    for name in weights:
        torch.testing.assert_close(weights[name], weights_cached[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("student", "change", "says"),
    [
        ("mimic", {}, "needs the frozen torso"),
        ("task_torsos", {"behaviour": {"who": "teacher"}}, "a teacher alone"),
    ],
)
def test_features_that_nobody_has_are_not_cached(student: str, change: dict[str, Any], says: str) -> None:
    parts = parts_of(small(student, memory={"cache_features": True}, **change))
    with pytest.raises(UserError, match=says):
        build.actors(parts)


PRIORITISED = ["proportional", "ranked", "hierarchical"]


@pytest.mark.parametrize(
    ("loss", "sampler", "refresh"),
    [
        *((loss, sampler, "before") for loss in EVERY for sampler in PRIORITISED),
        ("kl", "hierarchical", "after"),
        ("mse", "ranked", "after"),
    ],
)
def test_any_loss_runs_with_any_sampler(loss: str, sampler: str, refresh: str) -> None:
    """What the sampler holds of a drawn sample is its loss's mean absolute gradient, before or after the update."""
    parts = parts_of(
        small(
            memory={"sampler": sampler, "measure_steps": 100, "refresh": refresh},
            objective={"loss": loss, "temperature": 0.4},
            schedule={"warmup": 40},
        )
    )
    before, logits = copies(parts.student), {}
    learner, actors = begin(parts)
    rectangle = build.rectangle(parts, actors)
    draw, step = rectangle.draw, learner.step

    def drawn_now(*x: Any) -> Minibatch:
        batch = draw(*x)
        with torch.no_grad():
            logits["before"] = parts.student(batch.obs, batch.tasks).logits
        return batch

    def stepped(batch: Minibatch) -> Loss:
        found = step(batch)
        with torch.no_grad():
            logits["after"] = parts.student(batch.obs, batch.tasks).logits
        expected.append(priority(loss, batch.targets.values, logits[refresh], 0.4, batch.targets.valid))
        return found

    expected: list[torch.Tensor] = []
    rectangle.draw, learner.step = drawn_now, stepped  # type: ignore[method-assign]
    loop = distil(actors, learner, rectangle, parts.recipe.schedule, build.sampler_stream(parts.recipe))
    for _ in range(4):
        next(loop)
        for g, slots in rectangle._drawn:
            held, row = priorities(actors[g].memory.sampler)[slots], expected[-1][g].numpy()
            last = dict(zip(slots.tolist(), row, strict=True))  # of repeated ones the last counts
            np.testing.assert_allclose(held, [last[s] for s in slots.tolist()], rtol=1e-3, atol=1e-6)
    assert (learner.updates, learner.skipped) == (4, 0)
    assert any(not torch.equal(before[k], v) for k, v in parts.student.state_dict().items())
    assert not torch.equal(logits["before"], logits["after"])
    for actor in actors:
        actor.memory.check()


@pytest.mark.parametrize("sampler", PRIORITISED)
def test_priorities_come_home_and_the_student_learns(sampler: str) -> None:
    parts = parts_of(
        small(
            memory={"sampler": sampler, "measure_steps": 400},
            objective={"temperature": 0.4},
            behaviour={"epsilon_end": 0.3},
            learner={"batch_size": 32, "learning_rate": 5e-3},
        )
    )
    first = agreements(parts)
    learner, actors = begin(parts)
    sent: list[float] = []
    update = actors[0].memory.update
    actors[0].memory.update = lambda slots, p: sent.extend(p) or update(slots, p)  # type: ignore[method-assign]
    weights = []
    rectangle = build.rectangle(parts, actors)
    draw = rectangle.draw
    rectangle.draw = lambda *x: (weights.append(y.weights.clone()), y)[1] if (y := draw(*x)) else y  # type: ignore[method-assign]
    loop = distil(actors, learner, rectangle, parts.recipe.schedule, build.sampler_stream(parts.recipe))
    losses = [float(x.per_example.detach().mean()) for x in islice(loop, 200)]
    assert len(sent) == 200 * 32
    assert max(sent) <= 2 / 3  # |delta| of three actions, Yin & Pan 2017
    assert np.mean(losses[-25:]) < np.mean(losses[:10])
    assert np.mean(agreements(parts)) > np.mean(first) + 0.08
    spread = torch.stack(weights)
    assert spread.max() == 1
    assert spread.min() < 0.9  # importance weights that correct something
    for actor in actors:
        actor.memory.check()


def test_partitions_divide_the_measured_range() -> None:
    parts = parts_of(small(memory={"sampler": "hierarchical", "measure_steps": 400, "options": {"partitions": 4}}))
    actors = build.actors(parts)
    for g, actor in enumerate(actors):
        for _ in range(30):
            actor.step()
        told = telemetry(actor.memory.sampler)
        assert told is not None
        low, high = told["edges"][0], told["edges"][-1]
        values = parts.teachers[g](torch.from_numpy(states(NAMES[g]))).values.amax(1)
        assert values.min() <= low < high <= values.max()
        assert sum(told["fill"]) == 120


def test_beta_rises_to_its_end() -> None:
    parts = parts_of(small(memory={"beta": 0.4, "beta_end": 1.0}, schedule={"total_updates": 60}))
    _, actors = begin(parts)
    beta = build.rectangle(parts, actors).beta
    assert [beta(0), beta(30), beta(60), beta(99)] == pytest.approx([0.4, 0.7, 1.0, 1.0])
