"""One optimiser step: weighted once, skipped when it is not finite, and never the teacher's."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from polydistill import build
from polydistill.algorithms.actor_mimic import LOSSES as EVERY
from polydistill.algorithms.actor_mimic import actor_mimic
from polydistill.algorithms.policy_distillation import LOSSES, Loss, Targets, policy_distillation
from polydistill.nets.student import PolicyOutput
from polydistill.ops.gradients import priority
from polydistill.ops.policy import soft_targets
from polydistill.training.learner import Learner, Minibatch, NotFiniteError
from tests.distilling import NAMES, copies, fitted_teacher, parts_of, rng, small, states


class Table(nn.Module):
    """Logits ``[G, S, A]`` to learn; the observations play no part."""

    def __init__(self, *shape: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(shape, dtype=torch.float64))

    def forward(self, obs: object, tasks: object = None) -> PolicyOutput:
        return PolicyOutput(self.logits, self.logits)


def learner_of(student: nn.Module, objective: object = None, lr: float = 1.0, **settings: object) -> Learner:
    optimizer = torch.optim.SGD([p for p in student.parameters() if p.requires_grad], lr=lr)
    return Learner(student, objective or policy_distillation("kl"), optimizer, lambda updates: lr, **settings)


def targets_of(teacher: Tensor, tau: float = 0.01) -> Targets:
    return Targets(teacher, torch.ones(len(teacher), 1, teacher.shape[-1], dtype=torch.bool), tau)


def batch_of(teacher: Tensor, weights: Tensor | None = None, tau: float = 0.01) -> Minibatch:
    return Minibatch([], targets_of(teacher, tau), torch.ones(teacher.shape[:2]) if weights is None else weights)


@pytest.mark.parametrize("kind", LOSSES)
def test_weights_are_applied_once_to_every_loss(kind: str) -> None:
    teacher = torch.tensor([[[1.00, 1.01, 0.99], [0.2, 0.1, 0.4]]], dtype=torch.float64)
    weights = torch.tensor([[0.25, 1.0]], dtype=torch.float64)
    table = Table(1, 2, 3)
    table.logits.data[:] = torch.tensor([0.5, -0.2, 0.1])
    before = table.logits.detach().clone()
    alone = before.clone().requires_grad_()
    objective = policy_distillation(kind)
    loss = objective(PolicyOutput(alone, alone), targets_of(teacher))
    (first,) = torch.autograd.grad(loss.per_example[0, 0], alone, retain_graph=True)
    (second,) = torch.autograd.grad(loss.per_example[0, 1], alone)
    learner_of(table, objective).step(batch_of(teacher, weights))
    expected = (0.25 * first + 1.0 * second) / 2  # the mean of w * loss over two samples; lr = 1
    torch.testing.assert_close(before - table.logits, expected, rtol=1e-10, atol=1e-12)


def test_the_yielded_loss_is_unweighted() -> None:
    teacher = torch.tensor([[[1.00, 1.01, 0.99]]], dtype=torch.float64)
    loss = learner_of(Table(1, 1, 3)).step(batch_of(teacher, torch.tensor([[0.5]])))
    assert loss.per_example.item() == pytest.approx(0.2662167068)  # Rusu et al. 2016
    assert loss.metrics["kl"].item() == pytest.approx(0.2662167068)


@pytest.mark.parametrize("refresh", ["before", "after"])
@pytest.mark.parametrize("loss", LOSSES)
def test_priorities_are_those_before_or_after_the_update(loss: str, refresh: str) -> None:
    """After: of the updated table; loss and metrics stay those of the update."""
    q = torch.tensor([[[1.00, 1.01, 0.99], [0.2, 0.1, 0.4]]], dtype=torch.float64)
    table = Table(1, 2, 3)
    table.logits.data[:] = torch.tensor([0.5, -0.2, 0.1])
    before = table.logits.detach().clone()
    found = learner_of(table, policy_distillation(loss), lr=0.3, refresh=refresh).step(batch_of(q, tau=0.1))
    assert not torch.equal(table.logits, before)
    then = before if refresh == "before" else table.logits
    assert found.priority is not None
    assert torch.equal(found.priority, priority(loss, q, then, 0.1))
    assert not torch.equal(found.priority, priority(loss, q, table.logits if refresh == "before" else before, 0.1))
    assert not found.priority.requires_grad
    expected = policy_distillation(loss)(PolicyOutput(before, before), targets_of(q, 0.1))
    torch.testing.assert_close(found.per_example, expected.per_example)
    assert torch.equal(found.metrics["kl"], expected.metrics["kl"])


@pytest.mark.parametrize(
    ("sampler", "refresh"), [("uniform", "before"), ("ranked", "after"), ("proportional", "after")]
)
def test_only_a_sampler_that_looks_at_priorities_pays_for_fresh_ones(sampler: str, refresh: str) -> None:
    assert build.learner(parts_of(small(memory={"sampler": sampler, "refresh": "after"}))).refresh == refresh
    assert build.learner(parts_of(small(memory={"sampler": sampler}))).refresh == "before"


@pytest.mark.parametrize("loss", EVERY)
def test_a_loss_may_be_divided_by_the_number_of_actions(loss: str) -> None:
    """Of each task's own; the priority, which eq. 5 of Yin & Pan divides already, stays."""
    generator = torch.Generator().manual_seed(0)
    q, x = torch.randn(2, 2, 5, 4, generator=generator, dtype=torch.float64)
    valid = torch.tensor([[[True, True, False, True]], [[False, True, False, True]]])
    targets, output = Targets(q, valid, 0.5), PolicyOutput(x, x)
    plain, divided = (actor_mimic(loss, over_actions=how)(output, targets) for how in ("sum", "mean"))
    torch.testing.assert_close(divided.per_example, plain.per_example / torch.tensor([[3.0], [2.0]]))
    assert torch.equal(divided.priority, plain.priority)
    assert all(torch.equal(divided.metrics[k], plain.metrics[k]) for k in plain.metrics)
    chosen = parts_of(small(objective={"loss": loss, "over_actions": "mean"}))
    wide = torch.tensor(chosen.suite.valid)[:, None]  # 3 and 2 actions
    x = torch.randn(2, 5, wide.shape[-1], generator=generator)
    built = build.learner(chosen).objective(PolicyOutput(x, x), Targets(-x, wide, 0.5))
    plain = actor_mimic(loss)(PolicyOutput(x, x), Targets(-x, wide, 0.5))
    torch.testing.assert_close(built.per_example, plain.per_example / wide.sum(-1))


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_a_perfect_student_of_q_values_has_priority_zero(loss: str) -> None:
    q = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    found = policy_distillation(loss)(PolicyOutput(q, q), Targets(q, torch.ones(2, 1, 4, dtype=torch.bool), 0.01))
    assert (found.per_example == 0).all()
    assert found.priority is not None
    assert (found.priority == 0).all()


@pytest.mark.parametrize("tau", [0.01, 0.5])
def test_a_tabular_student_becomes_the_tempered_teacher(tau: float) -> None:
    q = torch.from_numpy(rng("table").normal(size=(1, 40, 3)) * tau * 3)
    table = Table(1, 40, 3)
    learner = learner_of(table, policy_distillation("kl"), lr=40.0)
    for _ in range(1500):
        loss = learner.step(batch_of(q, tau=tau))
    torch.testing.assert_close(torch.softmax(table.logits, -1), soft_targets(q, tau), atol=2e-3, rtol=0)
    assert loss.metrics["agreement"].item() == 1.0
    assert learner.updates == 1500


def test_an_update_that_is_not_finite_is_skipped_and_counted() -> None:
    table, poison = Table(1, 2, 3), {1, 4}
    learner = learner_of(table, patience=3)
    good = torch.tensor([[[1.0, 1.1, 0.9], [0.2, 0.1, 0.4]]], dtype=torch.float64)
    seen = [copies(table)["logits"]]
    for i in range(6):
        teacher = good.clone()
        if i in poison:
            teacher[0, 1, 0] = torch.nan
        learner.step(batch_of(teacher))
        seen.append(copies(table)["logits"])
    assert [not torch.equal(a, b) for a, b in pairwise(seen)] == [i not in poison for i in range(6)]
    assert torch.isfinite(table.logits).all()
    assert (learner.updates, learner.skipped) == (6, 2)


@pytest.mark.parametrize("max_grad_norm", [None, 10.0])
def test_patience_ends(max_grad_norm: float | None) -> None:
    table = Table(1, 1, 3)
    learner = learner_of(table, patience=3, max_grad_norm=max_grad_norm)
    bad = batch_of(torch.full((1, 1, 3), torch.nan, dtype=torch.float64))
    fine = batch_of(torch.zeros(1, 1, 3, dtype=torch.float64))
    for batch in (bad, bad, fine, bad, bad):  # a good one in between starts the count again
        learner.step(batch)
    with pytest.raises(NotFiniteError, match="3 updates in a row"):
        learner.step(bad)
    assert torch.equal(table.logits, torch.zeros(1, 1, 3, dtype=torch.float64))


def test_gradients_are_clipped_to_the_norm() -> None:
    table = Table(1, 1, 3)
    teacher = torch.tensor([[[9.0, 0.0, 0.0]]], dtype=torch.float64)
    learner_of(table, policy_distillation("mse"), max_grad_norm=0.5).step(batch_of(teacher))
    assert table.logits.norm().item() == pytest.approx(0.5, rel=1e-4)


def test_learning_rate_follows_the_updates_done() -> None:
    table, asked = Table(1, 1, 3), []
    learner = learner_of(table)
    learner.learning_rate = lambda updates: asked.append(updates) or 0.0
    for _ in range(3):
        learner.step(batch_of(torch.ones(1, 1, 3, dtype=torch.float64)))
    assert asked == [0, 1, 2]
    assert torch.equal(table.logits, torch.zeros(1, 1, 3, dtype=torch.float64))  # and it is obeyed


@pytest.mark.parametrize("student", ["task_torsos", "mimic", "controllers"])
@pytest.mark.parametrize("loss", ["kl", "nll", "mse"])
def test_only_the_student_learns(student: str, loss: str) -> None:
    parts = parts_of(small(student, objective={"loss": loss, "temperature": 0.01}))
    teachers = [copies(t.net) for t in parts.teachers]
    before = copies(parts.student)
    learner = build.learner(parts)
    draw = rng("draw")
    for _ in range(3):
        obs = [torch.from_numpy(states(n)[draw.integers(0, 900, 8)]) for n in NAMES]
        own = [t(o).values for t, o in zip(parts.teachers, obs, strict=True)]
        teacher = torch.zeros(2, 8, len(parts.suite.axis))
        for g, values in enumerate(own):
            teacher[g][:, list(parts.suite.actions[g])] = values
        learner.step(Minibatch(obs, targets_of(teacher), torch.ones(2, 8)))
    assert learner.updates == 3
    assert learner.skipped == 0
    after = parts.student.state_dict()
    frozen = {k for k, p in parts.student.named_parameters() if not p.requires_grad}
    assert bool(frozen) == (student == "task_torsos")
    for name in before:
        assert torch.equal(before[name], after[name]) == (name in frozen), name
    for teacher_net, old in zip(parts.teachers, teachers, strict=True):
        assert all(torch.equal(old[k], v) for k, v in teacher_net.net.state_dict().items())
        assert all(p.grad is None for p in teacher_net.net.parameters())


def test_torsos_learn_when_asked_to_and_the_teacher_keeps_its_own() -> None:
    recipe = small("task_torsos")
    recipe["student"]["options"] = {**recipe["student"]["options"], "train_convs": True}
    parts = parts_of(recipe)
    old = [copies(t.net) for t in parts.teachers]
    before = copies(parts.student)
    obs = [torch.from_numpy(states(n)[:8]) for n in NAMES]
    build.learner(parts).step(Minibatch(obs, targets_of(torch.rand(2, 8, len(parts.suite.axis))), torch.ones(2, 8)))
    assert all(not torch.equal(before[k], v) for k, v in parts.student.state_dict().items())
    for teacher, weights in zip(parts.teachers, old, strict=True):
        assert all(torch.equal(weights[k], v) for k, v in teacher.net.state_dict().items())


def test_the_temperature_is_for_q_values_alone() -> None:
    teachers = [fitted_teacher(NAMES[0]), replace(fitted_teacher(NAMES[1]), kind="logits")]
    tau = build.temperatures(parts_of(small(objective={"temperature": 0.25}), teachers))
    assert tau.shape == (2, 1, 1)
    assert tau.flatten().tolist() == [0.25, 1.0]


def test_a_teacher_of_logits_is_met_at_temperature_one() -> None:
    """With its own logits the student's KL is 0; at tau = 0.01 it would not be."""
    teachers = [replace(fitted_teacher(n), kind="logits") for n in NAMES]
    parts = parts_of(small(), teachers)
    values = torch.rand(2, 4, len(parts.suite.axis))
    valid = torch.tensor(parts.suite.valid)[:, None]
    loss: Loss = build.learner(parts).objective(
        PolicyOutput(values, values), Targets(values, valid, build.temperatures(parts))
    )
    torch.testing.assert_close(loss.per_example, torch.zeros(2, 4), atol=1e-6, rtol=0)
