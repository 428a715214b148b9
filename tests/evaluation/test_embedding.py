"""The look inside: which layer is the first, what is measured of it, and what comes of a real play."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from polydistill import api, nets
from polydistill.envs.base import EVALUATION_SEED_BASE
from polydistill.envs.catch import catch_task
from polydistill.envs.suite import make_env
from polydistill.evaluation import embedding
from polydistill.evaluation.activations import BATCH, activations, first_layer
from polydistill.evaluation.embedding import collect, embed, mark, same_share, within_share
from polydistill.nets.encoders import FlatTorso
from polydistill.nets.nature import NatureTorso
from polydistill.nets.student import PolicyOutput, Student
from polydistill.rng import seeded_init
from polydistill.tasks import Suite, Task
from polydistill.teachers.zoo import load_teacher
from tests.distilling import NAMES, OPTIONS, exact_teacher, small

ZOO = Path(__file__).resolve().parents[2] / "zoo"
SCREENS = Suite(tuple(Task(n, "atari", ("NOOP", "FIRE"), (4, 84, 84), stack=4) for n in ("pong", "freeway")))
CATCH = Suite(tuple(catch_task(n) for n in NAMES))


def student(kind: str, suite: Suite = CATCH, **options: Any) -> Student:
    with seeded_init(0):
        return nets.make(kind, suite, bf16=False, **(OPTIONS.get(kind, {}) | options)).eval()


def pixels(task: Task, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *task.obs_shape), dtype=np.uint8)


@pytest.mark.parametrize("kind", nets.names())
def test_the_first_layer_of_every_network(kind: str) -> None:
    for suite, convolution in ((SCREENS, True), (CATCH, False)):
        net = student(kind, suite)
        for g, task in enumerate(suite.tasks):
            obs = torch.from_numpy(pixels(task))
            found = first_layer(net, obs, g)
            assert found is not None
            assert found.convolution is convolution
            first, hidden = activations(net, obs.numpy(), g, found)
            torsos = [m for m in net.modules() if isinstance(m, NatureTorso | FlatTorso)]
            torso = torsos[g] if len(torsos) > 1 else torsos[0]
            with torch.inference_mode():
                if isinstance(torso, NatureTorso):
                    expected = torch.relu(torso.layers[0](obs.float() / 255)).flatten(1)
                else:
                    expected = torso(obs)
                np.testing.assert_allclose(first, expected, atol=1e-6)
                np.testing.assert_array_equal(hidden, net.hidden(obs, g))
            assert not any(m._forward_hooks for m in net.modules())


def test_a_normalised_convolution_counts_with_its_relu() -> None:
    net = student("mimic", SCREENS, norm=True)
    found = first_layer(net, torch.from_numpy(pixels(SCREENS.tasks[0])), 0)
    assert found is not None
    assert found.module is net.torso.torsos[0].layers[2]  # type: ignore[union-attr,index]


class Plain(Student):
    """A network of a plug-in: one activation function is a module, another is not; one module serves two layers."""

    def __init__(self, suite: Suite, as_module: bool):
        super().__init__(suite)
        self.a, self.b = nn.Linear(50, 6), nn.Linear(6, 4)
        self.relu = nn.ReLU()
        self.as_module = as_module

    def hidden(self, obs: Tensor, task: int) -> Tensor:
        x = self.a(obs.flatten(1).float())
        return self.relu(self.b(self.relu(x) if self.as_module else torch.relu(x)))

    def forward(self, obs: Any) -> PolicyOutput:
        hidden = torch.stack([self.hidden(o, g) for g, o in enumerate(obs)])
        return PolicyOutput(hidden[..., : len(self.suite.axis)], hidden)


def test_a_foreign_network() -> None:
    obs = torch.from_numpy(pixels(CATCH.tasks[0], BATCH + 5))
    assert first_layer(Plain(CATCH, as_module=False), obs, 0) is None  # its ReLU module belongs to the second layer
    net = Plain(CATCH, as_module=True)
    first, hidden = activations(net, obs.numpy(), 0, first_layer(net, obs[:1], 0))
    assert first.shape == (BATCH + 5, 6)
    assert hidden.shape == (BATCH + 5, 4)
    np.testing.assert_allclose(first, torch.relu(net.a(obs.flatten(1).float())).detach(), rtol=1e-5)
    arrays = embedding._layers(Plain(CATCH, as_module=False), [obs.numpy()[:8]] * 2, np.repeat([0, 1], 8), 0)
    assert "no module that gives the activations" in str(arrays["first_note"])
    assert arrays["first_points"].shape == (0, 2)
    assert arrays["hidden_points"].shape == (16, 2)


def test_shares_on_typed_in_numbers() -> None:
    x, group = np.array([[0.0], [2.0], [10.0], [14.0]], np.float32), np.array([0, 0, 1, 1])
    # mean 6.5; total 42.25 + 20.25 + 12.25 + 56.25 = 131; within 1 + 1 + 4 + 4 = 10
    assert within_share(x, group) == pytest.approx(10 / 131)
    assert within_share(x, np.array([0, 1, 0, 1])) == pytest.approx((50 + 72) / 131)
    assert same_share(x, group, 1) == 1
    assert same_share(x, np.array([0, 0, 0, 1]), 1) == 0.5  # 10 and 14 are each other's
    assert same_share(x, group, 2) == 0.5
    assert same_share(x, group, 10) == pytest.approx(1 / 3)  # no more neighbours than there are


def test_marks() -> None:
    task = np.repeat([0, 1, 2, 3], 3)
    value = np.array([5, 1, 3, np.nan, np.nan, np.nan, -2, -1, -3, 7, 7, 7], np.float32)
    assert mark(task, value) == [
        (1, "lowest"), (2, "median"), (0, "highest"), (8, "lowest"), (6, "median"), (7, "highest"),
        (9, "lowest"), (10, "median"), (11, "highest"),
    ]  # fmt: skip
    assert mark(np.zeros(1, int), np.ones(1)) == [(0, "lowest")]


def test_states_reach_all_through_the_episodes() -> None:
    envs = [make_env(task, 3, threads=1) for task in CATCH.tasks]
    net = student("mimic")
    obs, position = collect(net, envs, states=40, every=7, epsilon=0.1, seed=1_250_002)
    again, _ = collect(net, envs, states=40, every=7, epsilon=0.1, seed=1_250_002)
    other, _ = collect(net, envs, states=40, every=7, epsilon=0.1, seed=1_250_003)
    for g in range(2):
        assert obs[g].shape == (40, 1, 10, 5)
        np.testing.assert_array_equal(obs[g], again[g])
        assert (obs[g] != other[g]).any()
        ball = obs[g][:, 0, :8].any(-1).argmax(-1)
        np.testing.assert_array_equal(ball, position[g] % 8)
        np.testing.assert_array_equal((obs[g][:, 0, 9] > 0).sum(-1), 5 - position[g] // 8)
        # 14 windows of 7 control steps are two and a half episodes of 40 steps; each window gives three states
        assert len(np.unique(position[g])) > 20
        window = position[g][:15].reshape(5, 3)  # within the first episode the step is the position
        assert ((window // 7) == np.arange(5)[:, None]).all()


def test_of_catch(tmp_path: Path) -> None:
    asked: list[np.ndarray] = []

    def exact(obs: np.ndarray) -> np.ndarray:
        asked.append(obs)
        return exact_teacher("catch")(torch.from_numpy(obs)).values.numpy()

    settings: dict[str, Any] = {"seed": 1_250_002, "states": 60, "every": 4}
    paths = [embed(student("mimic"), [exact, None], out=tmp_path / x, **settings) for x in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    arrays = dict(np.load(paths[0], allow_pickle=False))
    assert arrays["names"].tolist() == list(NAMES)
    assert arrays["task"].tolist() == [0] * 60 + [1] * 60
    np.testing.assert_array_equal(
        arrays["value"][:60], exact_teacher("catch")(torch.from_numpy(asked[0])).values.amax(1)
    )
    assert np.isnan(arrays["value"][60:]).all()
    for layer in ("first", "hidden"):
        assert str(arrays[f"{layer}_note"]) == ""
        assert arrays[f"{layer}_points"].shape == (120, 2)
        assert np.isfinite(arrays[f"{layer}_points"]).all()
        assert 0 < arrays[f"{layer}_within"] < 1
        assert 0.5 < arrays[f"{layer}_same"] <= 1  # the ball's grey level tells the tasks apart
        assert arrays[f"{layer}_width"] == 64
    assert arrays["first_shared"]
    assert not arrays["first_convolution"]
    assert arrays["marked_as"].tolist() == ["lowest", "median", "highest"]
    assert arrays["value"][arrays["marked"][2]] == arrays["value"][:60].max()
    np.testing.assert_array_equal(arrays["picture_2"], asked[0][arrays["marked"][2]][0])
    assert str(arrays["note"]) == ""


def test_tsne_keeps_groups_apart_and_its_seed(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], 40)
    x = rng.normal(size=(80, 60)) + 8 * group[:, None]
    reduced = embedding.reduce(x, 0)
    assert reduced.shape == (80, 50)
    assert same_share(embedding.tsne(reduced, 3), group) == 1
    np.testing.assert_array_equal(embedding.tsne(reduced, 3), embedding.tsne(reduced, 3))
    assert embedding.tsne(reduced[:9], 0).shape == (9, 2)  # a perplexity of 30 needs 91 points
    assert not caplog.records  # the library would complain, and take less


@pytest.mark.parametrize(
    "x, note",
    [
        (np.ones((9, 3)), "the same in every state"),
        (np.full((9, 3), np.nan), "not finite"),
        (np.eye(4), "too few states"),
    ],
)
def test_what_cannot_be_embedded_is_said(x: np.ndarray, note: str) -> None:
    arrays = embedding._layer(x.astype(np.float32), np.zeros(len(x), int), "", 0)
    assert note in str(arrays["note"])
    assert arrays["points"].shape == (0, 2)


def test_first_layers_of_two_sizes() -> None:
    suite = Suite((SCREENS.tasks[0], CATCH.tasks[0]))
    obs = [pixels(t, 12) for t in suite.tasks]
    arrays = embedding._layers(student("mimic", suite, channels=(4, 4, 4)), obs, np.repeat([0, 1], 12), 0)
    assert "differ in size (196, 1600)" in str(arrays["first_note"])
    assert not arrays["first_shared"]
    assert arrays["hidden_points"].shape == (24, 2)


def test_without_the_library_nothing_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openTSNE", None)

    def no_play(task: Task, copies: int) -> Any:
        raise AssertionError

    path = embed(student("mimic"), [None, None], seed=1_250_002, out=tmp_path / "new", make_env=no_play)
    arrays = np.load(path, allow_pickle=False)
    assert arrays.files == ["note"]
    assert str(arrays["note"]) == "openTSNE is not installed: pip install 'polydistill[analyze]'"


def test_real_games_and_teachers(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    teachers = [load_teacher(ZOO / n) for n in ("pong", "breakout")]
    suite = Suite(tuple(t.task for t in teachers))
    net = student("task_torsos", suite, torsos=lambda: [t.net.torso for t in teachers])

    def values(g: int) -> Any:
        return lambda obs: teachers[g](torch.from_numpy(obs)).values.numpy()

    path = embed(net, [values(0), values(1)], seed=1_250_002, out=tmp_path, states=24, every=5)
    arrays = dict(np.load(path, allow_pickle=False))
    assert arrays["first_convolution"]
    assert not arrays["first_shared"]
    assert arrays["first_width"] == 32 * 20 * 20
    assert arrays["first_same"] == 1
    assert np.isfinite(arrays["value"]).all()
    assert arrays["picture_0"].shape == (84, 84)


def test_a_run_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[dict[str, Any]] = []

    def caught(student: Student, values: list[Any], **options: Any) -> None:
        called.append({"training": student.training, "values": values, **options})

    monkeypatch.setattr(api, "inspect_task", lambda *a, **k: None)
    monkeypatch.setattr(api, "embed", caught)
    teachers = [exact_teacher("catch"), exact_teacher("catch-wind", "logits")]
    api.distill(small(schedule={"total_updates": 2}), tmp_path / "run", teachers=teachers)
    (call,) = called
    assert not call["training"]
    assert call["out"] == tmp_path / "run" / "inspection"
    assert call["seed"] >= EVALUATION_SEED_BASE
    assert call["values"][1] is None  # logits are no values
    obs = pixels(CATCH.tasks[0]) * 0
    np.testing.assert_array_equal(call["values"][0](obs), teachers[0](torch.from_numpy(obs)).values)
