"""ops/value.py: targets with typed-in numbers, returns against slow twins that follow the definition step by step."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from polydistill.ops import value as ops

NAN = math.nan


def t(*x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def test_td_target() -> None:
    assert ops.td_target(t(1, 2), t(0.9, 0), t(10, 5)).tolist() == [10, 2]


def test_dqn_target_does_not_bootstrap_from_an_end() -> None:  # Mnih et al. 2015: the clipped reward, exactly
    q_next = torch.tensor([[1.0, 3.0, 2.0], [NAN, 9.0, 9.0]], dtype=torch.float64, requires_grad=True)
    target = ops.dqn_target(t(1, -1), torch.tensor([False, True]), q_next, 0.99)
    assert target.tolist() == [1 + 0.99 * 3, -1]
    assert not target.requires_grad


def test_dqn_target_ignores_invalid_actions() -> None:
    valid = torch.tensor([True, False, True])
    assert ops.dqn_target(t(0), torch.tensor([False]), t(1, 3, 2)[None], 0.5, valid).item() == 1


def test_double_dqn_target_evaluates_the_online_choice() -> None:
    online, target = t(0, 5, 9)[None], t(7, 2, 3)[None]
    alive = torch.tensor([False])
    assert ops.double_dqn_target(t(1), alive, online, target, 0.5).item() == 2.5
    assert ops.double_dqn_target(t(1), alive, online, target, 0.5, torch.tensor([True, True, False])).item() == 2
    assert ops.double_dqn_target(t(1), ~alive, online, target * NAN, 0.5).item() == 1


def test_td_error_reaches_q_at_the_action_only() -> None:
    q = t(1, 2, 3)[None].requires_grad_()
    target = t(5).requires_grad_()
    delta = ops.td_error(q, torch.tensor([1]), target)
    delta.sum().backward()
    assert delta.item() == 3
    assert q.grad is not None
    assert q.grad.tolist() == [[0, -1, 0]]
    assert target.grad is None


def test_clipped_td_loss() -> None:
    delta = t(-3, -1, -0.5, 0, 0.5, 1, 3).requires_grad_()
    loss = ops.clipped_td_loss(delta)
    assert loss.tolist() == [2.5, 0.5, 0.125, 0, 0.125, 0.5, 2.5]
    loss.sum().backward()
    assert torch.equal(delta.grad, delta.detach().clamp(-1, 1))  # type: ignore[arg-type]
    assert gradcheck(ops.clipped_td_loss, t(-3, -0.5, 0.3, 2).requires_grad_())


def test_mean_delta_and_value_of_five_hundred_states() -> (
    None
):  # Mnih et al. 2015: what dqn-lua watches on its validation set
    i = torch.arange(500, dtype=torch.float64)
    q = torch.stack([i.sin(), i.cos(), (2 * i).sin()], 1).requires_grad_()
    q_next = torch.stack([(3 * i).cos(), (5 * i).sin(), -i.cos()], 1)
    action, terminated = i.long() % 3, i.long() % 10 == 0
    delta = ops.td_error(q, action, ops.dqn_target(i % 3 - 1, terminated, q_next, 0.99))
    assert delta.shape == (500,)
    assert q.amax(-1).mean().item() == pytest.approx(0.7169909955704714, abs=1e-12)
    assert delta.abs().mean().item() == pytest.approx(1.0847622196942617, abs=1e-12)
    ops.clipped_td_loss(delta).sum().backward()
    assert q.grad is not None
    clipped = q.grad.abs().sum(-1)  # |delta|, at most 1, and nothing at other actions
    assert clipped.mean().item() == pytest.approx(0.7154270901593196, abs=1e-12)
    assert (q.grad != 0).sum() == 500


def slow_q_lambda(
    r: list[float], terminated: list[bool], ended: list[bool], v: list[float], gamma: float, lam: float
) -> list[float]:
    """One environment: the return as the explicit mixture of n-step returns, (1 - lam) sum lam^(n-1) G^(n)."""
    out = []
    for t0 in range(len(r)):
        total, weight = 0.0, 1.0
        for n in range(1, len(r) - t0 + 1):
            t1 = t0 + n - 1
            n_step = slow_n_step(r, terminated, ended, v, gamma, n, t0)
            if ended[t1] or terminated[t1] or t1 == len(r) - 1:
                total += weight * n_step
                break
            total += weight * (1 - lam) * n_step
            weight *= lam
        out.append(total)
    return out


def slow_n_step(
    r: list[float], terminated: list[bool], ended: list[bool], v: list[float], gamma: float, n: int, t0: int
) -> float:
    total, discount = 0.0, 1.0
    for t1 in range(t0, min(t0 + n, len(r))):
        total += discount * r[t1]
        discount *= gamma
        if terminated[t1]:
            return total
        if ended[t1]:
            break
    return total + discount * v[t1]


step = st.tuples(st.floats(-1, 1), st.sampled_from(["on", "on", "on", "terminated", "truncated"]), st.floats(-5, 5))


@given(st.lists(step, min_size=1, max_size=8), st.floats(0, 1), st.floats(0, 1), st.integers(1, 9))
@settings(deadline=None)
def test_returns_match_their_definition(
    steps: list[tuple[float, str, float]], gamma: float, lam: float, n: int
) -> None:
    r, what, v = (list(column) for column in zip(*steps, strict=True))
    terminated, ended = [w == "terminated" for w in what], [w != "on" for w in what]
    columns = [torch.tensor(x).unsqueeze(-1) for x in (r, terminated, ended, v)]
    columns = [c.double() if c.is_floating_point() else c for c in columns]
    expected = t(*slow_q_lambda(r, terminated, ended, v, gamma, lam))
    torch.testing.assert_close(ops.q_lambda_returns(*columns, gamma, lam).squeeze(-1), expected, rtol=0, atol=1e-6)
    expected = t(*(slow_n_step(r, terminated, ended, v, gamma, n, t0) for t0 in range(len(r))))
    torch.testing.assert_close(ops.n_step_returns(*columns, gamma, n).squeeze(-1), expected, rtol=0, atol=1e-6)


def test_q_lambda_by_hand() -> None:
    """Two environments, gamma = lambda = 1/2; the first terminates at t = 1, the second is truncated there."""
    reward = t(1, 1, 2, 2, 3, 3).reshape(3, 2)
    terminated = torch.tensor([[False, False], [True, False], [False, False]])
    ended = torch.tensor([[False, False], [True, True], [False, False]])
    q_max_next = t(4, 4, 100, 10, 8, 8).reshape(3, 2)
    expected = t(1 + 0.5 * (1 + 2), 1 + 0.5 * (3.5 + 2), 2, 7, 7, 7).reshape(3, 2)
    assert torch.equal(ops.q_lambda_returns(reward, terminated, ended, q_max_next, 0.5, 0.5), expected)
    # a terminal step counts as ended without being marked so, and what stands behind it is never read
    q_max_next[1, 0] = NAN
    ended[1, 0] = False
    assert torch.equal(ops.q_lambda_returns(reward, terminated, ended, q_max_next, 0.5, 0.5), expected)


def test_lambda_limits() -> None:
    generator = torch.Generator().manual_seed(0)
    reward, q = torch.randn(2, 6, 4, generator=generator)
    terminated = torch.rand(6, 4, generator=generator) < 0.2
    ended = terminated | (torch.rand(6, 4, generator=generator) < 0.2)
    args = (reward, terminated, ended, q, 0.9)
    torch.testing.assert_close(ops.q_lambda_returns(*args, 0.0), ops.n_step_returns(*args, 1))
    torch.testing.assert_close(ops.q_lambda_returns(*args, 1.0), ops.n_step_returns(*args, 6))
    assert torch.equal(ops.n_step_returns(*args, 1), torch.where(terminated, reward, reward + 0.9 * q))


def test_n_step_refuses_no_step() -> None:
    x = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="at least 1"):
        ops.n_step_returns(x, x.bool(), x.bool(), x, 0.9, 0)


@pytest.mark.parametrize(
    "step, epsilon", [(0, 1.0), (50_000, 1.0), (550_000, 0.55), (1_050_000, 0.1), (50_000_000, 0.1)]
)
def test_nature_epsilon(step: int, epsilon: float) -> None:  # Mnih et al. 2015
    assert ops.linear_schedule(step, 1.0, 0.1, 50_000, 1_000_000) == pytest.approx(epsilon, abs=1e-12)


def test_schedule_is_not_constant_and_may_jump() -> None:
    values = [ops.linear_schedule(s, 1.0, 0.1, 50_000, 1_000_000) for s in range(50_000, 1_050_001, 100_000)]
    assert all(b < a for a, b in pairwise(values))
    assert [ops.linear_schedule(s, 1, 0, 5, 0) for s in (5, 5.1)] == [1, 0]
    with pytest.raises(ValueError, match="length"):
        ops.linear_schedule(0, 1, 0, 0, -1)


def test_advantage_learning_widens_gaps_and_keeps_the_best_value() -> None:
    q = torch.tensor([[1.0, 0.9, 0.7]], dtype=torch.float64)
    target = ops.advantage_target(torch.tensor([0.5], dtype=torch.float64), q, torch.tensor([2]), 0.8)
    torch.testing.assert_close(target, torch.tensor([0.5 - 0.8 * 0.3], dtype=torch.float64))
    returns = q.clone()  # a bandit: iterate to the fixed point
    for _ in range(500):
        q = torch.stack([ops.advantage_target(returns[:, a], q, torch.tensor([a]), 0.8) for a in range(3)], -1)
    torch.testing.assert_close(q, torch.tensor([[1.0, 0.5, -0.5]], dtype=torch.float64))  # gaps 0.1, 0.3 -> 0.5, 1.5
    with pytest.raises(ValueError, match="share"):
        ops.advantage_target(returns[:, 0], q, torch.tensor([0]), 1.0)


def test_expected_value_is_what_an_epsilon_greedy_policy_makes_of_a_state() -> None:
    q = t([1, 2, 6], [0, 0, -3])
    torch.testing.assert_close(ops.expected_value(q, 0.0), t(6, 0))
    torch.testing.assert_close(ops.expected_value(q, 0.1), t(5.7, -0.1))  # 0.9 * 6 + 0.1 * 3, 0.9 * 0 + 0.1 * -1
    torch.testing.assert_close(ops.expected_value(q, 1.0), t(3, -1))
    valid = torch.tensor([True, True, False])
    torch.testing.assert_close(ops.expected_value(q, 0.5, valid), t(1.75, 0))
    with pytest.raises(ValueError, match="epsilon"):
        ops.expected_value(q, 1.5)
