"""Online distillation: who is the teacher when, what the targets are, and that the learner cannot tell."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import polydistill
from polydistill.algorithms.dqn import DQN, DQNSettings
from polydistill.algorithms.pqn import PQN, PQNSettings
from polydistill.envs.catch import CatchVec, catch_task
from polydistill.envs.suite import make_env, resolve_task
from polydistill.errors import UserError
from polydistill.evaluation.protocol import Protocol
from polydistill.rng import seeded_init
from polydistill.teachers.zoo import Network, build_network
from polydistill.training.online import Watched
from polydistill.training.shadow import Shadow, ShadowSettings
from tests.distilling import Exact, copies, fitted_net, states

TASK = catch_task("catch")
SMALL: dict[str, Any] = {
    "student": "mimic",
    "options": {"hidden": 32},
    "learning_starts": 64,
    "capacity": 2_000,
    "learning_rate": 3e-3,
    "max_learning_rate": 3e-2,
}


def shadow(seed: int = 1, kind: Any = "q", num_envs: int = 16, **settings: Any) -> Shadow:
    return Shadow(TASK, ShadowSettings.parse({**SMALL, **settings}, "test"), num_envs, seed=seed, kind=kind)


def fill(follower: Shadow, steps: int = 20, seed: int = 3) -> None:
    """``steps`` control steps of random play in each copy."""
    env, rng = CatchVec(TASK, follower.num_envs), np.random.default_rng(seed)
    obs, start = env.reset(seed), np.ones(follower.num_envs, bool)
    for _ in range(steps):
        follower.observe(obs, start)
        step = env.step(rng.integers(0, TASK.n_actions, follower.num_envs))
        obs, start = step.obs, step.ended


class Says(nn.Module):
    """A policy that says the same of every state; its numbers may be changed, as learning changes a network."""

    def __init__(self, *values: float):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, obs: Tensor) -> Tensor:
        return self.values.expand(len(obs), -1)


GOLDEN = Says(1.00, 1.01, 0.99)  # against logits 0: KL 0.2662167068 at tau 0.01 (Rusu et al. 2016)
LEVEL = Says(1.0, 1.0, 1.0)  # against logits 0: KL 0


def silent(**settings: Any) -> Shadow:
    """A student whose logits are 0 and stay there."""
    follower = shadow(learning_rate=1e-12, max_learning_rate=1e-11, **settings)
    for p in follower.student.parameters():
        p.data.zero_()
    return follower


# The teacher --------------------------------------------------------------------------------------------------------


def test_only_a_strictly_better_score_makes_a_teacher() -> None:
    """Rusu et al. 2016."""
    follower = shadow()
    assert follower.teacher is None
    taken, best = [], []
    for i, score in enumerate((3, 1, 5, 4, 5, 6)):
        taken.append(follower.offer(score, Says(float(i), 0.0, 0.0), control_steps=100 * i))
        assert follower.teacher is not None
        best.append(float(follower.teacher(torch.zeros(1, *TASK.obs_shape)).values[0, 0]))
    assert taken == [True, False, True, False, False, True]
    assert best == [0, 0, 2, 2, 2, 5]  # whose values the teacher gives; of equal scores the first
    assert (follower.best.score, follower.best.at) == (6, 500)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_refused(score: float) -> None:
    follower = shadow()
    follower.offer(2.0, LEVEL)
    with pytest.raises(UserError, match=r"catch: a score of .* after 7,000 control steps cannot be compared"):
        follower.offer(score, GOLDEN, 7_000)
    assert follower.best.score == 2.0


def test_a_policy_that_gives_no_numbers_is_refused() -> None:
    follower = shadow()
    follower.offer(2.0, LEVEL)
    with pytest.raises(UserError, match="expected outputs"):
        follower.offer(3.0, Says(1.0, 2.0))
    with pytest.raises(UserError, match="NaN or infinite"):
        follower.offer(3.0, Says(1.0, math.nan, 0.0))
    assert follower.best.score == 2.0
    assert follower.teacher is not None
    assert follower.teacher(torch.zeros(1, *TASK.obs_shape)).values.tolist() == [[1.0, 1.0, 1.0]]


def test_the_teacher_is_a_copy_that_no_longer_learns() -> None:
    follower, net = silent(), Says(1.00, 1.01, 0.99)
    fill(follower)
    follower.offer(1.0, net)
    with torch.no_grad():
        net.values.copy_(torch.tensor([1.0, 1.0, 1.0]))  # the learner goes on
    assert follower.learn(1)["loss"] == pytest.approx(0.2662167068, abs=1e-5)
    assert net.values.requires_grad
    assert net.training


# The targets --------------------------------------------------------------------------------------------------------


def test_targets_come_from_the_best_of_that_moment() -> None:
    """Every frame was seen under the first teacher; had its outputs been kept, the loss would stay what it was."""
    follower = silent()
    fill(follower)
    follower.offer(1.0, GOLDEN)
    assert follower.learn(2)["loss"] == pytest.approx(0.2662167068, abs=1e-5)
    kept = len(follower.memory)
    assert follower.offer(2.0, LEVEL)
    assert len(follower.memory) == kept  # on_swap is keep
    assert follower.learn(2)["loss"] == pytest.approx(0.0, abs=1e-6)
    assert not follower.offer(2.0, GOLDEN)
    assert follower.learn(2)["loss"] == pytest.approx(0.0, abs=1e-6)
    assert follower.offer(3.0, GOLDEN)
    assert follower.learn(2)["loss"] == pytest.approx(0.2662167068, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "kind", "expected"),
    [
        ({"temperature": 0.1}, "q", 3.32502e-3),  # Rusu et al. 2016
        ({"temperature": 0.1}, "logits", 3.33325e-5),  # a policy's own logits have temperature 1
        ({"loss": "nll"}, "q", math.log(3)),
        ({"loss": "mse"}, "q", 1.00**2 + 1.01**2 + 0.99**2),
        ({"loss": "huber"}, "q", 0.5 * 1.00**2 + (1.01 - 0.5) + 0.5 * 0.99**2),
    ],
)
def test_the_losses(settings: dict[str, Any], kind: str, expected: float) -> None:
    follower = silent(kind=kind, **settings)
    fill(follower)
    follower.offer(1.0, GOLDEN)
    assert follower.learn(1)["loss"] == pytest.approx(expected, rel=5e-3)


def test_the_student_follows_from_one_teacher_to_the_next() -> None:
    follower = shadow()
    fill(follower, 60)
    obs = torch.from_numpy(states("catch"))
    right = Exact("catch")(obs).argmax(-1).numpy()
    wrong = lambda o: -Exact("catch")(o)  # noqa: E731
    follower.offer(-5.0, wrong)
    before = copies(follower.student)
    follower.learn(150)
    assert follower.updates == 150
    assert all(not torch.equal(v, before[k]) for k, v in follower.student.state_dict().items())
    assert (follower.greedy(obs.numpy()) == right).mean() < 0.3
    follower.offer(5.0, Exact("catch"))
    metrics = follower.learn(300)
    assert metrics["agreement"] > 0.8
    assert (follower.greedy(obs.numpy()) == right).mean() > 0.8
    rows = follower.evaluate(Protocol(episodes=10), control_steps=77)
    assert np.mean([r.score for r in rows]) > 4  # random play scores -2
    assert (rows[0].variant, rows[0].updates, rows[0].control_steps) == ("student", 450, 77)


def test_flush_forgets_what_was_seen_but_only_when_a_teacher_is_replaced() -> None:
    follower = shadow(on_swap="flush")
    fill(follower)
    follower.offer(1.0, GOLDEN)
    assert len(follower.memory) == 320  # what was seen before there was a teacher is kept
    follower.offer(0.5, LEVEL)
    assert len(follower.memory) == 320
    assert follower.learn(1)
    follower.offer(2.0, LEVEL)
    assert len(follower.memory) == 0
    assert follower.learn(1) == {}
    fill(follower)
    assert follower.learn(1)


# When it learns -----------------------------------------------------------------------------------------------------


def test_the_student_waits_for_a_teacher_and_for_enough_to_learn_from() -> None:
    follower = shadow(learning_starts=160, update_period=16)
    before = copies(follower.student)
    fill(follower, 20)
    assert follower.catch_up() == follower.learn(5) == {}  # no teacher
    late = shadow(learning_starts=160)
    late.offer(1.0, GOLDEN)
    fill(late, 9)
    assert late.learn(5) == {}  # 144 observations
    fill(late, 1)
    assert late.learn(5)
    assert follower.updates == 0
    assert all(torch.equal(v, before[k]) for k, v in follower.student.state_dict().items())
    follower.offer(1.0, GOLDEN)
    assert follower.catch_up() == {}  # what was seen while it waited owes nothing
    fill(follower, 5)
    assert follower.catch_up()
    assert follower.updates == 5  # 80 control steps
    fill(follower, 3)
    follower.catch_up()
    assert follower.updates == 8
    assert follower.seen == 28 * 16
    fill(follower, 4)
    assert follower.catch_up(0) == {}  # they filled a memory again, after a resume
    fill(follower, 4)
    follower.catch_up(24)  # 40 of the 64 did
    assert follower.updates == 9
    fill(follower, 1)
    follower.catch_up(16)  # the 8 left over count
    assert follower.updates == 10
    follower.catch_up(8)  # nothing was shown
    assert follower.updates == 10


def test_an_update_without_a_finite_gradient_is_skipped_and_many_are_an_error() -> None:
    follower = shadow()
    fill(follower)
    sick = [False]

    def policy(obs: Tensor) -> Tensor:
        return torch.full((len(obs), 3), math.nan if sick[0] else 1.0)

    follower.offer(1.0, policy)
    sick[0] = True
    before = copies(follower.student)
    with pytest.raises(UserError, match=r"20 updates of the shadow student in a row .* smaller shadow.learning_rate"):
        follower.learn(30)
    assert follower.skipped == 20
    assert all(torch.equal(v, before[k]) for k, v in follower.student.state_dict().items())


# The learner --------------------------------------------------------------------------------------------------------

FAST = PQNSettings(num_envs=16, rollout=8, minibatch=64, learning_rate=2e-3, warmup_updates=20)
NATURE = DQNSettings(learning_starts=600, epsilon_steps=2000, target_period=250, learning_rate=1e-3, capacity=5000)


def learner(kind: Any, settings: Any, follower: Shadow | None) -> Tensor:
    env: Any = make_env(TASK, settings.num_envs)
    if follower is not None:
        env = Watched(env, [follower.observe])
    with seeded_init(0):
        net = build_network(TASK, Network(hidden=32, norm=kind is PQN))
    trainer = kind(env, net, settings, 4_000, 0, "cpu")
    trainer.report_every = 200
    for _ in trainer.run():
        if follower is not None:
            follower.offer(trainer.steps, trainer.net, trainer.steps)
            follower.catch_up()
        if trainer.steps >= 1_000:
            break
    assert trainer.updates >= 40
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize(("kind", "settings"), [(PQN, FAST), (DQN, NATURE)], ids=["pqn", "dqn"])
def test_the_learner_is_the_same_with_and_without_a_shadow(kind: Any, settings: Any) -> None:
    follower = shadow(num_envs=settings.num_envs)
    alone, followed = learner(kind, settings, None), learner(kind, settings, follower)
    assert torch.equal(alone, followed)
    assert follower.updates > 40
    assert follower.best.at == 1_000 if kind is DQN else follower.best.at > 900
    other = shadow(seed=2, num_envs=settings.num_envs)
    assert torch.equal(alone, learner(kind, settings, other))
    assert not any(torch.equal(v, copies(other.student)[k]) for k, v in copies(follower.student).items() if v.dim() > 1)


def test_watchers_see_what_the_player_sees() -> None:
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    env = Watched(CatchVec(TASK, 3), [lambda obs, start: shown.append((obs.copy(), start.copy()))])
    twin = CatchVec(TASK, 3)
    rng = np.random.default_rng(0)
    seen, starts = [env.reset(5)], [np.ones(3, bool)]
    assert np.array_equal(seen[0], twin.reset(5))
    for _ in range(100):
        actions = rng.integers(0, 3, 3)
        step, same = env.step(actions), twin.step(actions)
        assert np.array_equal(step.obs, same.obs)
        assert np.array_equal(step.reward, same.reward)
        seen.append(step.obs)
        starts.append(step.ended)
    assert len(shown) == 101
    assert all(np.array_equal(a, b) for (a, _), b in zip(shown, seen, strict=True))
    assert all(np.array_equal(a, b) for (_, a), b in zip(shown, starts, strict=True))
    assert sum(s.sum() for s in starts) > 6


# Checkpoints --------------------------------------------------------------------------------------------------------


def test_after_a_checkpoint_everything_goes_on_alike() -> None:
    first = shadow()
    fill(first)
    first.offer(1.5, fitted_net("catch"), 400)
    first.learn(20)
    tensors, counters = first.state()
    tensors = {part: {k: v.clone() for k, v in named.items()} for part, named in tensors.items()}
    second = shadow(seed=9)  # other first weights, another stream of minibatches
    blank = build_network(TASK, Network(hidden=64))
    second.load_state(tensors, counters, blank)
    assert (second.seed, second.updates, second.seen) == (1, 20, 320)
    assert (second.best.score, second.best.at) == (1.5, 400)
    first.memory.clear()  # as after a restart
    for follower in (first, second):
        fill(follower, seed=4)
        follower.learn(20)
        assert not follower.offer(1.5, LEVEL)
    theirs = copies(second.student)
    assert all(torch.equal(v, theirs[k]) for k, v in first.student.state_dict().items())
    moments = [f.state()[0]["optimizer"] for f in (first, second)]
    assert all(torch.equal(moments[0][k], moments[1][k]) for k in moments[0])


def test_before_the_first_offer_there_is_no_teacher_to_save() -> None:
    first, second = shadow(), shadow()
    fill(first)
    second.load_state(*first.state())
    assert second.teacher is None
    assert second.best.score == -math.inf
    assert second.offer(-100.0, LEVEL)


def test_a_checkpoint_that_does_not_fit_is_one_line() -> None:
    first = shadow()
    first.offer(1.0, fitted_net("catch"))
    tensors, counters = first.state()
    with pytest.raises(UserError, match="the saved shadow student does not fit"):
        shadow(options={"hidden": 16}).load_state(tensors, counters, fitted_net("catch"))
    with pytest.raises(UserError, match="catch: a teacher was saved: give a network"):
        shadow().load_state(tensors, counters)
    with pytest.raises(UserError, match="catch: the saved teacher is of another network"):
        shadow().load_state(tensors, counters, build_network(TASK, Network(hidden=8)))


# Bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"student": "net4"}, "unknown student 'net4': did you mean 'net"),
        ({"student": "mimik"}, "unknown student 'mimik': did you mean 'mimic'?"),
        ({"student": "task_torsos", "options": {}}, "task_torsos keeps one teacher's convolutions"),
        ({"options": {"hiden": 3}}, "student 'mimic' has no setting 'hiden': did you mean 'hidden'?"),
        ({"options": {"hidden": -3}}, "do not make a mimic"),
        ({"capacity": 8}, "a memory of 8 observations cannot hold one of each of 16 copies of catch"),
        ({"size": "much"}, "'much' is no memory size"),
        ({"loss": "kk"}, "loss: Input should be 'kl', 'nll', 'mse'"),
        ({"on_swap": "forget"}, "on_swap: Input should be 'keep' or 'flush'"),
        ({"temperature": 0}, "temperature: Input should be greater than 0"),
        ({"seeds": [1, 1]}, "seeds: seeds are different and not negative"),
        ({"period": 3}, "unknown key 'period'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        shadow(**settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_mse_needs_q_values() -> None:
    with pytest.raises(UserError, match="loss mse needs Q-values, but the learner of catch gives logits"):
        shadow(kind="logits", loss="mse")


def test_frames_of_another_shape_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"observation batch is uint8 \[16, 1, 10, 8\], expected uint8 \[16, 1, 10, 5\]"
    ):
        shadow().observe(np.zeros((16, 1, 10, 8), np.uint8))


# Around somebody else's loop ----------------------------------------------------------------------------------------


def test_the_guides_loop_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The guide's DQN on CartPole, shortened."""
    guide = Path(__file__).parents[2] / "docs" / "guides" / "online-distillation.md"
    code = re.findall(r"```python\n(.*?)```", guide.read_text(), re.S)[0]
    for old, new in (
        ("= 30_000, 2_000", "= 2_000, 1_000"),
        ("update_period=4", "update_period=4, learning_starts=900"),
    ):
        assert code.count(old) == 1
        code = code.replace(old, new)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["shadow"].seen == 2_000
    assert names["shadow"].updates == 251  # at steps 1,000, 1,004, ... 2,000
    assert re.fullmatch(r"( +[12]000 learner +[\d.]+ best +[\d.]+ student +[\d.]+\n){2}", capsys.readouterr().out)
    action, _ = polydistill.load("runs/cartpole-student").predict(np.zeros(4, np.float32))
    assert int(action) in (0, 1)


def following(shadow: Shadow, game: Any, every: int) -> Any:
    """The guide's callback for Stable-Baselines3, made where that, or what stands in for it, can be imported."""
    guide = Path(__file__).parents[2] / "docs" / "guides" / "online-distillation.md"
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", guide.read_text(), re.S)[1], names)
    return names["Follow"](shadow, game, every)


def cartpole() -> Shadow:
    small = {"student": "mimic", "options": {"hidden": 8}, "learning_starts": 50, "capacity": 1_000, "update_period": 4}
    return Shadow(resolve_task("gym:CartPole-v1"), ShadowSettings.parse(small, "test"))


def test_the_guides_callback_shows_and_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step's observation with whether an episode begins there; every 40 steps the network with its score."""
    scores = iter([(5.0, 0.0), (3.0, 0.0), (9.0, 0.0)])

    class BaseCallback:
        def __init__(self) -> None:
            self.model, self.num_timesteps, self.locals = SimpleNamespace(q_net=Says(0.0, 1.0)), 0, {}

    def evaluate_policy(model: Any, game: Any, n_eval_episodes: int, warn: bool) -> tuple[float, float]:
        assert (model, game) == (callback.model, "game")
        return next(scores)

    for name, content in (
        ("callbacks", {"BaseCallback": BaseCallback}),
        ("evaluation", {"evaluate_policy": evaluate_policy}),
    ):
        monkeypatch.setitem(sys.modules, f"stable_baselines3.common.{name}", SimpleNamespace(**content))
    follower = cartpole()
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    observe = follower.observe
    monkeypatch.setattr(follower, "observe", lambda obs, start: (shown.append((obs, start)), observe(obs, start)))
    callback = following(follower, "game", 40)
    for step in range(1, 121):
        obs, dones = np.full((1, 4), step, np.float32), np.array([step % 9 == 0])
        callback.num_timesteps, callback.locals = step, {"new_obs": obs, "dones": dones}
        callback.model.q_net.values.data[0] = step  # it goes on learning
        assert callback._on_step()
        assert shown[-1][0] is obs
        assert shown[-1][1] is dones
    assert (follower.seen, follower.best.score, follower.best.at) == (120, 9.0, 120)
    assert follower.teacher is not None
    assert follower.teacher(torch.zeros(1, 4)).values.tolist() == [[120.0, 1.0]]
    assert follower.updates == 18  # from step 52 to 120, every fourth
    assert next(scores, None) is None


def test_the_guides_callback_with_stable_baselines3() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    follower = cartpole()
    model = sb3.DQN("MlpPolicy", "CartPole-v1", learning_starts=20, policy_kwargs={"net_arch": [8]}, seed=1)
    model.learn(160, callback=following(follower, gymnasium.make("CartPole-v1"), 80))
    assert (follower.seen, follower.best.at in (80, 160)) == (160, True)
    assert follower.best.score >= 8
    assert follower.updates >= 15
