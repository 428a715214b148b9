"""Gradients of the distillation losses with respect to the student's logits, in closed form; the priority they give.

Yin & Pan (2017, eq. 5) replay a state by |delta|, the mean absolute gradient of their loss over the task's actions. The
same number of another loss is that loss's priority: a state that teaches nothing has 0. Shapes and masks as in
:mod:`polydistill.ops.policy`. Nothing here carries a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from polydistill.ops import policy

__all__ = ["LOSSES", "logit_gradient", "priority"]

_Tau = float | Tensor
_Gradient = Callable[[Tensor, Tensor, _Tau, Tensor | None], Tensor]


def _kl(q: Tensor, logits: Tensor, tau: _Tau, valid: Tensor | None) -> Tensor:
    """s - t, with s = softmax(logits) and t = softmax(q / tau)."""
    return policy.policy(logits, valid) - policy.soft_targets(q, tau, valid)


def _nll(q: Tensor, logits: Tensor, tau: _Tau, valid: Tensor | None) -> Tensor:
    """s - 1[a = argmax q]."""
    student = policy.policy(logits, valid)
    return student - functional.one_hot(policy.greedy(q, valid), q.shape[-1]).to(student.dtype)


def _mse(q: Tensor, logits: Tensor, tau: _Tau, valid: Tensor | None) -> Tensor:
    """2 (logits - q)."""
    return -2 * policy.q_error(q, logits, valid)


def _huber(q: Tensor, logits: Tensor, tau: _Tau, valid: Tensor | None) -> Tensor:
    """logits - q, clipped to [-1, 1]."""
    return -policy.q_error(q, logits, valid).clamp(-1, 1)


def _reverse_kl(q: Tensor, logits: Tensor, tau: _Tau, valid: Tensor | None) -> Tensor:
    """s (log s - log t - KL(s || t))."""
    log_target = policy.log_soft_targets(q, tau, valid)
    return _through_softmax(logits, valid, lambda log_student: log_student - log_target)


def _js(q: Tensor, logits: Tensor, tau: _Tau, valid: Tensor | None) -> Tensor:
    """s / 2 (log s - log m - KL(s || m)), with m = (s + t) / 2."""
    log_target = policy.log_soft_targets(q, tau, valid)

    def to_mixture(log_student: Tensor) -> Tensor:
        return log_student - (torch.logaddexp(log_target, log_student) - math.log(2))

    return 0.5 * _through_softmax(logits, valid, to_mixture)


def _through_softmax(logits: Tensor, valid: Tensor | None, inner: Callable[[Tensor], Tensor]) -> Tensor:
    """s (g - sum_a s g): the gradient g with respect to s, carried to the logits; g is given of log s."""
    log_student = policy.log_policy(logits, valid)
    student, g = log_student.exp(), inner(log_student)
    return student * (g - (student * g).sum(-1, keepdim=True))


_GRADIENTS: dict[str, _Gradient] = {
    "kl": _kl,
    "cross_entropy": _kl,  # the teacher's entropy more, which does not depend on the student
    "nll": _nll,
    "mse": _mse,
    "reverse_kl": _reverse_kl,
    "js": _js,
    "huber": _huber,
}

#: Losses that have a gradient here: every one of the project's.
LOSSES = tuple(_GRADIENTS)


@torch.no_grad()
def logit_gradient(loss: str, q_teacher: Tensor, logits: Tensor, tau: _Tau, valid: Tensor | None = None) -> Tensor:
    """d loss / d logits of each example, [..., A]; exactly 0 at an invalid action.

    Args:
        loss: One of :data:`LOSSES`; ``nll``, ``mse`` and ``huber`` leave ``tau`` alone.

    Raises:
        ValueError: unknown loss, or teacher and student differ in shape.
    """
    if loss not in _GRADIENTS:
        raise ValueError(f"unknown loss {loss!r}; choose one of {', '.join(LOSSES)}")
    policy.require_same_shape(q_teacher, logits)
    return _GRADIENTS[loss](q_teacher, logits, tau, valid)


@torch.no_grad()
def priority(loss: str, q_teacher: Tensor, logits: Tensor, tau: _Tau, valid: Tensor | None = None) -> Tensor:
    """Mean of |d loss / d logits| over the valid actions [...] (of ``kl``: Yin & Pan 2017, eq. 5). Raises as above."""
    return policy.mean_over_valid(logit_gradient(loss, q_teacher, logits, tau, valid).abs(), valid)
