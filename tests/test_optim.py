"""The optimisers of Mnih et al. 2015 and Parisotto et al. 2016 against numbers and slow twins like the Lua code."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from polydistill import optim
from polydistill.optim import AuthorsAdam, DQNRMSprop, eps_for_max_lr


def weight(value: float = 0.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([value], dtype=dtype, requires_grad=True)


def steps(optimizer: Optimizer, w: Tensor, gradients: list[float]) -> list[float]:
    """How far each step went, downhill counted positive."""
    out = []
    for g in gradients:
        before = w.item()
        w.grad = torch.full_like(w, g)
        optimizer.step()
        out.append(before - w.item())
    return out


def test_dqn_rmsprop_numbers() -> None:  # Mnih et al. 2015
    w = weight()
    taken = steps(DQNRMSprop([w], lr=2.5e-4, eps=0.01), w, [1.0] * 400)
    assert taken[:3] == pytest.approx([1.0425720702853737e-3, 7.986211726728923e-4, 6.87365628119346e-4], rel=1e-9)
    assert taken[-1] == pytest.approx(2.5e-3, rel=1e-6)  # "maximum learning rate"
    assert eps_for_max_lr(2.5e-4, 2.5e-3) == pytest.approx(0.01)


def test_dqn_rmsprop_on_random_signs() -> None:  # Mnih et al. 2015
    signs = (torch.randint(0, 2, (4000,), generator=torch.Generator().manual_seed(0)) * 2.0 - 1).tolist()
    w = weight()
    sizes = torch.tensor(steps(DQNRMSprop([w], lr=2.5e-4, eps=0.01), w, signs)[100:]).abs()
    assert sizes.min() >= 2.48759e-4 - 1e-9
    assert sizes.mean() == pytest.approx(2.519e-4, rel=2e-3)


def test_authors_adam_numbers() -> None:  # Parisotto et al. 2016
    w = weight()
    taken = steps(AuthorsAdam([w]), w, [1.0] * 600)
    assert taken[0] == pytest.approx(2.2822e-4, abs=1e-8)
    assert taken[-1] == pytest.approx(1.11249e-3, abs=1e-8)
    w = weight()
    assert steps(AuthorsAdam([w]), w, [1e-6] * 600)[-1] / 1e-6 == pytest.approx(0.01118, abs=1e-5)


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_sum_loss_and_mean_loss_are_one_trajectory(batch: int) -> None:  # Mnih et al. 2015
    generator = torch.Generator().manual_seed(0)
    start, data = torch.randn(7, generator=generator), torch.randn(50, batch, 7, generator=generator)
    runs = []
    for mean, eps in ((False, 0.01), (True, 0.01 / batch**2)):
        w = start.clone().requires_grad_()
        optimizer = DQNRMSprop([w], lr=2.5e-3, eps=eps)
        for x in data:
            loss = (x @ w.sin() - 1).square()
            w.grad = None
            (loss.mean() if mean else loss.sum()).backward()
            optimizer.step()
        runs.append(w.detach())
    torch.testing.assert_close(*runs, rtol=0, atol=1e-6)
    assert (runs[0] - start).abs().max() > 1e-2


# ----------------------------------------------------------------------------------------------------------- slow twins


def slow_rmsprop(w: Tensor, gradients: list[Tensor], lr: float, rho: float, eps: float, centered: bool) -> Tensor:
    """As in NeuralQLearner.lua, in float64: two averages, their difference under the root."""
    w, g1, g2 = w.double(), torch.zeros_like(w).double(), torch.zeros_like(w).double()
    for dw in (g.double() for g in gradients):
        g1 = rho * g1 + (1 - rho) * dw
        g2 = rho * g2 + (1 - rho) * dw * dw
        w = w - lr * dw / torch.sqrt(g2 - centered * g1 * g1 + eps)
    return w


def slow_authors_adam(w: Tensor, gradients: list[Tensor], lr: float, rho: float, eps: float) -> Tensor:
    w, m, v = w.double(), torch.zeros_like(w).double(), torch.zeros_like(w).double()
    for dw in (g.double() for g in gradients):
        m = rho * m + (1 - rho) * dw
        v = rho * v + (1 - rho) * dw * dw
        w = w - lr * (1 - rho) ** 0.5 / (1 - rho) * m / torch.sqrt(v + eps)
    return w


def tensors(seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Shapes that meet a block's edges, and a weight in channels-last order."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(1,), (7, 9), (64,), (3, 64), (), (4, 3, 5, 2)]
    made = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]
    made[-1] = made[-1].to(memory_format=torch.channels_last)
    return made


def run(make: Callable[[list[Tensor]], Optimizer], dtype: torch.dtype = torch.float32, n: int = 20) -> list[Tensor]:
    params = [p.requires_grad_() for p in tensors(0, dtype)]
    optimizer = make(params)
    for i in range(n):
        for p, g in zip(params, tensors(i + 1, dtype), strict=True):
            p.grad = g
        optimizer.step()
    return [p.detach() for p in params]


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("block", [1, 10, 64, 2**17])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rmsprop_matches_its_slow_twin(
    centered: bool, block: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optim, "BLOCK", block)
    settings = {"lr": 1e-2, "rho": 0.9, "eps": 1e-3, "centered": centered}
    actual = run(lambda params: DQNRMSprop(params, **settings), dtype)
    for i, w in enumerate(tensors(0, dtype)):
        twin = slow_rmsprop(w, [tensors(k + 1, dtype)[i] for k in range(20)], **settings)
        atol = 1e-5 if dtype == torch.float32 else 1e-12
        torch.testing.assert_close(actual[i].double(), twin, rtol=0, atol=atol)


@pytest.mark.parametrize("centered", [True, False])
def test_both_paths_agree(centered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other devices run, run here."""
    blocks = run(lambda params: DQNRMSprop(params, centered=centered))

    def whole(lr, rho, eps, scratch, *tensors):  # type: ignore[no-untyped-def]
        optim._rmsprop_foreach(lr, rho, eps, *([x] for x in tensors))

    monkeypatch.setattr(optim, "_rmsprop_block", whole)
    for a, b in zip(blocks, run(lambda params: DQNRMSprop(params, centered=centered)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


def test_authors_adam_matches_its_slow_twin() -> None:
    actual = run(lambda params: AuthorsAdam(params, lr=1e-2, rho=0.9, eps=1e-3))
    for i, w in enumerate(tensors(0)):
        twin = slow_authors_adam(w, [tensors(k + 1)[i] for k in range(20)], 1e-2, 0.9, 1e-3)
        torch.testing.assert_close(actual[i].double(), twin, rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ behaviour


def test_large_constant_gradients_do_not_give_nan() -> None:
    """EMA(g^2) - EMA(g)^2 falls below -eps in float32 here, by rounding alone; the variance form cannot."""
    w = weight(dtype=torch.float32)
    taken = steps(DQNRMSprop([w], lr=1e-9), w, [1234.567] * 1000)
    assert taken[-1] == pytest.approx(1e-9 * 1234.567 / 0.1 * 32, rel=0.1)


def test_zero_gradient_is_a_zero_step() -> None:
    w = weight(0.1, torch.float32)
    optimizer = DQNRMSprop([w])
    taken = steps(optimizer, w, [3.0, 0.0, 0.0, -0.0])
    assert taken[0] != 0
    assert taken[1:] == [0, 0, 0]
    w = weight(0.1)
    assert steps(AuthorsAdam([w]), w, [3.0, 0.0])[1] != 0


def test_parameters_without_gradient_are_skipped() -> None:
    for kind in (DQNRMSprop, AuthorsAdam):
        used, unused = weight(1.0), weight(2.0)
        optimizer = kind([used, unused])
        optimizer.step()
        assert (used.item(), unused.item()) == (1, 2)
        steps(optimizer, used, [1.0])
        assert unused.item() == 2
        assert unused not in optimizer.state


def test_maximize_goes_uphill() -> None:
    up, down = weight(), weight()
    downhill = steps(DQNRMSprop([down]), down, [1.0, 2.0])
    assert steps(DQNRMSprop([up], maximize=True), up, [1.0, 2.0]) == [-x for x in downhill]


@pytest.mark.parametrize("kind", [DQNRMSprop, AuthorsAdam])
def test_state_round_trip(kind: type[Optimizer]) -> None:
    a = weight(0.3)
    first = kind([a])  # type: ignore[call-arg]
    steps(first, a, [1.0, -0.5, 0.2])
    b = weight(a.item())
    second = kind([b], lr=9.0)  # type: ignore[call-arg]
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert steps(first, a, [0.7, 0.1]) == steps(second, b, [0.7, 0.1])


def test_groups_and_schedules_set_the_rate() -> None:
    a, b = weight(), weight()
    optimizer = DQNRMSprop([{"params": [a]}, {"params": [b], "lr": 5e-4}], lr=2.5e-4)
    halved = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    a.grad, b.grad = torch.ones_like(a), torch.ones_like(b)
    optimizer.step()
    assert b.item() == pytest.approx(2 * a.item())
    halved.step()
    c, moved = weight(), a.item()
    constant = DQNRMSprop([c], lr=2.5e-4)
    expected = steps(constant, c, [1.0, 1.0])[1] / 2
    optimizer.step()
    assert moved - a.item() == pytest.approx(expected)


def test_closure() -> None:
    w = weight(2.0)

    def closure() -> float:
        w.grad = None
        loss = w.square().sum()
        loss.backward()
        return loss.item()

    for optimizer in (DQNRMSprop([w]), AuthorsAdam([w])):
        before = w.item()
        assert optimizer.step(closure) == pytest.approx(before**2)
        assert w.item() < before


@pytest.mark.parametrize("kind", [DQNRMSprop, AuthorsAdam])
@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"rho": 1.0}, {"rho": -0.1}, {"eps": 0.0}])
def test_settings_out_of_range(kind: type[Optimizer], bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="need lr"):
        kind([weight()], **bad)  # type: ignore[call-arg]


def test_other_refusals() -> None:
    w = weight()
    w.grad = torch.ones(1, dtype=torch.float64).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        DQNRMSprop([w]).step()
    with pytest.raises(ValueError, match="max_lr"):
        eps_for_max_lr(1e-4, 0)
