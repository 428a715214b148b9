"""Gymnasium environments as tasks."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from polydistill.envs.gymnasium import GymnasiumVec, gymnasium_task
from polydistill.envs.suite import resolve_task
from polydistill.errors import UserError


class Counter(gymnasium.Env[np.ndarray, Any]):
    """Terminates after the fourth step, at which moment a time limit of four cuts it too."""

    observation_space = spaces.Box(0, 100, (2,), dtype=np.int16)
    action_space = spaces.Discrete(2, start=5)
    meanings = ("STAY", "GO")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t, self.x = 0, int(self.np_random.integers(50))
        return self.look(), {}

    def step(self, action: Any) -> Any:
        assert action in self.action_space
        self.t += 1
        return self.look(), float(action), self.t >= 4, self.t >= 4, {}

    def look(self) -> np.ndarray:
        return np.array([self.t, self.x], dtype=np.int16)

    def get_action_meanings(self) -> list[str]:
        return list(self.meanings)


class Alike(Counter):
    meanings = ("GO", "GO")


class TwoArrays(Counter):
    observation_space = spaces.Dict({"a": spaces.Box(0, 1, (2,))})  # type: ignore[assignment]


class Grid(Counter):
    """As MiniGrid does it: an image among other things, and an enumeration of the actions."""

    class actions(IntEnum):
        left = 0
        forward = 1

    get_action_meanings = None  # type: ignore[assignment]
    action_space = spaces.Discrete(2)
    observation_space = spaces.Dict(  # type: ignore[assignment]
        {"image": spaces.Box(0, 255, (2, 2, 3), np.uint8), "direction": spaces.Discrete(4)}
    )

    def look(self) -> Any:
        return {"image": np.full((2, 2, 3), self.t, np.uint8), "direction": 0}


class Levers(Counter):
    """Two by one levers with bounds of their own; pays what it was given."""

    action_space = spaces.Box(np.array([[0.0], [-2.0]]), np.array([[10.0], [2.0]]), dtype=np.float64)
    given: np.ndarray

    def __init__(self, bonus: float = 0, render_mode: str | None = None):
        self.bonus = bonus

    def step(self, action: Any) -> Any:
        Levers.given = action
        return self.look(), self.bonus + float(action.sum()), False, False, {}

    get_action_meanings = None  # type: ignore[assignment]


class Unbounded(Levers):
    action_space = spaces.Box(0.0, np.inf, (1,))


class WholeLevers(Levers):
    action_space = spaces.Box(0, 3, (1,), np.int64)


for _env in (Counter, Alike, TwoArrays, Grid, Levers, Unbounded, WholeLevers):
    gymnasium.register(f"Polydistill{_env.__name__}-v0", entry_point=_env)


def test_a_dictionary_with_an_image() -> None:
    task = gymnasium_task("gym:PolydistillGrid-v0")
    assert (task.action_meanings, task.obs_shape, task.obs_dtype) == (("LEFT", "FORWARD"), (2, 2, 3), "uint8")
    env = GymnasiumVec(task, 2)
    assert env.reset(0).tolist() == np.zeros((2, 2, 2, 3)).tolist()
    assert (env.step(np.array([0, 1])).obs == 1).all()
    env.close()


def test_task() -> None:
    task = gymnasium_task("gym:CartPole-v1")
    assert (task.name, task.kind, task.obs_shape, task.obs_dtype) == ("gym:CartPole-v1", "gymnasium", (4,), "float32")
    assert task.action_meanings == ("CartPole-v1:a0", "CartPole-v1:a1")
    assert resolve_task("gymnasium:CartPole-v1") == task
    counter = gymnasium_task("gym:PolydistillCounter-v0")
    assert (counter.action_meanings, counter.obs_dtype) == (("STAY", "GO"), "int16")
    alike = gymnasium_task("gym:PolydistillAlike-v0")
    assert alike.action_meanings == ("PolydistillAlike-v0:a0", "PolydistillAlike-v0:a1")


def test_episodes() -> None:
    env = GymnasiumVec(gymnasium_task("gym:PolydistillCounter-v0"), 2)
    first = env.reset(0)
    for t in range(1, 4):
        step = env.step(np.array([0, 1]))
        assert step.reward.tolist() == [5, 6]  # actions start at 5 there
        assert step.final_obs is None
        assert step.obs[:, 0].tolist() == [t, t]
    step = env.step(np.array([0, 1]))
    assert step.terminated.all()
    assert not step.truncated.any()  # terminated wins
    assert step.final_obs is not None
    assert step.final_obs.tolist() == [[4, first[0, 1]], [4, first[1, 1]]]
    assert step.obs[:, 0].tolist() == [0, 0]
    assert not np.array_equal(step.obs[:, 1], first[:, 1])  # the stream goes on
    env.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gym:Pendulum-v1", r"'gym:Pendulum-v1' has continuous actions, from \[-2.0\] to \[2.0\]: only .* distral"),
        ("gym:PolydistillUnbounded-v0", r"has actions Box\(0.0, inf, .* without bounds"),
        ("gym:PolydistillWholeLevers-v0", r"has actions Box\(0, 3, .*discrete ones, Discrete\(n\), or floats"),
        ("gym:Pendulum-v1?gg=5", r"Pendulum-v1 does not take these options .*'gg'"),
        ("gym:Pendulum-v1?g", "'g' is no option; write gym:Pendulum-v1"),
        ("gym:Pendulum-v1?", "'' is no option"),
        ("gym:Pendulum-v1?g=", "'g=' is no option"),
        ("gym:Pendulum-v1?g=five", "Pendulum-v1 does not take these options"),
        ("gym:Pendulum-v1?g=[", r"'g=\[' is no option"),
        ("gym:Pendulun-v1?g=5", "did you mean 'gym:Pendulum-v1'"),
        ("gym:PolydistillTwoArrays-v0", r"has observations Dict\(.*FlattenObservation"),
        ("gym:FrozenLake-v1", r"has observations Discrete\(16\)"),
        ("gym:CartPol-v1", "no Gymnasium environment 'CartPol-v1'; did you mean 'gym:CartPole-v1'"),
        ("gym:CartPole-v9", "no Gymnasium environment 'CartPole-v9'; did you mean"),
        ("gym:no_such_package:Thing-v0", "no Gymnasium environment 'no_such_package:Thing-v0'"),
        ("gym:", "no Gymnasium environment ''"),
        ("gym:ALE/Pong-v5", "Atari games are tasks of their own"),
    ],
)
def test_refusals(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        resolve_task(name)
    assert "\n" not in str(caught.value)


def test_missing_package() -> None:
    pytest.importorskip("gymnasium")
    try:
        import Box2D  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"needs a package that is not installed: .*gymnasium\[box2d\]"):
            resolve_task("gym:LunarLander-v3")


def test_a_box_of_actions() -> None:
    task = resolve_task("gym:PolydistillLevers-v0?bonus=100", continuous=True)
    assert (task.action_low, task.action_high) == ((0, -2), (10, 2))
    assert task.action_meanings == ("PolydistillLevers-v0:a0", "PolydistillLevers-v0:a1")
    assert task.name == "gym:PolydistillLevers-v0?bonus=100"
    env = GymnasiumVec(task, 2)
    env.reset(0)
    step = env.step(np.array([[0.0, 0.0], [-0.5, 0.25]], np.float32))  # the middle of the box; a quarter, 5 eighths
    assert step.reward.tolist() == [105, 103]
    step = env.step(np.array([[1.0, -1.0], [-7.0, 1e9]]))
    assert step.reward.tolist() == [108, 102]  # the bounds, whatever lies beyond
    assert Levers.given.tolist() == [[0], [2]]
    for wrong, told in (
        (np.array([[0, 0], [0, 0]]), "2 x 2 floats, found int64"),
        (np.zeros(2), r"found float64 \(2,\)"),
        (np.array([[0, np.nan], [0, 0]]), "NaN"),
    ):
        with pytest.raises(ValueError, match=told):
            env.step(wrong)
    env.close()
    assert resolve_task("gym:Pendulum-v1", continuous=True).action_meanings == ("Pendulum-v1:a0",)


def test_options_reach_the_environment() -> None:
    weak, strong = (GymnasiumVec(resolve_task(f"gym:Pendulum-v1?g={g}", continuous=True), 1) for g in (0, 10))
    assert (weak.reset(3) == strong.reset(3)).all()
    hold = np.zeros((1, 1))
    (speed,), (pulled,) = (env.step(hold).obs[:, 2] for env in (weak, strong))
    sine = strong.reset(3)[0, 1]
    assert pulled - speed == pytest.approx(3 * 10 / 2 * sine * 0.05, abs=1e-4)  # 3 g / (2 l) sin(theta) dt
    assert resolve_task("gym:CartPole-v1?sutton_barto_reward=true").action_meanings[0] == "CartPole-v1:a0"
