"""Tasks, suites and the action axis."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polydistill.errors import UserError
from polydistill.tasks import ATARI_AXIS, Suite, Task


def atari(name: str, codes: tuple[int, ...]) -> Task:
    return Task(name, "atari", tuple(ATARI_AXIS[c] for c in codes), (4, 84, 84), obs_profile="ale", stack=4)


PONG = atari("pong", (0, 1, 3, 4, 11, 12))
FREEWAY = atari("freeway", (0, 2, 5))
CATCH = Task("catch", "catch", ("LEFT", "NOOP", "RIGHT"), (1, 10, 5))
CARTPOLE = Task("gym:CartPole-v1", "gymnasium", ("CartPole-v1:a0", "CartPole-v1:a1"), (4,), obs_dtype="float32")


def test_the_atari_axis_is_the_eighteen_codes() -> None:
    suite = Suite((PONG, FREEWAY))
    assert suite.axis == ATARI_AXIS
    assert len(set(ATARI_AXIS)) == 18
    assert suite.actions == ((0, 1, 3, 4, 11, 12), (0, 2, 5))
    assert suite.valid.shape == (2, 18)
    assert suite.valid.dtype == np.bool_
    assert [np.flatnonzero(row).tolist() for row in suite.valid] == [[0, 1, 3, 4, 11, 12], [0, 2, 5]]
    assert len(suite) == 2
    assert suite.index("freeway") == 1


def test_a_mixed_axis_has_each_meaning_once() -> None:
    suite = Suite((FREEWAY, CATCH, CARTPOLE))
    assert suite.axis == ("NOOP", "UP", "DOWN", "LEFT", "RIGHT", "CartPole-v1:a0", "CartPole-v1:a1")
    assert suite.actions[1] == (3, 0, 4)
    assert suite.valid.sum(1).tolist() == [3, 3, 2]


def test_own_and_axis_indices() -> None:
    suite = Suite((PONG, CATCH))
    assert suite.axis == ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
    assert suite.to_own(1, np.array([[3, 0], [2, 3]])).tolist() == [[0, 1], [2, 0]]
    assert suite.to_axis(1, np.array([0, 1, 2])).tolist() == [3, 0, 2]
    assert suite.to_own(0, np.array([], dtype=np.int64)).shape == (0,)
    with pytest.raises(ValueError, match="'catch' has no action 'FIRE'"):
        suite.to_own(1, np.array([0, 1]))
    for bad in (-1, 6):
        with pytest.raises(ValueError, match="from 0 to 5"):
            suite.to_own(0, np.array([bad]))
        with pytest.raises(ValueError, match="from 0 to 2"):
            suite.to_axis(1, np.array([min(bad, 3)]))


@given(st.lists(st.permutations(ATARI_AXIS).flatmap(lambda p: st.integers(1, 18).map(lambda n: p[:n])), min_size=1))
def test_the_axis_and_the_tasks_agree(meanings: list[list[str]]) -> None:
    suite = Suite(tuple(Task(f"t{g}", "catch", tuple(m), (1,)) for g, m in enumerate(meanings)))
    for g, task in enumerate(suite.tasks):
        own = np.arange(task.n_actions)
        there = suite.to_axis(g, own)
        assert tuple(suite.axis[a] for a in there) == task.action_meanings
        assert suite.to_own(g, there).tolist() == own.tolist()
        assert np.flatnonzero(suite.valid[g]).tolist() == sorted(there.tolist())
        laid = suite.scatter(g, own.astype(np.float32) + 1, 0.0)
        assert laid[there].tolist() == (own + 1).tolist()
        assert (laid[~suite.valid[g]] == 0).all()


def test_scatter_keeps_leading_axes_and_dtype() -> None:
    suite = Suite((FREEWAY,))
    out = suite.scatter(0, np.arange(6, dtype=np.float32).reshape(2, 1, 3), -np.inf)
    assert out.shape == (2, 1, 18)
    assert out.dtype == np.float32
    assert out[1, 0, [0, 2, 5]].tolist() == [3, 4, 5]
    assert np.isneginf(out[..., ~suite.valid[0]]).all()
    with pytest.raises(ValueError, match="'freeway' has 3 actions"):
        suite.scatter(0, np.zeros((2, 6)), 0.0)


def test_valid_is_read_only() -> None:
    with pytest.raises(ValueError):
        Suite((PONG,)).valid[0, 0] = False


def test_impossible_suites() -> None:
    with pytest.raises(UserError, match="at least one task"):
        Suite(())
    with pytest.raises(UserError, match="'pong' is named twice"):
        Suite((PONG, FREEWAY, PONG))
    with pytest.raises(UserError, match="no task 'qbert' in this suite; it has pong, freeway"):
        Suite((PONG, FREEWAY)).index("qbert")


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"action_meanings": ()},
        {"action_meanings": ("UP", "UP")},
        {"obs_shape": (4, 0)},
        {"obs_dtype": "uint7"},
        {"stack": 3},
        {"stack": 0},
    ],
)
def test_impossible_tasks(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Task(**{**PONG.to_dict(), **change})
    written = {k: list(v) if isinstance(v, tuple) else v for k, v in change.items()}
    with pytest.raises(UserError, match=r"^card\.json: "):
        Task.from_dict({**PONG.to_dict(), **written}, "card.json")


@pytest.mark.parametrize("task", [PONG, FREEWAY, CATCH, CARTPOLE], ids=lambda t: t.name)
def test_json_round_trip(task: Task) -> None:
    again = Task.from_dict(json.loads(json.dumps(task.to_dict())))
    assert again == task
    assert hash(again) == hash(task)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs_profil": "ale"}, "unknown key 'obs_profil'; did you mean 'obs_profile'?"),
        ({"zzz": 1}, "unknown key 'zzz'; known keys: name, kind"),
        ({"name": 3}, "name must be str; found 3"),
        ({"stack": True}, "stack must be int; found True"),
        ({"obs_shape": [4, 84.0, 84]}, "obs_shape must be a list of int"),
        ({"action_meanings": "NOOP"}, "action_meanings must be a list of str; found 'NOOP'"),
    ],
)
def test_bad_json(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=r"^card\.json: ") as caught:
        Task.from_dict({**PONG.to_dict(), **change}, "card.json")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_without_a_key() -> None:
    with pytest.raises(UserError, match="task: 'kind' is missing"):
        Task.from_dict({"name": "pong"})


BOX = Task("reach", "test", ("x", "y"), (3,), "float32", action_low=(-1.0, 0.0), action_high=(1.0, 5.0))


def test_continuous_actions() -> None:
    assert BOX.continuous
    assert not CATCH.continuous
    assert CATCH.n_actions == 3
    assert BOX.to_dict()["action_high"] == [1, 5]
    assert Task.from_dict(json.loads(json.dumps(BOX.to_dict()))) == BOX
    assert "action_low" not in CATCH.to_dict()
    told = r"'reach' has continuous actions, from \[-1.0, 0.0\] to \[1.0, 5.0\]: only polydistill distral learns those"
    with pytest.raises(UserError, match=told):
        print(BOX.n_actions)
    with pytest.raises(UserError, match=told):
        Suite((CATCH, BOX))


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        ((-1.0,), (1.0,), "one pair for each"),
        ((-1.0, 0.0), (1.0,), "one pair for each"),
        ((), (1.0, 1.0), "one pair for each"),
        ((0.0, 0.0), (1.0, 0.0), "low < high"),
        ((0.0, 0.0), (1.0, float("inf")), "finite"),
    ],
)
def test_bounds_are_checked(low: tuple[float, ...], high: tuple[float, ...], told: str) -> None:
    values = BOX.to_dict() | {"action_low": list(low), "action_high": list(high)}
    with pytest.raises(UserError, match=told):
        Task.from_dict(values)


def test_bounds_are_floats() -> None:
    with pytest.raises(UserError, match="action_low must be a list of float"):
        Task.from_dict(BOX.to_dict() | {"action_low": [0, "1"]})
