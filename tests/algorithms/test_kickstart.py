"""Kickstarting, and the warm-up of a last layer: the schedule, the gradient, and what learners do with them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from polydistill.algorithms.dqn import DQN, DQNSettings
from polydistill.algorithms.kickstart import Kickstart, KickstartSettings, Together, Warmup
from polydistill.algorithms.pqn import PQN, PQNSettings
from polydistill.envs.catch import CatchVec, catch_task
from polydistill.errors import UserError
from polydistill.rng import seeded_init
from polydistill.teachers.zoo import Network, build_network
from tests.distilling import Exact, copies, states

SMALL_DQN = DQNSettings(
    num_envs=4, minibatch=32, capacity=2_000, learning_starts=64, update_period=4, target_period=200,
    optimizer="adam", learning_rate=1e-3, epsilon_steps=400,
)  # fmt: skip
SMALL_PQN = PQNSettings(num_envs=8, rollout=8, minibatch=32, learning_rate=1e-3, warmup_updates=5)


@pytest.fixture(autouse=True)
def _report_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DQN, "report_every", 20)  # control steps between two looks at the learner


class Fixed(nn.Module):
    """The same answer to every observation; counts how often it was asked."""

    def __init__(self, *values: float):
        super().__init__()
        self.values, self.asked = torch.tensor(values), 0

    def forward(self, obs: Tensor) -> Tensor:
        self.asked += 1
        return self.values.expand(len(obs), -1)


def learner(algorithm: str) -> Any:
    with seeded_init(3):
        net = build_network(catch_task(), Network(hidden=32, norm=algorithm == "pqn"))
    if algorithm == "dqn":
        return DQN(CatchVec(catch_task(), 4), net, SMALL_DQN, 2_000, 1, "cpu")
    return PQN(CatchVec(catch_task(), 8), net, SMALL_PQN, 2_000, 1, "cpu")


def trained(algorithm: str, assist: Any, steps: int) -> Any:
    made = learner(algorithm)
    made.assist = assist
    for _ in itertools.takewhile(lambda _: made.steps < steps, made.run()):
        pass
    return made


def test_the_weight_falls_to_exactly_nothing() -> None:
    kick = KickstartSettings(teacher="x", weight=2.0, steps=100)
    assert [kick.at(s) for s in (0, 25, 99, 100, 101, 10**9)] == [2.0, 1.5, pytest.approx(0.02), 0.0, 0.0, 0.0]
    assert KickstartSettings(teacher="x", steps=0).at(0) == 0.0
    assert KickstartSettings(teacher="x", weight=0.0).at(0) == 0.0
    with pytest.raises(UserError, match="weight: Input should be greater than or equal to 0"):
        KickstartSettings.parse({"teacher": "x", "weight": -1}, "kickstart")


def test_the_learners_own_loss_rises_to_exactly_itself() -> None:
    kick = KickstartSettings(teacher="x", steps=100, rl_start=0.2)
    assert [kick.rl_at(s) for s in (0, 25, 50, 100, 10**9)] == [0.2, 0.4, pytest.approx(0.6), 1.0, 1.0]
    assert KickstartSettings(teacher="x", steps=0, rl_start=0.2).rl_at(0) == 1.0
    plain = KickstartSettings(teacher="x", steps=100)  # as Schmitt et al.: always whole
    assert {plain.rl_at(s) for s in range(120)} == {1.0}
    later = Kickstart(kick, Fixed(0.0, 1.0), True, first=50)
    assert [later.share(s) for s in (0, 50, 75, 150)] == [0.2, 0.2, 0.4, 1.0]
    for wrong in (-0.1, 1.1):
        with pytest.raises(UserError, match="rl_start: Input should be"):
            KickstartSettings.parse({"teacher": "x", "rl_start": wrong}, "kickstart")


@pytest.mark.parametrize("algorithm", ["dqn", "pqn"])
def test_without_a_share_the_learners_own_loss_teaches_nothing(algorithm: str) -> None:
    """A weight of 0 leaves the learner's own loss alone: times 0 nothing moves, times 1 it is no kickstart."""

    def after(rl_start: float, steps: int) -> dict[str, Tensor]:
        chosen = KickstartSettings(teacher="x", weight=0.0, steps=steps, rl_start=rl_start)
        return copies(trained(algorithm, Kickstart(chosen, Exact("catch"), True, 64), 200).net)

    first, plain = copies(learner(algorithm).net), copies(trained(algorithm, None, 200).net)
    still = after(0.0, 10**12)
    assert all((still[k] - v).abs().max() < 1e-6 for k, v in first.items())  # a share of 1e-10: Adam's eps drowns it
    assert all(torch.equal(plain[k], v) for k, v in after(1.0, 10**12).items())
    grown = after(0.0, 100)  # the share is whole from control step 164 on
    assert not any(torch.equal(first[k], v) for k, v in grown.items())
    assert not all(torch.equal(plain[k], v) for k, v in grown.items())


@pytest.mark.parametrize("values", [True, False])
def test_the_terms_value_and_gradient(values: bool) -> None:
    """Teacher (.8, .2), learner (.5, .5): tau KL = .01 (.8 ln 1.6 + .2 ln .4), its gradient (-.3, .3) / B."""
    scale = 0.01 if values else 1.0  # the temperature divides Q-values and leaves logits alone
    teacher = Fixed(scale * np.log(0.8), scale * np.log(0.2))
    kick = Kickstart(KickstartSettings(teacher="x", weight=3.0, steps=100), teacher, values, first=50)
    q = torch.zeros(2, 2, requires_grad=True)
    term = kick.term(50, torch.zeros(2, 1), q)
    assert term is not None
    assert term.item() == pytest.approx(3 * 0.00192745, rel=1e-4)
    term.backward()
    assert q.grad is not None
    assert q.grad.numpy() == pytest.approx(np.array([[-0.45, 0.45], [-0.45, 0.45]]), rel=1e-4)
    half = kick.term(100, torch.zeros(2, 1), q)
    assert half is not None
    assert half.item() == pytest.approx(1.5 * 0.00192745, rel=1e-4)
    asked = teacher.asked
    assert kick.term(150, torch.zeros(2, 1), q) is None
    assert teacher.asked == asked  # nor does it cost anything then
    assert kick.term(0, torch.zeros(2, 1), q) is not None  # before the first update the weight has not begun to fall


@pytest.mark.parametrize("algorithm", ["dqn", "pqn"])
def test_a_weight_of_nothing_is_no_kickstart_bit_for_bit(algorithm: str) -> None:
    plain = copies(trained(algorithm, None, 300).net)
    none = Kickstart(KickstartSettings(teacher="x", steps=0), Exact("catch"), True)
    assert all(torch.equal(plain[k], v) for k, v in trained(algorithm, none, 300).net.state_dict().items())
    some = Kickstart(KickstartSettings(teacher="x", steps=10_000), Exact("catch"), True)
    assert not all(torch.equal(plain[k], v) for k, v in trained(algorithm, some, 300).net.state_dict().items())


@pytest.mark.parametrize("algorithm", ["dqn", "pqn"])
def test_the_teacher_is_asked_until_the_decay_is_over(algorithm: str) -> None:
    first = 64 if algorithm == "dqn" else 0
    teacher = Exact("catch")
    kick = Kickstart(KickstartSettings(teacher="x", steps=256), teacher, True, first)
    when: list[int] = []
    made = learner(algorithm)
    teacher.register_forward_hook(lambda *_: when.append(made.steps))
    made.assist = kick
    for _ in itertools.takewhile(lambda _: made.steps < 500, made.run()):
        pass
    assert first <= min(when) <= first + 64
    assert first + 256 - 64 <= max(when) < first + 256


@pytest.mark.parametrize("algorithm", ["dqn", "pqn"])
def test_a_kickstarted_learner_soon_acts_as_its_teacher(algorithm: str) -> None:
    obs = torch.from_numpy(states("catch"))
    best = Exact("catch")(obs)

    def agreement(net: nn.Module) -> float:
        with torch.inference_mode():
            chosen = net(obs).argmax(1, keepdim=True)
        return float((best.gather(1, chosen).squeeze(1) >= best.amax(1) - 1e-6).float().mean())

    kick = Kickstart(KickstartSettings(teacher="x", weight=1.0, steps=20_000), Exact("catch"), True)
    steps = {"dqn": 1_200, "pqn": 3_000}[algorithm]
    plain, kicked = (agreement(trained(algorithm, assist, steps).net) for assist in (None, kick))
    assert kicked > 0.7
    assert kicked > plain + 0.15


@pytest.mark.parametrize("algorithm", ["dqn", "pqn"])
def test_in_the_warm_up_only_the_last_layer_learns(algorithm: str) -> None:
    made = learner(algorithm)
    before = copies(made.net)
    made.assist = Together(Warmup(made.net, "output", 30))
    moved: dict[str, int] = {}
    for _ in made.run():
        for name, tensor in made.net.state_dict().items():
            if name not in moved and not torch.equal(tensor, before[name]):
                moved[name] = made.updates
        if made.updates > 60:
            break
    body = [n for name, n in moved.items() if not name.startswith("output.")]
    assert moved.keys() == before.keys()  # everything learns in the end
    assert min(body) > 30
    if algorithm == "pqn":  # which reports every few updates
        assert moved["output.weight"] <= 30


def test_together_adds_up() -> None:
    kick = Kickstart(KickstartSettings(teacher="x"), Fixed(0.0, 1.0), False)
    q = torch.zeros(1, 2)
    one, two = kick.term(0, q, q), Together(kick, Warmup(nn.Linear(1, 1), "x", 0), kick).term(0, q, q)
    assert one is not None
    assert two is not None
    assert float(two) == pytest.approx(2 * float(one))
    assert Together(Warmup(nn.Linear(1, 1), "x", 0)).term(0, q, q) is None
    half = Kickstart(KickstartSettings(teacher="x", steps=100, rl_start=0.0), Fixed(0.0, 1.0), False)
    assert Together(half, Warmup(nn.Linear(1, 1), "x", 0), half).share(50) == 0.25
    assert Together(kick, Warmup(nn.Linear(1, 1), "x", 0)).share(0) == 1.0
