"""Distral (Teh et al. 2017): objective, soft values, policies and gradients on the trailing action axis `A`.

`alpha` in [0, 1] and `beta` > 0 stand for the two costs: c_KL = alpha / beta, c_Ent = (1 - alpha) / beta. `beta` is an
inverse temperature. `log_pi0` is the distilled policy as log-probabilities [..., A], as `ops.policy.log_policy` gives
them; `q`, `h` and `f` are [..., A], `valid` as in `ops.policy`, which does all the masking. Everything is broadcast, so
one distilled policy [S, A] serves tables of many tasks [G, S, A]. Losses return [...], neither weighted nor reduced.

The equations of the published text are lost; their numbers are the paper's, their content follows from eq. 1.
"""

import torch
from torch import Tensor

from polydistill.ops.policy import greedy, log_policy, policy

__all__ = [
    "alpha_beta",
    "check_alpha_beta",
    "costs",
    "distill_loss",
    "distilled_policy",
    "policy_gradient_loss",
    "regularised_reward",
    "soft_advantage",
    "soft_policy",
    "soft_target",
    "soft_value",
    "two_column_advantage",
    "two_column_logits",
]


def check_alpha_beta(alpha: float, beta: float) -> None:
    """ValueError unless 0 <= alpha <= 1 and 0 < beta < inf."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be from 0 (entropy only) to 1 (KL only), got {alpha}")
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta, an inverse temperature, must be above 0 and finite, got {beta}")


def costs(alpha: float, beta: float) -> tuple[float, float]:
    """(c_KL, c_Ent) = (alpha / beta, (1 - alpha) / beta), below eq. 1. ValueError as `check_alpha_beta`."""
    check_alpha_beta(alpha, beta)
    return alpha / beta, (1 - alpha) / beta


def alpha_beta(c_kl: float, c_ent: float) -> tuple[float, float]:
    """(alpha, beta) = (c_KL / (c_KL + c_Ent), 1 / (c_KL + c_Ent)), below eq. 1.

    ValueError if a cost is negative or both are 0 (then beta is infinite).
    """
    if not (c_kl >= 0 and c_ent >= 0 and 0 < c_kl + c_ent < float("inf")):
        raise ValueError(f"costs must be finite and >= 0, one of them > 0; got c_KL {c_kl}, c_Ent {c_ent}")
    return c_kl / (c_kl + c_ent), 1 / (c_kl + c_ent)


def regularised_reward(reward: Tensor, log_pi0: Tensor, log_pi: Tensor, alpha: float, beta: float) -> Tensor:
    """R + (alpha / beta) log pi_0(a) - (1 / beta) log pi_i(a) [...], a constant: eq. 1's second line, used in eq. 9.

    All three are [...]: of the action taken. The same as R - c_KL log(pi_i / pi_0) - c_Ent log pi_i. It carries no
    gradient: that of its log pi_i has mean 0, that of its log pi_0 is `distill_loss`.
    """
    c_kl, c_ent = costs(alpha, beta)
    return (reward + c_kl * log_pi0 - (c_kl + c_ent) * log_pi).detach()


# Soft Q-learning with a prior ----------------------------------------------------------------------------------------


def soft_value(q: Tensor, log_pi0: Tensor, alpha: float, beta: float | Tensor, valid: Tensor | None = None) -> Tensor:
    """V_i = (1 / beta) log sum_a pi_0(a)^alpha exp(beta q(a)) [...], eq. 2; its gradient with respect to q is pi_i.

    beta -> inf: max_a q; beta -> 0 with alpha 1: the mean of q under pi_0.
    """
    x = _exponent(q, log_pi0, alpha, beta)
    best = greedy(x, valid).unsqueeze(-1)  # any action gives the normaliser; this one is certain to have probability
    return (x.gather(-1, best) - log_policy(x, valid).gather(-1, best)).squeeze(-1) / beta


def soft_policy(q: Tensor, log_pi0: Tensor, alpha: float, beta: float | Tensor, valid: Tensor | None = None) -> Tensor:
    """log pi_i = alpha log pi_0 + beta (q - V_i) [..., A], eq. 4: the policy that is best for eq. 1, given pi_0."""
    return log_policy(_exponent(q, log_pi0, alpha, beta), valid)


def soft_advantage(
    q: Tensor, log_pi0: Tensor, alpha: float, beta: float | Tensor, valid: Tensor | None = None
) -> Tensor:
    """A_i = q - V_i [..., A], eq. 4; with a network's outputs f for q, eq. 7. sum_a pi_0^alpha exp(beta A) is 1."""
    return q - soft_value(q, log_pi0, alpha, beta, valid).unsqueeze(-1)


def soft_target(reward: Tensor, terminated: Tensor, next_value: Tensor, gamma: float | Tensor) -> Tensor:
    """R + gamma V_i(s') [...], eq. 3 for one sample; R where `terminated`. No gradient."""
    return torch.where(terminated, reward, reward + gamma * next_value).detach()


def distilled_policy(counts: Tensor, pseudocount: float) -> Tensor:
    """pi_0(a|s) = (counts + pseudocount) / their sum over a [..., A]: eq. 5's maximum for a table.

    `counts` are visits of state and action, each weighted gamma^t, summed over the tasks. A state without visits is
    uniform. ValueError unless pseudocount > 0: without it an action that was not taken would never be taken.
    """
    if not 0 < pseudocount < float("inf"):
        raise ValueError(f"the pseudocount must be above 0 and finite, got {pseudocount}")
    filled = counts + pseudocount
    return filled / filled.sum(-1, keepdim=True)


# Two columns and their gradients -------------------------------------------------------------------------------------


def two_column_logits(h: Tensor, f: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha h + beta f [..., A]: the logits of task policy pi_i, eq. 8; gradients reach both columns.

    `h` are the logits of pi_0 (eq. 6), `f` the task's own outputs. beta 1: eq. 12, where f is beta times as large.
    """
    return alpha * h + beta * f


def two_column_advantage(
    h: Tensor, f: Tensor, alpha: float, beta: float, scaled: bool = False, valid: Tensor | None = None
) -> Tensor:
    """A_i [..., A]: f - (1 / beta) log sum_a pi_0^alpha exp(beta f), eq. 7.

    `scaled`: f is beta times as large, (f - log sum_a pi_0^alpha exp(f)) / beta, eq. 11.
    """
    own = f / beta if scaled else f
    return soft_advantage(own, log_policy(h, valid), alpha, beta, valid)


def policy_gradient_loss(logits: Tensor, action: Tensor, advantage: Tensor, valid: Tensor | None = None) -> Tensor:
    """-log pi_i(a) sg(advantage) [...]: eq. 9 and, through the column h of `two_column_logits`, eq. 10's first line.

    `logits` [..., A] are the task policy's; `action` int64 [...]; `advantage` [...] is the return of
    `regularised_reward`, less a baseline if there is one, and is a constant here.
    """
    taken = log_policy(logits, valid).gather(-1, action.unsqueeze(-1)).squeeze(-1)
    return -taken * advantage.detach()


def distill_loss(logits: Tensor, h: Tensor, alpha: float, beta: float, valid: Tensor | None = None) -> Tensor:
    """-(alpha / beta) sum_a sg(pi_i(a)) log pi_0(a) [...]: eq. 10's second line, all that a separate pi_0 learns from.

    Its gradient with respect to `h` is (alpha / beta) (pi_0 - pi_i), summed over tasks 0 where pi_0 is the mean of
    their policies. The task policy, softmax(`logits`), is a constant even where its logits contain `h`: without that
    the gradient would not be the objective's.
    """
    c_kl, _ = costs(alpha, beta)
    return -c_kl * (policy(logits.detach(), valid) * log_policy(h, valid)).sum(-1)


def _exponent(q: Tensor, log_pi0: Tensor, alpha: float, beta: float | Tensor) -> Tensor:
    """log(pi_0^alpha exp(beta q)) [..., A], not normalised. With alpha 0, what stands in log_pi0 changes nothing."""
    return beta * q + (alpha * log_pi0 if alpha else torch.zeros_like(log_pi0))
