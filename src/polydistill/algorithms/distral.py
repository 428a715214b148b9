"""The seven agents of Distral (Teh et al. 2017, Table 1) as one table, and what they minimise.

Columns of the paper's table are what a task's policy is made of: ``h``, the outputs of the shared network, ``f``, those
of the task's own, or both. Its rows are alpha. The A3C agents are Mnih et al.'s (2016): plain returns and a bonus for
the entropy of the present policy; the KL agents have both costs in their returns (eq. 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from polydistill.ops import gaussian
from polydistill.ops.distral import costs, distill_loss, policy_gradient_loss, regularised_reward, two_column_logits
from polydistill.ops.policy import entropy, log_policy
from polydistill.ops.value import q_lambda_returns


@dataclass(frozen=True)
class Family:
    """What a policy's numbers mean, as functions of them; losses return ``[...]``.

    Attributes:
        two_columns: h, f, the weight of h -> the policy that both make (eq. 12).
        log_prob: Policy, action -> its log-probability or density.
        entropy: Of a policy, in nats.
        policy_gradient_loss: Policy, action, advantage -> eq. 9.
        distill_loss: Policy, h, alpha, beta -> eq. 10's second line.
        draw: Policy, generator on the CPU -> actions.
    """

    two_columns: Callable[[Tensor, Tensor, float], Tensor]
    log_prob: Callable[[Tensor, Tensor], Tensor]
    entropy: Callable[[Tensor], Tensor]
    policy_gradient_loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    distill_loss: Callable[[Tensor, Tensor, float, float], Tensor]
    draw: Callable[[Tensor, torch.Generator], Tensor]


def _choose(logits: Tensor, generator: torch.Generator) -> Tensor:
    """int64 ``[N]`` from logits ``[N, A]``."""
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


def _sample(policy: Tensor, generator: torch.Generator) -> Tensor:
    """``[N, D]`` from ``[N, 2, D]``."""
    mean, variance = policy.unbind(-2)
    return mean + variance.sqrt() * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)


#: Policies are logits ``[..., A]``, actions int64 ``[...]``.
DISCRETE = Family(
    two_columns=lambda h, f, weight: two_column_logits(h, f, weight, 1.0),
    log_prob=lambda logits, action: log_policy(logits).gather(-1, action.unsqueeze(-1)).squeeze(-1),
    entropy=entropy,
    policy_gradient_loss=policy_gradient_loss,
    distill_loss=distill_loss,
    draw=_choose,
)

#: Policies are means and variances ``[..., 2, D]``, actions float ``[..., D]``; see :mod:`polydistill.ops.gaussian`.
GAUSSIAN = Family(
    two_columns=gaussian.two_columns,
    log_prob=gaussian.log_prob,
    entropy=gaussian.entropy,
    policy_gradient_loss=gaussian.policy_gradient_loss,
    distill_loss=gaussian.distill_loss,
    draw=_sample,
)


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

    def logits(self, h: Tensor | None, f: Tensor | None, family: Family = DISCRETE) -> Tensor:
        """The task's policy, ``[..., A]`` (eq. 12; ``f`` is beta times as large as in eq. 8), or a Gaussian.

        A3C_2col adds h as it is: with its alpha of 0 the shared column would vanish (the paper does not say).
        """
        if self.shared and self.own:
            assert h is not None
            assert f is not None
            return family.two_columns(h, f, self.alpha or 1.0)
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
        h, f: Outputs of the shared and of the task's own network, policies of the ``family``; None where the agent has
            none.
        value: The task's value function.
        shared_value: That of the shared network; None where it has none, or is itself the task's.
        action: As the family has it.
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
    family: Family = DISCRETE


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
    u, family = unroll, unroll.family
    policy = agent.logits(u.h, u.f, family)
    reward = u.reward
    found: dict[str, Tensor] = {}
    if agent.distils:
        assert u.h is not None
        log_pi, log_pi0 = family.log_prob(policy, u.action), family.log_prob(u.h, u.action)
        reward = regularised_reward(reward, log_pi0, log_pi, agent.alpha, beta)
        found["distill"] = family.distill_loss(policy, u.h, agent.alpha, beta).mean()
    else:
        found["entropy"] = -family.entropy(policy).mean() / beta
    returns = q_lambda_returns(reward, u.terminated, u.ended, u.next_value.detach(), gamma, lam=1.0)
    found["policy"] = family.policy_gradient_loss(policy, u.action, returns - u.value.detach()).mean()
    found["value"] = value_weight * (returns - u.value).square().mean() / 2
    if u.shared_value is not None and coupling:
        found["coupling"] = coupling * (u.value - u.shared_value).square().mean() / 2
    return found


def total(found: dict[str, Tensor]) -> Tensor:
    """Their sum."""
    return torch.stack(list(found.values())).sum()
