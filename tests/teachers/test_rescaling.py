"""Trained layers as large as fresh ones: the same answers, and layers that a learner moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polydistill.envs.suite import resolve_task
from polydistill.nets.store import save_student
from polydistill.rng import seeded_init
from polydistill.tasks import Suite
from polydistill.teachers.bodies import last_layer
from polydistill.teachers.rescaling import rescale, sizes
from polydistill.teachers.sources import open_source
from polydistill.teachers.zoo import Network, build_network
from tests.distilling import states
from tests.teachers.test_sources import KINDS, TASKS, atari, student_at

BREAKOUT = resolve_task("breakout")


def grow(net: nn.Module, factor: float = 9.0) -> None:
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight *= factor
                if module.bias is not None:
                    module.bias.normal_()


def weights(net: nn.Module, name: str) -> Tensor:
    return net.get_submodule(name).get_parameter("weight")


def test_known_numbers() -> None:
    """Norms 5 and 10, fresh ones 1: 1/4, the power of two nearest to 1/5; then 1/32, nearest to 1/(4 * 10)."""
    net: Any = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        for i, weight, bias in (0, [[3.0], [4.0]], [8.0, 4.0]), (2, [[6.0, 8.0]], [3.0]), (4, [[2.0]], [7.0]):
            net[i].weight.copy_(torch.tensor(weight))
            net[i].bias.copy_(torch.tensor(bias))
    x = torch.tensor([[1.0], [-3.0]])
    assert net(x).tolist() == [[2 * (6 * 11 + 8 * 8 + 3) + 7.0], [2 * 3 + 7.0]]
    carried, changed = rescale(net, "4", {"0": 1.0, "2": 1.0, "4": 1.0}, x)
    assert changed == ("0", "2")
    assert net[0].weight.tolist() == [[0.75], [1.0]]
    assert net[0].bias.tolist() == [2.0, 1.0]
    assert net[2].weight.tolist() == [[6 * 4 / 32, 8 * 4 / 32]]  # 40 -> 1.25
    assert net[2].bias.tolist() == [3 / 32]
    assert carried == 32
    assert net[4].weight.tolist() == [[2.0]]  # the caller's
    assert (net[4].weight * carried * net[:4](x) + net[4].bias).tolist() == [[273.0], [13.0]]


@pytest.mark.parametrize(("norm", "bf16"), [(False, False), (True, False), (True, True)])
def test_a_teacher_grown_ninefold(norm: bool, bf16: bool) -> None:
    """In front of a normalisation the factor goes; elsewhere the next layer takes it. Either way the answers stay."""
    net = build_network(BREAKOUT, Network(norm=norm, bf16=bf16), training=True)
    fresh, (last, _) = sizes(net), last_layer(net)
    grow(net)
    obs = torch.randint(0, 256, (4, *BREAKOUT.obs_shape), dtype=torch.uint8)
    before, top = net(obs), weights(net, last).clone()
    carried, _ = rescale(net, last, fresh, obs)
    assert torch.equal(weights(net, last), top)
    weights(net, last).data *= carried
    assert torch.allclose(net(obs), before, atol=(0.02 if bf16 else 1e-3) * float(before.detach().abs().max()))
    assert (carried == 1) == norm  # the hidden layer is normalised too
    for name, size in sizes(net).items():
        if name != last:
            assert 0.7 < size / fresh[name] < 1.42


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_student(tmp_path: Path, kind: str) -> None:
    student = student_at(tmp_path, kind)
    grow(student)
    save_student(tmp_path, student, kind)
    task, source = TASKS.tasks[0], open_source(tmp_path)
    obs = torch.from_numpy(states(task.name))
    theirs, ours = (source.network_for(task, "keep18", 0.5, rescaled=on).net for on in (False, True))
    with torch.no_grad():
        assert torch.allclose(theirs(obs), ours(obs), rtol=1e-3, atol=1e-3 * float(theirs(obs).abs().max()))
    (last, _), large, small = last_layer(ours), sizes(theirs), sizes(ours)
    body = [name for name in small if name != last]
    assert body
    assert all(small[name] < large[name] / 4 for name in body)


def test_rows_of_new_actions_stay_as_drawn(tmp_path: Path) -> None:
    student = student_at(
        tmp_path, "controllers", Suite((atari("pong", 0, 3, 4),)), channels=[4, 4, 4], hidden=8, head=8
    )
    grow(student)
    save_student(tmp_path, student, "controllers")
    target = atari("breakout", 0, 1, 3, 4)
    with seeded_init(1, "new"):
        plain = open_source(tmp_path).network_for(target, "keep18")
    with seeded_init(1, "new"):
        scaled = open_source(tmp_path).network_for(target, "keep18", rescaled=True)
    assert plain.new == scaled.new == ("FIRE",)
    before, after = (weights(x.net, x.layer) for x in (plain, scaled))
    assert torch.equal(before[1], after[1])
    assert bool(after[0, 0] / before[0, 0] > 2)


def test_a_network_that_it_would_change_stays_as_it_is() -> None:
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    fresh, obs = sizes(net), torch.randn(5, 3)
    grow(net)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert rescale(net, "2", fresh, obs) == (1, ())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
