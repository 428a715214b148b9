"""Gaussian policies with independent dimensions: what `ops.policy` and `ops.distral` are for discrete actions.

A policy is one tensor [..., 2, D]: means in row 0, variances in row 1; an action is [..., D], so that a policy stands
wherever logits [..., A] do. Losses return [...], neither weighted nor reduced. Everything is a closed form, checked
against numerical integrals in tests/ops/test_gaussian.py.
"""

from math import pi

import torch
from torch import Tensor
from torch.nn import functional

from polydistill.ops.distral import costs

__all__ = [
    "LEAST_VARIANCE",
    "cross_entropy",
    "distill_loss",
    "entropy",
    "from_outputs",
    "kl",
    "log_prob",
    "policy_gradient_loss",
    "two_columns",
]

#: Keeps densities finite: a standard deviation of a hundredth, in the units of the action.
LEAST_VARIANCE = 1e-4


def from_outputs(outputs: Tensor) -> Tensor:
    """A network's 2 D numbers [..., 2 D] as a policy [..., 2, D]: means, and softplus of the rest as variances.

    As in Mnih et al. 2016, section 9, plus `LEAST_VARIANCE`.
    """
    mean, rest = outputs.chunk(2, -1)
    return torch.stack([mean, functional.softplus(rest) + LEAST_VARIANCE], -2)


def log_prob(policy: Tensor, action: Tensor) -> Tensor:
    """log of the density at `action` [...]: -1/2 sum_d [(a - m)^2 / v + log(2 pi v)]."""
    mean, variance = policy.unbind(-2)
    return -0.5 * ((action - mean).square() / variance + (2 * pi * variance).log()).sum(-1)


def entropy(policy: Tensor) -> Tensor:
    """Differential entropy in nats [...], 1/2 sum_d log(2 pi e v). It may be negative."""
    return 0.5 * ((2 * pi * policy.unbind(-2)[1]).log() + 1).sum(-1)


def cross_entropy(policy: Tensor, other: Tensor) -> Tensor:
    """-E_policy[log other] [...]: 1/2 sum_d [(v + (m - m_o)^2) / v_o + log(2 pi v_o)]."""
    mean, variance = policy.unbind(-2)
    theirs, spread = other.unbind(-2)
    return 0.5 * ((variance + (mean - theirs).square()) / spread + (2 * pi * spread).log()).sum(-1)


def kl(policy: Tensor, other: Tensor) -> Tensor:
    """KL(policy || other) [...]: 1/2 sum_d [(v + (m - m_o)^2) / v_o - 1 + log(v_o / v)]."""
    return cross_entropy(policy, other) - entropy(policy)


def two_columns(h: Tensor, f: Tensor, alpha: float) -> Tensor:
    """The task policy pi_i [..., 2, D] of Distral's two columns, eq. 8 for Gaussians; gradients reach both.

    `h` is pi_0. `f`, of the same form, says what the task wants of its own: as in eq. 12, beta times an advantage,
    here -1/2 (a - m_f)^2 / v_f in each dimension. Then, with precisions p = 1 / v,

        pi_i  ~  pi_0^alpha exp(f)  ~  exp(-1/2 [alpha p_0 (a - m_0)^2 + p_f (a - m_f)^2]),

    and collecting a^2 and a gives a Gaussian again, the product of both:

        p = alpha p_0 + p_f,    m = (alpha p_0 m_0 + p_f m_f) / p.

    The smaller p_f, the closer is pi_i to pi_0; with p_f = 0 it is pi_0^alpha, normalised.
    """
    mean, variance = h.unbind(-2)
    own, spread = f.unbind(-2)
    shared, task = alpha / variance, 1 / spread
    precision = shared + task
    return torch.stack([(shared * mean + task * own) / precision, 1 / precision], -2)


def policy_gradient_loss(policy: Tensor, action: Tensor, advantage: Tensor) -> Tensor:
    """-log pi_i(a) sg(advantage) [...], as `ops.distral.policy_gradient_loss`."""
    return -log_prob(policy, action) * advantage.detach()


def distill_loss(policy: Tensor, h: Tensor, alpha: float, beta: float) -> Tensor:
    """-(alpha / beta) E_sg(pi_i)[log pi_0] [...]: eq. 10's second line, as `ops.distral.distill_loss`.

    Its gradient with respect to pi_0 is that of c_KL KL(pi_i || pi_0). Summed over tasks it is 0 where pi_0 has the
    mean and the variance of the even mixture of their policies.
    """
    return costs(alpha, beta)[0] * cross_entropy(policy.detach(), h)
