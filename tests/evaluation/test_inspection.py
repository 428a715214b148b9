"""Inspection: the numbers of a hand-made comparison, and a short play of real Pong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polydistill.envs.suite import make_env, resolve_task
from polydistill.evaluation.inspection import WINDOW, _Worst, compare, deciles, inspect_task
from polydistill.evaluation.recording import Outputs, record
from polydistill.evaluation.screens import AtariScreens, enlarge, open_screens
from polydistill.tasks import Task


def test_compare_on_typed_in_numbers() -> None:
    q = np.array([[1.0, 2.0], [3.0, 1.0]], np.float32)
    logits = np.log(np.array([[0.75, 0.25], [0.5, 0.5]]))
    theirs, ours, regret, kl = compare(q, logits, tau=1.0)
    assert theirs.tolist() == [1, 0]
    assert ours.tolist() == [0, 0]
    assert regret.tolist() == [1.0, 0.0]
    p = np.exp([-1.0, 0.0]) / np.exp([-1.0, 0.0]).sum()
    assert kl[0] == pytest.approx((p * np.log(p / [0.75, 0.25])).sum())
    # a cold teacher: log softmax of (-1, 0) / 1e-3 underflows anywhere but in log space
    cold = compare(q, logits, tau=1e-3)[3]
    assert cold == pytest.approx([np.log(4), np.log(2)])


def test_deciles() -> None:
    by = np.arange(100)[::-1].astype(np.float32)
    bounds, (means,) = deciles(by, by * 2)
    assert bounds.tolist() == [[10 * i, 10 * i + 9] for i in range(10)]
    assert means.tolist() == [2 * (10 * i + 4.5) for i in range(10)]
    assert len(deciles(np.zeros(3), np.ones(3))[0]) == 3


def test_the_worst_are_far_apart() -> None:
    worst, rng = _Worst(2), np.random.default_rng(0)
    regret = rng.random((10 * WINDOW, 2))
    regret[4 * WINDOW - 1, 1], regret[4 * WINDOW, 1] = 9.0, 8.0  # neighbours on either side of a window's edge
    for t, row in enumerate(regret):
        for i in worst.improved(t, row):
            worst.best[i] = {"regret": row[i], "copy": int(i), "t": t}
    kept = worst.arrays({"regret": np.zeros(0), "copy": np.zeros(0, int), "t": np.zeros(0, int)})
    assert kept["worst_regret"][0] == 9.0
    assert 8.0 not in kept["worst_regret"]
    assert (np.diff(kept["worst_regret"]) <= 0).all()
    for copy in range(2):
        times = np.sort(kept["worst_t"][kept["worst_copy"] == copy])
        assert (np.diff(times) >= WINDOW).all()


def test_no_regret_no_states() -> None:
    kept = _Worst(1).arrays({"obs": np.zeros((0, 4, 8, 8), np.uint8), "screen": np.zeros((0, 0, 0, 3), np.uint8)})
    assert kept["worst_obs"].shape == (0, 4, 8, 8)
    assert kept["worst_screen"].shape == (0, 0, 0, 3)


def test_enlarge() -> None:
    assert enlarge(np.zeros((210, 160, 3), np.uint8), 420).shape == (420, 320, 3)
    assert enlarge(np.zeros((2, 10, 5, 3), np.uint8), 420).shape == (2, 420, 210, 3)


def test_catch_shows_its_observation(tmp_path: Path) -> None:
    task = resolve_task("catch")
    rng = np.random.default_rng(0)

    def noise(obs: np.ndarray) -> np.ndarray:
        return rng.random((len(obs), task.n_actions), np.float32)

    settings = {"tau": 0.1, "seed": 0, "steps": 400, "video_seconds": 0}
    path = inspect_task(task, noise, noise, out=tmp_path, **settings)
    arrays = np.load(path, allow_pickle=False)
    assert str(arrays["video_note"]) == "not recorded"
    assert arrays["confusion"].sum() == 400
    assert arrays["worst_screen"].shape[1:] == (10, 5, 3)
    assert arrays["worst_screen"].max() == 255
    fixed, other = (lambda obs, k=k: np.sin(obs.reshape(len(obs), -1)[:, k : k + 3] / 99) for k in (9, 17))
    first, second = (np.load(inspect_task(task, fixed, other, out=tmp_path / x, **settings)) for x in "ab")
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert 0 < first["agreement"] < 1
    same = np.load(inspect_task(task, fixed, fixed, out=tmp_path, **settings))
    assert same["agreement"] == 1
    assert len(same["worst_regret"]) == 0


def linear(n: int, seed: int) -> Outputs:
    """A fixed linear function of a few pixels."""
    weights = np.random.default_rng(seed).normal(size=(400, n)).astype(np.float32) / 400

    def outputs(obs: np.ndarray) -> np.ndarray:
        return obs[:, -1, 20:60, ::9].reshape(len(obs), -1)[:, :400].astype(np.float32) @ weights / 255

    return outputs


def coverage(small: int, large: int) -> np.ndarray:
    """``[small, large]``: the share of each small cell that each large one covers; rows sum to 1."""
    edges, cells = np.linspace(0, large, small + 1), np.arange(large)
    covered = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.clip(covered, 0, None) * small / large


def test_colour_screens_keep_step() -> None:
    """Across the end of an episode, the second emulator's screen in grey, shrunk by area, *is* the observation."""
    pytest.importorskip("ale_py")
    task, copies, rng = resolve_task("breakout", profile="nature"), 2, np.random.default_rng(0)
    env, screens = make_env(task, copies, threads=1), open_screens(task, copies)
    assert isinstance(screens, AtariScreens)
    rows, columns = coverage(84, 210), coverage(84, 160).T
    obs = env.reset(1_250_003)
    picture, beyond, off = screens.reset(1_250_003, obs), 0, []
    while beyond < 10:
        assert picture.shape == (copies, 210, 160, 3)
        shrunk = rows @ (picture @ np.array([0.299, 0.587, 0.114])) @ columns
        off.append(np.abs(shrunk - obs[:, -1]).max())
        actions = rng.integers(0, task.n_actions, copies)
        step = env.step(actions)
        obs, picture = step.obs, screens.step(actions, step.obs)
        beyond += int(beyond > 0 or step.ended.any())
    env.close()
    screens.close()
    assert len(off) > 30
    assert max(off) < 3, "a ball one control step off would be 20 or more"


def test_pong(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    task = resolve_task("pong")
    teacher, student = linear(6, 0), linear(6, 1)
    path = inspect_task(
        task, teacher, student, tau=0.01, seed=1_250_000, out=tmp_path / "a", steps=120, copies=2, video_seconds=2.0
    )
    arrays = dict(np.load(path, allow_pickle=False))
    assert path == tmp_path / "a" / "pong.npz"
    assert arrays["value"].shape == arrays["kl"].shape == (120,)
    assert arrays["confusion"].shape == (6, 6)
    assert arrays["confusion"].sum() == 120
    assert np.trace(arrays["confusion"]) / 120 == arrays["agreement"] == arrays["agree"].mean()
    assert arrays["value_regret"].mean() == pytest.approx(arrays["mean_regret"], rel=1e-5)
    kept = len(arrays["worst_regret"])
    assert 1 <= kept <= 4  # two copies, two windows
    assert arrays["worst_obs"].shape == (kept, 4, 84, 84)
    assert arrays["worst_screen"].shape == (kept, 210, 160, 3)
    q = teacher(arrays["worst_obs"])
    assert q == pytest.approx(arrays["worst_q"], abs=1e-6)
    assert (arrays["worst_teacher_action"] == q.argmax(-1)).all()
    assert arrays["worst_probability"].sum(-1) == pytest.approx(np.ones(kept))


def test_the_video(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    av = pytest.importorskip("av")
    task, path = resolve_task("pong"), tmp_path / "pong.mp4"
    settings = {"make_env": make_env, "steps": 30, "seed": 1_250_001}
    recording = record(task, linear(6, 0), linear(6, 0), path, **settings)
    assert recording.note == ""
    assert recording.steps == (30, 30)
    assert recording.scores[0] == recording.scores[1]
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
    assert len(frames) == 31
    assert frames[0].shape == (452, 656, 3)
    # one policy on both sides, one start, the same random actions: one picture
    assert np.abs(frames[-1][40:450, :320].astype(int) - frames[-1][40:450, 336:]).mean() < 2


def test_a_vector_has_no_video(tmp_path: Path) -> None:
    task = Task("gym:CartPole-v1", "gymnasium", ("LEFT", "RIGHT"), (4,), "float32")
    recording = record(task, linear(2, 0), linear(2, 0), tmp_path / "x.mp4", make_env=make_env)
    assert recording.note
    assert not list(tmp_path.iterdir())


def test_rgb_observations_are_shown_in_colour() -> None:
    task = Task("maze", "doom", ("GO",), (3, 2, 2))
    screens = open_screens(task, 1)
    assert screens is not None
    obs = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)
    shown = screens.reset(0, obs)
    assert shown.shape == (1, 2, 2, 3)
    assert shown[0, 0, 1].tolist() == [1, 5, 9]
    stacked = open_screens(Task("maze", "gymnasium", ("GO",), (3, 2, 2), stack=3), 1)
    assert stacked is not None
    assert stacked.reset(0, obs)[0, 0, 1].tolist() == [9, 9, 9]  # the newest of three frames, in grey
