"""The seven agents of Distral (Teh et al. 2017, Table 1) as one table, and what they minimise.

Columns of the paper's table are what a task's policy is made of: ``h``, the outputs of the shared network, ``f``, those
of the task's own, or both. Its rows are alpha. The A3C agents are Mnih et al.'s (2016): plain returns and a bonus for
the entropy of the present policy; the KL agents have both costs in their returns (eq. 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polydistill.ops.distral import costs, distill_loss, policy_gradient_loss, regularised_reward, two_column_logits
from polydistill.ops.policy import entropy, log_policy
from polydistill.ops.value import q_lambda_returns


@dataclass(frozen=True)
class Agent:
    """One cell of Table 1.

    Attributes:
        alpha: Share of KL in the costs: 0 entropy alone, 1 KL alone.
        shared: The task's policy contains h.
        own: The task's policy contains f.
    """

    alpha: float
    shared: bool
    own: bool

    @property
    def distils(self) -> bool:
        """Whether pi_0 = softmax(h) is distilled from the tasks' policies."""
        return self.alpha > 0

    @property
    def has_h(self) -> bool:
        """Whether there is a shared network."""
        return self.shared or self.distils

    def logits(self, h: Tensor | None, f: Tensor | None) -> Tensor:
        """The task's policy, ``[..., A]`` (eq. 12; ``f`` is beta times as large as in eq. 8).

        A3C_2col adds h as it is: with its alpha of 0 the shared column would vanish (the paper does not say).
        """
        if self.shared and self.own:
            assert h is not None
            assert f is not None
            return two_column_logits(h, f, self.alpha or 1.0, 1.0)
        chosen = f if self.own else h
        assert chosen is not None
        return chosen


AGENTS = {
    "A3C": Agent(alpha=0, shared=False, own=True),
    "A3C_multitask": Agent(alpha=0, shared=True, own=False),
    "A3C_2col": Agent(alpha=0, shared=True, own=True),
    "KL_1col": Agent(alpha=1, shared=False, own=True),
    "KL+ent_1col": Agent(alpha=0.5, shared=False, own=True),
    "KL_2col": Agent(alpha=1, shared=True, own=True),
    "KL+ent_2col": Agent(alpha=0.5, shared=True, own=True),
}


@dataclass(frozen=True)
class Unroll:
    """``T`` control steps of ``N`` copies of one task, and what the networks said; ``[T, N]`` unless noted.

    Attributes:
        h, f: ``[T, N, A]``, outputs of the shared and of the task's own network; None where the agent has none.
        value: The task's value function.
        shared_value: That of the shared network; None where it has none, or is itself the task's.
        action: int64.
        next_value: Value of the state after each step; of an episode's last observation where it was truncated.
        terminated, ended: bool, as in :func:`polydistill.ops.value.q_lambda_returns`.
    """

    h: Tensor | None
    f: Tensor | None
    value: Tensor
    shared_value: Tensor | None
    action: Tensor
    reward: Tensor
    next_value: Tensor
    terminated: Tensor
    ended: Tensor


def losses(
    agent: Agent, unroll: Unroll, beta: float, gamma: float = 0.99, value_weight: float = 0.5, coupling: float = 0.005
) -> dict[str, Tensor]:
    """Terms to add up and to minimise, scalars: means over ``[T, N]``.

    ``policy``: eq. 9, and the first line of eq. 10 where h is part of the policy; with a baseline, and returns that
    bootstrap after the last step, discounted from each step on. ``value``: squared error of the returns. ``distill``:
    the second line of eq. 10. ``entropy``: the bonus of the A3C agents, with weight 1 / beta. ``coupling``: squared
    distance of the task's value to the shared one.

    Raises:
        ValueError: beta is not above 0.
    """
    costs(agent.alpha, beta)
    u = unroll
    logits = agent.logits(u.h, u.f)
    reward = u.reward
    found: dict[str, Tensor] = {}
    if agent.distils:
        assert u.h is not None
        taken = u.action.unsqueeze(-1)
        log_pi, log_pi0 = (log_policy(x).gather(-1, taken).squeeze(-1) for x in (logits, u.h))
        reward = regularised_reward(reward, log_pi0, log_pi, agent.alpha, beta)
        found["distill"] = distill_loss(logits, u.h, agent.alpha, beta).mean()
    else:
        found["entropy"] = -entropy(logits).mean() / beta
    returns = q_lambda_returns(reward, u.terminated, u.ended, u.next_value.detach(), gamma, lam=1.0)
    found["policy"] = policy_gradient_loss(logits, u.action, returns - u.value.detach()).mean()
    found["value"] = value_weight * (returns - u.value).square().mean() / 2
    if u.shared_value is not None and coupling:
        found["coupling"] = coupling * (u.value - u.shared_value).square().mean() / 2
    return found


def total(found: dict[str, Tensor]) -> Tensor:
    """Their sum."""
    return torch.stack(list(found.values())).sum()
