"""What every student promises, run on each network that stands in ``nets/``."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from polydistill import nets
from polydistill.errors import UserError
from polydistill.nets.encoders import FlatTorso
from polydistill.nets.store import load_student, save_student
from polydistill.nets.student import Student, count
from polydistill.ops import policy
from polydistill.optim import DQNRMSprop
from polydistill.rng import seeded_init
from polydistill.tasks import ATARI_AXIS, Suite, Task

NAMES = ["controllers", "mimic", "task_heads", "task_torsos"]
ATARI = Suite(
    (
        Task("freeway", "atari", ("NOOP", "UP", "DOWN"), (4, 84, 84), stack=4),
        Task("pong", "atari", ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"), (4, 84, 84), stack=4),
    )
)
SMALL = Suite(
    (Task("a", "catch", ("LEFT", "NOOP", "RIGHT"), (1, 10, 5)), Task("b", "catch", ("NOOP", "JUMP"), (1, 10, 5)))
)
OPTIONS = {
    "controllers": {"hidden": 32},
    "task_heads": {"hidden": 32},
    "mimic": {"hidden": 32},
    "task_torsos": {"widths": [48, 32]},
}


def build(name: str, suite: Suite, seed: int = 0, bf16: bool = False) -> Student:
    with seeded_init(seed):
        return nets.make(name, suite, bf16=bf16, **OPTIONS[name])


def observations(suite: Suite, batch: int = 3) -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.integers(0, 256, (batch, *t.obs_shape), dtype=np.uint8)) for t in suite.tasks]


def test_every_file_is_known() -> None:
    assert nets.names() == NAMES


@pytest.mark.parametrize("suite", [ATARI, SMALL], ids=["atari", "small"])
@pytest.mark.parametrize("name", NAMES)
def test_rectangle(name: str, suite: Suite) -> None:
    net, obs = build(name, suite), observations(suite)
    out = net(obs)
    assert out.logits.shape == (2, 3, len(suite.axis))
    assert out.features.shape == (2, 3, 32)
    assert out.logits.dtype == torch.float32
    for g in range(2):
        own = list(suite.actions[g])
        torch.testing.assert_close(net.act(obs[g], g)[:, own], out.logits[g][:, own])
        np.testing.assert_array_equal(net.greedy(obs[g].numpy(), g), out.logits[g][:, own].argmax(-1))


@pytest.mark.parametrize("name", NAMES)
def test_initialisation_is_the_seeds(name: str) -> None:
    state = torch.get_rng_state()
    first, again, other = (build(name, SMALL, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)
    assert torch.equal(state, torch.get_rng_state())  # nothing seeds globally


@pytest.mark.parametrize("name", NAMES)
def test_save_and_load(name: str, tmp_path) -> None:
    net, obs = build(name, ATARI, bf16=True), observations(ATARI)
    save_student(tmp_path, net, name)
    back = load_student(tmp_path)
    assert torch.equal(net(obs).logits, back(obs).logits)


def test_weights_are_for_all_whom_the_umask_lets(tmp_path) -> None:
    before = os.umask(0o022)
    try:
        save_student(tmp_path, build("mimic", SMALL), "mimic")
    finally:
        os.umask(before)
    assert {p.name: oct(p.stat().st_mode & 0o777) for p in tmp_path.iterdir()} == {
        "student.safetensors": "0o644", "config.json": "0o644"
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_refused(name: str, tmp_path) -> None:
    save_student(tmp_path, build(name, SMALL), name)
    weights = tmp_path / "student.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"truncated"):
        load_student(tmp_path)


def test_wrong_shapes_are_all_listed(tmp_path) -> None:
    save_student(tmp_path, build("mimic", SMALL), "mimic")
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"hidden": 32', '"hidden": 31'))
    with pytest.raises(UserError, match=r"fc.weight: expected \(31, 64\), found \(32, 64\); output.weight") as error:
        load_student(tmp_path)
    assert "\n" not in str(error.value)


def update(net: Student, suite: Suite, only: int) -> None:
    """One RMSProp step on samples of task ``only``."""
    optimizer = DQNRMSprop([p for p in net.parameters() if p.requires_grad], lr=1e-3)
    teacher = torch.randn(2, 3, len(suite.axis), generator=torch.Generator().manual_seed(0))
    valid = torch.tensor(suite.valid)[:, None]
    loss = policy.distill_kl(teacher, net(observations(suite)).logits, 0.1, valid)[only].mean()
    loss.backward()
    optimizer.step()


def test_other_games_controllers_stay_bit_identical() -> None:
    net = build("controllers", ATARI)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    update(net, ATARI, only=1)
    after = net.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith("controllers.0"))
    assert not torch.equal(before["controllers.1.0.weight"], after["controllers.1.0.weight"])
    assert not torch.equal(before["fc.weight"], after["fc.weight"])


def test_rows_of_invalid_actions_stay_bit_identical() -> None:
    net = build("mimic", ATARI)
    before = net.output.weight.detach().clone()
    update(net, ATARI, only=0)
    own = list(ATARI.actions[0])
    others = [a for a in range(len(ATARI_AXIS)) if a not in own]
    assert torch.equal(before[others], net.output.weight[others])
    assert not torch.equal(before[own], net.output.weight[own])


@pytest.mark.parametrize("train_convs", [False, True])
def test_torsos_are_frozen_unless_asked_for(train_convs: bool) -> None:
    with seeded_init(0):
        net = nets.make("task_torsos", ATARI, widths=[48, 32], train_convs=train_convs)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    update(net, ATARI, only=1)
    moved = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert any(k.startswith("shared") for k in moved)
    assert not any(k.startswith("torsos.0") for k in moved)
    assert any(k.startswith("torsos.1") for k in moved) == train_convs


def test_torsos_of_unequal_width_are_refused() -> None:
    with pytest.raises(UserError, match=r"one width, found a 64, b 32"):
        nets.make("task_torsos", SMALL, torsos=[FlatTorso((1, 10, 5), True, 64), FlatTorso((1, 10, 5), True, 32)])


def test_typos_are_refused() -> None:
    with pytest.raises(UserError, match=r"unknown student 'mimik': did you mean 'mimic'\?"):
        nets.make("mimik", SMALL)
    with pytest.raises(UserError, match=r"no setting 'hiden': did you mean 'hidden'\?"):
        nets.make("mimic", SMALL, hiden=3)


def test_bf16_keeps_the_output_in_float32() -> None:
    net = build("task_torsos", ATARI, bf16=True)
    out = net(observations(ATARI))
    assert out.logits.dtype == out.features.dtype == torch.float32
    exact = build("task_torsos", ATARI)(observations(ATARI))
    torch.testing.assert_close(out.logits, exact.logits, atol=0.02, rtol=0.05)
    assert not torch.equal(out.logits, exact.logits)


def test_count() -> None:
    net = build("task_torsos", SMALL)
    assert count(net) - count(net, trainable=True) == 2 * (50 * 64 + 64)
