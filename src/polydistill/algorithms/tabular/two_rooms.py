"""Two rooms and a corridor (Teh et al. 2017, section 4.1 and App. B.1): a grid world of which only the goal changes.

A state is (cell, previous action, previous reward), as one number ``cell * CONTEXTS + context``. Context 0 is the start
of an episode; ``1 + 2 * action + bumped`` any later state, since what a step was paid says whether it hit a wall.
"""

from __future__ import annotations

import numpy as np

#: The paper gives no sizes; those of a public re-implementation: rooms of 7 x 2 cells, a corridor of 4 in their middle.
LAYOUT = (
    "##########",
    "#..####..#",
    "#..####..#",
    "#..####..#",
    "#........#",
    "#..####..#",
    "#..####..#",
    "#..####..#",
    "##########",
)

ACTIONS = ("stay", "up", "down", "left", "right")
MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))  # rows, columns
UP, DOWN, LEFT, RIGHT = 1, 2, 3, 4
CONTEXTS = 1 + 2 * len(ACTIONS)

STEP, BUMP, GOAL = -0.1, -0.5, 1.0  # added up: a wall -0.6, the step onto the goal +0.9


def context_of(action: int, bumped: bool = False) -> int:
    """The context after an action."""
    return 1 + 2 * action + bumped


class TwoRooms:
    """The map as arrays. ``C`` cells, ``A`` actions, ``S = C * CONTEXTS`` states.

    Attributes:
        places: int ``[C, 2]``, row and column of every cell.
        target: int ``[C, A]``, the cell an action leads to (the same one at a wall).
        bumped: bool ``[C, A]``, the action runs into a wall.
        corridor: bool ``[C]``: no free cell above and below.
        shape: Rows and columns of the map.
    """

    def __init__(self, layout: tuple[str, ...] = LAYOUT):
        self.shape = len(layout), len(layout[0])
        self.places = np.argwhere(np.array([list(row) for row in layout]) == ".")
        number = {(int(r), int(c)): i for i, (r, c) in enumerate(self.places)}
        ahead = [[number.get((r + dr, c + dc), -1) for dr, dc in MOVES] for r, c in number]
        self.bumped = np.array(ahead) < 0
        self.target = np.where(self.bumped, np.arange(len(number))[:, None], ahead)
        self.corridor = self.bumped[:, UP] & self.bumped[:, DOWN]
        self.cells, self.states = len(number), len(number) * CONTEXTS

    def goals(self, rng: np.random.Generator, tasks: int) -> np.ndarray:
        """``tasks`` different cells of the rooms, ``[tasks]``; a goal in the corridor would close it.

        Raises:
            ValueError: fewer cells than that.
        """
        rooms = np.flatnonzero(~self.corridor)
        if not 1 <= tasks <= len(rooms):
            raise ValueError(f"the rooms have {len(rooms)} cells for goals, so there can be 1 to {len(rooms)} tasks")
        return rng.choice(rooms, tasks, replace=False)

    def start(self, uniform: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """The state ``[...]`` in which an episode begins: any cell but the goal; ``uniform`` in [0, 1) chooses."""
        cell = (uniform * (self.cells - 1)).astype(np.int64)
        return np.asarray((cell + (cell >= goal)) * CONTEXTS)

    def step(self, state: np.ndarray, action: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, ...]:
        """Next state, reward and whether the goal was reached, each ``[...]`` like the arguments."""
        cell = state // CONTEXTS
        target, bumped = self.target[cell, action], self.bumped[cell, action]
        reached = target == goal
        after = target * CONTEXTS + 1 + 2 * action + bumped
        return after, STEP + BUMP * bumped + GOAL * reached, reached

    def returns(self, policy: np.ndarray, goal: np.ndarray, horizon: int) -> np.ndarray:
        """Expected undiscounted return of an episode of at most ``horizon`` steps from :meth:`start`, exactly.

        Args:
            policy: ``[N, S, A]``.
            goal: ``[N]``.

        Returns:
            ``[N]``.
        """
        n = len(goal)
        weights = policy.reshape(n, self.cells, CONTEXTS, len(ACTIONS))
        reached = self.target == goal[:, None, None]  # [N, C, A]
        reward = STEP + BUMP * self.bumped + GOAL * reached
        after = (self.target * CONTEXTS + 1 + 2 * np.arange(len(ACTIONS)) + self.bumped).ravel()
        value = np.zeros((n, self.states))
        for _ in range(horizon):
            ahead = reward + np.where(reached, 0.0, value[:, after].reshape(reached.shape))
            value = (weights @ ahead[..., None]).reshape(n, self.states)
        begin = value[:, ::CONTEXTS]  # context 0 of every cell
        own = begin[np.arange(n), goal]
        return np.asarray((begin.sum(1) - own) / (self.cells - 1))
