"""Distral's training: unrolls as the environment gave them, seven agents that learn, checkpoints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from polydistill.algorithms.distral import AGENTS
from polydistill.envs.base import Step
from polydistill.envs.catch import CatchVec, catch_task
from polydistill.errors import UserError
from polydistill.tasks import Task
from polydistill.training.distral import Distral, DistralSettings, Networks, require_one_action_set

TASK = Task("counter", "test", ("STAY", "GO"), (1,), "float32")


class Counter:
    """Observation: steps since the start. GO pays 1; an episode is cut (or ends) after ``length`` steps."""

    def __init__(self, task: Task = TASK, num_envs: int = 2, length: int = 3, *, truncates: bool = False):
        self.task, self.num_envs, self.length, self.truncates = task, num_envs, length, truncates

    def reset(self, seed: int) -> np.ndarray:
        self._age = np.zeros(self.num_envs)
        return self._see()

    def _see(self) -> np.ndarray:
        return self._age[:, None].astype(np.float32)

    def step(self, actions: np.ndarray) -> Step:
        self._age += 1
        ended, last = self._age == self.length, self._see()
        self._age[ended] = 0
        none = np.zeros_like(ended)
        over, cut = (none, ended) if self.truncates else (ended, none)
        final = np.where(ended[:, None], last, 0).astype(np.float32) if ended.any() else None
        return Step(self._see(), actions.astype(np.float32), over, cut, final, none)

    def close(self) -> None:
        pass


LEVER = Task("lever", "test", ("push",), (1,), "float32", action_low=(-1.0,), action_high=(1.0,))


class Lever(Counter):
    """Every step pays 1 - (push - aim)^2."""

    def __init__(self, aim: float, task: Task = LEVER):
        super().__init__(task, num_envs=16, length=5)
        self.aim = aim

    def step(self, actions: np.ndarray) -> Step:
        assert actions.shape == (16, 1)
        assert actions.dtype == np.float32
        return replace(super().step(actions[:, 0]), reward=1 - (actions[:, 0] - self.aim) ** 2)


def learner_of(*envs: Any, total: int = 10_000, **settings: Any) -> Distral:
    small = {"num_envs": envs[0].num_envs, "hidden": 16, "lstm": 8, "unroll": 5, "learning_rate": 3e-3, "beta": 100.0}
    return Distral(envs, DistralSettings(**(small | settings)), total, 0, "cpu")


def two_counters(**changes: Any) -> list[Counter]:
    return [Counter(**changes), Counter(replace(TASK, name="other"), **changes)]


@pytest.mark.parametrize("truncates", [False, True])
def test_an_unroll_is_what_happened(truncates: bool) -> None:
    learner = learner_of(*two_counters(truncates=truncates))
    rows = learner._collect()
    u = learner._unroll(0, rows[0])
    assert learner.steps == 10
    assert u.reward.shape == (5, 2)
    assert torch.equal(u.reward, u.action.float())
    assert u.ended[:, 0].tolist() == [False, False, True, False, False]
    assert u.terminated.any().item() is not truncates
    # The value after a step is that of the next observation: computed here on the whole sequence.
    nets = learner.nets
    obs = torch.tensor([0, 1, 2, 0, 1, 2]).float()[:, None, None].expand(6, 2, 1)
    start = obs[..., 0] == 0
    whole = nets.look(0, obs, start, nets.empty(2))
    torch.testing.assert_close(u.value, whole.value[:5])
    torch.testing.assert_close(u.next_value[[0, 1, 3, 4]], whole.value[[1, 2, 4, 5]])
    if truncates:  # the last observation, 3, goes on from the memory of 0, 1, 2
        seen = torch.tensor([0, 1, 2, 3]).float()[:, None, None].expand(4, 2, 1)
        cut = nets.look(0, seen, seen[..., 0] == 0, nets.empty(2)).value[3]
        torch.testing.assert_close(u.next_value[2], cut)


def test_memory_goes_on_from_unroll_to_unroll() -> None:
    learner = learner_of(*two_counters(length=50))
    learner._collect()
    rows = learner._collect()
    u = learner._unroll(1, rows[1])
    obs = torch.arange(10).float()[:, None, None].expand(10, 2, 1)
    whole = learner.nets.look(1, obs, obs[..., 0] == 0, learner.nets.empty(2))
    torch.testing.assert_close(u.value, whole.value[5:])


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_learns(name: str) -> None:
    learner = learner_of(*two_counters(num_envs=4, length=5), total=4_000, agent=name)
    for _ in learner.run():
        pass
    returns = learner.mean_returns()
    assert all(r is not None and r > 4.5 for r in returns), returns  # 5 at most, 2.5 at random


def test_two_columns_learn_continuous_actions() -> None:
    """Where both columns are at rest: p = p_0 / 2 + 2 beta, m = (p_0 / 2 * 0.5 + 2 beta aim) / p, pi_0 the mixture.

    With beta 20 and aims 0.75 and 0.25: means 0.7096 and 0.2904, variance 0.0210, and of pi_0 0.5 and 0.0649.
    """
    envs = [Lever(0.75), Lever(0.25, replace(LEVER, name="other"))]
    learner = learner_of(*envs, total=24_000, beta=20.0, gamma=0.0, lstm=0, learning_rate=1e-2)
    for _ in learner.run():
        pass
    obs, start = torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool)
    looks = [learner.nets.look(g, obs, start, learner.nets.empty(1)) for g in (0, 1)]
    (first, spread), (second, _) = (look.policy.flatten().tolist() for look in looks)
    assert looks[0].shared is not None
    middle, width = looks[0].shared.logits.flatten().tolist()
    assert (first, second, middle) == pytest.approx((0.71, 0.29, 0.5), abs=0.08)
    assert (spread, width) == pytest.approx((0.021, 0.065), rel=0.4)


@pytest.mark.slow
def test_catch_is_learnt() -> None:
    env = CatchVec(catch_task("catch"), 16)
    learner = learner_of(env, total=150_000, hidden=64, lstm=32, learning_rate=2e-3)
    for _ in learner.run():
        pass
    (found,) = learner.mean_returns()
    assert found is not None
    assert found > 5  # -2.4 at random, 9.375 at most


def test_networks_of_each_agent() -> None:
    tasks = [TASK, replace(TASK, name="other")]
    sizes = {name: sum(p.numel() for p in Networks(agent, tasks, 16, 8).parameters()) for name, agent in AGENTS.items()}
    one = sizes["A3C_multitask"]
    assert sizes == {
        "A3C": 2 * one, "A3C_multitask": one, "A3C_2col": 3 * one, "KL_1col": 3 * one, "KL+ent_1col": 3 * one,
        "KL_2col": 3 * one, "KL+ent_2col": 3 * one,
    }  # fmt: skip


def test_a_restored_learner_goes_on() -> None:
    learner = learner_of(*two_counters())
    for _ in range(3):
        learner.update()
    tensors, counters = learner.state()
    tensors = {part: {k: v.clone() for k, v in named.items()} for part, named in tensors.items()}
    other = learner_of(*two_counters())
    other.load_state(tensors, counters)
    learner.reset(7)
    other.reset(7)
    for _ in range(2):
        assert learner.update() == other.update()
    assert (other.steps, other.updates) == (50, 5)
    assert other.mean_returns() == learner.mean_returns()


def test_the_learning_rate_falls_to_a_sixth() -> None:
    learner = learner_of(*two_counters(), total=1_000, learning_rate=6e-3)
    learner.steps = 490
    learner.update()
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * (1 + 5 * 0.5))
    learner.steps = 990
    learner.update()
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)


def test_what_cannot_share_a_policy_is_refused() -> None:
    require_one_action_set([TASK, replace(TASK, name="other")])
    for other, told in (
        (replace(TASK, name="b", action_meanings=("GO", "STAY")), "b has the actions GO, STAY, but counter STAY, GO"),
        (replace(TASK, name="b", obs_shape=(2,)), r"b shows float32 \[2\], but counter float32 \[1\]"),
        (LEVER, "lever has continuous actions, but counter discrete ones: one policy needs one kind"),
        (TASK, "named twice"),
    ):
        with pytest.raises(UserError, match=told):
            require_one_action_set([TASK, other])
    other = replace(LEVER, name="b", action_high=(2.0,))
    with pytest.raises(UserError, match=r"b has actions from \[-1.0\] to \[2.0\], but lever \[-1.0\] to \[1.0\]"):
        require_one_action_set([LEVER, other])
    with pytest.raises(UserError, match="name some"):
        require_one_action_set([])


def test_a_gradient_that_is_not_finite_is_told() -> None:
    learner = learner_of(*two_counters())
    with torch.no_grad():
        next(learner.nets.own[0].value.parameters()).fill_(float("nan"))  # type: ignore[index, union-attr]
    before = learner.updates
    with pytest.raises(UserError, match="NaN or infinite after 0 updates"):
        learner.update()
    assert learner.updates == before
