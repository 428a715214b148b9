"""Policies and distillation losses on the trailing action axis `A`; the only place in the project that masks.

Shapes: `logits`, `q`, `values` are floating point [..., A] (float64 [S, A] tabular, float32 [G, B, A] deep). `valid` is
bool and broadcastable to that shape ([A], [G, 1, A], ...), or None when every action is valid; a `valid` that would
enlarge the shape raises RuntimeError. What stands at an invalid action (a number, inf, NaN) changes nothing: its
probability is 0 and its gradient is exactly 0. A row without any valid action has probability 0 everywhere and loss 0.
NaN at a valid action gives NaN, never a silent number.

`0 * log 0` is the trap: log-probabilities of 0 are the dtype's most negative finite number, so that products with
probability 0 are 0. Losses return [...], one number per example, neither weighted nor reduced. The teacher's side never
receives a gradient.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "REGRESSIONS",
    "SOFTENED",
    "agreement",
    "cross_entropy",
    "distill_huber",
    "distill_js",
    "distill_kl",
    "distill_mse",
    "distill_nll",
    "distill_reverse_kl",
    "entropy",
    "epsilon_greedy",
    "greedy",
    "log_policy",
    "log_soft_targets",
    "max_value",
    "mean_over_valid",
    "policy",
    "priority_l1",
    "q_error",
    "require_same_shape",
    "soft_targets",
]

#: Losses that fit the student's outputs to Q-values, which a teacher with policy logits does not have.
REGRESSIONS = ("mse", "huber")

#: Losses whose target is softmax(values / temperature): the student's logits become values / temperature, but for a
#: constant of each state. The others leave the temperature alone.
SOFTENED = ("kl", "cross_entropy", "reverse_kl", "js")


def log_policy(logits: Tensor, valid: Tensor | None = None) -> Tensor:
    """log softmax(logits) over the valid actions [..., A]; `finfo(dtype).min` (finite) where the probability is 0."""
    log_prob = torch.log_softmax(_centred(logits, valid), dim=-1)
    if valid is None:
        return log_prob
    # the second mask cuts the gradient a caller may send into an invalid entry
    return torch.where(valid, log_prob, _floor(log_prob))


def policy(logits: Tensor, valid: Tensor | None = None) -> Tensor:
    """softmax(logits) over the valid actions [..., A]; exactly 0 elsewhere."""
    prob = torch.softmax(_centred(logits, valid), dim=-1)
    return prob if valid is None else torch.where(valid, prob, 0.0)


def entropy(logits: Tensor, valid: Tensor | None = None) -> Tensor:
    """Entropy of the policy in nats [...], between 0 and ln(number of valid actions)."""
    log_prob = log_policy(logits, valid)
    return -(log_prob.exp() * log_prob).sum(-1)


def soft_targets(q: Tensor, tau: float | Tensor, valid: Tensor | None = None) -> Tensor:
    """Teacher's policy softmax(q / tau) [..., A] (Rusu et al. 2016, section 3.2; Parisotto et al. 2016, eq. 3).

    tau -> 0 is the greedy policy (ties shared), tau -> inf uniform. ValueError unless tau > 0 (a tensor tau,
    broadcastable to [..., A], is not checked).
    """
    return policy(_tempered(q, tau, valid), valid)


def log_soft_targets(q: Tensor, tau: float | Tensor, valid: Tensor | None = None) -> Tensor:
    """log softmax(q / tau) [..., A], as `log_policy`; q receives no gradient. ValueError as above."""
    return log_policy(_tempered(q.detach(), tau, valid), valid)


def distill_kl(q_teacher: Tensor, logits: Tensor, tau: float | Tensor, valid: Tensor | None = None) -> Tensor:
    """KL(softmax(q_teacher / tau) || softmax(logits)) [...] (Rusu et al. 2016, L_KL; Yin & Pan 2017, eq. 4).

    Teacher first, tau on the teacher only, no tau^2 factor: the gradient is softmax(logits) - softmax(q_teacher / tau),
    and the student's optimal logits are q / tau + const, not Q-values. ValueError if the shapes differ or tau <= 0.
    """
    require_same_shape(q_teacher, logits)
    log_target = log_soft_targets(q_teacher, tau, valid)
    return (log_target.exp() * (log_target - log_policy(logits, valid))).sum(-1)


def cross_entropy(q_teacher: Tensor, logits: Tensor, tau: float | Tensor = 1.0, valid: Tensor | None = None) -> Tensor:
    """-sum_a softmax(q_teacher / tau) log softmax(logits) [...] (Parisotto et al. 2016, eq. 4, printed without minus).

    The same gradient as `distill_kl`; the value is larger by the teacher's entropy. ValueError as there.
    """
    require_same_shape(q_teacher, logits)
    return -(soft_targets(q_teacher.detach(), tau, valid) * log_policy(logits, valid)).sum(-1)


def distill_nll(q_teacher: Tensor, logits: Tensor, valid: Tensor | None = None) -> Tensor:
    """-log softmax(logits)[argmax q_teacher] [...] (Rusu et al. 2016, L_NLL); the first action where q_teacher ties."""
    require_same_shape(q_teacher, logits)
    best = greedy(q_teacher, valid).unsqueeze(-1)
    return -log_policy(logits, valid).gather(-1, best).squeeze(-1)


def distill_mse(q_teacher: Tensor, logits: Tensor, valid: Tensor | None = None) -> Tensor:
    """sum_a (q_teacher - logits)^2 over the valid actions [...] (Rusu et al. 2016, L_MSE): a sum, not a mean."""
    return q_error(q_teacher, logits, valid).square().sum(-1)


def distill_reverse_kl(q_teacher: Tensor, logits: Tensor, tau: float | Tensor, valid: Tensor | None = None) -> Tensor:
    """KL(softmax(logits) || softmax(q_teacher / tau)) [...]: student first, so it seeks one mode.

    Zero at the same logits as `distill_kl`. With s = softmax(logits) and t the teacher's policy the gradient is
    s * (log s - log t - KL). Not in the papers; common in policy optimisation (e.g. Gu et al. 2024, MiniLLM).
    """
    require_same_shape(q_teacher, logits)
    log_target = log_soft_targets(q_teacher, tau, valid)
    log_student = log_policy(logits, valid)
    return (log_student.exp() * (log_student - log_target)).sum(-1)


def distill_js(q_teacher: Tensor, logits: Tensor, tau: float | Tensor, valid: Tensor | None = None) -> Tensor:
    """Jensen-Shannon divergence of softmax(q_teacher / tau) and softmax(logits) [...], in [0, ln 2] (Lin 1991).

    The mean of the KL divergences from both to their even mixture. Its gradient is bounded whatever the teacher says.
    """
    require_same_shape(q_teacher, logits)
    log_target = log_soft_targets(q_teacher, tau, valid)
    log_student = log_policy(logits, valid)
    log_mixture = torch.logaddexp(log_target, log_student) - math.log(2)
    to_target = (log_target.exp() * (log_target - log_mixture)).sum(-1)
    to_student = (log_student.exp() * (log_student - log_mixture)).sum(-1)
    return 0.5 * (to_target + to_student)


def distill_huber(q_teacher: Tensor, logits: Tensor, valid: Tensor | None = None) -> Tensor:
    """sum_a huber(q_teacher - logits, 1) over the valid actions [...] (Huber 1964): half the square
    up to an error of 1, linear beyond. Like `distill_mse` it keeps Q-values, and no single outlier dominates.
    """
    error = q_error(q_teacher, logits, valid)
    return functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=1.0).sum(-1)


def q_error(q_teacher: Tensor, logits: Tensor, valid: Tensor | None = None) -> Tensor:
    """q_teacher - logits [..., A]; exactly 0 at invalid actions. ValueError if the shapes differ."""
    require_same_shape(q_teacher, logits)
    error = q_teacher.detach() - logits
    return error if valid is None else torch.where(valid.expand(error.shape), error, 0.0)


def mean_over_valid(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """sum_a x / |A_i| [...], |A_i| the number of valid actions; x [..., A] is 0 at the others."""
    total = x.sum(-1)
    return total / (x.shape[-1] if valid is None else valid.expand(x.shape).sum(-1).clamp(min=1))


def priority_l1(q_teacher: Tensor, logits: Tensor, tau: float | Tensor, valid: Tensor | None = None) -> Tensor:
    """|| softmax(q_teacher / tau) - softmax(logits) ||_1 / |A_i| [...], in [0, 2 / |A_i|] (Yin & Pan 2017, eq. 5).

    |A_i| is the number of valid actions; equals the mean absolute gradient of `distill_kl` over them. Carries no
    gradient.
    """
    require_same_shape(q_teacher, logits)
    with torch.no_grad():
        return mean_over_valid((soft_targets(q_teacher, tau, valid) - policy(logits, valid)).abs(), valid)


def max_value(values: Tensor, valid: Tensor | None = None) -> Tensor:
    """max over the valid actions [...]; -inf for a row without one."""
    if valid is not None:
        values = torch.where(valid.expand(values.shape), values, -torch.inf)
    return values.amax(-1)


def greedy(values: Tensor, valid: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
    """Index of the best valid action, int64 [...].

    Ties go to the first action, or to a uniformly random one of them when a `generator` (on the values' device) is
    given. A row of NaN gives some valid action.
    """
    return _pick(_best(values.detach(), valid), generator)


def epsilon_greedy(values: Tensor, epsilon: float | Tensor, valid: Tensor | None, generator: torch.Generator) -> Tensor:
    """With probability `epsilon` a uniformly random valid action, else the greedy one: int64 [...].

    `epsilon` is a number or a tensor broadcastable to [...]; ties as in `greedy` with a generator (Mnih et al. 2015).
    Draws the same amount of randomness whatever the values and epsilon are.
    """
    values = values.detach()
    explore = torch.rand(values.shape[:-1], generator=generator, device=values.device) < epsilon
    allowed = torch.ones_like(values, dtype=torch.bool) if valid is None else valid.expand(values.shape)
    return _pick(torch.where(explore.unsqueeze(-1), allowed, _best(values, valid)), generator)


def agreement(q_teacher: Tensor, logits: Tensor, valid: Tensor | None = None) -> Tensor:
    """Bool [...]: student's greedy action is the teacher's (the first one where either ties)."""
    require_same_shape(q_teacher, logits)
    return greedy(q_teacher, valid) == greedy(logits, valid)


def _floor(x: Tensor) -> float:
    return torch.finfo(x.dtype).min


def _centred(x: Tensor, valid: Tensor | None) -> Tensor:
    """x - max over valid [..., A]; all finite and <= 0 (unless NaN came in), the floor where invalid or overflowing.

    softmax is shift invariant, so the maximum may be a constant to autograd.
    """
    floor = _floor(x)
    top = max_value(x.detach(), valid).unsqueeze(-1)
    centred = (x - top).clamp(min=floor)
    return centred if valid is None else torch.where(valid, centred, floor)


def _tempered(q: Tensor, tau: float | Tensor, valid: Tensor | None) -> Tensor:
    """q / tau up to a constant per row, centred first so that huge q and tiny tau cannot give inf - inf."""
    if not isinstance(tau, Tensor) and not tau > 0:
        raise ValueError(f"the temperature tau must be > 0, got {tau}")
    return _centred(q, valid) / tau


def _best(values: Tensor, valid: Tensor | None) -> Tensor:
    """Bool [..., A]: the maximal valid actions; written with `<` so that a NaN row keeps its valid actions."""
    best = ~(values < max_value(values, valid).unsqueeze(-1))
    return best if valid is None else best & valid


def _pick(candidates: Tensor, generator: torch.Generator | None) -> Tensor:
    """One candidate per row: the first, or a uniformly random one."""
    if generator is None:
        return candidates.to(torch.uint8).argmax(-1)
    noise = torch.rand(candidates.shape, generator=generator, device=candidates.device)
    return torch.where(candidates, noise, -1.0).argmax(-1)


def require_same_shape(q_teacher: Tensor, logits: Tensor) -> None:
    """Raise ValueError unless teacher and student gave outputs of the same shape."""
    if q_teacher.shape != logits.shape:
        raise ValueError(f"teacher {tuple(q_teacher.shape)} and student {tuple(logits.shape)} must have the same shape")
