"""Both teachers' algorithms: schedules to the step, and that they learn Catch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from polydistill.algorithms import dqn
from polydistill.algorithms.dqn import DQN, DQNSettings
from polydistill.algorithms.pqn import PQN, Exploration, PQNSettings
from polydistill.envs.base import Step
from polydistill.envs.suite import make_env, resolve_task
from polydistill.evaluation.play import play
from polydistill.rng import seeded_init
from polydistill.teachers.zoo import Network, build_network
from polydistill.teaching import recipe_for

TASK = resolve_task("catch")


def trainer(kind: Any, settings: Any, total: int = 10_000, seed: int = 0) -> Any:
    with seeded_init(seed):
        net = build_network(TASK, Network(hidden=64, norm=kind is PQN))
    return kind(make_env(TASK, settings.num_envs), net, settings, total, seed, "cpu")


def score(net: torch.nn.Module) -> float:
    greedy = lambda obs: net(torch.from_numpy(obs)).argmax(-1).numpy()  # noqa: E731
    return float(np.mean([e.score for e in play(make_env(TASK, 10), greedy, episodes=30, epsilon=0.0, seed=9)]))


def run_to(learner: Any, steps: int) -> list[dict[str, float]]:
    metrics = []
    for found in learner.run():
        metrics.append(found)
        if learner.steps >= steps:
            return metrics
    raise AssertionError


FAST = PQNSettings(num_envs=16, rollout=8, minibatch=64, learning_rate=2e-3, warmup_updates=20)
NATURE = DQNSettings(learning_starts=500, epsilon_steps=2000, target_period=250, learning_rate=1e-3, capacity=5000)


def test_pqn_learns_catch() -> None:
    learner = trainer(PQN, FAST, total=25_000)
    before = score(learner.net)
    run_to(learner, 25_000)
    assert learner.updates == learner.steps // 128 * 2 * 3
    assert score(learner.net) > max(3.5, before + 2)  # random play scores -3, perfect play 5


def test_dqn_learns_catch() -> None:
    learner = trainer(DQN, NATURE)
    before = score(learner.net)
    run_to(learner, 9_000)
    assert learner.updates == (9_000 - 500) // 4
    assert score(learner.net) > max(0.0, before + 2)


def test_dqn_schedule() -> None:
    """Epsilon starts to fall after the warm-up; nothing is learnt before; the target is copied on time."""
    learner = trainer(DQN, NATURE)
    copies: list[int] = []
    learner._copy = lambda: copies.append(learner.steps)
    learner.report_every = 50
    updates = {}
    for _ in learner.run():
        updates[learner.steps] = learner.updates
        if learner.steps >= 1_500:
            break
    assert [updates[s] for s in (450, 500, 1_500)] == [0, 0, 250]
    assert copies == [500, 750, 1000, 1250, 1500]
    for steps, expected in ((0, 1.0), (500, 1.0), (1500, 0.55), (2500, 0.1), (9999, 0.1)):
        learner.steps = steps
        assert learner.epsilon() == pytest.approx(expected)


class Noting:
    """Help that adds nothing, and notes the control steps of each update."""

    def __init__(self, steps: list[int]):
        self.steps = steps

    def begin(self, updates: int) -> None: ...

    def share(self, steps: int) -> float:
        return 1.0

    def term(self, steps: int, obs: torch.Tensor, q: torch.Tensor) -> torch.Tensor | None:
        self.steps.append(steps)
        return None


@pytest.mark.parametrize("copies", [1, 7])
def test_a_cut_leaves_no_trace_in_dqns_pace(copies: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fills the memory again counts for nothing: neither steps nor updates, epsilon or a kickstart's decay."""
    monkeypatch.setattr(dqn, "VALIDATION_STATES", 1)
    settings = NATURE.model_copy(update={"num_envs": copies, "update_period": 10})  # no divisor of a report's steps
    told: dict[str, Any] = {}
    for name, cuts in (("whole", (1_100,)), ("cut", (300, 711, 912, 1_100))):
        at, helped, learner = list[tuple[Any, ...]](), list[int](), None
        for until in cuts:
            before, learner = learner, trainer(DQN, settings)
            learner.report_every = 7
            learner.assist = Noting(helped)
            if before is not None:
                tensors, counters = before.state()
                learner.load_state(tensors, json.loads(json.dumps(counters)))
            for _ in learner.run():
                if learner.steps > (at[-1][0] if at else 0):
                    at.append((learner.steps, learner.updates, learner.epsilon()))
                if learner.steps >= until:
                    break
        told[name] = at, helped
        assert learner is not None
        assert learner.refilled == {"whole": 0, "cut": 301 + 2 * -(-500 // copies) * copies}[name]
    assert told["cut"] == told["whole"]
    assert told["cut"][0][-1][1] == (1_101 - 500) // 10


def test_an_older_checkpoint_owes_no_update() -> None:
    learner = trainer(DQN, NATURE)
    run_to(learner, 1_000)
    tensors, counters = learner.state()
    del counters["owed"], counters["refilled"]
    other = trainer(DQN, NATURE)
    other.load_state(tensors, counters)
    assert len(run_to(other, 2_000)) == 1
    assert (other.steps, other.updates, other.refilled) == (2_000, 375, 500)


def test_who_listens_is_told_while_the_memory_fills_again() -> None:
    learner = trainer(DQN, NATURE)
    run_to(learner, 1_000)
    other = trainer(DQN, NATURE)
    other.load_state(*learner.state())
    other.report_every = 100
    told = [(other.steps, m["loss"]) for m, _ in zip(other.run(), range(6), strict=False)]
    assert [steps for steps, _ in told] == [1_000] * 5 + [1_100]
    assert [np.isnan(loss) for _, loss in told] == [True] * 5 + [False]


@pytest.mark.parametrize(("kind", "settings"), [(PQN, FAST), (DQN, NATURE)], ids=["pqn", "dqn"])
def test_a_learner_goes_on_from_before_its_first_update(kind: Any, settings: Any) -> None:
    learner = trainer(kind, settings)
    tensors, counters = learner.state()
    kept = {part: named for part, named in tensors.items() if named}  # a checkpoint has no empty files
    other = trainer(kind, settings)
    other.load_state(kept, json.loads(json.dumps(counters)))
    assert run_to(other, 1_200)[-1]["loss"] >= 0


def test_a_longer_schedule_does_not_make_a_trained_network_explore_again() -> None:
    settings = FAST.model_copy(update={"epsilon_start": 1.0, "epsilon_end": 0.05, "epsilon_fraction": 0.1})
    learner = trainer(PQN, settings, total=10_000)  # epsilon ends after 1,000
    run_to(learner, 2_000)
    other = trainer(PQN, settings, total=1_000_000)
    other.load_state(*learner.state())
    assert other.epsilon() == learner.epsilon() == pytest.approx(0.05)
    cut = trainer(PQN, settings, total=10_000)
    cut.steps = 500
    other.load_state(*cut.state())
    assert other.epsilon() == pytest.approx(0.525)
    other.steps = 75_000  # where a schedule of its own would be
    assert other.epsilon() == pytest.approx(0.2875)


def test_the_nature_recipe_is_the_articles_table() -> None:
    """Mnih et al. 2015, Extended Data Table 1; what the code says otherwise is said in docs/papers.md."""
    recipe = recipe_for("nature", "pong", {})
    assert recipe.algorithm == "dqn"
    assert recipe.total_steps == 50_000_000
    assert recipe.network.model_dump() == {
        "channels": (32, 64, 64), "hidden": 512, "norm": False, "bf16": False, "body": None
    }  # fmt: skip
    assert DQNSettings.parse(recipe.settings, "nature").model_dump() == {
        "num_envs": 1, "minibatch": 32, "gamma": 0.99, "n_step": 1, "capacity": 1_000_000, "learning_starts": 50_000,
        "update_period": 4, "target_period": 10_000, "target_period_unit": "control_steps", "optimizer": "rmsprop",
        "learning_rate": 2.5e-4, "rho": 0.95, "eps": 0.01, "epsilon_start": 1.0, "epsilon_end": 0.1,
        "epsilon_steps": 1_000_000, "hold": 1, "life_loss_terminal": True, "double": False,
    }  # fmt: skip


def test_the_papers_own_numbers_are_the_defaults() -> None:
    learner = trainer(DQN, DQNSettings(capacity=100))
    for steps, expected in ((50_000, 1.0), (550_000, 0.55), (1_050_000, 0.1)):
        learner.steps = steps
        assert learner.epsilon() == pytest.approx(expected)
    assert learner.optimizer.defaults["eps"] == pytest.approx(9.765625e-6)  # 0.01 / 32^2


class OneLife:
    """Two control steps: a reward of 3 and a lost life, then nothing, for ever. Observations tell which."""

    task, num_envs = TASK, 1

    def reset(self, seed: int) -> np.ndarray:
        self._t = 0
        return self._obs()

    def _obs(self) -> np.ndarray:
        return np.full((1, *TASK.obs_shape), self._t % 2, np.uint8)

    def step(self, actions: np.ndarray) -> Step:
        lost = self._t % 2 == 0
        self._t += 1
        no = np.zeros(1, bool)
        return Step(self._obs(), np.array([3.0 if lost else 0.0], np.float32), no, no, None, np.array([lost]))

    def close(self) -> None: ...


@pytest.mark.parametrize("terminal", [True, False])
def test_a_lost_life_cuts_the_bootstrap_and_rewards_are_clipped(terminal: bool) -> None:
    settings = DQNSettings(learning_starts=10, capacity=100, life_loss_terminal=terminal)
    learner = DQN(OneLife(), build_network(TASK, Network(hidden=8)), settings, 100, 0, "cpu")
    learner.report_every = 8
    next(learner.run())
    _, batch = learner.memory.sample(np.random.default_rng(0), 50)
    lost = batch.reward > 0
    assert lost.any()
    assert set(batch.reward.tolist()) == {0.0, 1.0}  # 3 is clipped to 1
    assert (batch.terminated == (lost & terminal)).all()
    assert (batch.discount == np.where(lost & terminal, 0, 0.99).astype(np.float32)).all()


@pytest.mark.parametrize(("kind", "settings"), [(PQN, FAST), (DQN, NATURE)], ids=["pqn", "dqn"])
def test_same_seed_same_training(kind: Any, settings: Any) -> None:
    runs = []
    for seed in (3, 3, 4):
        learner = trainer(kind, settings, seed=seed)
        run_to(learner, 1_500)
        runs.append(torch.cat([p.detach().flatten() for p in learner.net.parameters()]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_ez_greedy_holds_its_actions() -> None:
    """Durations follow the zeta law, cut at the longest; between them the greedy action is played."""
    n = 4000
    zeros = np.zeros(n, np.int64)
    explore = Exploration(3, np.random.default_rng(0), True, 2.0, 100, zeros, zeros)
    first = explore.choose(np.full(n, 7), 1.0)
    assert (explore.left == 0).mean() == pytest.approx(6 / np.pi**2, abs=0.03)  # P(zeta(2) = 1)
    again = explore.choose(np.full(n, 7), 0.0)
    held = again != 7
    assert held.mean() == pytest.approx(1 - 6 / np.pi**2, abs=0.03)
    assert (again[held] == first[held]).all()
    plain = Exploration(3, np.random.default_rng(0), False, 2.0, 100, zeros, zeros)
    plain.choose(np.full(n, 7), 1.0)
    assert (plain.choose(np.full(n, 7), 0.0) == 7).all()
