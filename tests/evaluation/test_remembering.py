"""Episodes played by a policy with a memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polydistill.envs.base import EVALUATION_SEED_BASE
from polydistill.envs.catch import CatchVec, catch_task, optimal_q
from polydistill.evaluation.remembering import play_remembering

TASK = catch_task("catch")


def best(obs: np.ndarray, start: np.ndarray, memory: Any) -> tuple[np.ndarray, int]:
    """The best policy, which counts its steps and checks that starts are told."""
    steps = 0 if memory is None else memory
    assert start.all() == (steps % 40 == 0)  # all episodes last 40 control steps
    return np.eye(TASK.n_actions)[optimal_q(obs, name="catch").argmax(1)], steps + 1


def test_scores_shares_and_starts() -> None:
    episodes = list(play_remembering(CatchVec(TASK, 3), best, episodes=7, seed=EVALUATION_SEED_BASE))
    assert sorted((e.copy, e.number) for e in episodes) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert {e.steps for e in episodes} == {40}
    assert min(e.score for e in episodes) > 5  # all five drops are caught
    again = list(play_remembering(CatchVec(TASK, 3), best, episodes=7, seed=EVALUATION_SEED_BASE))
    assert episodes == again


def test_actions_are_drawn_by_their_probabilities() -> None:
    seen: list[int] = []

    class Watched(CatchVec):
        def step(self, actions: np.ndarray) -> Any:
            seen.extend(actions.tolist())
            return super().step(actions)

    def policy(obs: np.ndarray, start: np.ndarray, memory: Any) -> tuple[np.ndarray, None]:
        return np.tile([0.7, 0.0, 0.3], (len(obs), 1)), None

    list(play_remembering(Watched(TASK, 25), policy, episodes=100, seed=EVALUATION_SEED_BASE))
    shares = np.bincount(seen, minlength=3) / len(seen)
    assert shares == pytest.approx([0.7, 0.0, 0.3], abs=0.03)  # 4,000 draws
    with pytest.raises(ValueError, match="at least one episode"):
        list(play_remembering(CatchVec(TASK, 2), policy, episodes=0, seed=EVALUATION_SEED_BASE))
