"""The grid world of Distral's tables against its rules, and its exact returns against played episodes."""

import numpy as np
import pytest

from polydistill.algorithms.tabular.two_rooms import (
    ACTIONS,
    CONTEXTS,
    DOWN,
    LEFT,
    RIGHT,
    UP,
    TwoRooms,
    context_of,
)

WORLD = TwoRooms()


def cell(row: int, column: int) -> int:
    return int(np.flatnonzero((WORLD.places == (row, column)).all(1))[0])


def step(c: int, action: int, goal: int) -> tuple[int, float, bool]:
    after, reward, reached = WORLD.step(np.array([c * CONTEXTS]), np.array([action]), np.array([goal]))
    return int(after[0]), round(float(reward[0]), 9), bool(reached[0])


def test_map() -> None:
    assert (WORLD.shape, WORLD.cells, WORLD.states) == ((9, 10), 32, 32 * 11)
    assert WORLD.places[WORLD.corridor].tolist() == [[4, 3], [4, 4], [4, 5], [4, 6]]


def test_a_step_is_paid_and_remembered() -> None:
    here, far = cell(4, 3), cell(1, 8)
    for action, place, reward in ((0, (4, 3), -0.1), (LEFT, (4, 2), -0.1), (RIGHT, (4, 4), -0.1)):
        assert step(here, action, far) == (cell(*place) * CONTEXTS + context_of(action), reward, False)
    for action in (UP, DOWN):  # a wall: -0.1 - 0.5, and the state tells
        assert step(here, action, far) == (here * CONTEXTS + context_of(action, True), -0.6, False)
    assert step(cell(1, 7), RIGHT, far)[1:] == (0.9, True)
    contexts = {context_of(a, b) for a in range(len(ACTIONS)) for b in (False, True)}
    assert contexts == set(range(1, CONTEXTS))


def test_starts_and_goals() -> None:
    goal = np.full(100_000, 5)
    starts = WORLD.start(np.random.default_rng(0).random(100_000), goal)
    assert (starts % CONTEXTS == 0).all()
    share = np.bincount(starts // CONTEXTS, minlength=32) / 100_000
    assert share[5] == 0
    assert np.abs(np.delete(share, 5) - 1 / 31).max() < 0.003
    for seed in range(20):
        goals = WORLD.goals(np.random.default_rng(seed), 8)
        assert len(set(goals)) == 8
        assert not WORLD.corridor[goals].any()
    with pytest.raises(ValueError, match="28"):
        WORLD.goals(np.random.default_rng(0), 29)


def test_returns_are_those_of_played_episodes() -> None:
    rng, n, horizon = np.random.default_rng(1), 40_000, 30
    goals = np.array([cell(1, 1), cell(4, 7)])
    policy = rng.dirichlet(np.ones(5), size=(2, WORLD.states))
    exact = WORLD.returns(policy, goals, horizon)
    for k, goal in enumerate(goals):
        state, going, total = WORLD.start(rng.random(n), np.full(n, goal)), np.ones(n, bool), np.zeros(n)
        for _ in range(horizon):
            action = (policy[k, state].cumsum(-1)[:, :-1] <= rng.random(n)[:, None]).sum(-1)
            state, reward, reached = WORLD.step(state, action, np.full(n, goal))
            total += reward * going
            going &= ~reached
        assert exact[k] == pytest.approx(total.mean(), abs=5 * total.std() / np.sqrt(n))


def test_the_best_policy_of_one_step() -> None:
    policy = np.zeros((1, WORLD.states, 5))
    policy[..., 0] = 1
    assert WORLD.returns(policy, np.array([0]), 7) == pytest.approx([-0.7])
