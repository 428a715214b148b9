"""ops/distral.py: closed forms with typed-in numbers, both lines of eq. 10 against finite differences."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from polydistill.ops import distral as ops
from polydistill.ops.policy import log_policy, policy

TIGHT = 1e-10


def t(*x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def near(found: Tensor, *expected: float, tol: float = TIGHT) -> None:
    assert torch.allclose(found, t(*expected) if found.ndim else t(*expected)[0], rtol=0, atol=tol), found.tolist()


UNIFORM = torch.full((2,), math.log(0.5), dtype=torch.float64)


# Costs and objective -------------------------------------------------------------------------------------------------


def test_costs_and_back() -> None:  # Teh et al. 2017
    assert ops.alpha_beta(0.1, 0.1) == (0.5, 5)
    assert ops.costs(0.5, 5) == (0.1, 0.1)
    assert ops.costs(1, 5) == (0.2, 0)
    assert ops.costs(0, 5) == (0, 0.2)


@pytest.mark.parametrize(("alpha", "beta"), [(-0.1, 1), (1.1, 1), (math.nan, 1), (0.5, 0), (0.5, -1), (0.5, math.inf)])
def test_alpha_and_beta_have_a_range(alpha: float, beta: float) -> None:
    with pytest.raises(ValueError, match=r"(alpha|beta).* got"):
        ops.costs(alpha, beta)


@pytest.mark.parametrize("pair", [(-1, 2), (0, 0), (math.inf, 1), (1, -0.5)])
def test_costs_have_a_range(pair: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="costs"):
        ops.alpha_beta(*pair)


def test_both_lines_of_the_objective() -> None:  # Teh et al. 2017: a discounted sum over random trajectories
    g = torch.Generator().manual_seed(1)
    reward = torch.randn(50, 20, generator=g, dtype=torch.float64)
    log_pi0, log_pi = (torch.rand(50, 20, generator=g, dtype=torch.float64).log() for _ in range(2))
    c_kl, c_ent, gamma = 0.07, 0.23, 0.95
    discount = gamma ** torch.arange(50, dtype=torch.float64)[:, None]
    first = (discount * (reward - c_kl * (log_pi - log_pi0) - c_ent * log_pi)).sum(0)
    second = (discount * ops.regularised_reward(reward, log_pi0, log_pi, *ops.alpha_beta(c_kl, c_ent))).sum(0)
    assert torch.allclose(first, second, rtol=0, atol=1e-12)


def test_the_regularised_reward_is_a_constant() -> None:
    pi = t(0.5).requires_grad_()
    reward = ops.regularised_reward(t(1), pi.log(), pi.log(), 1, 5)
    assert reward.item() == 1  # item 10: alpha 1 and pi_i = pi_0, the KL term is 0
    assert not reward.requires_grad
    near(ops.regularised_reward(t(1), t(math.log(0.25)), t(math.log(0.5)), 0.5, 5), 1 + 0.1 * math.log(0.25 / 0.25))


# Soft values and policies --------------------------------------------------------------------------------------------

BANDITS = [  # Teh et al. 2017: alpha, beta, pi_0(first), V, pi_i(first); R = (1, 0), gamma 0
    (1, 5, 0.5, 0.8627136336, 0.9933071491),
    (0.5, 5, 0.5, 0.9320283516, 0.9933071491),
    (0, 5, 0.5, 1.0013430697, 0.9933071491),
    (1, 1, 0.5, 0.6201145069, 0.7310585786),
    (1, 5, 0.8, 0.9557079037, 0.9983183460),
    (0.5, 5, 0.8, 0.9783583071, 0.9966423384),
    (0, 5, 0.8, 1.0013430697, 0.9933071491),
]


@pytest.mark.parametrize(("alpha", "beta", "first", "value", "chosen"), BANDITS)
def test_bandits(alpha: float, beta: float, first: float, value: float, chosen: float) -> None:
    q, log_pi0 = t(1, 0), t(first, 1 - first).log()
    near(ops.soft_value(q, log_pi0, alpha, beta), value)
    log_pi = ops.soft_policy(q, log_pi0, alpha, beta)
    near(log_pi.exp(), chosen, 1 - chosen)
    # the value is what the policy makes of eq. 1, and no policy makes more
    objective = lambda log_p: (log_p.exp() * ops.regularised_reward(q, log_pi0, log_p, alpha, beta)).sum(-1)  # noqa: E731
    near(objective(log_pi), value)
    others = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    assert objective(torch.stack([others, 1 - others], -1).log()).max() <= value + TIGHT
    advantage = ops.soft_advantage(q, log_pi0, alpha, beta)
    near((alpha * log_pi0 + beta * advantage).exp(), chosen, 1 - chosen)  # eq. 4: no other normaliser


def test_limits() -> None:  # Teh et al. 2017
    near(ops.soft_value(t(1, 0), UNIFORM, 1, 1000), 0.9993068528)
    near(ops.soft_value(t(1, 0), UNIFORM, 1, 0.001), 0.5001250000)
    near(ops.soft_value(t(1, 0), t(0.8, 0.2).log(), 1, 1e-6), 0.8, tol=1e-6)
    near(ops.soft_value(t(1e300, -1e300), UNIFORM, 1, 5), 1e300)


@pytest.mark.parametrize(
    ("alpha", "value", "stay"), [(1, 0.9165638440, 0.2411615733), (0.5, 1.0116899824, 0.3330388644)]
)
def test_self_loop(alpha: float, value: float, stay: float) -> None:  # Teh et al. 2017
    v = torch.zeros((), dtype=torch.float64)
    for _ in range(500):
        q = ops.soft_target(t(-0.1, 1), torch.tensor([False, True]), v, 0.95)
        v = ops.soft_value(q, UNIFORM, alpha, 5)
    near(v, value)
    near(ops.soft_policy(q, UNIFORM, alpha, 5).exp(), stay, 1 - stay)


def test_the_target_does_not_look_past_an_end() -> None:
    v = t(math.nan, 2).requires_grad_()
    target = ops.soft_target(t(1, 1), torch.tensor([True, False]), v, 0.5)
    assert target.tolist() == [1, 2]
    assert not target.requires_grad


def test_the_gradient_of_the_value_is_the_policy() -> None:
    q, log_pi0 = t(1, 0, -2).requires_grad_(), t(0.2, 0.5, 0.3).log()
    ops.soft_value(q, log_pi0, 0.5, 3).backward()
    assert q.grad is not None
    near(q.grad, *ops.soft_policy(q.detach(), log_pi0, 0.5, 3).exp().tolist())
    assert gradcheck(
        lambda x, y: ops.soft_value(x, y, 0.5, 3), (t(1, 0, -2).requires_grad_(), log_pi0.requires_grad_())
    )


def test_invalid_actions_change_nothing() -> None:
    valid = torch.tensor([True, False, True])
    q, h = t(1, math.nan, 0), t(0.0, 7, 0)
    log_pi0 = log_policy(h, valid)
    near(ops.soft_value(q, log_pi0, 1, 5, valid), 0.8627136336)
    near(ops.soft_policy(q, log_pi0, 1, 5, valid).exp(), 0.9933071491, 0, 0.0066928509)
    h = h.requires_grad_()
    ops.distill_loss(q, h, 1, 5, valid).backward()
    assert h.grad is not None
    assert h.grad[1] == 0
    assert bool(h.grad.isfinite().all())


# Alternating with the distilled policy -------------------------------------------------------------------------------


def alternate(gaps: Tensor, alpha: float, beta: float, rounds: int) -> tuple[Tensor, Tensor]:
    """Bandits with R = (gap, 0) [n]: log pi_i [n, 2] given pi_0, then pi_0 their mean. From a uniform pi_0."""
    q, log_pi0 = torch.stack([gaps, torch.zeros_like(gaps)], -1), UNIFORM
    for _ in range(rounds):
        log_pi = ops.soft_policy(q, log_pi0, alpha, beta)
        log_pi0 = log_pi.exp().mean(0).log()
    return log_pi0, log_pi


def test_one_task() -> None:  # Teh et al. 2017: the gap of the logits after every round
    for alpha, gaps in ((1.0, [5, 10, 15, 20]), (0.5, [5, 7.5, 8.75, 9.375])):
        found = [alternate(t(1), alpha, 5, k)[0] for k in range(1, 5)]
        near(torch.stack([x[0] - x[1] for x in found]), *gaps)
    end = alternate(t(1), 0.5, 5, 60)[0]
    near(end[0] - end[1], 10)  # beta / (1 - alpha) = 1 / c_Ent


def test_many_tasks_share_their_centroid() -> None:
    """Two tasks; pi_0 is their mean: 2 * .5375463902 - .9937891939."""
    log_pi0, log_pi = alternate(t(1, -1), 1, 5, 50)
    near(log_pi0.exp(), 0.5, 0.5)
    near(log_pi[0].exp(), 0.9933071491, 0.0066928509)
    for alpha, expected in ((1, (0.5413209175, 0.9943231260, 0.0883187090)),
                            (0.5, (0.5375463902, 0.9937891939, 0.0813035866))):  # fmt: skip
        log_pi0, log_pi = alternate(t(1, -0.5), alpha, 5, 3000)
        near(torch.cat([log_pi0[:1], log_pi[:, 0]]).exp(), *expected)


def test_counts() -> None:  # Teh et al. 2017
    pi0 = ops.distilled_policy(torch.tensor([[3.0, 1.0], [0.0, 0.0]], dtype=torch.float64), 1)
    near(pi0[0], 4 / 6, 2 / 6)
    near(pi0[1], 0.5, 0.5)
    with pytest.raises(ValueError, match="pseudocount"):
        ops.distilled_policy(pi0, 0)


# Two columns ---------------------------------------------------------------------------------------------------------

H, F, R = t(0.3, -0.2), torch.stack([t(1, 0), t(0, 0.5)]), torch.stack([t(1, 0), t(0, 1)])
ALPHA, BETA = 0.5, 2.0


def objective(h: Tensor, f: Tensor) -> Tensor:
    """J of two bandits, exactly: sum_i sum_a pi_i(a) (R_i + (alpha / beta) log pi_0 - (1 / beta) log pi_i)."""
    log_pi0, log_pi = log_policy(h), log_policy(ops.two_column_logits(h, f, ALPHA, BETA))
    return (log_pi.exp() * (R + ALPHA / BETA * log_pi0 - log_pi / BETA)).sum()


def expected_gradients(baseline: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """What the two losses send into h (policy gradient, distillation) and f, in expectation over the actions."""
    h, f = H.clone().requires_grad_(), F.clone().requires_grad_()
    logits = ops.two_column_logits(h, f, ALPHA, BETA)
    log_pi, log_pi0 = log_policy(logits), log_policy(h)
    loss = torch.zeros((), dtype=torch.float64)
    for action in range(2):
        chosen = torch.full((2,), action)
        reward = ops.regularised_reward(R[:, action], log_pi0[action], log_pi[:, action], ALPHA, BETA)
        each = ops.policy_gradient_loss(logits, chosen, reward - baseline)
        loss = loss + (log_pi[:, action].exp().detach() * each).sum()
    term1, to_f = torch.autograd.grad(-loss, (h, f), retain_graph=True)
    distill = -ops.distill_loss(logits, h, ALPHA, BETA).sum()
    grads = torch.autograd.grad(distill, (h, f), allow_unused=True, materialize_grads=True)
    assert grads[1].abs().max() == 0  # the task policy is a constant in it
    return term1, grads[0], to_f


def test_two_column_numbers() -> None:  # Teh et al. 2017
    assert objective(H, F).item() == pytest.approx(1.7210896400, abs=TIGHT)
    near(policy(H), 0.6224593312, 0.3775406688)
    pi = policy(ops.two_column_logits(H, F, ALPHA, BETA))
    near(pi[0], 0.9046505351, 0.0953494649)
    near(pi[1], 0.3208213008, 0.6791786992)


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_two_column_gradients(baseline: float) -> None:  # Teh et al. 2017; a baseline changes nothing in expectation
    term1, term2, to_f = expected_gradients(baseline)
    near(term1, -0.0544737484, 0.0544737484)
    near(term2, -0.0048617066, 0.0048617066)
    near(term1 + term2, -0.0593354551, 0.0593354551)
    near(to_f[0], 0, 0, tol=1e-15)  # f_1 are the soft-optimal values of its task
    near(to_f[1], -0.2178949938, 0.2178949938)


def test_two_column_gradients_against_finite_differences() -> None:
    term1, term2, to_f = expected_gradients()
    step = 1e-5
    for a in range(2):
        d = torch.zeros(2, dtype=torch.float64)
        d[a] = step
        slope = (objective(H + d, F) - objective(H - d, F)) / (2 * step)
        assert (term1 + term2)[a].item() == pytest.approx(slope.item(), abs=1e-9)
        for i in range(2):
            e = torch.zeros(2, 2, dtype=torch.float64)
            e[i, a] = step
            slope = (objective(H, F + e) - objective(H, F - e)) / (2 * step)
            assert to_f[i, a].item() == pytest.approx(slope.item(), abs=1e-9)


def test_sampled_actions_give_these_gradients() -> None:
    h, n = H.clone().requires_grad_(), 400_000
    logits = ops.two_column_logits(h, F, ALPHA, BETA)
    log_pi, log_pi0 = log_policy(logits).detach(), log_policy(h).detach()
    total = torch.zeros((), dtype=torch.float64)
    for i in range(2):
        action = torch.multinomial(log_pi[i].exp(), n, replacement=True, generator=torch.Generator().manual_seed(i))
        reward = ops.regularised_reward(R[i, action], log_pi0[action], log_pi[i, action], ALPHA, BETA)
        total = total - ops.policy_gradient_loss(logits[i].expand(n, 2), action, reward).mean()
    total = total - ops.distill_loss(logits, h, ALPHA, BETA).sum()
    (found,) = torch.autograd.grad(total, h)
    near(found, -0.0593354551, 0.0593354551, tol=3e-3)


def test_columns_are_shift_invariant() -> None:  # Teh et al. 2017
    pi = policy(ops.two_column_logits(H, F, ALPHA, BETA))
    for shifted in (ops.two_column_logits(H + 3, F, ALPHA, BETA), ops.two_column_logits(H, F - 7, ALPHA, BETA)):
        assert torch.allclose(policy(shifted), pi, rtol=0, atol=1e-14)
    assert torch.allclose(policy(ops.two_column_logits(H, BETA * F, ALPHA, 1)), pi, rtol=0, atol=1e-14)  # eq. 12
    advantage = ops.two_column_advantage(H, F, ALPHA, BETA)
    assert torch.allclose((ALPHA * log_policy(H) + BETA * advantage).exp(), pi, rtol=0, atol=1e-14)
    scaled = ops.two_column_advantage(H, BETA * F, ALPHA, BETA, scaled=True)  # eq. 11
    assert torch.allclose(scaled, advantage, rtol=0, atol=1e-14)


def test_who_learns_from_the_distillation() -> None:  # Teh et al. 2017
    h, f = H.clone().requires_grad_(), F.clone().requires_grad_()
    ops.distill_loss(ops.two_column_logits(h, f, 0, BETA), h, 0, BETA).sum().backward()
    assert h.grad is not None
    assert h.grad.abs().max() == 0  # alpha 0: c_KL is 0
    assert f.grad is None
    centroid = policy(F).mean(0).log().requires_grad_()
    ops.distill_loss(F, centroid, 1, 5).sum().backward()
    assert centroid.grad is not None
    near(centroid.grad, 0, 0, tol=1e-15)
    weights = t(3, 1)  # states or tasks that are met more often weigh more
    centroid = ((weights[:, None] * policy(F)).sum(0) / 4).log().requires_grad_()
    (weights * ops.distill_loss(F, centroid, 1, 5)).sum().backward()
    assert centroid.grad is not None
    near(centroid.grad, 0, 0, tol=1e-15)


def test_float32_is_enough() -> None:
    found = ops.soft_value(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.8, 0.2]]).log(), 1, 5)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(0.9557079037, abs=1e-6)
