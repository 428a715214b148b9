"""ops/policy.py against numbers of Rusu et al. 2016, Parisotto et al. 2016 and Yin & Pan 2017, gradient
checks, and what must hold for any input.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from polydistill.ops import policy as ops

A, INF, NAN = 18, math.inf, math.nan
Q = [1.00, 1.01, 0.99]
MASK = torch.tensor([True, False, True, True])


def t(*x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def leaf(*x: float) -> Tensor:
    return t(*x).requires_grad_()


def grad(loss: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(loss.sum(), x)[0]


def close(actual: Tensor, *expected: float, atol: float = 1e-9) -> None:
    torch.testing.assert_close(actual, t(*expected).reshape(actual.shape), rtol=0, atol=atol)


# ------------------------------------------------------------------------------------------------ numbers of the papers


def test_kl_numbers_at_zero_logits() -> None:  # Rusu et al. 2016
    q, logits = t(*Q), leaf(0, 0, 0)
    close(ops.soft_targets(q, 0.01), 0.2447284711, 0.6652409558, 0.0900305732)
    loss = ops.distill_kl(q, logits, 0.01)
    close(loss, 0.2662167068)
    close(grad(loss, logits), 0.0886048623, -0.3319076224, 0.2433027602)


@pytest.mark.parametrize(
    "tau, expected, atol", [(1.0, 3.33325e-5, 1e-10), (0.1, 3.32502e-3, 1e-8), (0.001, 1.0981128678, 1e-9)]
)
def test_kl_over_temperatures(tau: float, expected: float, atol: float) -> None:
    close(ops.distill_kl(t(*Q), t(0, 0, 0), tau), expected, atol=atol)


def test_three_losses_on_one_example() -> None:  # Rusu et al. 2016
    q, logits = t(*Q), leaf(0.5, -0.2, 0.1)
    loss = ops.distill_kl(q, logits, 0.01)
    close(loss, 0.4425853601)
    close(grad(loss, logits), 0.2167591523, -0.4360729841, 0.2193138318)
    close(ops.distill_nll(q, logits), 1.4733000436)
    close(ops.distill_mse(q, logits), 2.5062)


def test_other_divergences_on_the_same_example() -> None:  # computed apart, with NumPy and finite differences
    q, logits = t(*Q), leaf(0.5, -0.2, 0.1)
    loss = ops.distill_reverse_kl(q, logits, 0.01)
    close(loss, 0.4303270119764814)
    close(grad(loss, logits), 0.0941337419, -0.3428401192, 0.2487063771)
    loss = ops.distill_js(q, logits, 0.01)
    close(loss, 0.10423327315224717)
    close(grad(loss, logits), 0.0373716705, -0.0887200960, 0.0513484256)
    close(ops.distill_huber(q, logits), 1.23105)  # errors 0.5, 1.21, 0.89: 0.125 + 0.71 + 0.39605
    close(ops.distill_huber(t(3, 0.4, -2), logits), 3.78)


def test_js_is_symmetric_bounded_and_never_explodes() -> None:
    q, x = t(0, 1, 2), t(2, 0.5, -1)
    close(ops.distill_js(q, x, 1.0), ops.distill_js(x, q, 1.0).item())
    far = leaf(0, 1e6, 0)
    loss = ops.distill_js(t(1e6, 0, 0), far, 0.01)
    close(loss, math.log(2))
    assert grad(loss, far).isfinite().all()


def test_actor_mimic_cross_entropy() -> None:  # Parisotto et al. 2016
    q, logits = t(1, 3, 0, 2), leaf(2, 1, 0, -1)
    close(ops.soft_targets(q, 1.0, MASK), 0.2447284711, 0, 0.0900305732, 0.6652409558)
    close(ops.policy(logits, MASK), 0.8437947345, 0, 0.1141951994, 0.0420100661)
    loss = ops.cross_entropy(q, logits, 1.0, MASK)
    close(loss, 2.3456300332)
    gradient = grad(loss, logits)
    close(gradient, 0.5990662634, 0, 0.0241646262, -0.6232308896)
    assert gradient[1] == 0
    close(ops.entropy(q, MASK), 0.8323955818)
    assert loss > ops.cross_entropy(q, logits.detach() - 0.1 * gradient, 1.0, MASK) > ops.entropy(q, MASK)


@pytest.mark.parametrize("logits, expected", [((0, 0, 0), 0.2212717483), ((0.5, -0.2, 0.1), 0.2907153227)])
def test_priority(logits: tuple[float, ...], expected: float) -> None:  # Yin & Pan 2017
    x = leaf(*logits)
    priority = ops.priority_l1(t(*Q), x, 0.01)
    close(priority, expected)
    close(grad(ops.distill_kl(t(*Q), x, 0.01), x).abs().mean(), expected)
    assert not priority.requires_grad


def test_priority_divides_by_the_number_of_valid_actions() -> None:
    q, logits = t(1.00, 50, 1.01, 0.99), t(0, -7, 0, 0)
    close(ops.priority_l1(q, logits, 0.01, MASK), 0.2212717483)


@pytest.mark.parametrize(
    "q, logits, kl, bound",
    [
        (Q, (0, 0, 0), 0.2662167068, 0.2203253397),
        (Q, (0.5, -0.2, 0.1), 0.4425853601, 0.3803192950),
        ((0, 0), (math.log(0.6), math.log(0.4)), 0.0204109973, 0.02),  # 0.1 from an even policy
        ((0, 0), (math.log(0.51), math.log(0.49)), 0.0002000400, 0.0002),  # the nearer, the tighter
    ],
)
def test_pinsker_in_numbers(
    q: tuple[float, ...], logits: tuple[float, ...], kl: float, bound: float
) -> None:  # Yin & Pan 2017: KL >= |A|^2 |delta|^2 / 2, where |A| counts the task's own actions, not those of the axis
    size = len(q)
    close(ops.distill_kl(t(*q), t(*logits), 0.01), kl, atol=1e-10)
    close(size**2 * ops.priority_l1(t(*q), t(*logits), 0.01) ** 2 / 2, bound, atol=1e-10)
    assert kl >= bound
    wide, valid = t(*[7.0] * A), torch.arange(A) < size
    on_axis = [torch.where(valid, torch.cat([t(*x), wide[size:]]), 1e30) for x in (q, logits)]
    close(size**2 * ops.priority_l1(on_axis[0], on_axis[1], 0.01, valid) ** 2 / 2, bound, atol=1e-10)


def test_the_largest_priority_is_two_over_the_number_of_actions() -> None:  # Yin & Pan 2017; both sure, and apart
    for size in (2, 3, 18):
        q, logits = (1e4 * torch.eye(size, dtype=torch.float64)[i] for i in (0, 1))
        close(ops.priority_l1(q, logits, 0.01), 2 / size, atol=1e-15)


# ------------------------------------------------------------------------------------------------- limits and gradients


def test_cold_teacher_gives_the_nll_gradient_and_a_hot_one_the_uniform() -> None:  # Rusu et al. 2016
    q, x = t(*Q), leaf(0.5, -0.2, 0.1)
    nll = grad(ops.distill_nll(q, x), x)
    torch.testing.assert_close(grad(ops.distill_kl(q, x, 1e-4), x), nll, rtol=0, atol=1e-6)
    hot = grad(ops.distill_kl(q, x, INF), x)
    torch.testing.assert_close(hot, ops.policy(x.detach()) - 1 / 3)


def test_kl_gradient_is_student_minus_target() -> None:  # Rusu et al. 2016 and Parisotto et al. 2016
    generator = torch.Generator().manual_seed(0)
    q, x = torch.randn(2, 2, 5, A, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    expected = ops.policy(x.detach()) - ops.soft_targets(q, 0.3)
    torch.testing.assert_close(grad(ops.distill_kl(q, x, 0.3), x), expected)
    torch.testing.assert_close(grad(ops.cross_entropy(q, x, 0.3), x), expected)


def test_teacher_receives_no_gradient() -> None:
    q, x = leaf(*Q), leaf(0, 1, 2)
    sum(loss(q, x, None) for loss in LOSSES.values()).backward()
    assert q.grad is None


LOSSES = {
    "kl": lambda q, x, valid: ops.distill_kl(q, x, 0.5, valid),
    "ce": lambda q, x, valid: ops.cross_entropy(q, x, 0.5, valid),
    "nll": ops.distill_nll,
    "mse": ops.distill_mse,
    "reverse_kl": lambda q, x, valid: ops.distill_reverse_kl(q, x, 0.5, valid),
    "js": lambda q, x, valid: ops.distill_js(q, x, 0.5, valid),
    "huber": ops.distill_huber,
}
OF_LOGITS = {
    "policy": ops.policy,
    "entropy": ops.entropy,
    "log_policy": lambda x, valid: ops.log_policy(x, valid).clamp(min=-1e3),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", [*LOSSES, *OF_LOGITS])
def test_gradcheck(name: str, masked: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    q, x = torch.randn(2, 2, 3, 4, generator=generator, dtype=torch.float64)
    valid = torch.tensor([[[True, False, True, True]], [[True, True, False, True]]]) if masked else None
    function = OF_LOGITS[name] if name in OF_LOGITS else lambda x, valid: LOSSES[name](q, x, valid)
    assert gradcheck(lambda x: function(x, valid), x.requires_grad_())


# -------------------------------------------------------------------------------------------------------------- masking


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("garbage", [1e30, -1e30, INF, -INF, NAN])
def test_invalid_entries_change_nothing(garbage: float, dtype: torch.dtype) -> None:  # Parisotto et al. 2016
    q, x = t(1, 0, 0, 2).to(dtype), t(2, 0, 0, -1).to(dtype)
    dirty_q, dirty_x = (torch.where(MASK, y, garbage) for y in (q, x))
    for name, loss in LOSSES.items():
        clean, dirty = x.clone().requires_grad_(), dirty_x.clone().requires_grad_()
        expected, actual = loss(q, clean, MASK), loss(dirty_q, dirty, MASK)
        assert torch.equal(expected, actual), name
        assert expected.isfinite().all(), name
        gradient = grad(actual, dirty)
        assert torch.equal(gradient, grad(expected, clean)), name
        assert gradient[1] == 0, name
    assert torch.equal(ops.priority_l1(q, x, 0.5, MASK), ops.priority_l1(dirty_q, dirty_x, 0.5, MASK))
    assert torch.equal(ops.entropy(x, MASK), ops.entropy(dirty_x, MASK))
    assert ops.policy(dirty_x, MASK)[1] == 0
    assert ops.log_policy(dirty_x, MASK).exp()[1] == 0
    assert ops.greedy(dirty_q, MASK) == 3
    assert ops.max_value(dirty_q, MASK) == 2
    assert ops.agreement(dirty_q, dirty_x, MASK) == ops.agreement(q, x, MASK)


def test_a_gradient_sent_into_an_invalid_log_probability_stops_there() -> None:
    x = leaf(2, 1, 0, -1)
    everything, valid_only = ops.log_policy(x, MASK), ops.log_policy(x, MASK)[MASK]
    assert torch.equal(grad(everything, x), grad(valid_only, x))


def test_mask_broadcasts_over_the_rectangle() -> None:
    generator = torch.Generator().manual_seed(2)
    q, x = torch.randn(2, 3, 5, A, generator=generator)
    valid = torch.rand(3, 1, A, generator=generator) < 0.4
    valid[..., 0] = True
    loss = ops.distill_kl(q, x, 0.01, valid)
    assert loss.shape == (3, 5)
    for g in range(3):
        keep = valid[g, 0]
        torch.testing.assert_close(loss[g], ops.distill_kl(q[g][:, keep], x[g][:, keep], 0.01))


def test_a_row_without_valid_actions_is_zero() -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    none = torch.tensor([[False] * 3, [True] * 3])
    loss = ops.distill_kl(torch.ones(2, 3), x, 1.0, none) + ops.cross_entropy(torch.ones(2, 3), x, 1.0, none)
    assert loss[0] == 0
    assert (grad(loss, x) == 0)[0].all()
    assert (ops.policy(x, none)[0] == 0).all()


def test_wrong_shapes_are_refused() -> None:
    q, x = torch.zeros(4, 3), torch.zeros(2, 4, 3)
    for loss in LOSSES.values():
        with pytest.raises(ValueError, match="same shape"):
            loss(q, x, None)
        with pytest.raises(RuntimeError):  # a mask may not enlarge a batch
            loss(q, q, torch.ones(2, 4, 3, dtype=torch.bool))


@pytest.mark.parametrize("tau", [0.0, -1.0, NAN])
def test_temperature_must_be_positive(tau: float) -> None:
    with pytest.raises(ValueError, match="tau"):
        ops.distill_kl(t(*Q), t(*Q), tau)


def test_one_temperature_per_task() -> None:
    q, x = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(3))
    tau = torch.tensor([0.01, 1.0]).reshape(2, 1, 1)
    loss = ops.distill_kl(q, x, tau)
    torch.testing.assert_close(loss[0], ops.distill_kl(q[0], x[0], 0.01))
    torch.testing.assert_close(loss[1], ops.distill_kl(q[1], x[1], 1.0))


# ---------------------------------------------------------------------------------------------------------- any numbers

finite = st.floats(-1e30, 1e30)
moderate = st.floats(-20, 20)


def rows(elements: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[list[float], list[float], list[bool]]]:
    def sized(n: int) -> st.SearchStrategy[tuple[list[float], list[float], list[bool]]]:
        row = st.lists(elements, min_size=n, max_size=n)
        return st.tuples(row, row, st.lists(st.booleans(), min_size=n, max_size=n).filter(any))

    return st.integers(1, 6).flatmap(sized)


@given(rows(finite), st.sampled_from([1e-30, 1e-3, 0.01, 1.0, 1e6]), st.sampled_from([torch.float32, torch.float64]))
@settings(deadline=None)
def test_huge_values_and_tiny_temperatures_give_no_nan(
    row: tuple[list[float], list[float], list[bool]], tau: float, dtype: torch.dtype
) -> None:
    q, x = (torch.tensor(y, dtype=dtype) for y in row[:2])
    valid = torch.tensor(row[2])
    x.requires_grad_()
    loss = ops.distill_kl(q, x, tau, valid)
    assert not loss.isnan()
    assert loss >= -1e-6
    gradient = grad(loss, x)
    assert gradient.isfinite().all()
    assert (gradient[~valid] == 0).all()
    torch.testing.assert_close(ops.soft_targets(q, tau, valid).sum(), torch.ones((), dtype=dtype))


@given(rows(moderate), moderate, moderate, st.floats(0.01, 10))
@settings(deadline=None)
def test_kl_properties(
    row: tuple[list[float], list[float], list[bool]], c_q: float, c_x: float, tau: float
) -> None:  # Rusu et al. 2016 and Yin & Pan 2017
    q, x = t(*row[0]), t(*row[1])
    valid = torch.tensor(row[2])
    kl = ops.distill_kl(q, x, tau, valid)
    assert kl >= -1e-12
    torch.testing.assert_close(ops.distill_kl(q + c_q, x + c_x, tau, valid), kl, rtol=1e-7, atol=1e-9)
    close(ops.distill_kl(q, q / tau + c_x, tau, valid), 0, atol=1e-9)
    close(ops.cross_entropy(q, x, tau, valid), kl.item() + ops.entropy(q / tau, valid).item(), atol=1e-7)
    n, priority = int(valid.sum()), ops.priority_l1(q, x, tau, valid)
    assert 0 <= priority <= 2 / n + 1e-12
    assert kl >= n**2 * priority**2 / 2 - 1e-9  # Pinsker


def test_mse_is_not_shift_invariant() -> None:
    assert ops.distill_mse(t(*Q), t(*Q)) == 0
    close(ops.distill_mse(t(*Q), t(*Q) + 1), 3)


def test_nan_at_a_valid_action_is_not_hidden() -> None:
    for q, x in ((t(1, NAN), t(0, 0)), (t(0, 0), t(1, NAN))):
        assert ops.distill_kl(q, x, 1.0).isnan()
        assert ops.distill_mse(q, x).isnan()


# --------------------------------------------------------------------------------------------------------------- acting


def test_greedy_breaks_ties() -> None:
    values = t(1, 3, 9, 3, 3).expand(30_000, 5)
    valid = torch.tensor([True, True, False, True, True])
    assert (ops.greedy(values, valid) == 1).all()
    counts = torch.bincount(ops.greedy(values, valid, torch.Generator().manual_seed(0)), minlength=5)
    assert counts[0] == counts[2] == 0
    expected = 10_000
    assert ((counts[[1, 3, 4]] - expected) ** 2 / expected).sum() < 13.8  # chi-square, 2 degrees of freedom, p = .001


@pytest.mark.parametrize("values", [(NAN, NAN, NAN), (INF, -INF, -INF), (-INF, -INF, -INF)])
def test_greedy_never_leaves_the_valid_actions(values: tuple[float, ...]) -> None:
    valid = torch.tensor([False, True, True])
    for seed in (None, 0, 1, 2, 3):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        assert ops.greedy(t(*values), valid, generator) in (1, 2)


def test_exploration_is_uniform_over_valid_actions() -> None:
    n = 40_000
    values = t(0, 5, 9, 1).expand(n, 4)
    valid = torch.tensor([True, True, False, True])
    action = ops.epsilon_greedy(values, 0.3, valid, torch.Generator().manual_seed(0))
    share = torch.bincount(action, minlength=4) / n
    torch.testing.assert_close(share, torch.tensor([0.1, 0.8, 0.0, 0.1]), rtol=0, atol=0.01)
    assert share[2] == 0


def test_epsilon_per_example() -> None:
    values = t(0, 5, 1).expand(2, 2000, 3)
    action = ops.epsilon_greedy(values, torch.tensor([[0.0], [1.0]]), None, torch.Generator().manual_seed(0))
    assert (action[0] == 1).all()
    torch.testing.assert_close(torch.bincount(action[1]) / 2000, torch.full((3,), 1 / 3), rtol=0, atol=0.05)


def test_acting_repeats_with_its_generator_and_leaves_the_global_one_alone() -> None:
    values, before = torch.zeros(100, 6), torch.get_rng_state()
    first, second = (ops.epsilon_greedy(values, 0.5, None, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_agreement() -> None:
    q = t(0, 1, 2, 0, 1, 2).reshape(2, 3)
    logits = t(5, 6, 7, 9, 6, 7).reshape(2, 3)
    assert ops.agreement(q, logits).tolist() == [True, False]
    assert ops.agreement(q, logits, torch.tensor([False, True, True])).tolist() == [True, True]
