"""Playing full episodes: the one place where scores come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from polydistill.envs.base import VecEnv
from polydistill.evaluation.copies import Copies, Line
from polydistill.evaluation.starts import Bundle
from polydistill.rng import stream

#: Observations ``[n, *obs_shape]`` (any ``n >= 1``) -> greedy actions int64 ``[n]`` in the task's own indices.
Greedy = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Episode:
    """One finished episode.

    Attributes:
        score: Raw return: undiscounted, unclipped.
        steps: Length in control steps.
        copy: Which copy of the environment played it, ``0 .. num_envs - 1``.
        number: How many episodes that copy had finished before, ``0 ..``.
    """

    score: float
    steps: int
    copy: int = 0
    number: int = 0


def shares(total: int, copies: int) -> np.ndarray:
    """Split ``total`` over ``copies`` as evenly as can be, the surplus to the first: int64 ``[copies]``."""
    split = np.full(copies, total // copies, dtype=np.int64)
    split[: total % copies] += 1
    return split


def play(
    env: VecEnv,
    greedy: Greedy | None,
    *,
    episodes: int | None = None,
    steps: int | None = None,
    epsilon: float,
    seed: int,
) -> Iterator[Episode]:
    """Play full episodes and yield each as it ends.

    Which episodes count is settled before their outcome is known. Taking the first ones to end, or throwing away the
    one that a clock cut, would favour short episodes: quick defeats in Pong, quick deaths in Breakout.

    * ``episodes``: copy ``i`` plays a fixed share of them.
    * ``steps``: copy ``i`` has a fixed share of the control steps; every episode it *starts* within its share counts
      and is played to its end. The papers (100,000 steps in Yin & Pan 2017, 125,000 in Parisotto et al. 2016) average
      the episodes that *end* within the budget of their one copy. That is the same but for the last episode of each
      copy; with ten copies, dropping ten unfinished ones would tell. Here the number played is a stopping time, so
      E[sum of scores] = E[count] x E[score] (Wald), and there is always a score to report.

    A copy that has finished its share is not shown to ``greedy`` any more, and its random stream leaves the others'
    as they are. Its emulator runs on until the last copy is done, for a :class:`VecEnv` steps all copies together: what
    is wasted is the gap between the longest and the average share, so give each copy a few episodes rather than one.

    Args:
        env: Copies of one task; it is reset here and left open.
        greedy: The policy; None plays uniformly at random.
        episodes: Full episodes in all. Exactly one of ``episodes`` and ``steps`` must be given.
        steps: Control steps in all, over all copies.
        epsilon: Probability of a uniformly random action at each control step.
        seed: Root of the no-op starts and of the random actions; evaluations use
            :data:`~polydistill.envs.base.EVALUATION_SEED_BASE` and above.

    Raises:
        ValueError: both or neither of ``episodes`` and ``steps``, a budget below 1, or ``epsilon`` outside [0, 1].
    """
    if (episodes is None) == (steps is None):
        raise ValueError("give either episodes or steps")
    budget = steps if episodes is None else episodes
    if budget is None or budget < 1:
        raise ValueError(f"there must be at least one episode or step to play, got {budget}")
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon must lie in [0, 1], got {epsilon}")
    return _play(env, greedy, shares(budget, env.num_envs), steps is not None, epsilon, seed)


def _play(
    env: VecEnv, greedy: Greedy | None, share: np.ndarray, in_steps: bool, epsilon: float, seed: int
) -> Iterator[Episode]:
    n, k = env.num_envs, env.task.n_actions
    rng = np.random.default_rng([seed, 0xE7A1])
    obs = env.reset(seed)
    score, length = np.zeros(n), np.zeros(n, np.int64)
    used, number = np.zeros(n, np.int64), np.zeros(n, np.int64)
    playing = share > 0
    while playing.any():
        actions = rng.integers(0, k, n)
        decided = (rng.random(n) >= epsilon) & playing
        if greedy is not None and decided.any():
            chosen = greedy(obs if playing.all() else obs[playing])
            actions[decided] = chosen[decided[playing]]
        step = env.step(actions)
        obs = step.obs
        score += step.reward
        length += 1
        used += 1 if in_steps else step.ended
        for i in np.flatnonzero(step.ended):
            if playing[i]:
                yield Episode(float(score[i]), int(length[i]), int(i), int(number[i]))
                number[i] += 1
                playing[i] = used[i] < share[i]
            score[i], length[i] = 0.0, 0


def play_starts(
    copies: Copies,
    greedy: Greedy | None,
    bundle: Bundle,
    *,
    episodes: int,
    epsilon: float,
    seed: int,
    max_steps: int | None = None,
) -> Iterator[Episode]:
    """Play the first ``episodes`` starts of a bundle, each once, and yield each as it ends.

    A copy plays a start's actions again, without the policy; what it then sees must be what the bundle's maker saw.
    From there the policy plays, and only its own points and steps count. A start's random actions depend on ``seed``
    and its number alone: two policies meet the same ones at the same step, whichever copy plays, so a copy that is done
    takes the next start.

    Args:
        copies: At most as many as there are episodes; see :func:`~polydistill.evaluation.copies.open_copies`.
        greedy: The policy; None plays uniformly at random.
        epsilon: Probability of a uniformly random action at each control step.
        seed: Root of the random actions.
        max_steps: Control steps after the hand-over that end an episode, if nothing else has; None for no such limit.

    Yields:
        Episodes whose ``number`` is that of the start.

    Raises:
        UserError: a start is not reached again.
    """
    starts, k = bundle.starts[:episodes], copies.task.n_actions
    line = Line(copies, [s.seed for s in starts])
    lengths = np.array([len(s.actions) for s in starts])
    rngs = [stream(seed, "start", i) for i in range(len(starts))]
    score, limit = np.zeros(copies.num_envs), np.inf if max_steps is None else max_steps
    while line.busy.any():
        own = line.age - lengths[line.which]  # control steps since the hand-over, [N]
        for i in np.flatnonzero(line.busy & (own == 0)):
            bundle.verify(int(line.which[i]), copies.task, line.obs[i])
        playing = line.busy & (own >= 0)
        actions = np.zeros(copies.num_envs, dtype=np.int64)
        if greedy is not None and playing.any():
            actions[playing] = greedy(line.obs[playing])
        for i in np.flatnonzero(line.busy):
            if not playing[i]:
                actions[i] = starts[line.which[i]].actions[line.age[i]]
                continue
            chance, choice = rngs[line.which[i]].random(2)  # both at every step, so that the stream never shifts
            if greedy is None or chance < epsilon:
                actions[i] = int(choice * k)
        step = line.step(actions)
        for i in np.flatnonzero(line.busy & step.ended & ~playing):
            why = f"the episode ends after {line.age[i]} of its {lengths[line.which[i]]} control steps"
            raise bundle.broken(int(line.which[i]), why)
        score[playing] += step.reward[playing]
        done = playing & (step.ended | (own + 1 >= limit))
        for i in np.flatnonzero(done):
            yield Episode(float(score[i]), int(own[i]) + 1, int(i), int(line.which[i]))
        score[done] = 0
        line.advance(done)
