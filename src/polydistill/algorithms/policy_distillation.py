"""Policy Distillation (Rusu et al. 2016, section 3): the student's logits are fitted to the teacher's Q-values.

Yin & Pan (2017) use the same KL objective with their own network and sampler; nothing of it is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from polydistill.nets.student import PolicyOutput
from polydistill.ops import gradients, policy
from polydistill.ops.policy import REGRESSIONS as REGRESSIONS  # where losses are looked for


@dataclass(frozen=True)
class Targets:
    """What the teachers said about a rectangle of ``G`` tasks x ``B`` samples.

    Attributes:
        values: float32 ``[G, B, A]`` on the action axis: Q-values, or a policy's logits.
        valid: bool ``[G, 1, A]``, the actions each task has.
        temperature: tau, ``[G, 1, 1]`` or one number; it divides ``values``. 1 for teachers with policy logits.
        features: Row of the suite -> its teacher's last hidden activations ``[B, D_i]``, in the rectangle's order; None
            where the objective does not ask for them.
    """

    values: Tensor
    valid: Tensor
    temperature: Tensor | float = 0.01
    features: Mapping[int, Tensor] | None = None


@dataclass(frozen=True)
class Loss:
    """What an objective gives for a rectangle of ``G`` tasks x ``B`` samples.

    Attributes:
        per_example: ``[G, B]``, neither weighted nor reduced.
        priority: ``[G, B]`` for the samplers, or None: the mean absolute gradient of the loss with respect to the
            student's logits (Yin & Pan 2017, eq. 5, for any loss).
        metrics: Detached ``[G]`` per-task means.
        tasks: Rows of the suite that the rectangle holds; None: all of them.
    """

    per_example: Tensor
    priority: Tensor | None = None
    metrics: dict[str, Tensor] = field(default_factory=dict)
    tasks: Sequence[int] | None = None


Objective = Callable[[PolicyOutput, Targets], Loss]

#: The loss as the papers write it (``sum``), or divided by the number of the task's actions (``mean``), as eq. 5 of Yin
#: & Pan (2017) divides the priority. The priority is the same with both.
OverActions = Literal["sum", "mean"]

#: student's logits, targets -> [G, B]
_LOSSES: dict[str, Callable[[Tensor, Targets], Tensor]] = {
    "kl": lambda x, t: policy.distill_kl(t.values, x, t.temperature, t.valid),
    "nll": lambda x, t: policy.distill_nll(t.values, x, t.valid),
    "mse": lambda x, t: policy.distill_mse(t.values, x, t.valid),
    "reverse_kl": lambda x, t: policy.distill_reverse_kl(t.values, x, t.temperature, t.valid),
    "js": lambda x, t: policy.distill_js(t.values, x, t.temperature, t.valid),
    "huber": lambda x, t: policy.distill_huber(t.values, x, t.valid),
}

LOSSES = tuple(_LOSSES)


def policy_distillation(loss: str = "kl", over_actions: OverActions = "sum") -> Objective:
    """An objective by name.

    Args:
        loss: The paper's three: ``kl`` = KL(softmax(q_T / tau) || softmax(q_S)), ``nll`` = -log pi_S(argmax q_T),
            ``mse`` = ||q_T - q_S||^2. And known from elsewhere: ``reverse_kl``, ``js`` (Jensen-Shannon), ``huber``.
        over_actions: See :data:`OverActions`.

    Raises:
        ValueError: unknown loss.
    """
    if loss not in _LOSSES:
        raise ValueError(f"unknown loss {loss!r}; choose one of {', '.join(LOSSES)}")
    chosen = _LOSSES[loss]

    def objective(student: PolicyOutput, targets: Targets) -> Loss:
        logits = student.logits
        per_example = chosen(logits, targets)
        said = (targets.values, logits, targets.temperature, targets.valid)
        kl = per_example if loss == "kl" else policy.distill_kl(*said)
        agreement = policy.agreement(targets.values, logits, targets.valid).float().mean(-1)
        metrics = {"kl": kl.detach().mean(-1), "agreement": agreement}
        if over_actions == "mean":
            per_example = per_example / targets.valid.sum(-1)
        return Loss(per_example, gradients.priority(loss, *said), metrics)

    return objective
