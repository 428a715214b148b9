"""Targets, returns and schedules of value learning. `[...]` is any batch shape, `[T, N]` time x environments.

`terminated` (bool) means that nothing follows: no bootstrap, whatever number stands there, NaN included. `ended` is the
end of an episode for either reason, terminated or truncated: no return crosses it, but a truncated step bootstraps from
its final observation. Targets carry no gradient.
"""

import torch
from torch import Tensor
from torch.nn import functional

from polydistill.ops.policy import greedy, max_value

__all__ = [
    "advantage_target",
    "clipped_td_loss",
    "double_dqn_target",
    "dqn_target",
    "expected_value",
    "linear_schedule",
    "n_step_returns",
    "q_lambda_returns",
    "td_error",
    "td_target",
]


def td_target(reward: Tensor, discount: Tensor | float, next_value: Tensor) -> Tensor:
    """reward + discount * next_value [...] (Sutton & Barto 2018, eq. 6.2); a discount of 0 is the end."""
    return (reward + discount * next_value).detach()


def dqn_target(
    reward: Tensor, terminated: Tensor, q_next_target: Tensor, gamma: Tensor | float, valid: Tensor | None = None
) -> Tensor:
    """r + gamma * max_a Q(s', a; theta^-) unless terminated [...] (Mnih et al. 2015); `q_next_target` is [..., A]."""
    return _bootstrap(reward, terminated, gamma, max_value(q_next_target, valid))


def double_dqn_target(
    reward: Tensor,
    terminated: Tensor,
    q_next_online: Tensor,
    q_next_target: Tensor,
    gamma: Tensor | float,
    valid: Tensor | None = None,
) -> Tensor:
    """r + gamma * Q(s', argmax_a Q(s', a; theta); theta^-) unless terminated [...] (van Hasselt et al. 2016, eq. 4)."""
    best = greedy(q_next_online, valid).unsqueeze(-1)
    return _bootstrap(reward, terminated, gamma, q_next_target.gather(-1, best).squeeze(-1))


def td_error(q: Tensor, action: Tensor, target: Tensor) -> Tensor:
    """delta = target - Q(s, a) [...]; `q` is [..., A], `action` int64 [...]. Gradients reach q only."""
    return target.detach() - q.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def advantage_target(target: Tensor, q: Tensor, action: Tensor, share: float) -> Tensor:
    """target - share * (max_a Q(s, a) - Q(s, action)) [...]: advantage learning (Bellemare et al. 2016, eq. 12).

    `q` is [..., A], `action` int64 [...]. The fixed point keeps the best action's value and widens every gap below it
    by 1 / (1 - share): small gaps stand out of the approximation's noise. ValueError unless 0 <= share < 1.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share must be in [0, 1), got {share}")
    gap = q.amax(-1) - q.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    return (target - share * gap).detach()


def expected_value(q: Tensor, epsilon: float, valid: Tensor | None = None) -> Tensor:
    """(1 - epsilon) * max_a Q(s, a) + epsilon * mean_a Q(s, a) over the valid actions [...]; `q` is [..., A].

    What an epsilon-greedy policy makes of a state (expected SARSA, Sutton & Barto 2018, eq. 6.9). ValueError unless
    0 <= epsilon <= 1.
    """
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon must be in [0, 1], got {epsilon}")
    best = max_value(q, valid)
    if epsilon == 0:
        return best.detach()
    if valid is None:
        mean = q.mean(-1)
    else:
        allowed = valid.expand(q.shape)
        mean = torch.where(allowed, q, 0.0).sum(-1) / allowed.sum(-1)
    return torch.lerp(best, mean, epsilon).detach()


def clipped_td_loss(delta: Tensor) -> Tensor:
    """Huber loss with threshold 1 [...]; gradient clip(delta, -1, 1): error clipping of Mnih et al. 2015, Methods."""
    return functional.huber_loss(delta, torch.zeros_like(delta), reduction="none", delta=1.0)


def q_lambda_returns(
    reward: Tensor, terminated: Tensor, ended: Tensor, q_max_next: Tensor, gamma: float, lam: float
) -> Tensor:
    """Q(lambda) returns [T, N] of parallel Q-learning (Gallici et al. 2024, section 4, their PQN code).

        G_t = r_t + gamma * (1 - terminated_t) * ( lam * G_{t+1} + (1 - lam) * q_max_next_t )
        G_t = r_t + gamma * (1 - terminated_t) * q_max_next_t      where the episode ended at t, and at the last step

    `q_max_next[t]` = max_a Q(s_{t+1}, a), where s_{t+1} of an ended step is its own final observation, not the next
    episode's first. All arguments are [T, N]; `terminated` counts as `ended` whether or not it is marked so. lam 0 is
    one-step, lam 1 Monte Carlo.
    """
    one_step = _bootstrap(reward, terminated, gamma, q_max_next)
    cut = ended | terminated
    returns = torch.empty_like(one_step)
    returns[-1] = one_step[-1]
    for t in range(len(one_step) - 2, -1, -1):
        traced = reward[t] + gamma * torch.lerp(q_max_next[t], returns[t + 1], lam)
        returns[t] = torch.where(cut[t], one_step[t], traced)
    return returns


def n_step_returns(
    reward: Tensor, terminated: Tensor, ended: Tensor, q_max_next: Tensor, gamma: float, n: int
) -> Tensor:
    """n-step returns [T, N] (Hessel et al. 2018, section 2), shorter where the episode or the rollout ends first.

    Arguments as in `q_lambda_returns`. ValueError unless n >= 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    one_step = _bootstrap(reward, terminated, gamma, q_max_next)
    cut = (ended | terminated)[:-1]
    returns = one_step
    for _ in range(min(n, len(reward)) - 1):  # each pass makes every return one step longer
        longer = torch.where(cut, one_step[:-1], reward[:-1] + gamma * returns[1:])
        returns = torch.cat([longer, one_step[-1:]])
    return returns.detach()


def linear_schedule(step: float, start: float, end: float, begin: float, length: float) -> float:
    """`start` up to step `begin`, then linear, `end` from `begin + length` on. ValueError if length < 0 (0 is a jump).

    Nature DQN's epsilon: start 1.0, end 0.1, begin 50_000, length 1_000_000, all in control steps.
    """
    if length < 0:
        raise ValueError(f"a schedule's length must be >= 0, got {length}")
    if step <= begin:
        return start
    if step >= begin + length:
        return end
    return start + (end - start) * (step - begin) / length


def _bootstrap(reward: Tensor, terminated: Tensor, gamma: Tensor | float, next_value: Tensor) -> Tensor:
    """where, not a product: `0 * NaN` of a value nobody computed must not reach the target."""
    return torch.where(terminated, reward, td_target(reward, gamma, next_value)).detach()
