"""Tabular Distral: soft value iteration, the learner against a slow twin, what sharing does, and the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from polydistill.algorithms.tabular.distral import TabularDistral, TabularSettings
from polydistill.algorithms.tabular.two_rooms import ACTIONS, BUMP, CONTEXTS, GOAL, LEFT, RIGHT, STEP, TwoRooms
from polydistill.evaluation.rows import read_csv
from polydistill.evaluation.two_rooms import DISTRAL, SEPARATE, Point, SeedScore, keeping, measure
from polydistill.ops import distral as ops
from polydistill.rng import stream
from tests.command_line import typed

WORLD = TwoRooms()
UNIFORM = torch.full((WORLD.states, 5), -np.log(5), dtype=torch.float64)
FEW = TabularSettings(tasks=3)


def backup(v: torch.Tensor, goal: int, s: TabularSettings, world: TwoRooms = WORLD) -> torch.Tensor:
    """Q of every state and action from V of every state: eq. 3, exactly."""
    cells = np.arange(world.states) // CONTEXTS
    target, bumped = world.target[cells], world.bumped[cells]
    reached = torch.from_numpy(target == goal)
    reward = torch.from_numpy(STEP + BUMP * bumped + GOAL * (target == goal))
    after = torch.from_numpy(target * CONTEXTS + 1 + 2 * np.arange(5) + bumped)
    return ops.soft_target(reward, reached, v[after], s.gamma)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_soft_value_iteration_contracts_to_one_value(alpha: float) -> None:  # Teh et al. 2017
    s, ends = TabularSettings(alpha=alpha), []
    for seed in (0, 1):
        v = torch.from_numpy(10 * np.random.default_rng(seed).standard_normal(WORLD.states))
        step = float("inf")
        for _ in range(600):
            new = ops.soft_value(backup(v, 3, s), UNIFORM, s.alpha, s.beta)
            now = float((new - v).abs().max())
            assert now <= s.gamma * step + 1e-12
            v, step = new, now
        ends.append(v)
    assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-10)


def test_the_sampling_learner_approaches_it() -> None:  # Teh et al. 2017
    room = TwoRooms(("####", "#..#", "#..#", "####"))
    s = TabularSettings(tasks=1, count_discount=1)  # counts are visits
    learner = TabularDistral(room, s, [0], "uniform")
    v = torch.zeros(room.states, dtype=torch.float64)
    for _ in range(400):
        q = backup(v, int(learner.goals[0, 0]), s, room)
        v = ops.soft_value(q, UNIFORM[: room.states], s.alpha, s.beta)
    for _ in range(600):
        learner.iterate()
    often = learner.counts[0, 0] > 40
    assert often.sum() >= 8
    assert np.abs(learner.q[0, 0] - q.numpy())[often].max() < 0.06
    assert np.abs(q.numpy())[often].max() > 0.8


class Twin:
    """One seed, plain loops: what :class:`TabularDistral` does at once."""

    def __init__(self, s: TabularSettings, seed: int, prior: str):
        self.s, self.prior, self.seed = s, prior, seed
        self.goals = WORLD.goals(stream(seed, "two-rooms", "goals"), s.tasks)
        self.noise = stream(seed, "two-rooms", "noise").random((100, s.rollout, 2, s.tasks))
        self.q = np.zeros((s.tasks, WORLD.states, 5))
        self.counts = np.zeros_like(self.q)
        self.pi0 = np.full_like(self.q, 0.2)
        self.state, self.age = [-1] * s.tasks, [0] * s.tasks

    def weights(self, g: int, state: int) -> np.ndarray:
        return np.asarray(self.pi0[g, state] ** self.s.alpha * np.exp(self.s.beta * self.q[g, state]))

    def iterate(self, i: int) -> None:
        for t in range(self.s.rollout):
            for g, goal in enumerate(self.goals):
                to_start, to_act = self.noise[i, t, :, g]
                if self.state[g] < 0:
                    starts = [c for c in range(WORLD.cells) if c != goal]
                    self.state[g], self.age[g] = starts[int(to_start * len(starts))] * CONTEXTS, 0
                state = self.state[g]
                chances = self.weights(g, state) / self.weights(g, state).sum()
                action = int(np.searchsorted(chances.cumsum()[:-1], to_act, side="right"))
                after, reward, reached = (x[0] for x in WORLD.step(*(np.array([x]) for x in (state, action, goal))))
                value = 0 if reached else np.log(self.weights(g, after).sum()) / self.s.beta
                self.q[g, state, action] += self.s.learning_rate * (
                    reward + self.s.gamma * value - self.q[g, state, action]
                )
                self.counts[g, state, action] += self.s.count_discount ** self.age[g]
                self.state[g], self.age[g] = -1 if reached else after, self.age[g] + 1
        if self.prior == "uniform":
            return
        self.counts *= self.s.count_decay
        for g in range(len(self.goals)):
            own = self.counts[g] if self.prior == "own" else self.counts.sum(0)
            self.pi0[g] = (own + self.s.pseudocount) / (own + self.s.pseudocount).sum(-1, keepdims=True)


@pytest.mark.parametrize("prior", ["shared", "own", "uniform"])
def test_learner_against_its_slow_twin(prior: str) -> None:
    s = TabularSettings(tasks=3, alpha=0.7, count_decay=0.99)
    learner = TabularDistral(WORLD, s, [4, 7], prior)  # type: ignore[arg-type]
    twins = [Twin(s, seed, prior) for seed in (4, 7)]
    for i in range(30):
        learner.iterate()
        for twin in twins:
            twin.iterate(i)
    assert learner.control_steps == 300
    for k, twin in enumerate(twins):
        assert np.array_equal(learner.goals[k], twin.goals)
        assert np.allclose(learner.q[k], twin.q, rtol=0, atol=1e-12)
        assert np.allclose(learner.counts[k], twin.counts, rtol=0, atol=1e-12)
        assert np.allclose(learner.pi0()[k], twin.pi0[: len(learner.pi0()[k])], rtol=0, atol=1e-12)
        assert np.abs(twin.q).max() > 0.1
    assert np.allclose(learner.policies().sum(-1), 1)


def test_a_seed_does_not_depend_on_its_neighbours() -> None:
    one, two = TabularDistral(WORLD, FEW, [7]), TabularDistral(WORLD, FEW, [4, 7])
    for _ in range(105):  # past one draw of random numbers
        one.iterate()
        two.iterate()
    assert np.array_equal(one.q[0], two.q[1])


def test_distral_learns_faster_than_separate_tasks() -> None:
    scores, points, choices = measure(TabularSettings(), range(2), 300, [DISTRAL, SEPARATE])
    area = {(s.variant, s.seed): s.area for s in scores}
    assert all(area[DISTRAL, k] > area[SEPARATE, k] + 0.1 for k in range(2))
    assert {s.control_steps for s in scores} == {3000}
    begin = [p.score for p in points if p.control_steps == 0]
    assert len(set(begin)) == 2  # one per seed, the same for both: all begin with the uniform policy
    own = [p.score for p in points if (p.variant, p.seed) == (DISTRAL, 0)]
    assert area[DISTRAL, 0] == pytest.approx((sum(own) - (own[0] + own[-1]) / 2) / (len(own) - 1))
    assert all(abs(c.stay + c.up + c.down + c.left + c.right - 1) < 1e-9 for c in choices)
    assert (4, 3, "right", STEP) in {(c.row, c.column, c.previous, c.reward) for c in choices}
    assert (1, 1, "right", STEP) not in {(c.row, c.column, c.previous, c.reward) for c in choices}  # a wall lies left


def test_keeping() -> None:
    pi0 = np.full((1, 1, WORLD.states, 5), 0.2)
    assert keeping(WORLD, pi0).tolist() == [[pytest.approx(0.2)] * 2]
    for c in np.flatnonzero(WORLD.corridor):
        pi0[:, :, c * CONTEXTS + 1 + 2 * LEFT] = np.eye(5)[LEFT]
        pi0[:, :, c * CONTEXTS + 1 + 2 * RIGHT] = [0.1, 0, 0, 0.2, 0.7]
    assert keeping(WORLD, pi0).tolist() == [[1, pytest.approx(0.7)]]


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a" / "rooms"
    flags = ["--seeds", 2, "--rollouts", 6, "--own-prior", "--out", out]
    assert typed(monkeypatch, "distral", "two-rooms", *flags) == 0
    said = capsys.readouterr().out
    assert "6/6 rollouts" in said
    assert {p.name for p in out.iterdir()} == {
        "README.md", "command.txt", "curves.csv", "curves.svg", "pi0.csv", "pi0.svg", "scores.csv",
    }  # fmt: skip
    assert len(read_csv(out / "scores.csv", SeedScore)) == 6
    assert len(read_csv(out / "curves.csv", Point)) == 6 * 7
    assert all((out / name).read_text().startswith("<svg xmlns") for name in ("curves.svg", "pi0.svg"))
    readme = out / "README.md"
    assert "Distral - separate soft Q-learning, area" in readme.read_text()
    before = readme.read_bytes()
    assert typed(monkeypatch, "distral", "two-rooms", *flags) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert readme.read_bytes() == before
    readme.write_text(readme.read_text() + "\nWords by hand.\n")
    assert typed(monkeypatch, "distral", "two-rooms", *flags, "--alpha", 0.5, "--overwrite") == 0
    assert "Words by hand." in readme.read_text()
    assert "alpha 0.5" in (out / "command.txt").read_text()


BAD = [
    ("--alpha 1.5: choose from 0", "--alpha", 1.5),
    ("--alpha -0.1: choose from 0", "--alpha", -0.1),
    ("--beta 0.0: an inverse temperature", "--beta", 0),
    ("--beta nan: an inverse temperature", "--beta", "nan"),
    ("--goals 29: the rooms have 28 cells", "--goals", 29),
    ("--goals 0: at least 1", "--goals", 0),
    ("--seeds 0: at least 1", "--seeds", 0),
    ("--rollouts 0: at least 1", "--rollouts", 0),
    ("is a file: name a folder", "--out", "file"),
    ("holds notes.txt", "--out", "mine", "--overwrite"),
]


@pytest.mark.parametrize(("match", "flags"), [(match, flags) for match, *flags in BAD])
def test_bad_input(
    match: str, flags: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("mine").mkdir()
    Path("mine/notes.txt").touch()
    assert typed(monkeypatch, "distral", "two-rooms", *flags) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert match in err
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["file", "mine", "mine/notes.txt"]


def test_actions_are_the_papers() -> None:
    assert ACTIONS == ("stay", "up", "down", "left", "right")
