"""ops/gaussian.py: closed forms against typed-in numbers and against sums over a fine grid of actions."""

from __future__ import annotations

from math import log, pi

import pytest
import torch
from torch import Tensor

from polydistill.ops import gaussian as ops
from polydistill.ops.distral import regularised_reward

GRID = torch.linspace(-30, 30, 60_001, dtype=torch.float64)  # a step of 0.001, over many standard deviations
STEP = 0.001


def of(mean: float, variance: float) -> Tensor:
    return torch.tensor([[mean], [variance]], dtype=torch.float64)


def on_grid(policy: Tensor) -> Tensor:
    """log-density at every action of the grid."""
    return ops.log_prob(policy.expand(len(GRID), 2, 1), GRID[:, None])


def expected(policy: Tensor, values: Tensor) -> float:
    return float((on_grid(policy).exp() * values).sum() * STEP)


P, Q = of(0.5, 0.36), of(-0.25, 2.25)


def test_typed_in_numbers() -> None:
    # N(0, 1) at 0 and 2: -log(2 pi) / 2, and 2 less. Two dimensions add up.
    assert ops.log_prob(of(0, 1), torch.tensor([0.0])).item() == pytest.approx(-0.9189385332)
    two = torch.tensor([[0.0, 1.0], [1.0, 4.0]], dtype=torch.float64)
    assert ops.log_prob(two, torch.tensor([2.0, 5.0])).item() == pytest.approx(
        -2.9189385332 - 2 - 0.9189385332 - log(2)
    )
    assert ops.log_prob(of(0, 0.01), torch.tensor([0.0])).item() == pytest.approx(1.3836465598)
    assert ops.entropy(of(0, 0.01)).item() == pytest.approx(-0.8836465598)  # a density may exceed 1
    assert ops.entropy(of(7, 1)).item() == pytest.approx(1.4189385332)
    assert ops.entropy(two).item() == pytest.approx(2 * 1.4189385332 + log(2))
    # KL(N(0, 1) || N(1, 4)) = ((1 + 1) / 4 - 1 + log 4) / 2
    assert ops.kl(of(0, 1), of(1, 4)).item() == pytest.approx(0.4431471806)
    assert ops.kl(of(1, 4), of(0, 1)).item() == pytest.approx(1.3068528194)
    assert ops.kl(two, two).item() == pytest.approx(0, abs=1e-15)


def test_integrals() -> None:
    assert expected(P, torch.ones_like(GRID)) == pytest.approx(1, abs=1e-9)
    assert expected(P, -on_grid(P)) == pytest.approx(ops.entropy(P).item(), abs=1e-9)
    assert expected(P, -on_grid(Q)) == pytest.approx(ops.cross_entropy(P, Q).item(), abs=1e-9)
    assert expected(P, on_grid(P) - on_grid(Q)) == pytest.approx(ops.kl(P, Q).item(), abs=1e-9)


def test_a_network_says_means_and_variances() -> None:
    policy = ops.from_outputs(torch.tensor([[0.5, -3.0, 0.0, 100.0], [0, 0, -200.0, 0]]))
    assert policy.shape == (2, 2, 2)
    assert policy[0].tolist() == [[0.5, -3], pytest.approx([0.6931471806 + 1e-4, 100 + 1e-4])]
    assert policy[1, 1, 0].item() == pytest.approx(1e-4)
    assert ops.log_prob(policy, torch.zeros(2, 2)).isfinite().all()


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_two_columns_are_the_product(alpha: float) -> None:
    weights = (alpha * on_grid(Q) - 0.5 * (GRID - 0.5).square() / 0.36).exp()  # pi_0^alpha exp(f), not normalised
    exact = weights / (weights.sum() * STEP)
    joined = ops.two_columns(Q, P, alpha)
    torch.testing.assert_close(on_grid(joined).exp(), exact, rtol=1e-9, atol=1e-12)


def test_two_columns_in_numbers() -> None:
    # p = 1/2 * 1/4 + 1/0.5 = 2.125; m = (0.125 * 1 + 2 * 0) / 2.125
    joined = ops.two_columns(of(1, 4), of(0, 0.5), 0.5)
    assert joined.flatten().tolist() == pytest.approx([0.0588235294, 0.4705882353])
    alone = ops.two_columns(of(1, 4), of(99, 1e12), 1.0)
    assert alone.flatten().tolist() == pytest.approx([1, 4])


# Both lines of eq. 10 -------------------------------------------------------------------------------------------------

ALPHA, BETA = 0.5, 2.0
H = torch.tensor([0.3, -0.2], dtype=torch.float64)  # a network's outputs
F = torch.tensor([[0.4, 0.1], [-0.5, 0.8]], dtype=torch.float64)  # of two tasks
R = torch.stack([1 - GRID.square(), 1 - (GRID - 1).square() + 0.3 * GRID])  # what an action pays in each


def tasks(h: Tensor, f: Tensor) -> list[Tensor]:
    return [ops.two_columns(ops.from_outputs(h), ops.from_outputs(own), ALPHA) for own in f]


def objective(h: Tensor, f: Tensor) -> float:
    """J of two bandits: sum_i E_i[R_i + (alpha / beta) log pi_0 - (1 / beta) log pi_i], by integration."""
    log_pi0 = on_grid(ops.from_outputs(h))
    each = zip(tasks(h, f), R, strict=True)
    return sum(expected(p, r + ALPHA / BETA * log_pi0 - on_grid(p) / BETA) for p, r in each)


def gradients(baseline: float) -> tuple[Tensor, Tensor]:
    """What both losses send into h and f, in expectation over the actions."""
    h, f = H.clone().requires_grad_(), F.clone().requires_grad_()
    pi0, loss = ops.from_outputs(h), torch.zeros((), dtype=torch.float64)
    for policy, reward in zip(tasks(h, f), R, strict=True):
        chance = on_grid(policy).exp().detach() * STEP
        returns = regularised_reward(reward, on_grid(pi0), on_grid(policy), ALPHA, BETA)
        each = ops.policy_gradient_loss(policy.expand(len(GRID), 2, 1), GRID[:, None], returns - baseline)
        loss = loss + (chance * each).sum() + ops.distill_loss(policy, pi0, ALPHA, BETA)
    to_h, to_f = torch.autograd.grad(-loss, (h, f))
    return to_h, to_f


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_two_column_gradients_against_finite_differences(baseline: float) -> None:
    to_h, to_f = gradients(baseline)
    step = 1e-4
    for a in range(2):
        d = torch.zeros(2, dtype=torch.float64)
        d[a] = step
        slope = (objective(H + d, F) - objective(H - d, F)) / (2 * step)
        assert to_h[a].item() == pytest.approx(slope, abs=1e-6)
        for i in range(2):
            e = torch.zeros(2, 2, dtype=torch.float64)
            e[i, a] = step
            slope = (objective(H, F + e) - objective(H, F - e)) / (2 * step)
            assert to_f[i, a].item() == pytest.approx(slope, abs=1e-6)


def test_the_task_policy_is_a_constant_in_the_distillation() -> None:
    h, f = H.clone().requires_grad_(), F[0].clone().requires_grad_()
    policy = ops.two_columns(ops.from_outputs(h), ops.from_outputs(f), ALPHA)
    loss = ops.distill_loss(policy, ops.from_outputs(h), ALPHA, BETA)
    to_h, to_f = torch.autograd.grad(loss, (h, f), allow_unused=True)
    assert to_f is None
    alone = H.clone().requires_grad_()
    divergence = ALPHA / BETA * ops.kl(policy.detach(), ops.from_outputs(alone))
    torch.testing.assert_close(to_h, *torch.autograd.grad(divergence, alone))


def test_the_shared_policy_becomes_the_mixture() -> None:
    """The distillation's gradient is 0 where pi_0 has the mixture's mean, 0, and variance, 1 + 0.5."""
    centre = of(0, 1.5).requires_grad_()
    loss = ops.distill_loss(of(1, 0.25), centre, 1.0, 1.0) + ops.distill_loss(of(-1, 0.75), centre, 1.0, 1.0)
    (grad,) = torch.autograd.grad(loss, centre)
    assert grad.abs().max() < 1e-15
    assert loss.item() == pytest.approx(log(2 * pi * 1.5) + 1)
