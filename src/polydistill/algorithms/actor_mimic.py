"""Actor-Mimic (Parisotto et al. 2016): one network is told what its experts do, and by their features why.

    L_i = L_policy + beta L_feature                                                                              (eq. 6)

The student plays; :mod:`polydistill.nets.mimic` is the paper's network. The projections of the feature term belong to
the training: they learn with the student and are no part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from polydistill.algorithms.policy_distillation import LOSSES as DIVERGENCES
from polydistill.algorithms.policy_distillation import Loss, Objective, OverActions, Targets, policy_distillation
from polydistill.nets.student import PolicyOutput
from polydistill.ops import policy

CROSS_ENTROPY = "cross_entropy"

LOSSES = (CROSS_ENTROPY, *DIVERGENCES)


class FeatureRegression(nn.Module):
    """``L_feature = || f_i(h(s)) - h_i(s) ||^2`` with a linear ``f_i`` for each task (Parisotto et al. 2016, eq. 5).

    ``h`` and ``h_i`` are the last hidden activations of student and expert after their ReLU. The gradient flows through
    ``f_i`` into the student; the expert's side gets none.

    Args:
        length: Features of the student.
        experts: Features of each task's expert, by row of the suite; every width may be another.
        beta: Weight of the term.
        half: Multiply by 1/2, as the authors' code does.
    """

    def __init__(self, length: int, experts: Sequence[int], beta: float = 0.01, half: bool = True):
        super().__init__()
        self.weight = beta * (0.5 if half else 1.0)
        self.projections = nn.ModuleList(nn.Linear(length, width) for width in experts)

    def forward(self, features: Tensor, experts: Mapping[int, Tensor]) -> Tensor:
        """Squared distances, summed over an expert's features, neither halved nor weighted.

        Args:
            features: ``[G, B, D]``, the student's; one row for each of ``experts``, in their order.
            experts: Row of the suite -> that expert's features ``[B, D_i]``.

        Returns:
            ``[G, B]``, float32 (float64 of float64 features).
        """
        rows = zip(features, experts.items(), strict=True)
        return torch.stack([(self.projections[g](own) - told.detach()).square().sum(-1) for own, (g, told) in rows])


def actor_mimic(
    loss: str = CROSS_ENTROPY, regression: FeatureRegression | None = None, over_actions: OverActions = "sum"
) -> Objective:
    """The objective of Actor-Mimic, or another divergence with its feature term.

    Args:
        loss: ``cross_entropy`` = -sum_a softmax(q_T / tau)_a log softmax(q_S)_a over the valid actions (eq. 4, printed
            without its minus): ``kl`` and the teacher's entropy, so with kl's gradient. Or a loss of
            :func:`~polydistill.algorithms.policy_distillation.policy_distillation`.
        regression: The feature term; ``Targets.features`` has to be filled then. None: beta = 0. The priority leaves
            it out: no logit takes part in it.
        over_actions: See :data:`~polydistill.algorithms.policy_distillation.OverActions`; the feature term stays.

    Raises:
        ValueError: unknown loss.
    """
    divergence = policy_distillation("kl" if loss == CROSS_ENTROPY else loss, over_actions)

    def objective(student: PolicyOutput, targets: Targets) -> Loss:
        found = divergence(student, targets)
        per_example, metrics = found.per_example, found.metrics
        if loss == CROSS_ENTROPY:
            per_example = policy.cross_entropy(targets.values, student.logits, targets.temperature, targets.valid)
            if over_actions == "mean":
                per_example = per_example / targets.valid.sum(-1)
        if regression is not None:
            assert targets.features is not None
            distance = regression(student.features, targets.features)
            per_example = per_example + regression.weight * distance
            metrics = {**metrics, "feature_distance": distance.detach().mean(-1)}
        return Loss(per_example, found.priority, metrics)

    return objective
