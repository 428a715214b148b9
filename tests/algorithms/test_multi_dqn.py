"""Multi-task DQN: whose turn it is, what an update touches, which actions exist, and that it learns two games."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
import torch

from polydistill import nets
from polydistill.algorithms.dqn import DQNSettings, Player
from polydistill.algorithms.multi_dqn import MultiDQN
from polydistill.envs.base import Step
from polydistill.envs.catch import catch_task
from polydistill.envs.suite import make_env
from polydistill.evaluation.play import play
from polydistill.nets.student import count
from polydistill.optim import DQNRMSprop
from polydistill.rng import seeded_init
from polydistill.tasks import ATARI_AXIS, Suite, Task

SUITE = Suite((catch_task("catch"), catch_task("catch-wind")))  # 3 and 2 of 3 actions; catch-wind has no NOOP
NOOP = SUITE.axis.index("NOOP")
OPTIONS = {"controllers": {"hidden": 64, "head": 32}, "mimic": {"hidden": 64}, "task_heads": {"hidden": 64}}
TINY = DQNSettings(
    num_envs=2, minibatch=8, capacity=400, learning_starts=20, update_period=4, target_period=40, epsilon_steps=100
)


def learner_of(
    kind: str = "mimic", switch: Any = "lockstep", settings: DQNSettings = TINY, seed: int = 0, envs: Any = None
) -> MultiDQN:
    suite = Suite(tuple(e.task for e in envs)) if envs else SUITE
    with seeded_init(seed):
        student = nets.make(kind, suite, **OPTIONS[kind])
    made = envs or [make_env(task, settings.num_envs) for task in suite.tasks]
    return MultiDQN(made, student, settings, switch, seed)


def weights(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in net.state_dict().items()}


def ready(learner: MultiDQN) -> MultiDQN:
    """Memories filled, nothing learnt yet, the target network another one than the student."""
    for player in learner.players:
        player.reset(3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        learner._play([0, 1], generator)
    with torch.no_grad():
        for p in learner.target.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.1)
    return learner


EIGHT = {"atlantis": 4, "boxing": 18, "breakout": 4, "crazy_climber": 9, "enduro": 9, "pong": 6, "seaquest": 18,
         "space_invaders": 6}  # fmt: skip


def test_task_heads_of_eight_games_has_the_papers_size() -> None:
    games = Suite(tuple(Task(n, "atari", ATARI_AXIS[:k], (4, 84, 84), stack=4) for n, k in EIGHT.items()))
    assert count(nets.make("task_heads", games)) == 13_001_008  # Parisotto et al. 2016, App. C
    assert count(nets.make("mimic", games)) == 1_693_362


OF_ONE_GAME = {"controllers": ("controllers.",), "task_heads": ("fcs.", "outputs.")}


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
@pytest.mark.parametrize("kind", ["controllers", "task_heads"])
def test_an_update_on_one_game_leaves_the_others_layers_alone(kind: str, optimizer: str) -> None:
    """Bit for bit, also when their layers were trained before: no decay, no momentum reaches them."""
    learner = ready(learner_of(kind, "episode", TINY.model_copy(update={"optimizer": optimizer})))
    rng = np.random.default_rng(0)
    for g, updates in ((1, 1), (0, 3)):  # with Adam, stale first moments would move those of game 1 in the second round
        before = weights(learner.student)
        for _ in range(updates):
            learner._learn([g], rng)
        moved = {k for k, v in learner.student.state_dict().items() if not torch.equal(v, before[k])}
        for prefix in OF_ONE_GAME[kind]:
            assert any(k.startswith(f"{prefix}{g}") for k in moved)
            assert not any(k.startswith(f"{prefix}{1 - g}") for k in moved)
        assert any(k.startswith("torso.") for k in moved)
    assert learner.task_updates == [3, 1]
    assert isinstance(learner.optimizer, DQNRMSprop) == (optimizer == "rmsprop")


def test_invalid_rows_of_the_shared_output_get_no_gradient() -> None:
    learner = ready(learner_of("mimic", "episode"))
    before = learner.student.output.weight.detach().clone()
    learner._learn([1], np.random.default_rng(0))
    after = learner.student.output.weight
    assert torch.equal(after[NOOP], before[NOOP])
    assert not torch.equal(after, before)


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 0.5])
def test_invalid_actions_are_never_chosen(epsilon: float) -> None:
    learner = learner_of("mimic", settings=TINY.model_copy(update={"epsilon_start": epsilon, "epsilon_end": epsilon}))
    with torch.no_grad():
        learner.student.output.bias[NOOP] += 100.0
    for player in learner.players:
        player.reset(3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        learner._play([0, 1], generator)  # to_own refuses an action that catch-wind does not have
    actions = [p.memory.gather(np.arange(80)).action for p in learner.players]
    assert set(actions[1]) <= {0, 1}
    own = {0.0: {1}, 1.0: {0, 1, 2}, 0.5: {0, 1, 2}}[epsilon]
    assert set(actions[0]) == own  # in catch the huge value is NOOP's, action 1


@pytest.mark.parametrize("double", [False, True])
def test_invalid_actions_are_never_in_the_maximum(double: bool) -> None:
    def loss(offset: float) -> torch.Tensor:
        learner = ready(learner_of("mimic", settings=TINY.model_copy(update={"double": double})))
        with torch.no_grad():
            for net in (learner.student, learner.target):
                net.output.bias[NOOP] += offset
        update = learner._learn([0, 1], np.random.default_rng(0))
        return torch.stack([update.loss, update.q_mean])

    plain, raised = loss(0.0), loss(50.0)
    assert torch.equal(plain[:, 1], raised[:, 1])  # catch-wind has no NOOP
    assert not torch.equal(plain[:, 0], raised[:, 0])


@pytest.mark.parametrize(("double", "n"), [(False, 1), (True, 3)])
@pytest.mark.parametrize("kind", list(OPTIONS))
def test_the_loss_of_a_rectangle_is_dqns_of_each_sample(kind: str, double: bool, n: int) -> None:
    """Mnih et al. 2015, sample by sample and action by action."""
    settings = TINY.model_copy(update={"double": double, "n_step": n})
    learner = ready(learner_of(kind, settings=settings))
    expected = []
    for g, player in enumerate(learner.players):
        rng = np.random.default_rng(7)
        for _ in range(g):
            learner.players[0].memory.sample(rng, 8)
        batch = player.memory.sample(rng, 8)[1]
        losses = []
        for i in range(8):
            obs, after = (torch.from_numpy(x[i : i + 1]) for x in (batch.obs, batch.next_obs))
            own = list(SUITE.actions[g])
            q, online = (learner.student.act(x, g)[0, own].tolist() for x in (obs, after))
            late = learner.target.act(after, g)[0, own].tolist()
            best = online.index(max(online)) if double else late.index(max(late))
            target = batch.reward[i] + (0.0 if batch.terminated[i] else 0.99**n * late[best])
            delta = abs(target - q[batch.action[i]])
            losses.append(0.5 * delta**2 if delta < 1 else delta - 0.5)
        expected.append(np.mean(losses))
    update = learner._learn([0, 1], np.random.default_rng(7))
    np.testing.assert_allclose(update.loss.numpy(), expected, rtol=1e-4)


class Scripted:
    """One copy whose episodes last ``length`` control steps; notes each step in ``log``."""

    num_envs = 1

    def __init__(self, name: str, length: int, log: list[tuple[str, int]], number: int):
        self.task, self.length, self.log, self.number = catch_task(name), length, log, number
        self._t = 0

    def reset(self, seed: int) -> np.ndarray:
        self._t = 0
        return self._obs()

    def _obs(self) -> np.ndarray:
        return np.full((1, *self.task.obs_shape), self.number, np.uint8)

    def step(self, actions: np.ndarray) -> Step:
        self.log.append(("play", self.number))
        self._t += 1
        over = np.array([self._t % self.length == 0])
        final = self._obs() if over[0] else None
        return Step(self._obs(), np.ones(1, np.float32), over, ~over & over, final, np.zeros(1, bool))

    def close(self) -> None: ...


def script(lengths: list[int], **settings: Any) -> tuple[MultiDQN, list[tuple[str, int]]]:
    log: list[tuple[str, int]] = []
    names = ("catch", "catch-wind", "catch-mirror")
    envs = [Scripted(names[i], n, log, i) for i, n in enumerate(lengths)]
    switch = settings.pop("switch", "episode")
    return learner_of("mimic", switch, DQNSettings(minibatch=4, capacity=500, **settings), envs=envs), log


def test_a_turn_lasts_an_episode_and_goes_to_the_game_that_played_least() -> None:
    learner, log = script([4, 7, 2], learning_starts=7, update_period=1)
    list(islice(learner.run(), 24))
    turns = [(0, 4), (1, 7), (2, 2), (2, 2), (0, 4), (2, 2), (2, 2), (1, 7), (2, 2), (0, 4), (2, 2), (0, 4)]
    assert [g for _, g in log[:42]] == [g for g, length in turns for _ in range(length)]


def test_training_is_evenly_interleaved_whatever_the_episodes_lengths() -> None:
    """Rusu et al. 2016, section 3.3. Each update draws from the memory of its own game."""
    learner, log = script([4, 70, 2], learning_starts=5, update_period=1)
    for update in islice(learner.run(), 3 * 100 + 1):
        log.append(("learn", update.tasks[0]))
    learnt = [g for what, g in log if what == "learn"]
    assert learnt == [0, 1, 2] * 100 + [0]
    assert learner.task_updates == [101, 100, 100]
    assert max(learner.task_steps) - min(learner.task_steps) <= 70  # no game is further ahead than its last episode
    for g, player in enumerate(learner.players):
        assert len(player.memory) == learner.task_steps[g]
        seen = player.memory.gather(np.arange(len(player.memory)))
        assert set(seen.obs.ravel()) == set(seen.next_obs.ravel()) == {g}
        assert learner.finished[g][0] == [4, 70, 2][g]


def test_in_lockstep_every_update_sees_every_game_whatever_its_episodes() -> None:
    learner, log = script([4, 7, 2], learning_starts=10, update_period=4, switch="lockstep")
    updates = list(islice(learner.run(), 25))
    assert [u.tasks for u in updates] == [[0, 1, 2]] * 25
    assert learner.task_updates == [25] * 3
    assert learner.task_steps == [9 + 100] * 3  # the first update may be made with the tenth step
    assert log == [("play", g) for _ in range(109) for g in range(3)]


def copies_of(learner: MultiDQN, updates: int) -> list[tuple[int, int]]:
    """(clock, updates) at each copy to the target network."""
    found: list[tuple[int, int]] = []
    really: Callable[[], None] = learner._copy

    def copy() -> None:
        really()
        found.append((learner.clock, learner.updates))
        assert all(torch.equal(v, learner.target.state_dict()[k]) for k, v in learner.student.state_dict().items())

    learner._copy = copy  # type: ignore[method-assign]
    before = weights(learner.target)
    for _ in islice(learner.run(), updates):
        if not found:
            assert all(torch.equal(v, before[k]) for k, v in learner.target.state_dict().items())
    return found


@pytest.mark.parametrize("kind", list(OPTIONS))
@pytest.mark.parametrize("switch", ["lockstep", "episode"])
def test_the_target_is_copied_on_time(kind: str, switch: str) -> None:
    """Ten updates apart, whichever way the games are played: 40 control steps, an update every 4."""
    by_steps = copies_of(learner_of(kind, switch), 61)
    clocks, updates = zip(*by_steps, strict=True)
    assert clocks == tuple(range(40, 40 * len(clocks) + 1, 40))
    assert [after - before for before, after in pairwise(updates)][-3:] == [10] * 3
    assert updates[0] == (5 if switch == "lockstep" else 0)  # the first 20 steps of each game are the warm-up
    by_updates = TINY.model_copy(update={"target_period": 7, "target_period_unit": "updates"})
    assert [n for _, n in copies_of(learner_of(kind, switch, by_updates), 31)] == [7, 14, 21, 28]


def test_updates_begin_when_every_game_has_its_warm_up_and_exploration_counts_its_own_steps() -> None:
    learner, _ = script([30, 10], learning_starts=25, update_period=1, epsilon_steps=100, epsilon_end=0.0)
    seen = [list(learner.task_steps) for _ in islice(learner.run(), 10)]
    assert seen[0] == [30, 25]
    learner.task_steps = [75, 25]
    assert [learner.epsilon(g) for g in (0, 1)] == [0.5, 1.0]


def test_a_restored_learner_goes_on_counting_and_fills_its_memories_first() -> None:
    learner = learner_of("controllers", "episode")
    list(islice(learner.run(), 40))
    tensors, counters = learner.state()
    student = weights(learner.student)
    other = learner_of("controllers", "episode", seed=5)
    other.student.load_state_dict(student)
    other.load_state({k: {n: x.clone() for n, x in v.items()} for k, v in tensors.items()}, counters)
    assert other.state()[1] == counters
    assert all(torch.equal(v, tensors["target"][k]) for k, v in other.target.state_dict().items())
    first = next(other.run())
    assert other.updates == 41
    g = first.tasks[0]
    played = [now - then for now, then in zip(other.task_steps, counters["task_steps"], strict=True)]
    assert sum(played) == other.clock - counters["clock"] == TINY.update_period  # those of the refill do not count
    assert other.refilled == sum(min(TINY.learning_starts, steps) for steps in counters["task_steps"])
    assert sum(len(p.memory) for p in other.players) == other.refilled + sum(played)
    assert TINY.learning_starts <= len(other.players[g].memory)


class Pace:
    """A learner's updates, each with its clock; and the clocks of the copies to the target network."""

    def __init__(self, learner: MultiDQN):
        self.learner, self.updates, self.copied = learner, list[tuple[Any, ...]](), set[tuple[int, int]]()
        really = learner._copy

        def copy() -> None:
            really()
            self.copied.add((learner.clock, learner.updates))

        learner._copy = copy  # type: ignore[method-assign]

    def go(self, updates: int, before: Pace | None = None) -> Pace:
        if before is not None:
            tensors, counters = before.learner.state()
            self.learner.load_state(tensors, json.loads(json.dumps(counters)))
            self.updates, self.copied = list(before.updates), set(before.copied)
        for _ in self.learner.run(lambda: len(self.updates) >= updates):
            self.updates.append((self.learner.updates, self.learner.clock, self.learner.control_steps))
            if len(self.updates) >= updates:
                break
        return self


@pytest.mark.parametrize("switch", ["lockstep", "episode"])
@pytest.mark.parametrize("copies", [2, 8])  # 8: two updates after a control step, so that a cut may fall between them
def test_a_cut_leaves_no_trace_in_the_pace(switch: str, copies: int) -> None:
    settings = TINY.model_copy(update={"num_envs": copies})
    first, *later = (7, 10, 15, 60) if switch == "lockstep" else (121, 124, 129, 140)  # past the warm-up of both games
    whole = Pace(learner_of("mimic", switch, settings)).go(later[-1])
    cut = Pace(learner_of("mimic", switch, settings)).go(first)
    assert all(cut.learner.task_steps)
    for until in later:
        cut = Pace(learner_of("mimic", switch, settings)).go(until, cut)
    assert cut.updates == whole.updates
    assert cut.copied == whole.copied
    assert cut.learner.refilled >= 3 * 2 * TINY.learning_starts


def test_an_older_checkpoint_owes_nothing() -> None:
    learner = Pace(learner_of()).go(9).learner
    tensors, counters = learner.state()
    for name in ("owed", "over", "refilled"):
        del counters[name]
    other = learner_of()
    other.load_state(tensors, counters)
    assert next(other.run()).tasks == [0, 1]
    assert (other.updates, other.refilled) == (10, 40)


def test_rmsprops_eps_is_that_of_gradients_summed_over_the_update() -> None:
    """0.01 / (games x minibatch)^2 for means over as many; Parisotto et al.'s code sums over the joint batch too."""
    assert learner_of(switch="lockstep").optimizer.defaults["eps"] == pytest.approx(0.01 / 16**2)
    assert learner_of(switch="episode").optimizer.defaults["eps"] == pytest.approx(0.01 / 8**2)


def test_same_seed_same_training() -> None:
    runs = []
    for seed in (1, 1, 2):
        learner = learner_of(seed=seed)
        list(islice(learner.run(), 20))
        runs.append(torch.cat([p.detach().flatten() for p in learner.student.parameters()]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_several_steps_at_once() -> None:
    """r_t + gamma r_{t+1} + gamma^2 r_{t+2}, then gamma^3 of the value; fewer at the end."""
    log: list[tuple[str, int]] = []
    player = Player(Scripted("catch", 5, log, 0), DQNSettings(n_step=3, gamma=0.5, capacity=50))
    player.reset(0)
    for _ in range(5):
        player.step(np.zeros(1, np.int64))
    seen = player.memory.gather(np.arange(5))
    assert seen.reward.tolist() == [1.75, 1.75, 1.75, 1.5, 1.0]
    assert seen.discount.tolist() == [0.125, 0.125, 0.0, 0.0, 0.0]


def test_exploratory_actions_can_be_held() -> None:
    """Of two neighbouring random actions a third are equal; most are when each lasts a zeta(2) time."""
    equal = {}
    for hold in (1, 100):
        player = Player(make_env(catch_task("catch"), 50), DQNSettings(hold=hold, capacity=50))
        generator, q = torch.Generator().manual_seed(0), torch.zeros(50, 3)
        actions = np.stack([player.choose(q, 1.0, generator) for _ in range(200)])
        assert np.bincount(actions.ravel(), minlength=3) / actions.size == pytest.approx([1 / 3] * 3, abs=0.06)
        equal[hold] = (actions[1:] == actions[:-1]).mean()
        q[:, 2] = 1.0
        player.reset(1)
        assert (player.choose(q, 0.0, generator) == 2).all()
    assert equal[1] == pytest.approx(1 / 3, abs=0.02)
    assert equal[100] > 0.65


def scores(learner: MultiDQN) -> list[float]:
    found = []
    for g, task in enumerate(learner.suite.tasks):
        games = play(
            make_env(task, 10), lambda obs, g=g: learner.student.greedy(obs, g), episodes=20, epsilon=0.0, seed=9
        )
        found.append(float(np.mean([e.score for e in games])))
    return found


@pytest.mark.parametrize(
    ("kind", "switch", "copies", "updates"), [("controllers", "lockstep", 8, 800), ("task_heads", "episode", 4, 1_200)]
)
def test_learns_two_games_at_once(kind: str, switch: str, copies: int, updates: int) -> None:
    settings = DQNSettings(
        num_envs=copies, learning_starts=500, update_period=8, target_period=200, learning_rate=2e-3, capacity=5_000,
        optimizer="adam", epsilon_steps=1_500, double=True, n_step=5, gamma=0.9,
    )  # fmt: skip
    learner = learner_of(kind, switch, settings)
    before = scores(learner)
    list(islice(learner.run(), updates))
    after = scores(learner)
    assert max(before) < 0.0
    assert min(after) > 3.0, (before, after)  # random play scores -2.5, perfect play 9
