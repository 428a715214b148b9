"""Exact parameter counts of the papers: Rusu et al. 2016, Parisotto et al. 2016, Yin & Pan 2017."""

from __future__ import annotations

import pytest

from polydistill.nets.controllers import Controllers
from polydistill.nets.mimic import Mimic
from polydistill.nets.nature import NatureTorso
from polydistill.nets.q_network import QNetwork
from polydistill.nets.student import count
from polydistill.nets.task_heads import TaskHeads
from polydistill.nets.task_torsos import TaskTorsos
from polydistill.tasks import ATARI_AXIS, Suite, Task

# Minimal action sets of xitari, the emulator of the 2015-2017 papers: Pong has 3 there and 6 in today's ALE.
XITARI = {
    "beam_rider": 9, "breakout": 4, "enduro": 9, "freeway": 3, "ms_pacman": 9, "pong": 3, "qbert": 6,
    "riverraid": 18, "seaquest": 18, "space_invaders": 6,
}  # fmt: skip
TODAY = XITARI | {"pong": 6}


def suite(actions: dict[str, int], names: list[str] | None = None) -> Suite:
    chosen = names or list(actions)
    return Suite(tuple(Task(n, "atari", ATARI_AXIS[: actions[n]], (4, 84, 84), stack=4) for n in chosen))


THREE = ["freeway", "pong", "qbert"]


def test_teacher() -> None:
    assert count(QNetwork(NatureTorso(), 18)) == 1_693_362


@pytest.mark.parametrize(
    "channels, hidden, expected",
    [
        ((32, 64, 64), 512, 1_693_362),  # Actor-Mimic's multitask network = MDQN
        ((16, 32, 32), 256, 427_874),  # Rusu App. B: Dist-KL-net1
        ((16, 16, 16), 128, 113_346),  # net2
        ((16, 16, 16), 64, 61_954),  # net3
    ],
)
def test_mimic(channels: tuple[int, ...], hidden: int, expected: int) -> None:
    assert count(Mimic(suite(TODAY, ["pong"]), channels, hidden)) == expected


@pytest.mark.parametrize("actions, expected", [(XITARI, 1_882_668), (TODAY, 1_883_055)])
def test_controllers_for_three_games(actions: dict[str, int], expected: int) -> None:
    net = Controllers(suite(actions, THREE))
    assert count(net) == expected
    shared = count(net.torso) + count(net.fc)
    assert shared / count(Controllers(suite(XITARI, THREE))) == pytest.approx(0.8945, abs=2e-4)  # "about 90 %"


@pytest.mark.parametrize("actions, expected", [(XITARI, 6_756_721), (TODAY, 6_757_108)])
def test_controllers_for_ten_games(actions: dict[str, int], expected: int) -> None:
    assert count(Controllers(suite(actions), (64, 64, 64), 1500)) == expected


@pytest.mark.parametrize("first, shared", [(1028, 3_760_918), (1024, 3_746_322)])
def test_task_torsos(first: int, shared: int) -> None:
    net = TaskTorsos(suite(TODAY), widths=(first, 512))
    assert count(net.shared) + count(net.output) == shared
    assert {count(t) for t in net.torsos} == {77_984}
    assert count(net) == shared + 10 * 77_984
    assert count(net, trainable=True) == shared


def test_what_yin_and_pan_call_dist() -> None:
    """Shared convolutions, everything else per game: Yin & Pan 2017."""
    assert count(TaskHeads(suite(XITARI), outputs="own")) == 16_183_029


def test_yin_pan_total_for_ten_games() -> None:
    assert count(TaskTorsos(suite(TODAY))) == 4_540_758


def test_training_the_convolutions_is_a_setting() -> None:
    net = TaskTorsos(suite(TODAY, THREE), train_convs=True)
    assert count(net, trainable=True) == count(net) == 3_760_918 + 3 * 77_984
