"""The seven agents: which network learns from which term, and the terms' values."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch
from torch import Tensor

from polydistill.algorithms.distral import AGENTS, GAUSSIAN, Agent, Unroll, losses, total

#: Agent -> (terms that reach h, terms that reach f); Teh et al. 2017.
GRADIENTS = {
    "A3C": (set(), {"policy", "entropy"}),
    "A3C_multitask": ({"policy", "entropy"}, set()),
    "A3C_2col": ({"policy", "entropy"}, {"policy", "entropy"}),
    "KL_1col": ({"distill"}, {"policy"}),
    "KL+ent_1col": ({"distill"}, {"policy"}),
    "KL_2col": ({"policy", "distill"}, {"policy"}),
    "KL+ent_2col": ({"policy", "distill"}, {"policy"}),
}


def unroll_of(agent: Agent, steps: int = 3, copies: int = 2, **changes: Any) -> Unroll:
    g = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).requires_grad_()

    shape = (steps, copies)
    kept: dict[str, Any] = {
        "h": leaf(*shape, 4) if agent.has_h else None,
        "f": leaf(*shape, 4) if agent.own else None,
        "value": leaf(*shape),
        "shared_value": leaf(*shape) if agent.has_h and agent.own else None,
        "action": torch.randint(0, 4, shape, generator=g),
        "reward": torch.randn(shape, generator=g, dtype=torch.float64),
        "next_value": leaf(*shape),
        "terminated": torch.zeros(shape, dtype=torch.bool),
        "ended": torch.zeros(shape, dtype=torch.bool),
    }
    return Unroll(**(kept | changes))


def reached(loss: Tensor, tensor: Tensor | None) -> bool:
    if tensor is None:
        return False
    (grad,) = torch.autograd.grad(loss, tensor, retain_graph=True, allow_unused=True)
    return grad is not None and bool((grad != 0).any())


@pytest.mark.parametrize("name", AGENTS)
def test_which_network_gets_which_gradient(name: str) -> None:
    agent = AGENTS[name]
    unroll = unroll_of(agent)
    found = losses(agent, unroll, beta=5.0)
    to_h = {term for term, loss in found.items() if reached(loss, unroll.h)}
    to_f = {term for term, loss in found.items() if reached(loss, unroll.f)}
    assert (to_h, to_f) == GRADIENTS[name]
    assert reached(found["value"], unroll.value)
    assert not reached(found["policy"], unroll.value)  # a baseline is a constant
    assert not any(reached(loss, unroll.next_value) for loss in found.values())
    assert ("coupling" in found) == (agent.has_h and agent.own)
    if "coupling" in found:
        assert reached(found["coupling"], unroll.value)
        assert reached(found["coupling"], unroll.shared_value)


def gaussian(mean: float, variance: float) -> Tensor:
    return torch.tensor([[[[mean], [variance]]]], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("name", AGENTS)
def test_which_network_gets_which_gradient_of_a_continuous_action(name: str) -> None:
    agent = AGENTS[name]
    h, f = gaussian(0.5, 2) if agent.has_h else None, gaussian(0, 1) if agent.own else None
    action = torch.full((1, 1, 1), 0.25, dtype=torch.float64)
    found = losses(agent, unroll_of(agent, 1, 1, h=h, f=f, action=action, family=GAUSSIAN), beta=5.0)
    to_h = {term for term, loss in found.items() if reached(loss, h)}
    to_f = {term for term, loss in found.items() if reached(loss, f)}
    assert (to_h, to_f) == GRADIENTS[name]


def test_values_of_the_terms_for_a_continuous_action() -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    step: dict[str, Any] = {"value": one / 4, "shared_value": None, "reward": one, "next_value": 99 * one}
    step |= {"terminated": one > 0, "ended": one > 0, "action": torch.ones(1, 1, 1, dtype=torch.float64)}
    step["family"] = GAUSSIAN
    # A3C, N(0, 1), the action 1: log pi = -1.4189385332, entropy 1.4189385332, advantage 3/4.
    found = losses(AGENTS["A3C"], unroll_of(AGENTS["A3C"], h=None, f=gaussian(0, 1), **step), beta=2.0)
    assert found["policy"].item() == pytest.approx(1.4189385332 * 0.75)
    assert found["entropy"].item() == pytest.approx(-1.4189385332 / 2)
    # KL+ent_2col, pi_0 = N(2, 1), f = N(0, 2): precision 1/2 + 1/2, mean 1; so log pi = -0.9189385332 and
    # log pi_0 = -1.4189385332, and -E_pi[log pi_0] = (1 + 1) / 2 + 0.9189385332.
    agent = AGENTS["KL+ent_2col"]
    found = losses(agent, unroll_of(agent, h=gaussian(2, 1), f=gaussian(0, 2), **step), beta=2.0)
    reward = 1 - 1.4189385332 / 4 + 0.9189385332 / 2
    assert found["policy"].item() == pytest.approx(0.9189385332 * (reward - 0.25))
    assert found["distill"].item() == pytest.approx(1.9189385332 / 4)
    assert found["value"].item() == pytest.approx((reward - 0.25) ** 2 / 4)


def test_table_one() -> None:
    assert {name: agent.alpha for name, agent in AGENTS.items()} == {
        "A3C": 0, "A3C_multitask": 0, "A3C_2col": 0, "KL_1col": 1, "KL+ent_1col": 0.5, "KL_2col": 1, "KL+ent_2col": 0.5,
    }  # fmt: skip
    h, f = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 0.0])
    assert AGENTS["A3C"].logits(None, f).tolist() == [10, 0]
    assert AGENTS["KL+ent_1col"].logits(h, f).tolist() == [10, 0]
    assert AGENTS["A3C_multitask"].logits(h, None).tolist() == [1, 2]
    assert AGENTS["A3C_2col"].logits(h, f).tolist() == [11, 2]
    assert AGENTS["KL_2col"].logits(h, f).tolist() == [11, 2]
    assert AGENTS["KL+ent_2col"].logits(h, f).tolist() == [10.5, 1]


def single(agent: Agent, h: list[float] | None, f: list[float] | None, **changes: Any) -> dict[str, float]:
    """Loss terms of one step that ends."""
    true = torch.ones(1, 1, dtype=torch.bool)
    given: dict[str, Any] = {
        "h": None if h is None else torch.tensor([[h]]),
        "f": None if f is None else torch.tensor([[f]]),
        "value": torch.tensor([[0.25]]),
        "shared_value": torch.tensor([[0.75]]) if agent.has_h and agent.own else None,
        "action": torch.tensor([[0]]),
        "reward": torch.tensor([[1.0]]),
        "next_value": torch.tensor([[99.0]]),
        "terminated": true,
        "ended": true,
    }
    return {k: float(v) for k, v in losses(agent, Unroll(**(given | changes)), beta=2.0).items()}


def test_values_of_the_terms() -> None:
    third = [log(3.0), 0.0]  # probabilities 3/4 and 1/4
    found = single(AGENTS["A3C"], None, third)
    # -log(3/4) (1 - 1/4); half of half of (1 - 1/4)^2; entropy 0.5623351446 / 2.
    assert found == pytest.approx({"policy": 0.2157615543, "value": 0.140625, "entropy": -0.2811675723})
    # KL_2col, h = 0: pi = f = (3/4, 1/4). R' = 1 + log(1/2) / 2 - log(3/4) / 2 = 0.7972674459.
    found = single(AGENTS["KL_2col"], [0.0, 0.0], third)
    assert found["policy"] == pytest.approx(0.2876820724 * (0.7972674459 - 0.25))
    assert found["value"] == pytest.approx((0.7972674459 - 0.25) ** 2 / 4)
    assert found["distill"] == pytest.approx(0.6931471806 / 2)
    assert found["coupling"] == pytest.approx(0.005 * 0.25 / 2)
    # KL+ent_2col: pi is softmax(h / 2 + f), R' = 1 + log pi_0 / 4 - log pi / 2.
    found = single(AGENTS["KL+ent_2col"], [2 * log(3.0), 0.0], [0.0, 0.0])
    r = 1 + log(0.9) / 4 - log(0.75) / 2
    assert found["policy"] == pytest.approx(0.2876820724 * (r - 0.25))
    assert found["distill"] == pytest.approx(-(0.75 * log(0.9) + 0.25 * log(0.1)) / 4)


def test_a_cut_episode_bootstraps_and_an_ended_one_does_not() -> None:
    false = torch.zeros(1, 1, dtype=torch.bool)
    assert single(AGENTS["A3C"], None, [0.0, 0.0])["value"] == pytest.approx((1 - 0.25) ** 2 / 4)
    cut = single(AGENTS["A3C"], None, [0.0, 0.0], terminated=false)
    assert cut["value"] == pytest.approx((1 + 0.99 * 99 - 0.25) ** 2 / 4)


def test_returns_go_on_over_the_unroll() -> None:
    agent = AGENTS["A3C"]
    u = unroll_of(agent, 3, 1)
    returns = torch.empty(3, dtype=torch.float64)
    after = u.next_value[2, 0]
    for t in (2, 1, 0):
        returns[t] = after = u.reward[t, 0] + 0.9 * after
    found = losses(agent, u, beta=1.0, gamma=0.9)
    assert found["value"].item() == pytest.approx((returns - u.value[:, 0]).square().mean().item() / 4)


def test_the_tasks_pull_the_shared_policy_to_their_mean() -> None:
    """Teh et al. 2017: with two opposite tasks, descent on the distillation term takes pi_0 to the mean policy."""
    h = torch.zeros(1, 1, 2, requires_grad=True)
    f = [torch.tensor([[[log(9.0), 0.0]]]), torch.tensor([[[0.0, log(4.0)]]])]
    for _ in range(400):
        parts = []
        for own in f:
            zero, false = torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.bool)
            unroll = Unroll(h, own, zero, None, torch.zeros(1, 1, dtype=torch.int64), zero, zero, false, false)
            parts.append(losses(AGENTS["KL_1col"], unroll, beta=1.0)["distill"])
        (grad,) = torch.autograd.grad(torch.stack(parts).sum(), h)
        h = (h - grad).detach().requires_grad_()
    assert h.softmax(-1)[0, 0].tolist() == pytest.approx([(0.9 + 0.2) / 2, (0.1 + 0.8) / 2], abs=1e-4)


def test_beta_must_be_positive() -> None:
    with pytest.raises(ValueError, match="beta"):
        losses(AGENTS["A3C"], unroll_of(AGENTS["A3C"]), beta=0.0)
    assert total({"a": torch.tensor(1.0), "b": torch.tensor(2.5)}).item() == 3.5
