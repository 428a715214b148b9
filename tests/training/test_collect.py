"""Who plays, and what is remembered of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from polydistill import build, nets
from polydistill.algorithms.actor_mimic import LOSSES, actor_mimic
from polydistill.algorithms.policy_distillation import Targets
from polydistill.envs.base import Step, VecEnv
from polydistill.envs.catch import DROPS, FALL, CatchVec, catch_task, optimal_q
from polydistill.envs.suite import make_env
from polydistill.errors import UserError
from polydistill.nets.q_network import QNetwork
from polydistill.nets.student import PolicyOutput, Student
from polydistill.nets.task_torsos import TaskTorsos
from polydistill.ops.gradients import priority
from polydistill.replay.memory import Memory, make_memory
from polydistill.replay.stacks import Stacks
from polydistill.rng import seeded_init
from polydistill.tasks import Suite, Task
from polydistill.teachers.base import Teacher
from polydistill.training.behaviour import Behaviour
from polydistill.training.collect import Actor, ask_both
from polydistill.training.measure import value_range
from tests.distilling import NAMES, exact_teacher, fitted_net, fitted_teacher, parts_of, rng, small, states

SUITE = Suite(tuple(catch_task(n) for n in NAMES))
CPU = torch.device("cpu")


class Watched:
    """An environment that keeps everything it showed and was told."""

    def __init__(self, env: VecEnv):
        self.env, self.task, self.num_envs = env, env.task, env.num_envs
        self.shown: list[np.ndarray] = []
        self.told: list[np.ndarray] = []
        self.rewards: list[np.ndarray] = []
        self.ended: list[np.ndarray] = []

    def reset(self, seed: int) -> np.ndarray:
        obs = self.env.reset(seed)
        self.shown.append(obs.copy())
        return obs

    def step(self, actions: np.ndarray) -> Step:
        self.told.append(actions.copy())
        step = self.env.step(actions)
        self.shown.append(step.obs.copy())
        self.rewards.append(step.reward)
        self.ended.append(step.ended)
        return step

    def close(self) -> None:
        self.env.close()


def student_of(seed: int = 0, name: str = "mimic", **options: Any) -> Student:
    with seeded_init(seed):
        return nets.make(name, SUITE, **(options or {"hidden": 32}))


def actor_of(
    who: str,
    g: int = 0,
    *,
    student: Student | None = None,
    teacher: Teacher | None = None,
    capacity: int = 1_000,
    n: int = 4,
    seed: int = 5,
    max_steps: int | None = None,
    **settings: Any,
) -> Actor:
    task = SUITE.tasks[g]
    memory: Memory = make_memory(
        capacity, Stacks(task.obs_shape, task.stack, np.uint8, n), SUITE.actions[g], len(SUITE.axis)
    )
    behaviour = Behaviour(who=who, num_envs=n, **({"epsilon_start": 0.0, "epsilon_end": 0.0} | settings))
    env = Watched(CatchVec(task, n, max_steps=max_steps))
    chosen = teacher or exact_teacher(task.name)
    return Actor(g, env, chosen, student or student_of(), memory, behaviour, rng("behaviour"), seed, CPU)


@pytest.mark.parametrize("who", ["teacher", "student", "mixture"])
@pytest.mark.parametrize("g", [0, 1])
@pytest.mark.parametrize("max_steps", [None, 13])
def test_the_memory_holds_what_was_shown(who: str, g: int, max_steps: int | None) -> None:
    actor = actor_of(who, g, max_steps=max_steps, epsilon_end=0.3)
    for _ in range(100):
        actor.step()
    env = actor.env
    assert isinstance(env, Watched)
    shown = np.concatenate(env.shown[:-1])  # the last one has not been acted on
    slots = actor.memory.sampler.filled()
    batch = actor.memory.gather(slots)
    np.testing.assert_array_equal(batch.obs, shown)
    own = optimal_q(shown, name=NAMES[g])
    twin = np.zeros((len(shown), len(SUITE.axis)), np.float32)
    for i, axis in enumerate(SUITE.actions[g]):
        twin[:, axis] = own[:, i]
    np.testing.assert_array_equal(batch.teacher, twin)
    np.testing.assert_array_equal(batch.value, own.max(1))
    assert actor.control_steps == len(shown) == 400
    actor.memory.check()


def test_the_oldest_leaves_and_the_memory_saturates() -> None:
    actor = actor_of("teacher", capacity=100)
    for _ in range(60):
        actor.step()
    assert isinstance(actor.env, Watched)
    assert len(actor.memory) == actor.memory.capacity == 100
    kept = actor.memory.gather(actor.memory.sampler.filled()).obs
    np.testing.assert_array_equal(kept, np.concatenate(actor.env.shown[:-1])[-100:])


def test_mean_return_is_that_of_the_episodes_that_ended() -> None:
    actor = actor_of("student")
    assert actor.mean_return is None
    running, finished = np.zeros(4), []
    for _ in range(130):
        actor.step()
        assert isinstance(actor.env, Watched)
        running += actor.env.rewards[-1]
        finished += running[actor.env.ended[-1]].tolist()
        running[actor.env.ended[-1]] = 0
    assert len(finished) == 4 * (130 // (DROPS * FALL))
    assert actor.mean_return == pytest.approx(np.mean(finished))


def test_the_exact_teacher_plays_perfectly() -> None:
    actor = actor_of("teacher")
    for _ in range(100):
        actor.step()
    assert actor.mean_return is not None
    assert actor.mean_return >= DROPS


def told(actor: Actor, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Actions taken, and the greedy ones of teacher and student in the same states."""
    for _ in range(steps):
        actor.step()
    assert isinstance(actor.env, Watched)
    shown = torch.from_numpy(np.concatenate(actor.env.shown[:-1]))
    with torch.no_grad():
        values, logits = (x.numpy() for x in actor._ask(shown)[:2])
    return np.concatenate(actor.env.told), values.argmax(1), logits.argmax(1)


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_without_epsilon_the_player_is_obeyed(who: str) -> None:
    taken, teacher, student = told(actor_of(who), 50)
    assert (teacher != student).any()
    np.testing.assert_array_equal(taken, teacher if who == "teacher" else student)


def test_a_mixture_takes_its_share_from_each() -> None:
    taken, teacher, student = told(actor_of("mixture", teacher_share=0.8, n=16), 150)
    differ = teacher != student
    assert differ.sum() > 300
    share = (taken == teacher)[differ].mean()
    assert ((taken == teacher) | (taken == student)).all()
    assert abs(share - 0.8) < 4 * np.sqrt(0.8 * 0.2 / differ.sum())


@pytest.mark.parametrize("g", [0, 1])
def test_epsilon_is_uniform_over_the_tasks_own_actions(g: int) -> None:
    taken, teacher, _ = told(actor_of("teacher", g, epsilon_start=0.3, epsilon_end=0.3, n=16), 200)
    n = SUITE.tasks[g].n_actions
    assert set(taken.tolist()) == set(range(n))
    off = (taken != teacher).mean()
    expected = 0.3 * (n - 1) / n
    assert abs(off - expected) < 4 * np.sqrt(expected / len(taken))


def test_epsilon_falls_with_the_control_steps() -> None:
    behaviour = Behaviour(epsilon_start=1.0, epsilon_end=0.2, epsilon_steps=100)
    assert [behaviour.epsilon(t) for t in (0, 50, 100, 1_000)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert Behaviour(epsilon_end=0.2, epsilon_steps=0).epsilon(0) == 0.2
    taken, _, student = told(actor_of("student", epsilon_start=1.0, epsilon_end=0.0, epsilon_steps=800, n=16), 100)
    early, late = (taken != student)[:400].mean(), (taken != student)[800:].mean()
    assert early > 0.3
    assert late == 0


def memory_of(actor: Actor, steps: int = 80) -> dict[str, np.ndarray]:
    for _ in range(steps):
        actor.step()
    return actor.memory.state()


def test_teacher_driven_memory_does_not_know_the_student() -> None:
    """Rusu et al. 2016: byte-identical memory for two students."""
    one, two = (memory_of(actor_of("teacher", student=student_of(s), epsilon_end=0.2)) for s in (1, 2))
    assert one.keys() == two.keys()
    assert all(one[k].tobytes() == two[k].tobytes() for k in one)
    one, two = (memory_of(actor_of("student", student=student_of(s), epsilon_end=0.2)) for s in (1, 2))
    assert any(one[k].tobytes() != two[k].tobytes() for k in one)  # so the comparison can fail


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("g", [0, 1])
def test_one_pass_through_a_shared_torso_equals_two(g: int, bf16: bool) -> None:
    teachers = [Teacher(catch_task(n), fitted_net(n)) for n in NAMES]
    for teacher in teachers:
        assert isinstance(teacher.net, QNetwork)
        teacher.net.bf16 = bf16
    torsos = build.copy_torsos(teachers)
    with seeded_init(3):
        student = TaskTorsos(SUITE, torsos, widths=[32, 16], bf16=bf16)
    passes = []
    for torso in (*torsos, *(t.net.torso for t in teachers)):
        torso.register_forward_hook(lambda *_: passes.append(1))
    obs = torch.from_numpy(states(NAMES[g]))
    values, logits = ask_both(teachers[g], student, g)(obs)[:2]
    assert len(passes) == 1
    with torch.no_grad():
        apart = student.act(obs, g)[:, list(SUITE.actions[g])]
    torch.testing.assert_close(values, teachers[g](obs).values, rtol=0, atol=0)
    torch.testing.assert_close(logits, apart, rtol=0, atol=0)


@pytest.mark.parametrize("student", ["mimic", "controllers", "task_torsos"])
def test_asking_gives_the_tasks_own_actions(student: str) -> None:
    recipe = small(student)
    if student == "task_torsos":
        recipe["student"]["options"] = {**recipe["student"]["options"], "train_convs": True}
    parts = parts_of(recipe)
    for g, name in enumerate(NAMES):
        obs = torch.from_numpy(states(name)[:20])
        values, logits = ask_both(parts.teachers[g], parts.student, g)(obs)[:2]
        assert values.shape == logits.shape == (20, SUITE.tasks[g].n_actions)
        with torch.no_grad():
            rectangle = parts.student([torch.from_numpy(states(n)[:20]) for n in NAMES]).logits[g]
        torch.testing.assert_close(logits, rectangle[:, list(SUITE.actions[g])])


class Broken(nn.Module):
    """Q-values that turn NaN once the ball has fallen half way."""

    def __init__(self, task: Task):
        super().__init__()
        self.task = task

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        values = torch.zeros(len(obs), self.task.n_actions)
        values[(obs[:, 0, 5] > 0).any(-1)] = torch.nan
        return values


def steps(actor: Actor, n: int) -> None:
    for _ in range(n):
        actor.step()


def test_nan_q_values_are_never_stored() -> None:
    task = SUITE.tasks[0]
    actor = actor_of("teacher", teacher=Teacher(task, Broken(task)))
    with pytest.raises(UserError, match=r"^catch: teacher output nan refused"):
        steps(actor, 10)
    stored = actor.memory.gather(actor.memory.sampler.filled())
    assert len(stored.value) == 20
    assert np.isfinite(stored.teacher).all()


def test_fitted_teachers_know_the_game() -> None:
    """So that the other tests teach something: nearly always an optimal action."""
    for name in NAMES:
        q = optimal_q(states(name), name=name)
        chosen = fitted_teacher(name)(torch.from_numpy(states(name))).values.argmax(-1).numpy()
        assert (q[np.arange(len(q)), chosen] > q.max(1) - 0.15).mean() > 0.9


def test_a_teachers_values_are_measured_by_playing_it() -> None:
    task = catch_task("catch")
    low, high = value_range(exact_teacher("catch"), CatchVec(task, 4), 800, np.random.default_rng(0), 3)
    best = optimal_q(states("catch"), name="catch").max(1)
    assert best.min() <= low < high <= best.max()
    assert high == best.max()  # the paddle under the ball
    assert low > best.min()  # the teacher does not meet the states that random play loses


@pytest.mark.parametrize("loss", ["kl", "mse", "reverse_kl"])
def test_a_state_may_enter_the_memory_with_its_exact_priority(loss: str) -> None:
    parts = parts_of(small(), [exact_teacher(n) for n in NAMES])
    made = build.actors(parts)[0]
    given: list[np.ndarray | None] = []
    for first in (None, partial(priority, loss, tau=0.25)):
        env = make_env(parts.suite.tasks[0], 4)
        actor = Actor(0, env, parts.teachers[0], parts.student, made.memory, made.behaviour, rng("x"), 1, CPU, first)
        put = made.memory.append
        made.memory.append = lambda *x, put=put: given.append(x[4]) or put(*x)  # type: ignore[method-assign]
        actor.step()
        made.memory.append = put  # type: ignore[method-assign]
        obs = torch.from_numpy(env.reset(1))
    assert given[0] is None
    own = list(parts.suite.actions[0])
    with torch.no_grad():
        expected = priority(loss, parts.teachers[0](obs).values, parts.student.act(obs, 0)[:, own], 0.25)
    np.testing.assert_allclose(given[1], expected.numpy(), rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_recipes_loss_decides_about_first_priorities(loss: str) -> None:
    """Those of the sampler are the mean absolute gradients that autograd finds, over the task's own actions."""
    parts = parts_of(small(memory={"sampler": "ranked"}, objective={"loss": loss, "temperature": 0.25}))
    for g, actor in enumerate(build.actors(parts)):
        actor.step()
        kept = actor.memory.gather(np.arange(4))
        own = list(parts.suite.actions[g])
        logits = parts.student.act(torch.from_numpy(kept.obs), g)[:, own].detach().requires_grad_()
        valid = torch.ones(1, 1, len(own), dtype=torch.bool)
        said = Targets(torch.from_numpy(kept.teacher)[None, :, own], valid, 0.25)
        per_example = actor_mimic(loss)(PolicyOutput(logits[None], logits[None]), said).per_example
        (gradient,) = torch.autograd.grad(per_example.sum(), logits)
        found = actor.memory.sampler.state()["priority"][:4]
        np.testing.assert_allclose(found, gradient.abs().mean(-1), rtol=1e-4, atol=1e-7)
        assert (found > 0).all()


def test_a_perfect_mse_student_has_nothing_to_learn_first() -> None:
    teacher = exact_teacher("catch")
    student: Any = student_of()
    own = torch.tensor(SUITE.actions[0])
    student.act = lambda obs, task: torch.zeros(len(obs), len(SUITE.axis)).index_copy(1, own, teacher(obs).values)
    for loss, nothing in (("mse", True), ("huber", True), ("kl", False)):
        memory = actor_of("student").memory
        sent: list[np.ndarray] = []
        memory.append = lambda *x, sent=sent: sent.append(x[4]) or np.arange(4)  # type: ignore[method-assign]
        env, first = make_env(SUITE.tasks[0], 4), partial(priority, loss, tau=0.01)
        actor = Actor(0, env, teacher, student, memory, Behaviour(num_envs=4), rng("x"), 1, CPU, first)
        steps(actor, 5)
        assert (np.concatenate(sent) == 0).all() == nothing, loss
