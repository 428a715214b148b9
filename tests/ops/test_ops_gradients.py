"""ops/gradients.py: the priority of every loss is the mean absolute gradient that autograd finds (YP, eq. 5)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from polydistill.algorithms.actor_mimic import LOSSES as EVERY
from polydistill.ops import policy as ops
from polydistill.ops.gradients import LOSSES, logit_gradient, priority
from tests.ops.test_ops_policy import MASK, Q, close, grad, leaf, t

TAU = 0.5
LOSS = {
    "kl": lambda q, x, valid: ops.distill_kl(q, x, TAU, valid),
    "cross_entropy": lambda q, x, valid: ops.cross_entropy(q, x, TAU, valid),
    "nll": ops.distill_nll,
    "mse": ops.distill_mse,
    "reverse_kl": lambda q, x, valid: ops.distill_reverse_kl(q, x, TAU, valid),
    "js": lambda q, x, valid: ops.distill_js(q, x, TAU, valid),
    "huber": ops.distill_huber,
}


def test_every_loss_has_one() -> None:
    assert sorted(LOSSES) == sorted(LOSS) == sorted(EVERY)


@pytest.mark.parametrize(
    ("loss", "expected"),  # from the gradients in test_ops_policy.py, and by hand
    [
        ("kl", 0.2907153227),
        ("cross_entropy", 0.2907153227),
        ("nll", (0.4614876234 + 0.7708320283 + 0.3093444050) / 3),
        ("mse", 2 * (0.5 + 1.21 + 0.89) / 3),
        ("reverse_kl", (0.0941337419 + 0.3428401192 + 0.2487063771) / 3),
        ("js", (0.0373716705 + 0.0887200960 + 0.0513484256) / 3),
        ("huber", (0.5 + 1 + 0.89) / 3),
    ],
)
def test_numbers(loss: str, expected: float) -> None:
    close(priority(loss, t(*Q), t(0.5, -0.2, 0.1), 0.01), expected)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("loss", sorted(LOSS))
def test_it_is_autograds(loss: str, masked: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    q, x = 2 * torch.randn(2, 2, 50, 4, generator=generator, dtype=torch.float64)
    valid = torch.tensor([[[True, False, True, True]], [[True, True, False, False]]]) if masked else None
    x.requires_grad_()
    expected = grad(LOSS[loss](q, x, valid), x)
    found = logit_gradient(loss, q, x, TAU, valid)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    assert not found.requires_grad
    actions = torch.tensor([[3.0], [2.0]]) if masked else 4.0
    torch.testing.assert_close(priority(loss, q, x, TAU, valid), expected.abs().sum(-1) / actions, rtol=0, atol=1e-14)


@pytest.mark.parametrize("loss", ["kl", "cross_entropy"])
@pytest.mark.parametrize("valid", [None, MASK])
def test_the_papers_own_is_unchanged_to_the_bit(loss: str, valid: Tensor | None) -> None:
    q, x = 3 * torch.randn(2, 500, 4, generator=torch.Generator().manual_seed(5))
    found = priority(loss, q, x, 0.01, valid)
    assert torch.equal(found, ops.priority_l1(q, x, 0.01, valid))
    distance = (ops.soft_targets(q, 0.01, valid) - ops.policy(x, valid)).abs().sum(-1)
    assert torch.equal(found, distance / (4 if valid is None else 3))


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_a_student_that_says_what_its_teacher_says_has_none(loss: str) -> None:
    """Although softmax(q / tau) and softmax(q) are far apart."""
    q = 5 * torch.randn(7, 4, generator=torch.Generator().manual_seed(6))
    assert (priority(loss, q, q, 0.01) == 0).all()
    assert (ops.priority_l1(q, q, 0.01) > 0.05).any()


@pytest.mark.parametrize("loss", sorted(ops.SOFTENED))
def test_neither_has_one_whose_policy_is_the_teachers(loss: str) -> None:
    q = torch.randn(7, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    torch.testing.assert_close(priority(loss, q, q / 0.1 + 3, 0.1), torch.zeros(7, dtype=torch.float64))
    assert (priority(loss, q, q + 3, 0.1) > 0).all()


@pytest.mark.parametrize("garbage", [1e30, math.inf, math.nan])
@pytest.mark.parametrize("loss", sorted(LOSS))
def test_invalid_actions_change_nothing(loss: str, garbage: float) -> None:
    q, x = t(1, 0, 0, 2), t(2, 0, 0, -1)
    dirty = [torch.where(MASK, y, garbage) for y in (q, x)]
    assert torch.equal(priority(loss, *dirty, TAU, MASK), priority(loss, q, x, TAU, MASK))
    assert priority(loss, q, x, TAU, MASK) > 0
    assert priority(loss, leaf(1, 2), leaf(3, math.nan), TAU).isnan(), "NaN is not hidden"


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown loss 'l2'"):
        priority("l2", t(*Q), t(*Q), 1.0)
    for loss in LOSS:
        with pytest.raises(ValueError, match="same shape"):
            priority(loss, t(*Q), t(1, 2), 1.0)
